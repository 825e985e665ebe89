"""Several engines: the next free one, trouble that stays with one of them, sums of their states."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.conftest import FAKE_ENGINE
from tests.fakes.engine import FINGERPRINT
from worker.engine.limits import EngineLimits
from worker.engine.messages import Built, EngineConfig, RunJob
from worker.engine.pool import EnginePool
from worker.engine.supervisor import EngineState
from worker.errors import EngineCrashed, EngineUnavailable


class Watched:
    def __init__(self, environments: Sequence[Mapping[str, str]], config: EngineConfig) -> None:
        self.states: list[EngineState] = []
        self._changed = asyncio.Event()
        self.pool = EnginePool(
            config,
            environments=environments,
            on_state=self._note,
            command=FAKE_ENGINE,
            limits=EngineLimits(setup_retry_s=(0.05,)),
        )

    def _note(self, state: EngineState) -> None:
        assert state is self.pool.state
        self.states.append(state)
        self._changed.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds():
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def running(size: int, **config: str) -> AsyncIterator[Watched]:
    environments = [dict(os.environ) | {"CUDA_VISIBLE_DEVICES": str(i)} for i in range(size)]
    watched = Watched(environments, EngineConfig(**config))  # type: ignore[arg-type]  # all text
    watched.pool.start()
    try:
        yield watched
    finally:
        await watched.pool.stop()


def job(folder: Path, behaviour: str, job_id: str = "j") -> RunJob:
    folder.mkdir(exist_ok=True)
    (folder / "photo_front").write_text(behaviour)
    return RunJob(job_id=job_id, folder=str(folder), front="photo_front", height_m=1.78)


def build(watched: Watched, task: RunJob) -> asyncio.Task[Built]:
    return asyncio.create_task(watched.pool.run(task, lambda *_: None, timeout_s=20))


async def test_two_jobs_run_side_by_side_on_two_processes(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with running(2) as watched:
        pool = watched.pool
        assert (pool.size, pool.usable, pool.fingerprint) == (2, 0, None)
        await watched.until(lambda: pool.usable == 2)
        assert pool.fingerprint == FINGERPRINT
        assert [info.device_name for info in pool.infos] == ["fake", "fake"]
        held = build(watched, job(tmp_path / "a", f"hold-fit:{gate}"))
        await watched.until(lambda: EngineState.BUSY in {e.state for e in pool.engines})
        assert pool.state is EngineState.READY  # the other one is free
        quick = await build(watched, job(tmp_path / "b", "ok"))
        gate.touch()
        assert (await held).sources["pid"] != quick.sources["pid"]


async def test_a_job_waits_for_the_next_free_engine(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with running(1) as watched:
        held = build(watched, job(tmp_path / "a", f"hold-fit:{gate}"))
        await watched.until(lambda: watched.pool.state is EngineState.BUSY)
        waiting = build(watched, job(tmp_path / "b", "ok"))
        with pytest.raises(EngineUnavailable, match="No engine was free"):
            await watched.pool.run(job(tmp_path / "c", "ok"), lambda *_: None, timeout_s=0.1)
        gate.touch()
        assert (await held).sources["pid"] == (await waiting).sources["pid"]


async def test_a_child_in_trouble_does_not_stop_the_others(tmp_path: Path) -> None:
    async with running(2) as watched:
        pool = watched.pool
        await watched.until(lambda: pool.usable == 2)
        crash = build(watched, job(tmp_path / "a", "kill-fit"))
        fine = build(watched, job(tmp_path / "b", "ok"))
        with pytest.raises(EngineCrashed):
            await crash
        await fine
        assert (pool.usable, pool.state) == (1, EngineState.READY)
        await build(watched, job(tmp_path / "c", "ok"))
        await watched.until(lambda: pool.usable == 2)


async def test_no_usable_engine_is_told_with_its_reason(tmp_path: Path) -> None:
    async with running(2, gltfpack_path="die-in-setup") as watched:
        pool = watched.pool
        with pytest.raises(EngineUnavailable, match=r"none will be started.*exit code 7"):
            await build(watched, job(tmp_path / "a", "ok"))
        assert (pool.state, pool.usable) == (EngineState.DEFUNCT, 0)
        assert isinstance(pool.reason, EngineCrashed)
        assert set(pool.troubles) == {0, 1}


async def test_stopping_the_pool_leaves_no_process(tmp_path: Path) -> None:
    async with running(2) as watched:
        await watched.until(lambda: watched.pool.usable == 2)
        pids = [engine.pid for engine in watched.pool.engines]
    for pid in pids:
        assert pid is not None
        with pytest.raises(ProcessLookupError):
            os.kill(pid, signal.SIG_DFL)
