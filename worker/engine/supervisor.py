"""The parent's side of one engine: a child process, kept alive.

    STARTING ──▶ READY ◀──▶ BUSY          a job that ends badly for the process (crash, deadline,
       │  ▲                   │           cancellation) costs that attempt; a fresh process follows
       │  └───────────────────┘
       ├──▶ SETUP_FAILED      the models cannot be loaded, or are fewer than the process before
       │                      had, or several different jobs in a row took the process with them;
       │                      tried again, slower and slower
       └──▶ DEFUNCT           the process dies again and again before it is ready; given up

Only deaths before `READY` count towards DEFUNCT: a job that kills every process that it meets is
the job's fault, and whoever handed it over counts that.  When different jobs do, the machine may
be broken, and a broken machine fails quickly: it would take one job after another from those that
work, so it pauses.  One engine per GPU; `worker.engine.pool` holds them together.  Nothing here
imports the pipeline or torch.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Final

from worker import tasks
from worker.engine.child import Child
from worker.engine.limits import EngineLimits
from worker.engine.messages import (
    Advanced,
    Beat,
    Built,
    Checkpointed,
    EngineConfig,
    Failed,
    Ready,
    RunJob,
)
from worker.engine.wear import Wear, is_out_of_memory
from worker.errors import (
    AvatarError,
    EngineCrashed,
    EngineError,
    EngineUnavailable,
    ModelMissing,
)
from worker.observability.logs import get_logger

log = get_logger("worker.engine")

COMMAND: Final = (sys.executable, "-m", "worker.engine.process")
DEATHS_UNTIL_DEFUNCT: Final = 3
LOSSES_UNTIL_PAUSE: Final = 3
"""So many different jobs without an avatar between them end with the process: the engine pauses."""

Advance = Callable[[str, float], None]
Checkpoint = Callable[[str, tuple[str, ...]], None]


class EngineState(StrEnum):
    """What the engine is doing; the names are those of replicate/cog."""

    STARTING = "STARTING"
    READY = "READY"
    BUSY = "BUSY"
    SETUP_FAILED = "SETUP_FAILED"
    DEFUNCT = "DEFUNCT"


USABLE: Final = frozenset({EngineState.READY, EngineState.BUSY})
"""States in which the models are loaded."""


class Engine:
    """One engine process, kept alive.

    Args:
        config: how the process loads the pipeline.
        environment: the process's environment, without credentials.
        on_state: called after each change of state.
        command: the program; tests give their own.
        limits: how long it may take, and when it is replaced.
    """

    def __init__(
        self,
        config: EngineConfig,
        *,
        environment: Mapping[str, str],
        on_state: Callable[[EngineState], None] = lambda _state: None,
        command: Sequence[str] = COMMAND,
        limits: EngineLimits | None = None,
    ) -> None:
        self._config = config
        self._environment = dict(environment)
        self._on_state = on_state
        self._command = tuple(command)
        self._limits = limits or EngineLimits()
        self.state = EngineState.STARTING
        self.reason: AvatarError | None = None
        self.info: Ready | None = None
        """What was loaded; of the process before, while a new one starts."""
        self.set_up_trouble: AvatarError | None = None
        """Why it was last not usable, kept while it is tried again; None once it is."""
        self._child: Child | None = None
        self._usable = asyncio.Event()
        self._needs_child = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._wear = Wear(self._limits)
        self._lost_jobs: set[str] = set()
        self._pauses = 0

    @property
    def memory(self) -> Beat | None:
        """What the process said last of its memory, while there is one."""
        return self._child.memory if self._child else None

    @property
    def silence_s(self) -> float:
        """Since the process that is used gave a sign of life; 0 while there is none."""
        return self._child.silence_s if self._child and self.state in USABLE else 0.0

    @property
    def pid(self) -> int | None:
        """The process's id, while there is one."""
        return self._child.pid if self._child else None

    @property
    def _is_kept(self) -> bool:
        """Whether a lost process would be replaced: not before `start` nor from `stop` on."""
        return self._keeper is not None and not self._keeper.done()

    def start(self) -> None:
        """Begin to load the models; `on_state` tells how it went."""
        self._needs_child.set()
        self._keeper = asyncio.create_task(self._keep(), name="engine")

    async def stop(self) -> None:
        """End the process, whatever it is doing."""
        if self._keeper is not None:
            await tasks.end(self._keeper)
        await self._end_child()

    async def run(
        self,
        job: RunJob,
        advance: Advance,
        *,
        timeout_s: float,
        checkpoint: Checkpoint = lambda _stage, _files: None,
    ) -> Built:
        """Build one avatar; one at a time.

        A job that runs out of memory is run once more at lower cost.  Cancelling this call kills
        the process at once; a fresh one is started.

        Args:
            job: what to build, in which folder.
            advance: called with a stage and how much of it is done, 0..1.
            timeout_s: longest time for the computation.
            checkpoint: called with a stage and the files in the job's folder that hold its
                outcome.

        Raises:
            InputError, EngineError, ModelError: as the pipeline raised it.
            OutOfMemory: the lower cost was too much as well; the process was replaced.
            EngineTimeout: the job or a stage took too long; the process was killed.
            EngineCrashed: the process ended by itself, or was silent for too long and killed.
            GpuLost: CUDA met an error that outlasts the job; the process was replaced.
            EngineUnavailable: no process was ready in `timeout_s`, or none ever will be.
        """
        child = await self._usable_child(timeout_s)
        self._become(EngineState.BUSY)
        try:
            with child.timed(timeout_s):
                answer = await _converse(child, job, advance, checkpoint)
                if is_out_of_memory(answer) and not job.economy:
                    log.warning("engine.out_of_memory", next="once more, at lower cost")
                    cheaper = job.model_copy(update={"economy": True})
                    answer = await _converse(child, cheaper, advance, checkpoint)
        except BaseException as loss:  # of the process, or nobody waits for the job any more
            if isinstance(loss, AvatarError):
                self._lost_jobs.add(job.job_id)
            self._discard()
            await tasks.to_the_end(child.gone())  # nobody writes in the job's folder any more
            raise
        self._count_losses(job, answer)
        if (why := self._wear.after(answer, child.memory)) is not None:
            log.info("engine.replaced", pid=child.pid, why=why)
            self._discard()
        elif child.is_lost:  # it answered and died: the next job shall not pay for that
            log.error("engine.lost_after_answer", pid=child.pid)
            self._discard()
        elif self.state is EngineState.BUSY:
            self._become(EngineState.READY)
        if isinstance(answer, Failed):
            raise answer.to_error()
        return answer

    # ------------------------------------------------------------ a job
    async def _usable_child(self, timeout_s: float) -> Child:
        """Wait for a process that is ready; after a crash that takes a few seconds."""
        if self._child is not None and self._child.is_lost:
            self._discard()
        if self.state is not EngineState.DEFUNCT:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._usable.wait()
            except TimeoutError:
                raise EngineUnavailable(
                    f"No engine process was ready within {timeout_s:g} s."
                ) from None
        if self._child is None or self.state is EngineState.DEFUNCT:
            raise EngineUnavailable("There is no engine process, and none will be started.")
        return self._child

    def _count_losses(self, job: RunJob, answer: Built | Failed) -> None:
        if isinstance(answer, Built):
            self._lost_jobs.clear()
            self._pauses = 0
        elif answer.leaving:
            self._lost_jobs.add(job.job_id)

    def _discard(self) -> None:
        """Kill the process and have a fresh one started; one that still loads is left alone."""
        if self._child is None or self.state not in USABLE or not self._is_kept:
            return
        if self._child.fate is None:  # else its end is under way
            self._child.kill()
        self._usable.clear()
        self._become(EngineState.STARTING)
        self._needs_child.set()

    # ------------------------------------------------------------ the process
    async def _keep(self) -> None:
        """Start a process whenever one is needed, until it is given up."""
        deaths = failures = 0
        while True:
            await self._needs_child.wait()
            self._needs_child.clear()
            await self._end_child()
            if len(self._lost_jobs) >= LOSSES_UNTIL_PAUSE:
                await self._pause()
            self._become(EngineState.STARTING)
            try:
                await self._set_up()
            except EngineCrashed as error:
                deaths += 1
                log.warning("engine.died_in_setup", deaths=deaths, why=error.message)
                if deaths >= DEATHS_UNTIL_DEFUNCT:
                    self._become(EngineState.DEFUNCT, error)
                    self._usable.set()  # whoever waits must learn that none will come
                    return
                self._needs_child.set()
            except AvatarError as error:
                self._become(EngineState.SETUP_FAILED, error)
                await asyncio.sleep(self._pause_s(failures))
                failures += 1
                self._needs_child.set()
            else:
                deaths = failures = 0

    async def _pause(self) -> None:
        """Take no jobs for a while; until the next avatar each further loss pauses longer."""
        reason = EngineUnavailable(
            f"{len(self._lost_jobs)} different jobs in a row ended with the engine process.",
            advice="Look at the log for how they ended, then at the GPU and at free memory.",
        )
        self._become(EngineState.SETUP_FAILED, reason)
        await asyncio.sleep(self._pause_s(self._pauses))
        self._pauses += 1

    def _pause_s(self, number: int) -> float:
        pauses = self._limits.setup_retry_s
        return pauses[min(number, len(pauses) - 1)]

    async def _end_child(self) -> None:
        if self._child is not None:
            await self._child.end()
            self._child = None

    async def _set_up(self) -> None:
        try:
            child = await Child.spawn(self._command, self._environment, self._limits)
        except Exception as error:  # noqa: BLE001 - no descriptors, no threads; what else there is
            raise EngineCrashed(f"The engine process could not be started: {error}") from None
        self._child = child
        child.send(self._config.line())
        self._wear = Wear(self._limits)
        try:
            async with asyncio.timeout(self._limits.setup_timeout_s):
                message = await child.next_message()
        except TimeoutError:
            raise EngineError(
                f"The models were not loaded in {self._limits.setup_timeout_s:g} s."
            ) from None
        if isinstance(message, Failed):
            raise message.to_error()
        if not isinstance(message, Ready):
            raise EngineCrashed(f"The engine process began with {message.kind!r}.")
        if child.is_lost:
            raise EngineCrashed("The engine process ended as soon as it was ready.")
        if lost := _lost(self.info, message):
            await self._end_child()  # it would hold its memory until the next attempt
            raise ModelMissing(
                f"{', '.join(lost)}: loaded before, and not found when the engine started again.",
                advice="Is the volume still there? To go on without them, restart the worker.",
            )
        self.info = message
        log.info("engine.ready", device=message.device_name, models=list(message.models))
        self._usable.set()
        self._become(EngineState.READY)
        child.when_lost(self._lost_in_idleness)

    def _lost_in_idleness(self, child: Child) -> None:
        """Replace a process that ended, or was silent, while nobody was using it."""
        if child is self._child and self.state is EngineState.READY and self._is_kept:
            log.error("engine.lost_in_idleness", how=str(child.fate or child.exit))
            self._discard()

    def _become(self, state: EngineState, reason: AvatarError | None = None) -> None:
        if state is self.state and reason is None:
            return
        self.state, self.reason = state, reason
        if reason is not None or state in USABLE:
            self.set_up_trouble = reason
        level = "error" if state in {EngineState.SETUP_FAILED, EngineState.DEFUNCT} else "debug"
        getattr(log, level)(
            "engine.state",
            state=state.value,
            **({"why": str(reason), "advice": reason.advice} if reason else {}),
        )
        self._on_state(state)


def _lost(before: Ready | None, now: Ready) -> list[str]:
    """Name what the operator brought that an earlier process had loaded and this one has not.

    With the volume gone it would compute the free default's avatars, and nobody would notice.
    """
    return [name for name in before.licensed if name not in now.licensed] if before else []


async def _converse(
    child: Child, job: RunJob, advance: Advance, checkpoint: Checkpoint
) -> Built | Failed:
    child.send(job.line())
    while True:
        message = await child.next_message()
        if isinstance(message, Built | Failed):
            return message
        if isinstance(message, Advanced):
            advance(message.stage, message.fraction)
        elif isinstance(message, Checkpointed):
            checkpoint(message.stage, message.files)
