"""What stands between a worker and its three servers, so that a test can be the bad network.

Every worker under test has proxies of its own, so that a fault can hit one worker and spare the
other.  `TcpProxy` passes bytes (Redis); `HttpProxy` passes whole requests (MinIO, the API), so
that a test can stop at one of them, answer it in the server's place, or cut it in the middle.
Nothing in the worker knows of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import h11

HOST: Final = "127.0.0.1"
READ_BYTES: Final = 65_536
BACKLOG: Final = 128


class Hold:
    """A point at which a worker is stopped: a request that is not passed on, or not answered.

    Attributes:
        reached: set when the worker is there.
        arrived: set when the server has acted on what was held.
    """

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.arrived = asyncio.Event()
        self._released = asyncio.Event()

    async def wait_reached(self, timeout_s: float = 30.0) -> None:
        """Wait until the worker is stopped here."""
        await asyncio.wait_for(self.reached.wait(), timeout_s)

    async def stop_here(self) -> None:
        """Called by the proxy: tell that it was reached, and wait for `release`."""
        self.reached.set()
        await self._released.wait()

    def release(self) -> None:
        """Let the worker go on."""
        self._released.set()


class TcpProxy:
    """Passes bytes between a port of its own and a server.

    Args:
        port: the server's port on the loopback.
    """

    def __init__(self, port: int) -> None:
        self.target_port = port
        self.port = 0
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self._frozen: set[asyncio.Task[None]] = set()
        self._freezes_new = False
        self._moving = asyncio.Event()
        self._moving.set()
        self._holds: list[tuple[Callable[[bytes], bool], bool, Hold]] = []

    async def start(self) -> None:
        """Listen; on the same port as before, when there was one."""
        self._server = await asyncio.start_server(self._accept, HOST, self.port, backlog=BACKLOG)
        self.port = self._server.sockets[0].getsockname()[1]

    @property
    def is_open(self) -> bool:
        """Whether it takes connections."""
        return self._server is not None

    async def refuse(self) -> None:
        """Be down: no connection lives, and new ones are refused, until `start`."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self.cut()

    async def cut(self) -> None:
        """Break every connection that there is."""
        links = [*self._links]
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    async def stop(self) -> None:
        """End."""
        self.thaw()
        await self.refuse()

    async def deserted(self) -> None:
        """Wait until the worker's connections are gone, once it has died."""
        await asyncio.gather(*self._links, return_exceptions=True)

    def freeze(self, *, new_ones_too: bool = False) -> None:
        """Make the connections of now half-open: no byte passes, and nobody is told.

        New connections work, as they do when a middlebox has forgotten the old ones, unless
        `new_ones_too`: then they are taken and as silent, as in a network that is parted.
        """
        self._frozen |= self._links
        self._freezes_new = new_ones_too
        self._moving.clear()

    def thaw(self) -> None:
        """Let the frozen connections go on."""
        self._freezes_new = False
        self._frozen.clear()
        self._moving.set()

    def hold_bytes(self, matches: Callable[[bytes], bool], *, answered: bool) -> Hold:
        """Stop at the next bytes from the worker that match.

        Args:
            matches: is given what was read at once: for Redis, one command or more.
            answered: whether the server gets them and only the answer is withheld.
        """
        hold = Hold()
        self._holds.append((matches, answered, hold))
        return hold

    def clear(self) -> None:
        """Forget all holds that were not reached."""
        self._holds.clear()

    def _take_hold(self, data: bytes) -> tuple[bool, Hold] | None:
        for entry in self._holds:
            matches, answered, hold = entry
            if matches(data):
                self._holds.remove(entry)
                return answered, hold
        return None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        assert link is not None
        self._links.add(link)
        if self._freezes_new:
            self._frozen.add(link)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, h11.ProtocolError):
                await self._serve(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._links.discard(link)
            self._frozen.discard(link)
            writer.close()

    async def _pass(self, link: asyncio.Task[None] | None) -> None:
        while link in self._frozen:
            await self._moving.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        far_reader, far_writer = await asyncio.open_connection(HOST, self.target_port)
        answering = asyncio.Event()
        answering.set()

        async def forward() -> None:
            while data := await reader.read(READ_BYTES):
                await self._pass(link)
                if held := self._take_hold(data):
                    answered, hold = held
                    if answered:
                        answering.clear()
                        far_writer.write(data)
                        hold.arrived.set()
                        if not await _released(hold, reader):
                            return
                        answering.set()
                        continue
                    if not await _released(hold, reader):
                        return
                    hold.arrived.set()
                far_writer.write(data)
                await far_writer.drain()

        async def backward() -> None:
            while data := await far_reader.read(READ_BYTES):
                await self._pass(link)
                await answering.wait()
                writer.write(data)
                await writer.drain()

        pumps = {asyncio.create_task(forward()), asyncio.create_task(backward())}
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            far_writer.close()


@dataclass
class Request:
    """One request, whole."""

    method: str
    path: str
    raw: bytes = field(repr=False)
    """Head and body as they came."""
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class Passed:
    """A request that a server answered."""

    method: str
    path: str
    status: int
    body_sha256: str
    at: float
    """Seconds since 1970."""


class CutError(Exception):
    """The rule wants the worker's connection broken."""


Send = Callable[[bytes], Awaitable[bytes]]
"""Sends a raw request to the server; returns the raw answer."""
Rule = Callable[[Request, Send], Awaitable[bytes]]
"""Answers a request: with `send(request.raw)`, with bytes of its own, or by raising CutError."""


class HttpProxy(TcpProxy):
    """Passes one HTTP request at a time; the first rule that matches it decides what happens.

    Attributes:
        passed: every request that the server answered, in order.
    """

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.passed: list[Passed] = []
        self._asking: set[asyncio.Task[bytes]] = set()
        self._rules: list[tuple[Callable[[Request], bool], Rule, bool]] = []

    def rule(self, matches: Callable[[Request], bool], rule: Rule, *, once: bool = True) -> None:
        """Let `rule` answer what matches: the next such request, or all of them."""
        self._rules.append((matches, rule, once))

    def clear(self) -> None:
        """Forget all rules."""
        super().clear()
        self._rules.clear()

    def hold(self, matches: Callable[[Request], bool], *, answered: bool = False) -> Hold:
        """Stop at the next request that matches, before or after the server has acted on it."""
        hold = Hold()

        async def stop(request: Request, send: Send) -> bytes:
            if answered:
                answer = await send(request.raw)
                hold.arrived.set()
                await hold.stop_here()
                return answer
            await hold.stop_here()
            answer = await send(request.raw)
            hold.arrived.set()
            return answer

        self.rule(matches, stop)
        return hold

    async def deserted(self) -> None:
        """Wait until the worker's connections are gone, and what it sent has arrived."""
        await super().deserted()
        await asyncio.gather(*self._asking, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        while request := await _read_request(reader):
            await self._pass(link)
            work = asyncio.create_task(self._answer(request))
            # A client that goes away while its request is held takes the request with it.
            gone = asyncio.create_task(_until_closed(reader))
            try:
                await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not work.done():
                    return
                answer = await work
            except CutError:
                writer.transport.abort()
                return
            finally:
                for task in (work, gone):
                    task.cancel()
                await asyncio.gather(work, gone, return_exceptions=True)
            await self._pass(link)
            writer.write(answer)
            await writer.drain()

    async def _answer(self, request: Request) -> bytes:
        async def send(raw: bytes) -> bytes:
            # What is on its way arrives, whether or not somebody still waits for the answer.
            asking = asyncio.create_task(self._ask_and_note(raw, request))
            self._asking.add(asking)
            asking.add_done_callback(self._asking.discard)
            return await asyncio.shield(asking)

        for entry in self._rules:
            matches, rule, once = entry
            if matches(request):
                if once:
                    self._rules.remove(entry)
                return await rule(request, send)
        return await send(request.raw)

    async def _ask_and_note(self, raw: bytes, request: Request) -> bytes:
        answer, status = await self._ask_server(raw, request.method)
        digest = hashlib.sha256(request.body).hexdigest()
        self.passed.append(Passed(request.method, request.path, status, digest, time.time()))
        return answer

    async def _ask_server(self, raw: bytes, method: str) -> tuple[bytes, int]:
        try:
            reader, writer = await asyncio.open_connection(HOST, self.target_port)
        except OSError as error:
            raise CutError from error
        try:
            writer.write(raw)
            answer, status = await _read_answer(reader, method)
        except (OSError, h11.ProtocolError, asyncio.IncompleteReadError) as error:
            raise CutError from error
        else:
            return answer, status
        finally:
            writer.close()


async def send_part(port: int, raw: bytes, part: float) -> None:
    """Send the first part of a request to a server, and break the connection."""
    _, writer = await asyncio.open_connection(HOST, port)
    writer.write(raw[: int(len(raw) * part)])
    await writer.drain()
    writer.transport.abort()


def answer(status: int, reason: str, body: bytes = b"{}", **headers: str) -> bytes:
    """An HTTP answer, as bytes."""
    lines = [f"HTTP/1.1 {status} {reason}", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def _released(hold: Hold, reader: asyncio.StreamReader) -> bool:
    """Stop here; False when the client went away meanwhile, and took its command with it."""
    stopping = asyncio.create_task(hold.stop_here())
    gone = asyncio.create_task(_until_closed(reader))
    try:
        await asyncio.wait({stopping, gone}, return_when=asyncio.FIRST_COMPLETED)
        return not gone.done()
    finally:
        for task in (stopping, gone):
            task.cancel()
        await asyncio.gather(stopping, gone, return_exceptions=True)


async def _until_closed(reader: asyncio.StreamReader) -> None:
    """Return when the client has closed; it sends nothing while it waits for an answer."""
    while not reader.at_eof():  # noqa: ASYNC110 - a read would take bytes of the next request
        await asyncio.sleep(0.01)


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    framing = h11.Connection(h11.SERVER)
    raw, body = bytearray(), bytearray()
    head: h11.Request | None = None
    while True:
        event = framing.next_event()
        if event is h11.NEED_DATA:
            data = await reader.read(READ_BYTES)
            if not data:
                return None
            raw += data
            framing.receive_data(data)
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            assert head is not None
            return Request(head.method.decode(), head.target.decode(), bytes(raw), bytes(body))
        else:
            return None


async def _read_answer(reader: asyncio.StreamReader, method: str) -> tuple[bytes, int]:
    framing = h11.Connection(h11.CLIENT)
    framing.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
    framing.send(h11.EndOfMessage())
    raw, status = bytearray(), 0
    while True:
        event = framing.next_event()
        if event is h11.NEED_DATA:
            data = await reader.read(READ_BYTES)
            raw += data
            framing.receive_data(data)
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.EndOfMessage):
            return bytes(raw), status
        elif isinstance(event, h11.ConnectionClosed):
            raise asyncio.IncompleteReadError(bytes(raw), None)
