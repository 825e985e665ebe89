"""GET over an open connection, and its answer: read quickly where it is plain.

For a file of 64 KiB `http.client` takes 0.2 ms of processor, a third of it to read a dozen headers
by the e-mail package; this takes 0.07 (docs/decisions/0016).  Plain is an answer of a known length
whose head comes in one piece, as nearly every one does.  Anything else (chunks, redirections, a
connection that is to end) is left to `http.client`, which then reads it from its first byte.
"""

from __future__ import annotations

import io
import re
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import SplitResult

if TYPE_CHECKING:
    from models_sync.http_other import OtherAnswer

_PLAIN_STATUS = re.compile(rb"HTTP/1\.1 (20[06]|[45]\d\d) ")
"""What was asked for, or a refusal; each has the body that its Content-Length says."""
_END_OF_HEAD = b"\r\n\r\n"
_OF_INTEREST = re.compile(
    rb"\r\n(content-length|content-range|etag|transfer-encoding|connection):([^\r\n]*)",
    re.IGNORECASE,
)
"""What is asked for, and what makes an answer other than plain; no other header is read."""
_NOT_PLAIN = {"transfer-encoding", "connection"}


class PlainAnswer:
    """An answer whose head has been read."""

    will_close = False

    def __init__(self, stream: io.BufferedReader, status: int, headers: Mapping[str, str]) -> None:
        self.status = status
        self._stream, self._headers = stream, headers
        self.left = int(headers["content-length"])
        """Bytes that were announced and not read yet."""

    def getheader(self, name: str) -> str | None:
        """The value of a header."""
        return self._headers.get(name.lower())

    def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer with the next bytes and say how many; fewer only at the end."""
        count = self._stream.readinto(buffer[: self.left])
        self.left -= count
        return count

    def read(self, size: int) -> bytes:
        """Give the next `size` bytes; fewer only at the end."""
        data = self._stream.read(min(size, self.left))
        self.left -= len(data)
        return data

    def isclosed(self) -> bool:
        """Whether everything has been read."""
        return self.left == 0


Answer: TypeAlias = "PlainAnswer | OtherAnswer"


class Caller:
    """Asks and is answered over one socket, one request after the other."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._stream = sock.makefile("rb")

    def get(self, url: SplitResult, headers: Mapping[str, str]) -> Answer:
        """Ask for `url`, quoted already, and read the head of the answer.

        Args:
            url: as minio-py signed it.
            headers: each of one line; nothing here makes sure of it.

        Raises:
            OSError: the connection, its timeout, or an answer that is no HTTP.
        """
        if self._stream.closed:  # by http.client, with the answer that it read
            self._stream = self._socket.makefile("rb")
        target = f"{url.path}?{url.query}" if url.query else url.path
        lines = [f"GET {target} HTTP/1.1", f"Host: {url.netloc}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += ["Accept-Encoding: identity", "", ""]
        self._socket.sendall("\r\n".join(lines).encode())
        if plain := _read_plain(self._stream):
            return plain
        from models_sync.http_other import OtherAnswer  # noqa: PLC0415 - see the module

        return OtherAnswer(self._socket, self._stream)

    def close(self) -> None:
        """End the connection."""
        self._stream.close()
        self._socket.close()


def _read_plain(stream: io.BufferedReader) -> PlainAnswer | None:
    """A plain answer, its head read; None, and nothing read, of another."""
    seen = stream.peek()
    end = seen.find(_END_OF_HEAD)
    status = _PLAIN_STATUS.match(seen)
    if end < 0 or status is None:
        return None
    found = _OF_INTEREST.findall(seen, 0, end)
    headers = {name.decode().lower(): value.decode("latin-1").strip(" \t") for name, value in found}
    if (
        len(headers) < len(found)  # one comes twice: whoever knows the rules decides
        or headers.keys() & _NOT_PLAIN
        or not headers.get("content-length", "").isdecimal()
    ):
        return None
    stream.read(end + len(_END_OF_HEAD))
    return PlainAnswer(stream, int(status[1]), headers)
