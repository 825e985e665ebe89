"""The worker as a process: starts, refuses, waits, stops, and what its exit codes say."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import FAKE_ENGINE, StartWorker, until_ready
from tests.fakes.api import FakeApi
from tests.producer import Producer
from worker import lifecycle
from worker.demo.servers import free_port
from worker.lifecycle import ExitCode

RUN = f"""
import asyncio, sys
from worker.lifecycle import run_worker
from worker.settings import Settings
sys.exit(asyncio.run(run_worker(Settings.load(), engine_command={FAKE_ENGINE!r})))
"""


class Process:
    """A worker in a process of its own, and its log."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port
        self.lines: list[dict[str, Any]] = []
        self._reading = asyncio.create_task(self._read())
        self._news = asyncio.Event()

    async def _read(self) -> None:
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            self.lines.append(json.loads(line))
            self._news.set()

    async def logged(self, event: str) -> dict[str, Any]:
        async with asyncio.timeout(20):
            while True:
                for line in self.lines:
                    if line["event"] == event:
                        return line
                self._news.clear()
                await self._news.wait()

    async def get(self, path: str) -> tuple[int, dict[str, Any]]:
        async with httpx.AsyncClient() as client:
            response = await client.get(f"http://127.0.0.1:{self.port}{path}")
            return response.status_code, response.json()

    def children(self) -> list[int]:
        """Processes that it started (Linux)."""
        pid = self.process.pid
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    async def until_ready(self) -> dict[str, Any]:
        """Ask as an orchestrator does, until it is."""
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(httpx.TransportError):
                    code, facts = await self.get("/ready")
                    if code == httpx.codes.OK:
                        return facts
                await asyncio.sleep(0.02)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        """Signal it; return its exit code and how many seconds it took to end."""
        began = time.monotonic()
        self.process.send_signal(number)
        code = await asyncio.wait_for(self.process.wait(), 20)
        seconds = time.monotonic() - began
        await self._reading
        return code, seconds


async def eventually(holds: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Look again and again at what tells of itself by no event."""
    async with asyncio.timeout(timeout_s):
        while not holds():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def worker_process(environment: dict[str, str], **variables: str) -> AsyncIterator[Process]:
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", RUN),
        env=dict(os.environ) | environment | {"WORKER_PORT": str(port)} | variables,
        stderr=asyncio.subprocess.PIPE,
    )
    running = Process(process, port)
    try:
        yield running
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await running._reading


async def test_sigterm_puts_the_running_job_back_without_burning_an_attempt(
    environment: dict[str, str], producer: Producer, api: FakeApi, start_worker: StartWorker
) -> None:
    payload = producer.payload("slow")
    async with worker_process(environment) as worker:
        await worker.logged("engine.ready")
        job = await producer.add(payload)
        waiting = await producer.add(producer.payload("ok"))
        await api.until(lambda: 20 in api.percents(payload["jobId"]))
        code, seconds = await worker.end()
    assert code == ExitCode.STOPPED
    assert seconds < 3, f"it took {seconds:.1f} s"
    assert worker.lines[-1]["event"] == "worker.stopped"
    jobs = [line for line in worker.lines if line["event"] == "job"]
    assert [line["outcome"] for line in jobs] == ["aborted"], jobs

    assert await job.getState() == "waiting"
    assert await producer.queue.client.lrange(f"bull:{producer.name}:wait", -1, -1) == [job.id]
    assert "failed" not in api.statuses(payload["jobId"])

    async with start_worker() as other:
        await until_ready(other)
        done = await producer.settled(job)
        await producer.settled(waiting)
    assert (await done.getState(), done.attemptsMade) == ("completed", 1), done.failedReason


async def test_draining_lets_the_running_job_finish_and_takes_no_other(
    environment: dict[str, str], producer: Producer, api: FakeApi
) -> None:
    payload = producer.payload("slow")
    async with worker_process(environment, WORKER_DRAIN_SECONDS="15") as worker:
        await worker.logged("engine.ready")
        job = await producer.add(payload)
        other = await producer.add(producer.payload("ok"))
        await api.until(lambda: 20 in api.percents(payload["jobId"]))
        code, _ = await worker.end()
    assert code == ExitCode.STOPPED
    assert await job.getState() == "completed"
    assert await other.getState() == "waiting"
    assert api.statuses(payload["jobId"])[-1] == "completed"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_idle_worker_stops_soon_and_leaves_no_process(
    environment: dict[str, str], number: signal.Signals
) -> None:
    async with worker_process(environment) as worker:
        await worker.logged("engine.ready")
        children = worker.children()
        code, seconds = await worker.end(number)
    assert code == ExitCode.STOPPED
    assert seconds < 3
    assert children
    for pid in children:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_the_engine_ends_with_a_worker_that_is_killed(environment: dict[str, str]) -> None:
    async with worker_process(environment) as worker:
        await worker.logged("engine.ready")
        (child,) = worker.children()
        await worker.end(signal.SIGKILL)
    await eventually(lambda: not Path(f"/proc/{child}/exe").exists())


async def test_health_and_ready_while_working(environment: dict[str, str]) -> None:
    async with worker_process(environment) as worker:
        await worker.logged("engine.ready")
        assert await worker.until_ready() == {
            "status": "ready",
            "state": "READY",
            "activeJobs": 0,
        }
        code, facts = await worker.get("/health")
    assert (code, facts["status"]) == (200, "ok")
    assert facts["secondsSinceRedisAnswered"] < 5


async def test_require_real_avatar_refuses_jobs_says_why_and_stays_up(
    environment: dict[str, str], producer: Producer
) -> None:
    variables = {"REQUIRE_REAL_AVATAR": "true", "WORKER_DEVICE": "cpu"}
    async with worker_process(environment, **variables) as worker:
        line = await worker.logged("worker.refuses_jobs")
        job = await producer.add(producer.payload("ok"))
        code, facts = await worker.get("/ready")
        assert (code, facts["state"]) == (503, "SETUP_FAILED")
        assert facts["code"] == "LICENSED_ESTIMATOR_MISSING"
        assert "no licensed estimator" in facts["reason"]
        assert "REQUIRE_REAL_AVATAR=false" in facts["advice"]
        assert (await worker.get("/health"))[0] == 200
        assert "no licensed estimator" in line["why"]
        assert await job.getState() == "waiting"
        assert (await worker.end())[0] == ExitCode.STOPPED
    assert await job.getState() == "waiting"


async def test_what_cannot_be_done_is_told_at_start_and_on_ready(
    environment: dict[str, str],
) -> None:
    async with worker_process(environment, PIXIE_USE_TEX="true") as worker:
        line = await worker.logged("worker.limitation")
        assert "PIXIE_USE_TEX" in line["text"]
        _, facts = await worker.get("/ready")
        assert "PIXIE_USE_TEX" in facts["warnings"][0]


async def test_missing_models_are_not_ready_and_no_job_is_taken(
    environment: dict[str, str], producer: Producer
) -> None:
    async with worker_process(environment, GLTFPACK_PATH="model-missing") as worker:
        await worker.logged("engine.state")
        job = await producer.add(producer.payload("ok"))
        code, facts = await worker.get("/ready")
        assert (code, facts["state"], facts["code"]) == (503, "SETUP_FAILED", "MODEL_MISSING")
        assert (await worker.get("/health"))[0] == 200
        await worker.end()
    assert await job.getState() == "waiting"


async def test_a_redis_that_comes_later_is_waited_for(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, start_worker: StartWorker
) -> None:
    """Refused at first; then something listens there that forwards to the real one."""
    monkeypatch.setattr(lifecycle, "QUEUE_RETRY_S", 0.05)
    real = environment["REDIS_URL"]
    real_port = int(real.rpartition(":")[2].partition("/")[0])
    port = free_port()
    async with start_worker(REDIS_URL=real.replace(f":{real_port}/", f":{port}/")) as worker:
        missing = f"Nothing listens at 127.0.0.1:{port}."
        await eventually(lambda: worker.told.readiness()[1].get("reason") == missing)

        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", real_port)

            async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
                with contextlib.suppress(ConnectionError):
                    while data := await source.read(65536):
                        sink.write(data)
                        await sink.drain()
                sink.close()

            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

        async with await asyncio.start_server(forward, "127.0.0.1", port):
            await until_ready(worker)
            worker.stop()
            await eventually(lambda: not worker.consumer.is_taking)


async def test_a_taken_port_is_a_named_error(environment: dict[str, str]) -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        async with worker_process(environment, WORKER_PORT=str(port)) as worker:
            line = await worker.logged("worker.wrong_settings")
            assert await asyncio.wait_for(worker.process.wait(), 10) == ExitCode.WRONG_SETTINGS
    assert f"WORKER_PORT={port}" in line["why"]


async def test_a_queue_loop_that_ends_ends_the_worker(
    environment: dict[str, str], start_worker: StartWorker
) -> None:
    async with start_worker() as worker:
        await until_ready(worker)
        assert worker.consumer._run is not None
        worker.consumer._run.cancel()
        await eventually(lambda: not worker.consumer.is_taking)
        assert not worker.told.readiness()[0]


async def test_no_secret_is_in_any_line(environment: dict[str, str]) -> None:
    variables = {"API_TOKEN": "the-api-token-value"}
    secret_values = [environment["MINIO_SECRET_KEY"], "the-api-token-value"]
    secret_values.append(environment["REDIS_URL"].partition("://:")[2].partition("@")[0])
    async with worker_process(environment, **variables) as worker:
        await worker.logged("engine.ready")
        await worker.end()
    text = json.dumps(worker.lines)
    for secret in secret_values:
        assert secret not in text
