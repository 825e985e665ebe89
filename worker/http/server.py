"""The worker's own pages, served from its own event loop.

    /health     whether the process should live on
    /ready      whether it takes jobs, and if not, why not
    /v1/ping    which code and image this is, and on what it computes
    /v1/status  what the status page shows
    /metrics    Prometheus
    /           the status page

That they share the loop is the point: a loop that does not turn answers nothing.  Who may see
what is decided in `auth`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Protocol

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from worker.errors import SettingsError
from worker.http.auth import Guard

PAGE_HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
        "connect-src 'self'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


PAGE: Final = Path(__file__).with_name("page.html")


class Status(Protocol):
    """What the endpoints ask of the worker."""

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Whether the process should go on living, and why."""

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Whether the worker takes jobs, and if not, why not."""

    def ping(self) -> dict[str, Any]:
        """Say who this is, as the contract wants it."""

    def status(self) -> dict[str, Any]:
        """Say all that the status page shows."""

    def metrics(self) -> bytes:
        """Return the metrics in Prometheus' text format."""


class HttpServer:
    """The worker's small HTTP server.

    Args:
        told: what it tells of.
        port: where it listens, on all interfaces; 0 takes a free one.
        token: WORKER_TOKEN.
    """

    def __init__(self, told: Status, port: int, *, token: SecretStr | None = None) -> None:
        self._port = port
        page = PAGE.read_text(encoding="utf-8")

        async def metrics(_request: Request) -> Response:
            return Response(told.metrics(), media_type=CONTENT_TYPE_LATEST)

        async def show(_request: Request) -> Response:
            return HTMLResponse(page, headers=PAGE_HEADERS)

        routes = [
            Route("/health", _verdict(told.health)),
            Route("/ready", _verdict(told.readiness)),
            Route("/v1/ping", _facts(told.ping)),
            Route("/v1/status", _facts(told.status)),
            Route("/metrics", metrics),
            Route("/", show),
        ]
        config = uvicorn.Config(
            Guard(Starlette(routes=routes), token),
            log_config=None,
            access_log=False,
            lifespan="off",
            # X-Forwarded-For is anybody's word; `Guard` needs the true peer.
            proxy_headers=False,
        )
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None
        self.port = port

    def start(self) -> None:
        """Begin to answer.

        Raises:
            SettingsError: the port is taken.
        """
        try:
            listener = socket.create_server(("", self._port))
        except OSError as error:
            raise SettingsError(
                f"WORKER_PORT={self._port} cannot be listened on: {error.strerror}",
                advice="Choose another WORKER_PORT, or 0 for a free one.",
            ) from None
        self.port = listener.getsockname()[1]
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name="http")

    async def stop(self) -> None:
        """Stop answering."""
        if self._task is None:
            return
        self._server.should_exit = True
        self._server.force_exit = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._task


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the worker has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


def _verdict(ask: Callable[[], tuple[bool, dict[str, Any]]]) -> Any:
    async def answer(_request: Request) -> Response:
        good, facts = ask()
        return JSONResponse(facts, status_code=200 if good else 503)

    return answer


def _facts(ask: Callable[[], dict[str, Any]]) -> Any:
    async def answer(_request: Request) -> Response:
        return JSONResponse(ask(), headers={"cache-control": "no-store"})

    return answer
