"""`avatar-worker smoke` against running workers, good and bad."""

from __future__ import annotations

import asyncio
import functools
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.conftest import StartWorker, until_ready
from worker.cli import app
from worker.demo.api import ApiConfig, create_api
from worker.demo.serve import ApiServer
from worker.demo.servers import free_port
from worker.demo.stack import EmbeddedStack
from worker.demo.store import Store
from worker.doctor import Finding
from worker.lifecycle import Worker
from worker.smoke import Expected, canary, probe

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "the-token-of-the-worker"


ANYTHING = Expected()


async def ask(
    worker: Worker,
    expected: Expected = ANYTHING,
    *,
    token: str | None = TOKEN,
    wait_s: float = 0.0,
) -> dict[str, Finding]:
    while not worker.http.port:  # noqa: ASYNC110 - it listens before anything is awaited
        await asyncio.sleep(0)
    url = f"http://127.0.0.1:{worker.http.port}"
    found = await asyncio.to_thread(lambda: list(probe(url, token, expected, wait_s=wait_s)))
    return {finding.what: finding for finding in found}


async def test_the_right_worker_is_good(start_worker: StartWorker) -> None:
    digest = "sha256:" + "ab" * 32
    variables = {"GIT_COMMIT": COMMIT, "IMAGE_DIGEST": digest, "WORKER_TOKEN": TOKEN}
    async with start_worker(**variables) as worker:
        found = await ask(worker, Expected(COMMIT[:9], digest), wait_s=20)
    assert list(found) == ["/health", "/ready", "/v1/ping", "commit", "image digest"]
    assert [one for one in found.values() if not one.good] == []


async def test_another_commit_digest_or_no_gpu_is_bad_and_advised_on(
    start_worker: StartWorker,
) -> None:
    async with start_worker(GIT_COMMIT=COMMIT, WORKER_TOKEN=TOKEN) as worker:
        await until_ready(worker)
        found = await ask(worker, Expected("fedcba9876", "sha256:00", gpu=True))
        too_short = await ask(worker, Expected(COMMIT[:3]))
    for what in ("commit", "image digest", "GPU"):
        assert not found[what].good
        assert found[what].advice
    assert not too_short["commit"].good


async def test_a_wrong_token_is_told_from_a_dead_worker(start_worker: StartWorker) -> None:
    async with start_worker(WORKER_TOKEN=TOKEN) as worker:
        found = await ask(worker, token="another")
        assert not found["/v1/ping"].good
        assert "WORKER_TOKEN" in found["/v1/ping"].advice


async def test_why_it_is_not_ready_is_passed_on(start_worker: StartWorker) -> None:
    async with start_worker(REQUIRE_REAL_AVATAR="true", WORKER_TOKEN=TOKEN) as worker:
        while worker.trouble is None:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)
        found = await ask(worker)
    assert found["/health"].good
    assert "no licensed estimator" in found["/ready"].detail
    assert "REQUIRE_REAL_AVATAR" in found["/ready"].advice


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[str]:
    """Something that answers HTTP and is no worker, as RunPod's proxy is without its pod."""
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    handler = functools.partial(quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_what_is_no_worker_is_told_by_name(stranger: str) -> None:
    found = list(probe(stranger, None, Expected()))
    assert [one.good for one in found] == [False, False, False]
    assert "no worker" in found[0].detail


def test_the_command_ends_with_1_and_prints_one_object() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    ended = CliRunner().invoke(app, ["smoke", url, "--json"])
    assert ended.exit_code == 1
    printed = json.loads(ended.stdout)
    assert printed["good"] is False
    assert "does not answer" in printed["findings"][0]["detail"]


async def test_the_canary_goes_through_api_queue_worker_and_storage(
    stack: EmbeddedStack, queue: str, start_worker: StartWorker, tmp_path: Path
) -> None:
    store = Store(tmp_path / "api.sqlite")
    config = ApiConfig(
        redis_url=stack.redis_url,
        storage=stack.minio(stack.api),
        bucket=stack.bucket,
        public_base_url=stack.s3_url,
        queue=queue,
    )
    with ApiServer(create_api(config, store)) as api:
        async with start_worker(API_BASE_URL=api.url) as worker:
            await until_ready(worker)
            found = await asyncio.to_thread(canary, api.url, 20.0)
        assert found.good, found
        assert "avatar.glb" in found.detail
        # Nobody takes jobs any more.
        late = await asyncio.to_thread(canary, api.url, 0.3)
        assert not late.good
    gone = await asyncio.to_thread(canary, api.url, 1.0)
    assert not gone.good
    store.close()
