"""An engine that starts again while the volume is gone takes no jobs: real processes."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Self

from tests.conftest import FAKE_ENGINE
from worker.engine.limits import EngineLimits
from worker.engine.messages import EngineConfig
from worker.engine.supervisor import Engine, EngineState
from worker.errors import ModelMissing


class Kept:
    """An engine whose licensed body lies in a folder, and what became of it."""

    def __init__(self, volume: Path) -> None:
        self._changed = asyncio.Event()
        self.engine = Engine(
            EngineConfig(smplx_dir=str(volume)),
            environment=dict(os.environ),
            on_state=lambda _state: self._changed.set(),
            command=FAKE_ENGINE,
            limits=EngineLimits(setup_retry_s=(0.05,)),
        )

    async def __aenter__(self) -> Self:
        self.engine.start()
        await self.until(EngineState.READY)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.engine.stop()

    async def until(self, state: EngineState) -> None:
        async with asyncio.timeout(20):
            while self.engine.state is not state:
                self._changed.clear()
                await self._changed.wait()

    async def lose_the_process(self) -> None:
        assert self.engine.pid is not None
        os.kill(self.engine.pid, signal.SIGKILL)
        await self.until(EngineState.STARTING)


async def test_one_that_lacks_what_it_had_is_not_ready_until_that_is_back(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    async with Kept(volume) as kept:
        volume.rename(tmp_path / "unmounted")
        await kept.lose_the_process()
        await kept.until(EngineState.SETUP_FAILED)
        assert isinstance(kept.engine.reason, ModelMissing)
        assert "fake-smplx: loaded before" in kept.engine.reason.message
        assert kept.engine.pid is None  # one that waits holds no memory
        (tmp_path / "unmounted").rename(volume)
        await kept.until(EngineState.READY)
        assert kept.engine.info is not None
        assert kept.engine.info.licensed == ("fake-smplx",)


async def test_weights_that_came_since_are_welcome_and_are_missed_from_then_on(
    tmp_path: Path,
) -> None:
    volume = tmp_path / "volume"
    async with Kept(volume) as kept:
        assert kept.engine.info is not None
        assert kept.engine.info.licensed == ()
        volume.mkdir()
        await kept.lose_the_process()
        await kept.until(EngineState.READY)
        assert kept.engine.info.licensed == ("fake-smplx",)
        volume.rmdir()
        await kept.lose_the_process()
        await kept.until(EngineState.SETUP_FAILED)
