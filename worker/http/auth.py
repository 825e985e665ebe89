"""Who may see more than `/health` and `/ready`.

With WORKER_TOKEN: whoever sends it, as `Authorization: Bearer`, or as the password of Basic, which
is what a browser asks a person for.  Without a token: only this machine, by its loopback address
and name, so that neither a neighbour nor a web page that was rebound to it reads along.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
from typing import Final

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

OPEN: Final = frozenset({"/health", "/ready"})
"""Orchestrators ask these, and have no token."""
LOCAL_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Guard:
    """ASGI middleware that lets the allowed through.

    Args:
        app: what is guarded.
        token: WORKER_TOKEN.
    """

    def __init__(self, app: ASGIApp, token: SecretStr | None) -> None:
        self._app = app
        self._token = token.get_secret_value().encode() if token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401 or 403, or pass the request on."""
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        if scope["path"] in OPEN:
            return None
        headers = Headers(scope=scope)
        if self._token is None:
            if _is_local(scope, headers):
                return None
            return JSONResponse(
                {
                    "error": "Without WORKER_TOKEN this page is for the worker's own machine.",
                    "advice": "Set WORKER_TOKEN, start again, and send it as a Bearer token or as "
                    "the password that the browser asks for.",
                },
                status_code=403,
            )
        given = _credential(headers.get("authorization", ""))
        if given is not None and hmac.compare_digest(given, self._token):
            return None
        return JSONResponse(
            {"error": "WORKER_TOKEN is needed, as a Bearer token or as the password of Basic."},
            status_code=401,
            headers={"www-authenticate": 'Basic realm="avatar-worker", charset="UTF-8"'},
        )


def _credential(authorization: str) -> bytes | None:
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip().encode("latin-1")  # the bytes as they came
    if scheme.lower() == "basic":
        try:
            _, found, password = base64.b64decode(rest, validate=True).partition(b":")
        except binascii.Error:
            return None
        return password if found else None
    return None


def _is_local(scope: Scope, headers: Headers) -> bool:
    client = scope.get("client")
    try:
        near = client is not None and ipaddress.ip_address(client[0]).is_loopback
    except ValueError:
        near = False
    name = headers.get("host", "")
    name = name if name.endswith("]") else name.rsplit(":", 1)[0]
    return near and name in LOCAL_NAMES
