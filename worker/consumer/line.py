"""One connection to Redis for what is asked once or twice a job, with nothing between.

redis-py's asynchronous client packs each command in Python and waits for each answer with timers
and a task: more than everything else that a job which does nothing needs.  A line takes over a
connection that redis-py has made, so that addresses, passwords, TLS and names stay its business;
hiredis packs and parses, and answers belong to questions by their order.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import hiredis
from redis.asyncio.connection import DefaultParser
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, NoScriptError
from redis.exceptions import TimeoutError as RedisTimeoutError

_BUFFER_BYTES: Final = 65_536
"""asyncio's own, of 256 KiB, is mapped and unmapped for each read: 14 µs of 16."""


class Line:
    """Sends each question at once, however many are unanswered, and connects when it must.

    A connection that is lost, or on which Redis does not answer within its `socket_timeout`,
    fails all questions that are on it; the next is asked on a new one.  Nothing is asked twice:
    whoever asked knows whether it may be.

    Args:
        connection: of redis.asyncio, not yet connected; nobody else uses it.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._connecting = asyncio.Lock()
        self._wire: _Wire | None = None

    async def run(self, script: Any, keys: Sequence[Any], args: Sequence[Any]) -> Any:
        """Run a registered script and return its answer.

        Raises:
            RedisError, OSError: what Redis answered, or that it did not.
        """
        command = ("EVALSHA", script.sha, len(keys), *keys, *args)
        try:
            return await self.execute_command(*command)
        except NoScriptError:
            await self.execute_command("SCRIPT", "LOAD", script.script)
            return await self.execute_command(*command)

    async def execute_command(self, *command: Any) -> Any:
        """Ask Redis and return its answer.

        Raises:
            RedisError, OSError: what Redis answered, or that it did not.
        """
        wire = self._wire
        if wire is None or wire.is_down:
            wire = await self._connect()
        return await wire.ask(command)

    def poke(self) -> None:
        """Ask for a sign of life, so that an idle connection is not forgotten on its way."""
        if self._wire is not None and not self._wire.is_down and self._wire.silent_s == 0.0:
            self._wire.ask(("PING",)).cancel()

    def leave_if_silent(self, longer_than_s: float) -> None:
        """Hang up on a connection that owes an answer for so long, when Redis answers elsewhere."""
        if self._wire is not None and self._wire.silent_s > longer_than_s:
            self._wire.hang_up(RedisTimeoutError("Redis answers, but not on this connection."))

    async def close(self) -> None:
        """Hang up; what is unanswered fails."""
        if self._wire is not None:
            self._wire.hang_up(RedisConnectionError("The connection was closed."))
        await self._connection.disconnect(nowait=True)

    async def _connect(self) -> _Wire:
        async with self._connecting:
            if self._wire is None or self._wire.is_down:
                await self._connection.disconnect(nowait=True)
                await self._connection.connect()
                # redis-py shows it nowhere else; tests/integration/test_consumer_line.py holds it.
                transport = self._connection._writer.transport  # noqa: SLF001 - see above
                self._wire = _Wire(transport, self._connection.socket_timeout)
            return self._wire


class _Wire(asyncio.BufferedProtocol):
    """A connection that is up, until it is down for good.

    Args:
        transport: what redis-py has connected; taken over.
        timeout_s: how long an answer may take.
    """

    def __init__(self, transport: asyncio.Transport, timeout_s: float) -> None:
        self.is_down = False
        self._transport = transport
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._asked: deque[tuple[asyncio.Future[Any], float]] = deque()
        """What is unanswered, oldest first, and when it was asked by the loop's clock."""
        self._watch: asyncio.TimerHandle | None = None
        self._received = bytearray(_BUFFER_BYTES)
        # Bytes that are no text must not cost those their answers who have asked behind them.
        self._reader: Any = hiredis.Reader(  # Any: its hints know of no buffer to read from
            protocolError=InvalidResponse,
            replyError=DefaultParser.parse_error,
            encoding="utf-8",
            errors="replace",
        )
        transport.set_protocol(self)

    def ask(self, command: tuple[Any, ...]) -> asyncio.Future[Any]:
        """Send a command; return its answer to come."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._asked.append((answer, self._loop.time()))
        self._transport.write(hiredis.pack_command(command))
        if self._watch is None:
            self._look()
        return answer

    @property
    def silent_s(self) -> float:
        """Seconds since the oldest question was asked that has no answer; 0 when there is none."""
        return self._loop.time() - self._asked[0][1] if self._asked else 0.0

    def hang_up(self, error: Exception) -> None:
        """Go down; what is unanswered fails with `error`."""
        self.is_down = True
        self._transport.abort()
        while self._asked:
            answer, _ = self._asked.popleft()
            if not answer.done():
                answer.set_exception(error)

    def _look(self) -> None:
        """Hang up when the oldest question has waited too long; else look again when it will."""
        self._watch = None
        if not self._asked:
            return
        ends_at = self._asked[0][1] + self._timeout_s
        if self._loop.time() < ends_at:
            self._watch = self._loop.call_at(ends_at, self._look)
        else:
            self.hang_up(RedisTimeoutError(f"Redis did not answer for {self._timeout_s:g} s."))

    # ------------------------------------------------------------ what the transport calls
    def get_buffer(self, _sizehint: int) -> bytearray:
        """Say where to put what is received."""
        return self._received

    def buffer_updated(self, nbytes: int) -> None:
        """Hand each whole answer to whoever asked."""
        self._reader.feed(self._received, 0, nbytes)
        while (reply := self._reader.gets()) is not False:
            answer, _ = self._asked.popleft()
            if answer.done():  # whoever asked has given up
                continue
            if isinstance(reply, Exception):
                answer.set_exception(reply)
            else:
                answer.set_result(reply)

    def connection_lost(self, error: Exception | None) -> None:
        """Fail what is unanswered."""
        self.hang_up(RedisConnectionError(f"The connection was lost: {error or 'it was closed'}"))
