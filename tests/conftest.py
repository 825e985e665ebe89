"""Fixtures on real servers: Valkey and MinIO's API from `worker.demo.stack`, Node's BullMQ.

One stack serves the whole session; every test has a queue, job ids and an API of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import bullmq
import httpx
import pytest

from models_sync.access import reader_policy
from models_sync.settings import VolumeSettings
from tests.consuming import Doer, settings_of
from tests.fakes.api import FakeApi, serve_api
from tests.producer import Producer
from tests.seaweed import (
    MODELS_BUCKET,
    MODELS_READER,
    VERSIONED_BUCKET,
    VERSIONED_READER,
    SeaweedFS,
)
from worker.demo.stack import EmbeddedStack
from worker.lifecycle import Worker
from worker.settings import QueueSettings, Settings

ROOT = Path(__file__).resolve().parents[1]
FAKE_ENGINE = (sys.executable, str(ROOT / "tests" / "fakes" / "engine.py"))
NODE_FLAVOURS = ("bullmq5min", "bullmq5", "bullmq6")
_numbers = itertools.count()


@pytest.fixture(scope="session")
def stack() -> Iterator[EmbeddedStack]:
    with EmbeddedStack() as running:
        yield running


@pytest.fixture(scope="session")
def seaweed() -> Iterator[SeaweedFS]:
    """The other S3 server, with the read-only user of docs/howto/models.md on two buckets."""
    readers = {MODELS_READER: MODELS_BUCKET, VERSIONED_READER: VERSIONED_BUCKET}
    users = {user: reader_policy(VolumeSettings(), bucket) for user, bucket in readers.items()}
    with SeaweedFS(users) as running:
        yield running


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    async with serve_api() as running:
        yield running


@pytest.fixture
def queue() -> str:
    """A queue of this test's own, with a character that base64 and keys must survive."""
    return f"avatar_build-{os.getpid()}-{next(_numbers)}"


@pytest.fixture
def environment(stack: EmbeddedStack, api: FakeApi, queue: str) -> dict[str, str]:
    """The contract's variables for a worker on the stack."""
    return stack.worker_environment() | {
        "API_BASE_URL": api.url,
        "AVATAR_QUEUE": queue,
        "WORKER_PORT": "0",
    }


@pytest.fixture
async def producer(stack: EmbeddedStack, queue: str, api: FakeApi) -> AsyncIterator[Producer]:
    """Uploads photos and adds jobs, as the API does."""
    async with Producer(stack, queue, api) as running:
        yield running


# ---------------------------------------------------------------- the consumer alone
@pytest.fixture
def settings(stack: EmbeddedStack, queue: str) -> QueueSettings:
    """A consumer's settings for this test's queue."""
    return settings_of(stack, queue)


@pytest.fixture
def doer() -> Doer:
    """A handler that does what the job's data tells it."""
    return Doer()


@pytest.fixture
async def jobs(stack: EmbeddedStack, queue: str) -> AsyncIterator[bullmq.Queue]:
    """The producer's side of this test's queue."""
    producer = bullmq.Queue(queue, {"connection": stack.redis_url})
    yield producer
    await producer.close()


# ---------------------------------------------------------------- the worker
StartWorker = Callable[..., contextlib.AbstractAsyncContextManager[Worker]]


@pytest.fixture
def start_worker(environment: dict[str, str]) -> StartWorker:
    """`async with start_worker(NAME=value)`: a worker in this process, on the fake engine."""

    @contextlib.asynccontextmanager
    async def start(**variables: str) -> AsyncIterator[Worker]:
        settings = Settings.load(environment | variables)
        worker = Worker(settings, engine_command=FAKE_ENGINE)
        running = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            if not worker._stop.is_set():
                worker.stop()
            await running

    return start


async def until_ready(worker: Worker, timeout_s: float = 10.0) -> None:
    """Poll /ready as an orchestrator does."""
    async with asyncio.timeout(timeout_s), httpx.AsyncClient() as client:
        while True:
            with contextlib.suppress(httpx.TransportError):
                if (await client.get(f"http://127.0.0.1:{worker.http.port}/ready")).is_success:
                    return
            await asyncio.sleep(0.02)


class NodeClient:
    """Node's BullMQ in a process of its own."""

    def __init__(self, flavour: str, stack: EmbeddedStack) -> None:
        self.flavour = flavour
        self._process = subprocess.Popen(
            ["node", "client.mjs", flavour, stack.redis_url, "bull"],
            cwd=ROOT / "tests" / "node",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._answers: dict[int, dict[str, Any]] = {}
        self._numbers = itertools.count()

    async def __call__(self, operation: str, queue: str, **args: Any) -> Any:
        return await asyncio.to_thread(self._ask, operation, queue, args)

    def _ask(self, operation: str, queue: str, args: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        number = next(self._numbers)
        request = {"number": number, "operation": operation, "queue": queue, **args}
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        while number not in self._answers:
            line = self._process.stdout.readline()
            assert line, f"the Node client ended: {self._process.wait()}"
            answer = json.loads(line)
            self._answers[answer["number"]] = answer
        answer = self._answers.pop(number)
        assert "error" not in answer, answer["error"]
        return answer["value"]

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@pytest.fixture(scope="session", params=NODE_FLAVOURS)
def node(request: pytest.FixtureRequest, stack: EmbeddedStack) -> Iterator[NodeClient]:
    if shutil.which("node") is None or not (ROOT / "tests" / "node" / "node_modules").is_dir():
        pytest.fail(
            "The Node clients are not installed: `make test` does it (cd tests/node && npm ci)"
        )
    client = NodeClient(request.param, stack)
    yield client
    client.close()
