"""Who may see the worker's pages."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from worker.http.server import HttpServer

TOKEN = "a token with ümläute: and colons"
BASIC = base64.b64encode(f"anyone:{TOKEN}".encode()).decode()


class Told:
    def health(self) -> tuple[bool, dict[str, Any]]:
        return True, {"status": "ok"}

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        return False, {"state": "STARTING"}

    def ping(self) -> dict[str, Any]:
        return {"status": "ok"}

    def status(self) -> dict[str, Any]:
        return {"state": "STARTING"}

    def metrics(self) -> bytes:
        return b"up 1\n"


@contextlib.asynccontextmanager
async def served(token: str | None) -> AsyncIterator[httpx.AsyncClient]:
    server = HttpServer(Told(), 0, token=SecretStr(token) if token else None)
    server.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
            yield client
    finally:
        await server.stop()


@pytest.mark.parametrize("path", ["/", "/v1/ping", "/v1/status", "/metrics", "/nothing"])
@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer wrong", "Basic !", "Basic bm9jb2xvbg==", f"Digest {BASIC}"],
)
async def test_with_a_token_everything_else_needs_it(path: str, authorization: str) -> None:
    async with served(TOKEN) as client:
        answer = await client.get(path, headers={"authorization": authorization})
        assert answer.status_code == 401
        assert "WORKER_TOKEN" in answer.text
        assert answer.headers["www-authenticate"].startswith("Basic ")
        assert (await client.get("/health")).json() == {"status": "ok"}
        assert (await client.get("/ready")).status_code == 503


@pytest.mark.parametrize("given", [f"Bearer {TOKEN}", f"Basic {BASIC}", f"basic {BASIC}"])
async def test_whoever_has_the_token_sees_all(given: str) -> None:
    async with served(TOKEN) as client:
        headers = {"authorization": given.encode()}
        assert (await client.get("/v1/ping", headers=headers)).json() == {"status": "ok"}
        assert "up 1" in (await client.get("/metrics", headers=headers)).text
        page = await client.get("/", headers=headers)
        assert "avatar-worker" in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]


async def test_without_a_token_this_machine_sees_all() -> None:
    async with served(None) as client:
        assert (await client.get("/v1/status")).is_success


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", ""])
async def test_a_page_that_was_rebound_to_this_machine_sees_nothing(host: str) -> None:
    async with served(None) as client:
        answer = await client.get("/v1/status", headers={"host": host})
        assert answer.status_code == 403
        assert "WORKER_TOKEN" in answer.json()["advice"]


async def test_a_neighbour_sees_only_health_and_readiness_without_a_token() -> None:
    async with served(None) as client:
        app = httpx.ASGITransport(_app_of(client), client=("10.0.0.7", 5))
        async with httpx.AsyncClient(transport=app, base_url="http://127.0.0.1") as neighbour:
            assert (await neighbour.get("/v1/ping")).status_code == 403
            forged = {"x-forwarded-for": "127.0.0.1"}
            assert (await neighbour.get("/", headers=forged)).status_code == 403
            assert (await neighbour.get("/health")).is_success


def _app_of(_client: httpx.AsyncClient) -> Any:
    return HttpServer(Told(), 0)._server.config.app


async def test_the_server_stops_at_once() -> None:
    server = HttpServer(Told(), 0)
    server.start()
    async with asyncio.timeout(3):
        await server.stop()
