"""The parent's handle on one child process: its two pipes, its signs of life, its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from worker.engine.limits import EngineLimits
from worker.engine.messages import Advanced, Beat, FromEngine, from_engine
from worker.engine.watch import Watch
from worker.errors import AvatarError, EngineCrashed
from worker.observability.logs import get_logger

log = get_logger("worker.engine")

LINE_LIMIT: Final = 4 * 1024 * 1024
LAST_WORDS_S: Final = 0.2
"""How long a child that hangs may take to print where, before it is killed."""
DEATH_TIMEOUT_S: Final = 10.0
"""A killed process that is still there after this hangs in a driver, beyond any signal."""


class Child:
    """A running engine process.  Signs of life are taken here; the other messages are handed on."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        commands: asyncio.WriteTransport,
        outputs: Mapping[str, _Output],
        limits: EngineLimits,
    ) -> None:
        self._process = process
        self._commands = commands
        self._outputs = outputs
        self._loop = asyncio.get_running_loop()
        self._watch = Watch(limits, self._loop.time())
        self._inbox: asyncio.Queue[FromEngine | None] = asyncio.Queue()
        self.fate: AvatarError | None = None
        """Why we killed it, if we did."""
        self.memory = Beat(rss_bytes=0, cuda_reserved_bytes=0)
        """As it said last."""
        self._on_lost: Callable[[Child], None] = lambda _child: None
        self._waiter = asyncio.create_task(process.wait())
        self._waiter.add_done_callback(lambda _task: self._end_group())
        self._prints = [
            asyncio.create_task(_log_lines(outputs[name].reader, name))
            for name in ("stdout", "stderr")
        ]
        self._helpers = [
            asyncio.create_task(self._receive(outputs["messages"].reader)),
            asyncio.create_task(self._keep_watch()),
        ]

    @classmethod
    async def spawn(
        cls, command: Sequence[str], environment: Mapping[str, str], limits: EngineLimits
    ) -> Self:
        """Start the process, with pipes for commands, messages and prints.

        All of them are ours, none asyncio's: with its own, `wait` may wait for everyone who holds
        them, and a grandchild does.

        Raises:
            OSError, RuntimeError: no pipe, no such program, no thread to wait for it.
        """
        # `theirs` are closed here in any case, `ours` only if we do not get to the end.
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            outputs: dict[str, _Output] = {}
            fds: list[int] = []
            for name in ("messages", "stdout", "stderr"):
                read, write = os.pipe()
                theirs.callback(os.close, write)
                fds.append(write)
                outputs[name] = await _Output.of(read)
                ours.callback(outputs[name].transport.close)
            commands_fd, write = os.pipe()
            theirs.callback(os.close, commands_fd)
            commands, _ = await asyncio.get_running_loop().connect_write_pipe(
                asyncio.BaseProtocol, os.fdopen(write, "wb", 0)
            )
            ours.callback(commands.close)
            messages_fd, stdout_fd, stderr_fd = fds
            process = await asyncio.create_subprocess_exec(
                *command,
                str(commands_fd),
                str(messages_fd),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=stdout_fd,
                stderr=stderr_fd,
                pass_fds=(commands_fd, messages_fd),
                env=environment,
                # A group of its own: Ctrl-C is for the worker alone, one kill ends them all.
                start_new_session=True,
            )
            ours.pop_all()
        return cls(process, commands, outputs, limits)

    @property
    def pid(self) -> int:
        """The process's id, which is its group's too."""
        return self._process.pid

    @property
    def silence_s(self) -> float:
        """Since its last sign of life; 0 while it loads, which has a limit of its own."""
        return self._watch.silence_s(self._loop.time())

    # ------------------------------------------------------------ talking
    def send(self, line: bytes) -> None:
        """Write one command; they are short, so the pipe takes them whole."""
        self._commands.write(line)

    async def next_message(self) -> FromEngine:
        """Wait for what the process says next; signs of life are not handed on.

        Raises:
            AvatarError: its `fate`, when we killed it; else `EngineCrashed`.
        """
        message = await self._inbox.get()
        if message is None:
            self._inbox.put_nowait(None)  # whoever asks again gets the same answer
            raise self.fate or EngineCrashed(
                f"The engine process ended: {await self._how_it_ended()}."
            )
        return message

    @contextlib.contextmanager
    def timed(self, timeout_s: float) -> Iterator[None]:
        """Hold the job that runs inside to its own limit and to its stages'."""
        self._watch.begin_job(timeout_s, self._loop.time())
        try:
            yield
        finally:
            self._watch.end_job()

    async def _receive(self, source: asyncio.StreamReader) -> None:
        try:
            while line := await source.readline():
                message = from_engine.validate_json(line)
                self._watch.beat(self._loop.time())
                if isinstance(message, Beat):
                    self.memory = message
                    continue
                if isinstance(message, Advanced):
                    self._watch.enter(message.stage, self._loop.time())
                self._inbox.put_nowait(message)
        except ValueError as error:  # not JSON of ours, or a line beyond the limit
            log.warning("engine.unintelligible", why=str(error)[:500])
            self.condemn(EngineCrashed("The engine process said what nobody understands."))
        self._inbox.put_nowait(None)

    # ------------------------------------------------------------ watching and ending
    async def _keep_watch(self) -> None:
        while not self._waiter.done():
            await asyncio.sleep(self._watch.tick_s)
            if (why := self._watch.verdict(self._loop.time())) is not None:
                self.condemn(why)
                return

    def condemn(self, why: AvatarError) -> None:
        """Kill it for a reason; first it may print where it hangs."""
        if self.fate is not None:
            return
        self.fate = why
        log.warning("engine.condemned", pid=self.pid, why=why.message)
        self._signal(signal.SIGUSR1)  # faulthandler, in `worker.engine.process`
        self._loop.call_later(LAST_WORDS_S, self.kill)
        self._inbox.put_nowait(None)
        self._on_lost(self)

    def when_lost(self, call: Callable[[Child], None]) -> None:
        """Have `call` called when the process ends or is condemned, so perhaps twice."""
        self._on_lost = call
        self._waiter.add_done_callback(lambda _task: call(self))

    async def _how_it_ended(self) -> str:
        """Say how the process ended, waiting a moment for it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await asyncio.shield(self._waiter)
        return self.exit

    @property
    def is_lost(self) -> bool:
        """Whether it has ended, or was condemned to; asyncio may not have told anybody yet."""
        if self.fate is not None:
            return True
        try:
            ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # asyncio has fetched its exit code
            return True
        return ended is not None

    @property
    def exit(self) -> str:
        """How the process ended, in words."""
        code = self._process.returncode
        if code is None:
            return "it stopped talking"
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    async def gone(self) -> None:
        """Wait until a killed process is dead; not for ever, should the kernel not manage."""
        await asyncio.wait({self._waiter}, timeout=DEATH_TIMEOUT_S)

    def kill(self) -> None:
        """Kill it now, with all that it started."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:  # afterwards its number may be another's
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def _end_group(self) -> None:
        """End what it had started, such as gltfpack, when it has ended by itself."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    async def end(self) -> None:
        """Kill it and clean up.  It holds nothing that an orderly end would save."""
        if self.fate is not None:  # the kill comes after its last words
            await asyncio.wait({self._waiter}, timeout=2 * LAST_WORDS_S)
        self._commands.close()
        self.kill()
        _, alive = await asyncio.wait({self._waiter}, timeout=DEATH_TIMEOUT_S)
        if alive:
            log.error("engine.cannot_be_killed", pid=self.pid)
        # What it said last is worth a moment; whoever else holds its pipes open is not.
        await asyncio.wait(self._prints, timeout=1.0)
        for task in (*self._helpers, *self._prints, *alive):
            task.cancel()
        await asyncio.gather(*self._helpers, *self._prints, *alive, return_exceptions=True)
        for output in self._outputs.values():
            output.transport.close()


@dataclass(frozen=True, slots=True)
class _Output:
    """The reading end of a pipe that the process writes to."""

    reader: asyncio.StreamReader
    transport: asyncio.ReadTransport

    @classmethod
    async def of(cls, fd: int) -> Self:
        reader = asyncio.StreamReader(limit=LINE_LIMIT)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", 0)
        )
        return cls(reader, transport)


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
