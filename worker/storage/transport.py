"""HTTP for minio-py that its caller can give up at any moment, and threads that nobody waits for.

minio-py blocks.  Its calls run in daemon threads, so that neither a cancelled job nor the end of
the process waits for a server that does not answer.  An abandoned call ends by itself: it starts
no further request, stops between two blocks of a body that it sends or receives, and every wait
for the server in it has a timeout.  A request whose body was sent whole cannot be taken back.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import io
import ssl
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

import certifi
import urllib3

CONNECT_TIMEOUT_S: Final = 5.0
"""For connecting, and for each block of a body that is sent: urllib3 sends under this timeout."""
READ_TIMEOUT_S: Final = 20.0
"""Longest silence of the server within an answer."""
CONNECTIONS: Final = 8

T = TypeVar("T")


class Abandoned(Exception):
    """The caller is gone, or its time is over.

    Neither an OSError nor an error of urllib3, which would take it for the server's.
    """


class Call:
    """One blocking call, as both its thread and its caller see it.

    Args:
        deadline_s: seconds after which its thread gives up by itself.
    """

    def __init__(self, deadline_s: float) -> None:
        self._until = time.monotonic() + deadline_s
        self._abandoned = threading.Event()

    def abandon(self) -> None:
        """Let it end as soon as it can, whatever it has done by then."""
        self._abandoned.set()

    def go_on(self) -> None:
        """Do nothing, if somebody still waits.

        Raises:
            Abandoned: nobody does.
        """
        if self._abandoned.is_set() or time.monotonic() > self._until:
            raise Abandoned


_current: contextvars.ContextVar[Call] = contextvars.ContextVar("storage_call")


async def in_thread(work: Callable[[], T], *, deadline_s: float) -> T:
    """Run a blocking call in a daemon thread; when the caller is cancelled, abandon it."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()
    call = Call(deadline_s)
    context = contextvars.copy_context()
    context.run(_current.set, call)

    def run() -> None:
        try:
            settle = partial(_settle, done, result=context.run(work))
        except BaseException as error:  # noqa: BLE001 - it is the caller's, whatever it is
            settle = partial(_settle, done, error=error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle)

    threading.Thread(target=run, name="storage", daemon=True).start()
    try:
        return await done
    finally:
        call.abandon()


def _settle(
    done: asyncio.Future[Any], *, result: object = None, error: BaseException | None = None
) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)


def go_on() -> None:
    """Ask, within a call's thread, whether somebody still waits for it.

    Raises:
        Abandoned: nobody does.
    """
    call = _current.get(None)
    if call is not None:
        call.go_on()


class Http(urllib3.PoolManager):
    """What minio-py sends its requests through: once each; trying again is the caller's choice."""

    def __init__(self) -> None:
        context = ssl.create_default_context()  # the system's authorities and SSL_CERT_FILE
        context.load_verify_locations(certifi.where())  # and Mozilla's, for images without any
        super().__init__(
            timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S),
            maxsize=CONNECTIONS,
            ssl_context=context,
            retries=urllib3.Retry(total=0, raise_on_status=False),
        )

    def urlopen(  # type: ignore[override]  # as PoolManager overrides its own base
        self, method: str, url: str, redirect: bool = True, **more: Any
    ) -> urllib3.BaseHTTPResponse:
        """Send a request, if somebody still waits for its answer."""
        go_on()
        body = more.get("body")
        if isinstance(body, bytes) and body:
            # In one piece it would have CONNECT_TIMEOUT_S for all of it, however slow the line.
            more["body"] = _Body(body)
        return super().urlopen(method, url, redirect, **more)


class _Body(io.BytesIO):
    """A body that is sent block by block, as long as somebody waits."""

    def read(self, size: int | None = -1, /) -> bytes:
        go_on()
        return super().read(size)
