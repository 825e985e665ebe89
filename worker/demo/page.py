"""The web page: files of this package, served so that the browser fetches nothing from elsewhere.

The Content-Security-Policy is the proof of "nothing fetched at view time": scripts, styles and
fonts come from us alone, and the page may talk to us and to the storage that holds the photos.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from worker.errors import ToolMissing

HERE = Path(__file__).resolve().parent
STATIC = HERE / "static"
SAMPLE = HERE / "sample"


def page_routes(storage_url: str) -> list[BaseRoute]:
    """The page at `/`, its parts, and the sample person's photos.

    Args:
        storage_url: The S3 server that presigned links point to.

    Raises:
        ToolMissing: the page's libraries were not fetched.
    """
    if not (STATIC / "vendor" / "three").is_dir():
        raise ToolMissing(
            "The page's libraries are not there.",
            advice="Run `npm ci && npm run vendor` in worker/demo/web; `make demo` does it.",
        )
    html = (STATIC / "index.html").read_text(encoding="utf-8")
    headers = {
        "Content-Security-Policy": _security_policy(html, storage_url),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-cache",
    }

    async def page(request: Request) -> Response:  # noqa: ARG001  # a handler's form
        return HTMLResponse(html, headers=headers)

    routes: list[BaseRoute] = [
        Route("/", page),
        Mount("/static", _Revalidated(directory=STATIC)),
    ]
    if SAMPLE.is_dir():
        routes.append(Mount("/sample", _Revalidated(directory=SAMPLE)))
    return routes


class _Revalidated(StaticFiles):
    """Files that the browser asks about again, so that an upgrade is never half seen."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


def _security_policy(html: str, storage_url: str) -> str:
    """What the page may load.  The import map is inline, so it is allowed by its digest."""
    inline = re.findall(r"<script type=\"importmap\">(.*?)</script>", html, flags=re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in inline]
    allowed = {
        "default-src": "'none'",
        "script-src": " ".join(["'self'", *(f"'sha256-{digest}'" for digest in digests)]),
        "style-src": "'self'",
        "font-src": "'self'",
        "img-src": f"'self' blob: data: {storage_url}",
        "connect-src": f"'self' blob: {storage_url}",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in allowed.items())
