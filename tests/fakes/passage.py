"""A way to a real server that can be long, be wrapped in TLS, and be cut or go dead on the way."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import AsyncIterator


class Passage:
    """Passes bytes between a port of its own and a server on this machine.

    Args:
        target_port: the server's.
        delay_s: for how long every byte is under way, there and back.
    """

    def __init__(self, target_port: int, delay_s: float = 0.0) -> None:
        self.port = 0
        self._delay_s = delay_s
        self._target_port = target_port
        self._links: set[asyncio.Task[None]] = set()
        self._dead: set[asyncio.Task[None]] = set()
        self.refuses = False

    def go_dead(self) -> None:
        """Make today's connections half-open: bytes are swallowed and nobody is told.

        New connections work, as they do when a middlebox has forgotten the old ones.
        """
        self._dead |= self._links

    def cut(self) -> None:
        """Break today's connections."""
        for link in self._links:
            link.cancel()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        assert link is not None
        if self.refuses:
            writer.close()
            return
        self._links.add(link)
        try:
            await self._pass(link, reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._links.discard(link)
            self._dead.discard(link)
            writer.close()

    async def _pass(
        self, link: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)

        async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            under_way: deque[bytes] = deque()  # timers alone do not keep an order
            with contextlib.suppress(OSError):
                while data := await source.read(65_536):
                    if link in self._dead:
                        continue
                    if self._delay_s:
                        under_way.append(data)
                        asyncio.get_running_loop().call_later(
                            self._delay_s, lambda: target.write(under_way.popleft())
                        )
                    else:
                        target.write(data)
                        await target.drain()

        pumps = [
            asyncio.create_task(pump(reader, far_writer)),
            asyncio.create_task(pump(far_reader, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in pumps:
                one.cancel()
            far_writer.close()


@contextlib.asynccontextmanager
async def passage_to(
    port: int, tls: ssl.SSLContext | None = None, *, delay_s: float = 0.0
) -> AsyncIterator[Passage]:
    """Open a passage to `port`, which speaks TLS to those who come when a context is given."""
    passage = Passage(port, delay_s)
    server = await asyncio.start_server(passage.serve, "127.0.0.1", 0, ssl=tls)
    passage.port = server.sockets[0].getsockname()[1]
    try:
        yield passage
    finally:
        server.close()
        passage.cut()
        await asyncio.gather(*passage._links, return_exceptions=True)
