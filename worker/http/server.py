"""`/health` and `/ready`, served from the worker's own event loop.

That they share the loop is the point: a loop that does not turn answers nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any, Protocol

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from worker.errors import SettingsError


class Health(Protocol):
    """What the endpoints ask of the worker."""

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Whether the process should go on living, and why."""

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Whether the worker takes jobs, and if not, why not."""


class HttpServer:
    """The worker's small HTTP server.

    Args:
        health: what it tells of.
        port: where it listens, on all interfaces; 0 takes a free one.
    """

    def __init__(self, health: Health, port: int) -> None:
        self._port = port
        routes = [
            Route("/health", _endpoint(health.health)),
            Route("/ready", _endpoint(health.readiness)),
        ]
        config = uvicorn.Config(
            Starlette(routes=routes), log_config=None, access_log=False, lifespan="off"
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
            await asyncio.wait_for(self._task, 1.0)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the worker has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


def _endpoint(ask: Any) -> Any:
    async def answer(_request: Request) -> Response:
        good, facts = ask()
        return JSONResponse(facts, status_code=200 if good else 503)

    return answer
