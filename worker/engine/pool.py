"""Engines side by side, one per GPU: a job goes to whichever is free.

A child in trouble does not stop the others.  Nothing is scheduled here beyond "the next free one";
more than one machine is the queue's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from worker.engine.limits import EngineLimits
from worker.engine.messages import Built, EngineConfig, Ready, RunJob
from worker.engine.supervisor import (
    COMMAND,
    USABLE,
    Advance,
    Checkpoint,
    Engine,
    EngineState,
)
from worker.errors import AvatarError, EngineError, EngineUnavailable

_BEST_FIRST: Final = (
    EngineState.READY,
    EngineState.BUSY,
    EngineState.STARTING,
    EngineState.SETUP_FAILED,
    EngineState.DEFUNCT,
)


class EnginePool:
    """All engines of this worker.

    Args:
        config: how each process loads the pipeline.
        environments: one process's environment each, as `devices.child_environments` gives them.
        on_state: called with `state` after each change of any engine, so that `usable` may have
            changed though `state` has not.
        command: the program; tests give their own.
        limits: of each process.
    """

    def __init__(
        self,
        config: EngineConfig,
        *,
        environments: Sequence[Mapping[str, str]],
        on_state: Callable[[EngineState], None] = lambda _state: None,
        command: Sequence[str] = COMMAND,
        limits: EngineLimits | None = None,
    ) -> None:
        if not environments:
            raise ValueError("a pool needs at least one engine")
        self._on_state = on_state
        self.engines = tuple(
            Engine(
                config,
                environment=environment,
                on_state=lambda _state: self._changed_state(),
                command=command,
                limits=limits,
            )
            for environment in environments
        )
        self._lent: set[Engine] = set()
        self._change = asyncio.Event()

    # ------------------------------------------------------------ life
    def start(self) -> None:
        """Begin to load the models everywhere; `on_state` tells how it went."""
        for engine in self.engines:
            engine.start()

    async def stop(self) -> None:
        """End all processes, whatever they are doing."""
        await asyncio.gather(*(engine.stop() for engine in self.engines))

    # ------------------------------------------------------------ what there is
    @property
    def size(self) -> int:
        """How many engines there are, in whatever state."""
        return len(self.engines)

    @property
    def usable(self) -> int:
        """How many have their models loaded: as many jobs can run at once."""
        return sum(engine.state in USABLE for engine in self.engines)

    @property
    def state(self) -> EngineState:
        """The best state of any engine: READY when one is free, BUSY when all that can work do."""
        return min((engine.state for engine in self.engines), key=_BEST_FIRST.index)

    @property
    def reason(self) -> AvatarError | None:
        """Why no engine is usable; None while one is, or while they still load."""
        return None if self.usable else next(iter(self.troubles.values()), None)

    @property
    def troubles(self) -> Mapping[int, AvatarError]:
        """What is wrong with single engines, by their number; the others may work all the same."""
        return {
            number: engine.reason
            for number, engine in enumerate(self.engines)
            if engine.reason is not None
        }

    @property
    def set_up_trouble(self) -> AvatarError | None:
        """Why no engine came up; it lasts while they are tried again, until one does."""
        troubles = [engine.set_up_trouble for engine in self.engines]
        return troubles[0] if all(troubles) else None

    @property
    def unfit(self) -> EngineError | None:
        """The same where it is the machine's fault; models that are missing can be brought."""
        trouble = self.set_up_trouble
        return trouble if isinstance(trouble, EngineError) else None

    @property
    def silence_s(self) -> float:
        """For how long the most silent of the engines that are used gave no sign of life."""
        return max(engine.silence_s for engine in self.engines)

    @property
    def infos(self) -> tuple[Ready, ...]:
        """What each engine has loaded; those that never were ready are left out."""
        return tuple(engine.info for engine in self.engines if engine.info is not None)

    @property
    def fingerprint(self) -> str | None:
        """What computes: code, weights and configuration; None before any engine was ready."""
        return next((info.fingerprint for info in self.infos), None)

    # ------------------------------------------------------------ a job
    async def run(
        self,
        job: RunJob,
        advance: Advance,
        *,
        timeout_s: float,
        checkpoint: Checkpoint = lambda _stage, _files: None,
    ) -> Built:
        """Build one avatar on the next free engine; arguments and errors are `Engine.run`'s.

        Raises:
            EngineUnavailable: none became free in `timeout_s`, or none ever will be.
        """
        try:
            async with asyncio.timeout(timeout_s):
                engine = await self._borrow()
        except TimeoutError:
            raise self._unavailable(f"No engine was free within {timeout_s:g} s.") from None
        try:
            return await engine.run(job, advance, timeout_s=timeout_s, checkpoint=checkpoint)
        finally:
            self._lent.discard(engine)
            self._tell()

    async def _borrow(self) -> Engine:
        while True:
            for engine in self.engines:
                if engine.state is EngineState.READY and engine not in self._lent:
                    self._lent.add(engine)
                    return engine
            if self.state is EngineState.DEFUNCT:
                raise self._unavailable("No engine process is left, and none will be started.")
            await self._change.wait()

    def _unavailable(self, what: str) -> EngineUnavailable:
        return EngineUnavailable(f"{what} {self.reason}" if self.reason else what)

    def _changed_state(self) -> None:
        self._tell()
        self._on_state(self.state)

    def _tell(self) -> None:
        """Wake all who wait for an engine; each looks for itself, in the order of their coming."""
        self._change.set()
        self._change = asyncio.Event()
