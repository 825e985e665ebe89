"""What can befall a child process costs one attempt: real processes, real signals."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import FAKE_ENGINE, ROOT
from worker.engine.child import Child
from worker.engine.limits import EngineLimits
from worker.engine.messages import Built, EngineConfig, RunJob
from worker.engine.supervisor import DEATHS_UNTIL_DEFUNCT, Engine, EngineState
from worker.errors import EngineCrashed, EngineTimeout, EngineUnavailable, GpuLost, OutOfMemory

LIMITS = EngineLimits(setup_retry_s=(0.05,), heartbeat_timeout_s=1.2)


class Watched:
    def __init__(self, limits: EngineLimits) -> None:
        self.states: list[EngineState] = []
        self.kept: list[tuple[str, tuple[str, ...]]] = []
        self._changed = asyncio.Event()
        self.engine = Engine(
            EngineConfig(),
            environment=dict(os.environ),
            on_state=self._note,
            command=FAKE_ENGINE,
            limits=limits,
        )

    def _note(self, state: EngineState) -> None:
        self.states.append(state)
        self._changed.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    async def build(self, job: RunJob, timeout_s: float = 20.0) -> Built:
        return await self.engine.run(
            job, lambda *_: None, timeout_s=timeout_s, checkpoint=lambda *it: self.kept.append(it)
        )


@asynccontextmanager
async def running(**limits: Any) -> AsyncIterator[Watched]:
    watched = Watched(replace(LIMITS, **limits))
    watched.engine.start()
    try:
        await watched.until(lambda: watched.engine.state is EngineState.READY)
        yield watched
    finally:
        await watched.engine.stop()


def job(folder: Path, words: str, **more: Any) -> RunJob:
    (folder / "photo_front").write_text(words)
    told = {"job_id": "j", "folder": str(folder), "front": "photo_front", "height_m": 1.78}
    return RunJob(**(told | more))


def is_alive(pid: int) -> bool:
    """Whether there is such a process; a zombie whose parent has not looked yet is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


async def until_dead(pid: int) -> None:
    async with asyncio.timeout(10):
        while is_alive(pid):  # noqa: ASYNC110 - nobody tells of a stranger's death
            await asyncio.sleep(0.01)


# ---------------------------------------------------------------- silence and deadlines
@pytest.mark.parametrize("words", ["deaf", "gil"])
async def test_a_child_that_falls_silent_is_killed_long_before_the_deadline(
    tmp_path: Path, words: str
) -> None:
    """Stopped, or in native code that never lets go of the interpreter."""
    async with running() as watched:
        pid = watched.engine.pid
        assert pid is not None
        with pytest.raises(EngineCrashed, match="silent for more than"):
            await watched.build(job(tmp_path, words), timeout_s=600)
        assert not is_alive(pid)  # nobody writes in the job's folder any more
        await watched.build(job(tmp_path, "ok"))


async def test_a_child_that_falls_silent_in_idleness_is_replaced(tmp_path: Path) -> None:
    async with running() as watched:
        pid = watched.engine.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        await watched.until(lambda: watched.states[-2:] == ["STARTING", "READY"])
        assert watched.engine.pid != pid
        assert not is_alive(pid)


async def test_long_work_is_not_silence(tmp_path: Path) -> None:
    """It computes 1.5 s in one stage, longer than silence may last."""
    async with running() as watched:
        assert (await watched.build(job(tmp_path, "slow-fit"))).sources["pid"] == watched.engine.pid


async def test_a_stage_that_hangs_is_cut_short(tmp_path: Path) -> None:
    async with running(stage_timeout_s={"fit": 0.3}) as watched:
        with pytest.raises(EngineTimeout, match=r"Stage 'fit' took longer than 0\.3 s"):
            await watched.build(job(tmp_path, f"hold-fit:{tmp_path / 'never'}"), timeout_s=600)
        await watched.build(job(tmp_path, "slow-observe"))  # has no limit of its own


async def test_a_child_that_hangs_says_where_before_it_is_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(stage_timeout_s={"fit": 0.3}) as watched:
        with pytest.raises(EngineTimeout):
            await watched.build(job(tmp_path, f"hold-fit:{tmp_path / 'never'}"))
        await watched.until(lambda: watched.engine.state is EngineState.READY)
    assert "in _compute" in capsys.readouterr().out


async def test_a_child_that_answers_and_dies_is_replaced_before_the_next_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running() as watched:
        pid = watched.engine.pid
        assert pid is not None

        def last_of_all(stage: str, fraction: float) -> None:
            if (stage, fraction) == ("export", 1.0):
                time.sleep(0.3)  # the loop stands still; meanwhile the child answers
                os.kill(pid, signal.SIGKILL)
                time.sleep(0.3)

        await watched.engine.run(job(tmp_path, "ok"), last_of_all, timeout_s=20)
        assert watched.states[-1] is EngineState.STARTING
        assert (await watched.build(job(tmp_path, "ok"))).sources["pid"] != pid
    assert "engine.lost_after_answer" in capsys.readouterr().out


async def test_a_child_that_has_just_died_is_given_no_job(tmp_path: Path) -> None:
    async with running() as watched:
        pid = watched.engine.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.3)  # noqa: ASYNC251 - the loop stands still, so nobody has been told
        assert (await watched.build(job(tmp_path, "ok"))).sources["pid"] != pid


async def test_a_cancellation_that_is_repeated_still_waits_until_the_child_is_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`worker.tasks` repeats it, and whoever comes next writes in the same folder."""
    may_be_dead = asyncio.Event()

    async def gone(_child: Child) -> None:
        await may_be_dead.wait()

    monkeypatch.setattr(Child, "gone", gone)
    async with running() as watched:
        task = asyncio.create_task(watched.build(job(tmp_path, "slow-fit")))
        await watched.until(lambda: watched.engine.state is EngineState.BUSY)
        for _ in range(3):
            task.cancel()
            await asyncio.wait({task}, timeout=0.02)
        assert not task.done()
        may_be_dead.set()
        await asyncio.wait({task})
        assert task.cancelled()


# ---------------------------------------------------------------- a machine at its limits
def too_many() -> tuple[int, int]:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_lack_of_descriptors_is_got_over(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, calls = os.pipe, iter((False, True, False))  # the second of the first process's pipes

    def sometimes() -> tuple[int, int]:
        return too_many() if next(calls, False) else pipe()

    before = descriptors()
    monkeypatch.setattr("os.pipe", sometimes)
    async with running() as watched:
        assert watched.engine.reason is None
        assert next(calls, "all used") == "all used"
    assert descriptors() <= before


async def test_a_lasting_lack_of_descriptors_is_the_engines_end_with_its_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.pipe", too_many)
    watched = Watched(LIMITS)
    watched.engine.start()
    await watched.until(lambda: watched.engine.state is EngineState.DEFUNCT)
    assert isinstance(watched.engine.reason, EngineCrashed)
    assert "Too many open files" in watched.engine.reason.message
    await watched.engine.stop()


# ---------------------------------------------------------------- memory
async def test_lack_of_memory_is_answered_by_one_try_at_lower_cost(tmp_path: Path) -> None:
    async with running() as watched:
        pid = watched.engine.pid
        built = await watched.build(job(tmp_path, "oom-once"))
        assert built.sources["economy"] is True
        assert watched.engine.pid == pid
        assert "economy" not in (await watched.build(job(tmp_path, "ok"))).sources


async def test_lack_of_memory_at_lower_cost_too_takes_a_fresh_child(tmp_path: Path) -> None:
    async with running() as watched:
        pid = watched.engine.pid
        with pytest.raises(OutOfMemory) as caught:
            await watched.build(job(tmp_path, "oom"))
        assert caught.value.retryable
        await watched.build(job(tmp_path, "ok"))
        assert watched.engine.pid != pid


async def test_a_child_that_grows_is_replaced_between_jobs(tmp_path: Path) -> None:
    async with running(rss_growth_bytes=96 * 1024**2) as watched:
        pids = [(await watched.build(job(tmp_path, "leak-64"))).sources["pid"] for _ in range(6)]
    # The first avatar's memory is what it needs; 2 × 64 MiB beyond it are too much.
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3]


async def test_a_child_is_replaced_after_its_share_of_jobs(tmp_path: Path) -> None:
    async with running(jobs_per_child=2) as watched:
        pids = [(await watched.build(job(tmp_path, "ok"))).sources["pid"] for _ in range(5)]
        assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [2, 2, 1]
        assert EngineState.SETUP_FAILED not in watched.states


# ---------------------------------------------------------------- death
async def test_a_sticky_cuda_error_costs_that_attempt_only(tmp_path: Path) -> None:
    async with running() as watched:
        first = await watched.build(job(tmp_path, "cuda-sticky"))
        with pytest.raises(GpuLost, match="illegal memory access") as caught:
            await watched.build(job(tmp_path, "cuda-sticky"))
        assert caught.value.retryable
        again = await watched.build(job(tmp_path, "cuda-sticky"))
        assert again.sources["pid"] != first.sources["pid"]


async def test_a_job_that_kills_every_child_never_makes_the_engine_defunct(tmp_path: Path) -> None:
    async with running() as watched:
        for _ in range(DEATHS_UNTIL_DEFUNCT + 1):
            with pytest.raises(EngineCrashed, match="killed by SIGKILL"):
                await watched.build(job(tmp_path, "kill-fit"))
        await watched.build(job(tmp_path, "ok"))
        assert EngineState.DEFUNCT not in watched.states


async def test_a_machine_under_which_one_job_after_another_is_lost_pauses(tmp_path: Path) -> None:
    """It would fail quickly, and take all jobs from those machines that work."""

    async def lose(job_id: str) -> None:
        with pytest.raises(EngineCrashed):
            await watched.build(job(tmp_path, "kill-fit", job_id=job_id))
        await watched.until(lambda: watched.engine.state is not EngineState.STARTING)

    async with running() as watched:
        for job_id in ("a", "b"):
            await lose(job_id)
        await watched.build(job(tmp_path, "ok"))  # all is well again
        for job_id in ("a", "b", "b"):
            await lose(job_id)
        assert EngineState.SETUP_FAILED not in watched.states
        await lose("c")
        assert watched.engine.state is EngineState.SETUP_FAILED
        assert isinstance(watched.engine.reason, EngineUnavailable)
        await watched.build(job(tmp_path, "ok"))
        assert watched.engine.reason is None
        assert watched.states.count(EngineState.SETUP_FAILED) == 1


async def test_what_a_child_had_computed_is_told_before_it_dies_and_resumed(tmp_path: Path) -> None:
    async with running() as watched:
        with pytest.raises(EngineCrashed):
            await watched.build(job(tmp_path, f"kill-measure:{tmp_path / 'killed'}"))
        expected = [("observe", ("checkpoint_observe.npz",)), ("fit", ("checkpoint_fit.npz",))]
        assert watched.kept == expected
        task = job(tmp_path, f"kill-measure:{tmp_path / 'killed'}", resume=("observe", "fit"))
        built = await watched.build(task)
        assert built.sources["computed"] == ["photo", "measure", "export"]
        assert watched.kept == expected


async def test_the_same_job_gives_the_same_bytes(tmp_path: Path) -> None:
    async def glb(words: str, **more: Any) -> bytes:
        await watched.build(job(tmp_path, words, **more))
        return (tmp_path / "avatar.glb").read_bytes()

    async with running() as watched:
        assert await glb("ok") == await glb("ok", resume=("observe", "fit"))
        assert await glb("ok") != await glb("ok", job_id="k")
        assert await glb("random") != await glb("random")


@pytest.mark.parametrize("end", ["kill-fit", "deaf", "cuda-sticky"])
async def test_a_child_takes_what_it_started_with_it(tmp_path: Path, end: str) -> None:
    async with running() as watched:
        await watched.build(job(tmp_path, "child"))
        grandchild = int((tmp_path / "child.pid").read_text())
        assert is_alive(grandchild)
        with pytest.raises((EngineCrashed, GpuLost)):
            await watched.build(job(tmp_path, end))
        await until_dead(grandchild)


PARENT = """
import asyncio, sys
from pathlib import Path
from worker.engine.limits import EngineLimits
from worker.engine.messages import EngineConfig, RunJob
from worker.engine.supervisor import Engine

async def main(folder, command):
    engine = Engine(EngineConfig(), environment={}, command=command, limits=EngineLimits())
    engine.start()
    job = RunJob(job_id="j", folder=folder, front="photo_front", height_m=1.78)
    running = asyncio.create_task(engine.run(job, lambda *_: None, timeout_s=600))
    while engine.state != "BUSY":
        await asyncio.sleep(0.01)
    sys.stderr.write(f"{engine.pid}\\n")
    await running

asyncio.run(main(sys.argv[1], sys.argv[2:]))
"""


async def test_no_orphan_keeps_the_gpu_when_the_worker_is_killed(tmp_path: Path) -> None:
    """Not even one that native code keeps from noticing."""
    job(tmp_path, "gil")
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PARENT, str(tmp_path), *FAKE_ENGINE),
        cwd=ROOT,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert parent.stderr is not None
    pid = int(await asyncio.wait_for(parent.stderr.readline(), 20))
    assert is_alive(pid)
    parent.kill()
    await parent.wait()
    await until_dead(pid)


async def test_stopping_is_no_trouble(capsys: pytest.CaptureFixture[str]) -> None:
    async with running() as watched:
        states = list(watched.states)
    assert watched.states == states
    assert "engine.lost_in_idleness" not in capsys.readouterr().out


async def test_stopping_does_not_wait_for_a_child_that_is_deaf(tmp_path: Path) -> None:
    async with running(heartbeat_timeout_s=60.0) as watched:
        pid = watched.engine.pid
        assert pid is not None
        task = asyncio.create_task(watched.build(job(tmp_path, "deaf")))
        await watched.until(lambda: watched.engine.state is EngineState.BUSY)
        await asyncio.wait_for(watched.engine.stop(), 2.0)
        assert not is_alive(pid)
        with pytest.raises(EngineCrashed):
            await task
