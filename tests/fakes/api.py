"""The API as far as the worker meets it, its trap included, and faults on request."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Answer = Response | None
Fault = Callable[["FakeApi", str, dict[str, Any]], Answer | Awaitable[Answer]]
"""Looks at a PATCH before it is stored; an answer is sent instead of storing it."""


def after_storing(answer: Response) -> Fault:
    """A fault: the report is stored, and the worker is told something else."""

    def fault(api: FakeApi, job_id: str, body: dict[str, Any]) -> Response:
        api.store(job_id, body)
        return answer

    return fault


def instead_of_storing(code: int, **headers: str) -> Fault:
    """A fault: the report is not stored, and answered with a status."""
    return lambda _api, _job_id, _body: JSONResponse({"error": "fault"}, code, headers)


@dataclass
class FakeApi:
    """As the contract says: avatar.create first, with a unique jobId, then the status."""

    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    patches: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    get_faults: list[Response] = field(default_factory=list)
    """Answers to the next GETs."""
    created: list[str] = field(default_factory=list)
    """Job ids, once for each `avatar.create` that succeeded."""
    refused_twice: list[str] = field(default_factory=list)
    """Job ids, once for each `avatar.create` that the unique job id refused."""
    url: str = ""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, job_id: str) -> None:
        self.jobs[job_id] = {"jobId": job_id, "status": "pending", "createdAt": "now"}

    async def until(self, holds: Callable[[], bool], timeout_s: float = 10.0) -> None:
        """Wait until `holds`, looked at after each request."""
        async with asyncio.timeout(timeout_s):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    def statuses(self, job_id: str) -> list[str]:
        return [body["status"] for patched, body in self.patches if patched == job_id]

    def percents(self, job_id: str) -> list[int | None]:
        return [body["progress"] for patched, body in self.patches if patched == job_id]

    def store(self, job_id: str, body: dict[str, Any]) -> Response:
        job = self.jobs[job_id]
        if body["status"] == "completed" and body.get("result"):
            if "avatar" in job:
                self.refused_twice.append(job_id)
                return JSONResponse({"error": "Unique constraint failed: jobId"}, 500)
            job["avatar"] = {"id": "a1", **body["result"]}
            self.created.append(job_id)
        job["status"] = body["status"]
        job["error"] = body.get("error")
        return JSONResponse({"success": True, "jobId": job_id})

    async def patch(self, request: Request) -> Response:
        job_id = request.path_params["id"]
        raw = await request.body()
        body = json.loads(raw)
        self.requests.append(("PATCH", request.url.path, dict(request.headers)))
        if job_id not in self.jobs:
            return JSONResponse({"error": "not found"}, 404)
        self.patches.append((job_id, body))
        try:
            if self.faults and body["status"] != "processing":
                answer = self.faults.pop(0)(self, job_id, body)
                if inspect.isawaitable(answer):
                    answer = await answer
                if answer is not None:
                    return answer
            return self.store(job_id, body)
        finally:
            self._changed.set()

    async def get(self, request: Request) -> Response:
        self.requests.append(("GET", request.url.path, dict(request.headers)))
        self._changed.set()
        if self.get_faults:
            return self.get_faults.pop(0)
        job = self.jobs.get(request.path_params["id"])
        return JSONResponse(job or {"error": "not found"}, 200 if job else 404)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def serve_api() -> AsyncIterator[FakeApi]:
    api = FakeApi()
    app = Starlette(
        routes=[
            Route("/v1/avatar/jobs/{id}/status", api.patch, methods=["PATCH"]),
            Route("/v1/avatar/jobs/{id}", api.get),
        ]
    )
    listener = socket.create_server(("127.0.0.1", 0))
    api.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = _Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield api
    finally:
        server.should_exit = server.force_exit = True
        await serving
