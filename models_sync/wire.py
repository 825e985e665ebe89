"""One connection that brings ranges of objects, straight into memory that is ours.

minio-py signs the URL; the request itself does not go through it, because its own way costs a
multiple of the processor for a small file and gives bytes that have to be copied, while this reads
into the buffer that is hashed and written (docs/decisions/0013, 0016).
Repeating, and every decision, is left to the lane.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from urllib.parse import SplitResult

from models_sync.answers import name_body, refuse_other_range
from models_sync.endpoint import CONNECT_S, Endpoint, authorities
from models_sync.errors import (
    AnswerStrange,
    BucketUnreachable,
    CertificateUntrusted,
    HostUnknown,
    ObjectDamaged,
    TransferCut,
    TransferStalled,
)
from models_sync.http1 import Answer, Caller
from models_sync.remote import RemoteObject

MAX_REFUSAL_BYTES = 64 << 10
_USUAL_PORT = {"http": 80, "https": 443}
AHEAD_BYTES = 2 << 20
"""How far a server may be ahead of us on one connection.  What the kernel has taken and we have
not read is lost when we are killed: where it may take 32 MiB, eight connections lost 10 % of 2 GiB
(docs/decisions/0013).  2 MiB are 60 MB/s a connection at 35 ms of round trip."""


@dataclass(slots=True)
class Range:
    """An answer that has begun, of the object that has `etag`."""

    etag: str
    readinto: Callable[[memoryview], int]
    """Fill a buffer with the next bytes and say how many; fewer only at the end."""


class Wire:
    """A connection of one thread, kept open from range to range.  Others may only `shut` it."""

    def __init__(self, endpoint: Endpoint, stall_s: float) -> None:
        self._endpoint, self._stall_s = endpoint, stall_s
        self._socket: socket.socket | None = None
        self._caller: Caller | None = None

    @contextmanager
    def open_range(
        self, remote: RemoteObject, offset: int, size: int, etag: str | None
    ) -> Iterator[Range]:
        """Ask for `size` bytes (at least one) from `offset`, of the version with `etag` if given.

        Raises:
            ObjectReplaced: it is another version by now, or of another size.
            ObjectMissing: it is gone.
            BucketRefused: the key is wrong, has expired or may not read it.
            BucketUnreachable: no answer.
            AnswerStrange: an answer that is not to what was asked.
        """
        about = f"{self._endpoint.where}: {remote.key}: "
        headers = {"Range": f"bytes={offset}-{offset + size - 1}"}
        if etag:
            if not (
                etag.isascii() and etag.isprintable()
            ):  # it could end its line and begin another
                raise AnswerStrange(f"{about}no server has an ETag like {etag!r}")
            headers["If-Match"] = f'"{etag}"'
        with self._ask(about, self._endpoint.sign(remote), headers) as answer:
            span = answer.getheader("Content-Range")
            refuse_other_range(
                about, answer.status, span, offset=offset, size=size, whole=remote.size
            )
            yield Range((answer.getheader("ETag") or "").strip('"'), answer.readinto)

    def read_small(self, key: str, max_bytes: int) -> bytes:
        """Read an object whole; the clock and the key of who asks are judged at once.

        Raises:
            ObjectDamaged: it is larger than `max_bytes`.
            ObjectMissing, BucketRefused, BucketUnreachable, AnswerStrange: as `open_range`.
        """
        about = f"{self._endpoint.where}: {key}: "
        url, headers = self._endpoint.authorize(key)
        with self._ask(about, url, headers) as answer:
            if answer.status != HTTPStatus.OK:
                raise AnswerStrange(f"{about}asked for all of it, the answer is {answer.status}")
            data = answer.read(max_bytes + 1)
            if len(data) > max_bytes:
                raise ObjectDamaged(f"{about}it is larger than {max_bytes:,} bytes")
            # Half a manifest would be called damaged, half a signature untrusted.
            if answer.left:
                raise TransferCut(f"{about}the answer ended {answer.left:,} bytes early")
        return data

    @contextmanager
    def _ask(self, about: str, url: SplitResult, headers: dict[str, str]) -> Iterator[Answer]:
        """Send a request and give its answer, unless that is an error."""
        answer: Answer | None = None
        try:
            if self._caller is None:
                self._caller = Caller(self._connect(url, about))
            answer = self._caller.get(url, headers)
            if answer.status >= HTTPStatus.MULTIPLE_CHOICES:
                raise name_body(about, answer.status, answer.read(MAX_REFUSAL_BYTES))
            yield answer
        except TimeoutError as error:
            raise TransferStalled(f"{about}nothing came for {self._stall_s:g} s") from error
        except OSError as error:
            raise TransferCut(f"{about}{str(error) or type(error).__name__}") from error
        finally:
            if answer is None or answer.will_close or not answer.isclosed():
                self.close()  # bytes may be under way: it is of no use any more

    def shut(self) -> None:
        """Make whatever waits on it fail, from another thread."""
        if (waiting := self._socket) is not None:
            try:
                # Past TLS, which would otherwise go on in clear text.
                socket.socket.shutdown(waiting, socket.SHUT_RD)
            except OSError:
                return  # closed already

    def close(self) -> None:
        """End the connection; the next range opens another."""
        caller, self._caller, self._socket = self._caller, None, None
        if caller is not None:
            caller.close()

    def _connect(self, url: SplitResult, about: str) -> socket.socket:
        """A new connection: 5 s to connect, `stall_s` without a byte."""
        host, port = url.hostname or "", url.port or _USUAL_PORT[url.scheme]
        try:
            new = socket.create_connection((host, port), CONNECT_S)
            new.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if url.scheme == "https":
                new = _with_tls(new, host, about)
        except socket.gaierror as error:
            raise HostUnknown(f"{about}{host}: {error.strerror}") from error
        except OSError as error:
            raise BucketUnreachable(f"{about}{error}") from error
        new.settimeout(self._stall_s)
        if _may_bound_what_is_ahead():
            new.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, AHEAD_BYTES)
        self._socket = new
        return new


def _with_tls(connected: socket.socket, host: str, about: str) -> socket.socket:
    import ssl  # noqa: PLC0415 - only who speaks TLS needs it

    try:
        return authorities().wrap_socket(connected, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        raise CertificateUntrusted(f"{about}{error.verify_message}") from error


@cache
def _may_bound_what_is_ahead() -> bool:
    """Whether this system grants AHEAD_BYTES.

    Where net.core.rmem_max is as small as Linux' own default, asking would hold a connection to
    200 KiB for good; but there the kernel takes no more than 6 MiB by itself.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, AHEAD_BYTES)
        return probe.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= AHEAD_BYTES
