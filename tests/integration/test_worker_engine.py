"""The supervisor and a real child process: states, deaths, deadlines, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.conftest import FAKE_ENGINE
from worker.engine import supervisor
from worker.engine.limits import EngineLimits
from worker.engine.messages import EngineConfig, RunJob
from worker.engine.supervisor import Engine, EngineState
from worker.errors import EngineCrashed, EngineTimeout, EngineUnavailable, ModelMissing, NoPerson


class Watched:
    """An engine and the states that it has been in."""

    def __init__(self, config: EngineConfig) -> None:
        self.states: list[EngineState] = []
        self._changed = asyncio.Event()
        self.engine = Engine(
            config,
            environment=dict(os.environ),
            on_state=self._note,
            command=FAKE_ENGINE,
            limits=EngineLimits(setup_retry_s=(0.05,)),
        )

    def _note(self, state: EngineState) -> None:
        self.states.append(state)
        self._changed.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    async def ready(self) -> None:
        await self.until(lambda: self.engine.state is EngineState.READY)


@asynccontextmanager
async def running(**config: str) -> AsyncIterator[Watched]:
    watched = Watched(EngineConfig(**config))  # type: ignore[arg-type]  # all of them are text
    watched.engine.start()
    try:
        yield watched
    finally:
        await watched.engine.stop()


def job(folder: Path, behaviour: str) -> RunJob:
    (folder / "photo_front").write_text(behaviour)
    return RunJob(job_id="j", folder=str(folder), front="photo_front", height_m=1.78)


async def test_it_loads_once_and_builds_one_after_another(tmp_path: Path) -> None:
    advances: list[tuple[str, float]] = []
    async with running() as watched:
        await watched.ready()
        pid = watched.engine.pid
        for _ in range(2):
            built = await watched.engine.run(
                job(tmp_path, "ok"), lambda *step: advances.append(step), timeout_s=10
            )
            assert built.measurements_cm["heightCm"] == pytest.approx(178)
        assert watched.engine.pid == pid
        assert watched.states[-4:] == ["BUSY", "READY", "BUSY", "READY"]
    assert advances[-1] == ("export", 1.0)
    assert (tmp_path / "avatar.glb").exists()


async def test_a_refusal_is_raised_as_what_it_was_and_the_process_lives(tmp_path: Path) -> None:
    async with running() as watched:
        await watched.ready()
        pid = watched.engine.pid
        with pytest.raises(NoPerson):
            await watched.engine.run(job(tmp_path, "no-person"), lambda *_: None, timeout_s=10)
        assert (watched.engine.pid, watched.engine.state) == (pid, EngineState.READY)


@pytest.mark.parametrize(
    ("behaviour", "error", "timeout_s"),
    [("segfault", EngineCrashed, 10.0), ("hang", EngineTimeout, 0.2)],
)
async def test_a_process_that_is_lost_is_replaced(
    tmp_path: Path, behaviour: str, error: type[Exception], timeout_s: float
) -> None:
    async with running() as watched:
        await watched.ready()
        pid = watched.engine.pid
        with pytest.raises(error):
            await watched.engine.run(job(tmp_path, behaviour), lambda *_: None, timeout_s=timeout_s)
        await watched.engine.run(job(tmp_path, "ok"), lambda *_: None, timeout_s=10)
        assert watched.engine.pid != pid
        assert pid is not None
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_cancelling_a_job_kills_the_process_at_once(tmp_path: Path) -> None:
    async with running() as watched:
        await watched.ready()
        pid = watched.engine.pid
        assert pid is not None
        run = asyncio.create_task(
            watched.engine.run(job(tmp_path, "hang"), lambda *_: None, timeout_s=60)
        )
        await watched.until(lambda: watched.engine.state is EngineState.BUSY)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        await watched.ready()
        assert watched.engine.pid != pid


async def test_a_process_that_dies_in_idleness_is_replaced(tmp_path: Path) -> None:
    async with running() as watched:
        await watched.ready()
        assert watched.engine.pid is not None
        os.kill(watched.engine.pid, signal.SIGKILL)
        await watched.until(lambda: watched.states[-2:] == ["STARTING", "READY"])
        await watched.engine.run(job(tmp_path, "ok"), lambda *_: None, timeout_s=10)


async def test_missing_models_are_setup_failed_with_the_reason_and_tried_again() -> None:
    async with running(gltfpack_path="model-missing") as watched:
        await watched.until(lambda: watched.states.count(EngineState.SETUP_FAILED) == 2)
        assert isinstance(watched.engine.reason, ModelMissing)
        assert "pose.tflite" in watched.engine.reason.message


async def test_dying_again_and_again_is_defunct(tmp_path: Path) -> None:
    async with running(gltfpack_path="die-in-setup") as watched:
        await watched.until(lambda: watched.engine.state is EngineState.DEFUNCT)
        assert isinstance(watched.engine.reason, EngineCrashed)
        assert "exit code 7" in watched.engine.reason.message
        with pytest.raises(EngineUnavailable):
            await watched.engine.run(job(tmp_path, "ok"), lambda *_: None, timeout_s=10)


async def test_a_job_that_waits_for_an_engine_learns_that_none_will_come(tmp_path: Path) -> None:
    async with running(gltfpack_path="die-in-setup") as watched:
        with pytest.raises(EngineUnavailable, match="none will be started"):
            await watched.engine.run(job(tmp_path, "ok"), lambda *_: None, timeout_s=60)
        assert watched.engine.state is EngineState.DEFUNCT
        assert isinstance(watched.engine.reason, EngineCrashed)


async def test_a_program_that_is_not_there_is_defunct(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(EngineConfig())
    monkeypatch.setattr(watched.engine, "_command", ("/nowhere/python",))
    watched.engine.start()
    try:
        await watched.until(lambda: watched.engine.state is EngineState.DEFUNCT)
    finally:
        await watched.engine.stop()


async def test_stopping_leaves_no_process(tmp_path: Path) -> None:
    async with running() as watched:
        await watched.ready()
        pid = watched.engine.pid
        run = asyncio.create_task(
            watched.engine.run(job(tmp_path, "hang"), lambda *_: None, timeout_s=60)
        )
        await watched.until(lambda: watched.engine.state is EngineState.BUSY)
    assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    run.cancel()
    with suppress(asyncio.CancelledError, EngineCrashed):
        await run


def test_the_engine_process_is_the_default_program() -> None:
    assert supervisor.COMMAND[1:] == ("-m", "worker.engine.process")
