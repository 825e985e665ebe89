"""The reference API on a port, in a thread, for as long as a `with` block lasts."""

from __future__ import annotations

import socket
import threading
import time
from types import TracebackType
from typing import Self

import uvicorn
from starlette.types import ASGIApp

from worker.errors import ApiUnavailable

HOST = "127.0.0.1"
START_SECONDS = 10.0


class ApiServer:
    """An ASGI application served by uvicorn on the loopback.

    It runs in a thread of its own so that signals stay with the main thread, which ends
    everything in order.  The socket is bound here, so the port is known, and ours, at once.

    Args:
        app: The application.
        port: The port to use; a free one when not given.

    Raises:
        ApiUnavailable: the port is taken, or the application did not start.
    """

    def __init__(self, app: ASGIApp, port: int | None = None) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((HOST, port or 0))
        except OSError as error:
            self._socket.close()
            raise ApiUnavailable(
                f"Port {port} is taken.", advice="Choose another one, or 0 for a free one."
            ) from error
        self.port: int = self._socket.getsockname()[1]
        self._server = uvicorn.Server(
            uvicorn.Config(
                app, log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=2
            )
        )
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="api", daemon=True
        )

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{HOST}:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        deadline = time.monotonic() + START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                self._stop()
                raise ApiUnavailable("The API did not start.")
            time.sleep(0.01)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=10)
        self._socket.close()
