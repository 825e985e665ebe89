"""The parent's side of one engine process: start, feed, watch, kill, start again.

    STARTING ──▶ READY ◀──▶ BUSY          a job that ends badly for the process (crash, deadline,
       │  ▲                   │           cancellation) costs that attempt; a fresh process follows
       │  └───────────────────┘
       ├──▶ SETUP_FAILED      the models cannot be loaded; tried again, slower and slower
       └──▶ DEFUNCT           the process dies again and again before it is ready; given up

One object per process and per GPU.  Nothing here imports the pipeline or torch.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from enum import StrEnum
from typing import Final

from pydantic import ValidationError

from worker.engine.messages import (
    Advanced,
    Built,
    EngineConfig,
    Failed,
    Ready,
    RunJob,
    from_engine,
)
from worker.errors import AvatarError, EngineCrashed, EngineError, EngineTimeout
from worker.observability.logs import get_logger

log = get_logger("worker.engine")

COMMAND: Final = (sys.executable, "-m", "worker.engine.process")
SETUP_TIMEOUT_S: Final = 300.0
SETUP_RETRY_S: Final = (5.0, 15.0, 60.0)
"""Pauses between attempts at loading the models; the last one repeats."""
DEATHS_UNTIL_DEFUNCT: Final = 3
LINE_LIMIT: Final = 4 * 1024 * 1024

Advance = Callable[[str, float], None]


class EngineState(StrEnum):
    """What the engine is doing; the names are those of replicate/cog."""

    STARTING = "STARTING"
    READY = "READY"
    BUSY = "BUSY"
    SETUP_FAILED = "SETUP_FAILED"
    DEFUNCT = "DEFUNCT"


class Engine:
    """One engine process, kept alive.

    Args:
        config: how the process loads the pipeline.
        environment: the process's environment, without credentials.
        on_state: called after each change of state.
        command: the program; tests give their own.
    """

    def __init__(
        self,
        config: EngineConfig,
        *,
        environment: Mapping[str, str],
        on_state: Callable[[EngineState], None] = lambda _state: None,
        command: Sequence[str] = COMMAND,
        setup_retry_s: Sequence[float] = SETUP_RETRY_S,
    ) -> None:
        self._config = config
        self._environment = dict(environment)
        self._on_state = on_state
        self._command = tuple(command)
        self._setup_retry_s = tuple(setup_retry_s)
        self.state = EngineState.STARTING
        self.reason: AvatarError | None = None
        self.info: Ready | None = None
        self._child: _Child | None = None
        self._usable = asyncio.Event()
        self._needs_child = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process's id, while there is one."""
        return self._child.process.pid if self._child else None

    def start(self) -> None:
        """Begin to load the models; `on_state` tells how it went."""
        self._needs_child.set()
        self._keeper = asyncio.create_task(self._keep(), name="engine")

    async def stop(self) -> None:
        """End the process, whatever it is doing."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        child, self._child = self._child, None
        if child is not None:
            await child.end()

    async def run(self, job: RunJob, advance: Advance, *, timeout_s: float) -> Built:
        """Build one avatar.

        Cancelling this call kills the process at once; a fresh one is started.

        Raises:
            InputError, EngineError, ModelError: as the pipeline raised it.
            EngineTimeout: it took longer than `timeout_s`; the process was killed.
            EngineCrashed: the process ended by itself.
        """
        try:
            async with asyncio.timeout(timeout_s):
                child = await self._usable_child()
                self._become(EngineState.BUSY)
                return await self._converse(child, job, advance)
        except TimeoutError:
            self._discard()
            raise EngineTimeout(f"The job took longer than {timeout_s:g} s.") from None
        except (EngineCrashed, asyncio.CancelledError):
            self._discard()
            raise
        finally:
            if self.state is EngineState.BUSY:
                self._become(EngineState.READY)

    # ------------------------------------------------------------ a job
    async def _usable_child(self) -> _Child:
        """Wait for a process that is ready; after a crash that takes a few seconds."""
        if self.state is not EngineState.DEFUNCT:
            await self._usable.wait()
        if self._child is None or self.state is EngineState.DEFUNCT:
            raise EngineCrashed("There is no engine process, and none will be started.")
        return self._child

    async def _converse(self, child: _Child, job: RunJob, advance: Advance) -> Built:
        await child.send(job.line())
        async for message in child.messages():
            if isinstance(message, Advanced):
                advance(message.stage, message.fraction)
            elif isinstance(message, Built):
                return message
            elif isinstance(message, Failed):
                raise message.to_error()
        raise EngineCrashed(f"The engine process ended: {await child.verdict()}.")

    def _discard(self) -> None:
        """Kill the process and have a fresh one started; one that still loads is left alone."""
        if self._child is None or self.state in {EngineState.STARTING, EngineState.DEFUNCT}:
            return
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
            child, self._child = self._child, None
            if child is not None:
                await child.end()
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
                pause = self._setup_retry_s[min(failures, len(self._setup_retry_s) - 1)]
                failures += 1
                await asyncio.sleep(pause)
                self._needs_child.set()
            else:
                deaths = failures = 0

    async def _set_up(self) -> None:
        self._child = await _Child.spawn(self._command, self._environment)
        await self._child.send(self._config.line())
        try:
            async with asyncio.timeout(SETUP_TIMEOUT_S):
                async for message in self._child.messages():
                    if isinstance(message, Ready):
                        self.info = message
                        log.info(
                            "engine.ready", device=message.device_name, models=list(message.models)
                        )
                        self._usable.set()
                        self._become(EngineState.READY)
                        self._child.when_ended(self._ended_idle)
                        return
                    if isinstance(message, Failed):
                        raise message.to_error()
        except TimeoutError:
            raise EngineError(f"The models were not loaded in {SETUP_TIMEOUT_S:g} s.") from None
        raise EngineCrashed(f"The engine process ended: {await self._child.verdict()}.")

    def _ended_idle(self, child: _Child) -> None:
        """Replace a process that ended while nobody was using it."""
        if child is self._child and self.state is EngineState.READY:
            log.error("engine.ended_idle", exit=child.process.returncode)
            self._discard()

    def _become(self, state: EngineState, reason: AvatarError | None = None) -> None:
        if state is self.state and reason is None:
            return
        self.state, self.reason = state, reason
        level = "error" if state in {EngineState.SETUP_FAILED, EngineState.DEFUNCT} else "debug"
        getattr(log, level)(
            "engine.state",
            state=state.value,
            **({"why": str(reason), "advice": reason.advice} if reason else {}),
        )
        self._on_state(state)


class _Child:
    """A running process, its two pipes, and its prints as log lines."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        commands: asyncio.WriteTransport,
        messages: asyncio.StreamReader,
    ) -> None:
        self.process = process
        self._commands = commands
        self._messages = messages
        self._prints = [
            asyncio.create_task(_log_lines(stream, name))
            for stream, name in ((process.stdout, "stdout"), (process.stderr, "stderr"))
            if stream is not None
        ]
        self._waiter = asyncio.create_task(process.wait())

    @classmethod
    async def spawn(cls, command: Sequence[str], environment: Mapping[str, str]) -> _Child:
        """Start the process with a pipe for commands and a pipe for messages."""
        loop = asyncio.get_running_loop()
        commands_in, commands_out = os.pipe()
        messages_in, messages_out = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                str(commands_in),
                str(messages_out),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=(commands_in, messages_out),
                env=environment,
                # Ctrl-C is for the worker alone, which then ends this process in order.
                start_new_session=True,
            )
        except OSError as error:
            os.close(commands_out)
            os.close(messages_in)
            raise EngineCrashed(f"The engine process could not be started: {error}") from None
        finally:
            os.close(commands_in)
            os.close(messages_out)
        reader = asyncio.StreamReader(limit=LINE_LIMIT)
        await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(messages_in, "rb", 0)
        )
        writer, _ = await loop.connect_write_pipe(
            asyncio.BaseProtocol, os.fdopen(commands_out, "wb", 0)
        )
        return cls(process, writer, reader)

    async def send(self, line: bytes) -> None:
        """Write one command; they are short, so the pipe takes them whole."""
        self._commands.write(line)

    async def messages(self) -> AsyncIterator[Ready | Advanced | Built | Failed]:
        """Yield what the process says, until it ends."""
        while line := await self._messages.readline():
            try:
                yield from_engine.validate_json(line)
            except ValidationError:
                log.warning("engine.unintelligible", line=line[:500].decode(errors="replace"))
                return

    def when_ended(self, call: Callable[[_Child], None]) -> None:
        """Have `call` called when the process ends."""
        self._waiter.add_done_callback(lambda _task: call(self))

    async def verdict(self) -> str:
        """Say how the process ended, waiting a moment for it."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._waiter), 1.0)
        code = self.process.returncode
        if code is None:
            return "it stopped talking"
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def kill(self) -> None:
        """Kill it now, with all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    async def end(self) -> None:
        """Kill it and clean up.  It holds nothing that an orderly end would save."""
        self._commands.close()
        self.kill()
        await self._waiter
        await asyncio.gather(*self._prints)


async def _log_lines(stream: asyncio.StreamReader, name: str) -> None:
    """Pass on what the process or a library in it prints."""
    while True:
        try:
            line = await stream.readline()
        except ValueError:  # longer than the limit; the rest of it follows
            continue
        if not line:
            return
        if text := line.decode(errors="replace").rstrip():
            log.info("engine.output", stream=name, text=text)
