"""A proxy between `models-sync` and a real S3 server that can be told how to fail.

Requests go through as they are, signature and Host included, so the server behind believes them.
Only answers with an object's bytes are counted and spoilt; listings and manifests pass.
"""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

CHUNK_BYTES = 64 << 10
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding"}
REFUSALS = {
    "SlowDown": 503,
    "ExpiredToken": 403,
    "AccessDenied": 403,
    "RequestTimeTooSkewed": 403,
    "InternalError": 500,
}


class Reply:
    """One answer with an object's bytes, on its way."""

    def __init__(
        self, proxy: FaultProxy, handler: BaseHTTPRequestHandler, upstream: http.client.HTTPResponse
    ) -> None:
        self.proxy, self._handler, self._upstream = proxy, handler, upstream
        self.size = int(upstream.headers["Content-Length"])
        self.total = upstream.headers["Content-Range"].rpartition("/")[2]

    def head(self, *, status: int | None = None, **headers: str) -> None:
        """Send status and headers, some of them replaced."""
        self._handler.send_response(status or self._upstream.status)
        replaced = {name.replace("_", "-").lower(): value for name, value in headers.items()}
        for name, value in self._upstream.getheaders():
            if name.lower() not in HOP_BY_HOP | replaced.keys():
                self._handler.send_header(name, value)
        for name, value in replaced.items():
            self._handler.send_header(name, value)
        self._handler.end_headers()

    def body(self, size: int | None = None, spoil: Callable[[bytes], bytes] | None = None) -> None:
        """Send so many bytes, or all, as the proxy's allowance lets them pass."""
        left = self.size if size is None else size
        while left and (chunk := self._upstream.read(min(CHUNK_BYTES, left))):
            self.proxy.pass_bytes(len(chunk))
            self._handler.wfile.write(spoil(chunk) if spoil else chunk)
            left -= len(chunk)

    def hang_up(self) -> None:
        """End the connection."""
        self._handler.close_connection = True

    def refuse(self, code: str) -> None:
        """Answer with an error in S3's words instead."""
        text = f"<Error><Code>{code}</Code><Message>told so by a test</Message></Error>".encode()
        self.answer(REFUSALS[code], "application/xml", text)

    def answer(self, status: int, kind: str, body: bytes) -> None:
        """Answer something else altogether."""
        self._upstream.read()
        self._handler.send_response(status)
        self._handler.send_header("Content-Type", kind)
        self._handler.send_header("Content-Length", str(len(body)))
        self._handler.end_headers()
        self._handler.wfile.write(body)


Fault = Callable[[Reply], None]


def nothing(reply: Reply) -> None:
    """No fault."""
    reply.head()
    reply.body()


class FaultProxy:
    """Between a client and `upstream` (host:port), in threads of this process.

    Attributes:
        fault: what happens to answers with objects' bytes; may be replaced at any time.
        asked: how many such answers there were.
        passed_bytes: how many bytes of objects went through.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.fault: Fault = nothing
        self.asked = self.passed_bytes = 0
        self.rewrite: Callable[[str, bytes], bytes] | None = None
        """Given path and body of any other answer, what to send instead."""
        self._allowed: float = float("inf")
        self._changed = threading.Condition()
        self._closed = False

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def allow(self, size: float) -> None:
        """Let so many more bytes of objects pass; then hold everything."""
        with self._changed:
            self._allowed = self.passed_bytes + size
            self._changed.notify_all()

    def heal(self) -> None:
        """No fault any more, and whatever was held goes on."""
        self.fault = nothing
        self.rewrite = None
        self.allow(float("inf"))

    def pass_bytes(self, size: int) -> None:
        """Wait until so many bytes may pass, and count them."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or self.passed_bytes + size <= self._allowed
            )
            if self._closed:
                raise ConnectionAbortedError
            self.passed_bytes += size
            self._changed.notify_all()

    def hold(self) -> None:
        """Wait until healed: nothing comes, the connection lives."""
        mine = self.fault
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self.fault is not mine)

    def wait_until_passed(self, size: int, timeout_s: float = 30) -> None:
        """Wait until so many bytes have gone through."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.passed_bytes >= size, timeout_s), (
                f"only {self.passed_bytes:,} bytes passed"
            )

    def __enter__(self) -> Self:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    proxy._handle(self)
                    return
                self.close_connection = True

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                """Clients that hang up are what this is for."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        connection = http.client.HTTPConnection(self.upstream, timeout=30)
        try:
            connection.putrequest("GET", handler.path, skip_host=True, skip_accept_encoding=True)
            for name, value in handler.headers.items():
                if name.lower() not in HOP_BY_HOP:
                    connection.putheader(name, value)
            connection.endheaders()
            upstream = connection.getresponse()
            if upstream.status == 206:
                with self._changed:
                    self.asked += 1
                self.fault(Reply(self, handler, upstream))
                return
            body = upstream.read()
            if self.rewrite:
                body = self.rewrite(urlsplit(handler.path).path, body)
            handler.send_response(upstream.status)
            for name, value in upstream.getheaders():
                if name.lower() not in {*HOP_BY_HOP, "content-length"}:
                    handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)
        finally:
            connection.close()


class Times:
    """`fault`, but only for some of the answers: the first `skip` pass, then `count` are spoilt."""

    def __init__(self, fault: Fault, *, skip: int = 0, count: float = float("inf")) -> None:
        self._fault, self._skip, self._count = fault, skip, count
        self._seen = 0
        self._lock = threading.Lock()

    def __call__(self, reply: Reply) -> None:
        with self._lock:
            self._seen += 1
            spoil = self._skip < self._seen <= self._skip + self._count
        (self._fault if spoil else nothing)(reply)


# -- faults ---------------------------------------------------------------------------------------
def damaged(reply: Reply) -> None:
    """One bit of each piece is flipped on the way."""
    reply.head()
    reply.body(spoil=lambda chunk: bytes([chunk[0] ^ 1]) + chunk[1:])


def cut(reply: Reply) -> None:
    """The connection ends after a third of the bytes."""
    reply.head()
    reply.body(reply.size // 3)
    reply.hang_up()


def reset(reply: Reply) -> None:
    """The connection ends before the answer."""
    reply.hang_up()


def stalled(reply: Reply) -> None:
    """A third of the bytes come, then nothing; the connection lives."""
    reply.head()
    reply.body(reply.size // 3)
    reply.proxy.hold()
    reply.hang_up()


def silent(reply: Reply) -> None:
    """Not even headers come."""
    reply.proxy.hold()
    reply.hang_up()


def trickling(reply: Reply) -> None:
    """A byte now and then: never silent for as long as a timeout, never done."""
    reply.head()
    mine = reply.proxy.fault
    while reply.proxy.fault is mine and not reply.proxy._closed:
        reply.body(1)
        with reply.proxy._changed:
            reply.proxy._changed.wait(0.1)
    reply.hang_up()


def whole_object(reply: Reply) -> None:
    """Something between ignores Range and answers 200."""
    reply.head(status=200)
    reply.body()


def other_range(reply: Reply) -> None:
    """The answer is of another range than was asked for."""
    reply.head(content_range=f"bytes 1-2/{reply.total}")
    reply.body()


def login_page(reply: Reply) -> None:
    """A captive portal answers."""
    reply.answer(200, "text/html", b"<h1>Please log in</h1>")


def bad_gateway(reply: Reply) -> None:
    """A load balancer has lost its server."""
    reply.answer(502, "text/html", b"<h1>Bad gateway</h1>")


def refused(code: str) -> Fault:
    """The server answers with this error."""
    return lambda reply: reply.refuse(code)
