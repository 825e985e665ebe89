"""Answers that are not plain, read by `http.client`: errors in chunks, heads in pieces, last words.

A module of its own because `http.client` brings `email` and `ssl` with it, 10 ms of processor,
and a pull may meet no such answer (docs/decisions/0024).
"""

from __future__ import annotations

import http.client
import io
import socket
from collections.abc import Iterator
from contextlib import contextmanager


class NoHttp(OSError):
    """What came is no HTTP, or less of it than was announced."""


class OtherAnswer:
    """An answer from its first byte, which `stream` may hold already.

    Raises:
        NoHttp: as all its methods.
        OSError: the connection, or its timeout.
    """

    def __init__(self, sock: socket.socket, stream: io.BufferedReader) -> None:
        self._answer = http.client.HTTPResponse(sock, method="GET")
        self._answer.fp.close()
        self._answer.fp = stream
        with _as_os_error():
            self._answer.begin()

    @property
    def status(self) -> int:
        """Of the answer: 404."""
        return self._answer.status

    @property
    def will_close(self) -> bool:
        """Whether nothing can be asked over this connection after it."""
        return self._answer.will_close

    @property
    def left(self) -> int:
        """Bytes that were announced and not read yet; 0 where no number was announced."""
        return self._answer.length or 0

    def getheader(self, name: str) -> str | None:
        """The value of a header."""
        return self._answer.getheader(name)

    def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer with the next bytes and say how many; fewer only at the end."""
        with _as_os_error():
            return self._answer.readinto(buffer)

    def read(self, size: int) -> bytes:
        """Give the next `size` bytes; fewer only at the end."""
        with _as_os_error():
            return self._answer.read(size)

    def isclosed(self) -> bool:
        """Whether everything has been read."""
        return self._answer.isclosed()


@contextmanager
def _as_os_error() -> Iterator[None]:
    try:
        yield
    except OSError:  # http.client.RemoteDisconnected is both
        raise
    except http.client.HTTPException as error:
        raise NoHttp(str(error) or type(error).__name__) from error
