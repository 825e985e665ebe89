"""What the worker says of itself while it works."""

import asyncio
import re

import httpx
import pytest

from tests.conftest import StartWorker, until_ready
from tests.fakes.api import FakeApi
from tests.producer import Producer
from worker.engine.limits import STAGE_SHARES


@pytest.fixture
def identity() -> dict[str, str]:
    return {
        "GIT_COMMIT": "0" * 40,
        "BUILD_TIME": "2026-11-21T00:00:00Z",
        "IMAGE_DIGEST": "sha256:1",
    }


async def test_ping_says_who_it_is_as_the_contract_has_it(
    start_worker: StartWorker, identity: dict[str, str]
) -> None:
    async with start_worker(**identity) as worker:
        await until_ready(worker)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{worker.http.port}") as client:
            told = (await client.get("/v1/ping")).json()
    assert told["identity"] == {
        "gitCommit": "0" * 40,
        "buildTime": "2026-11-21T00:00:00Z",
        "declaredImageDigest": "sha256:1",
        "imageDigestSource": "env",
    }
    assert (told["status"], told["gpu"], told["gpuName"], told["cuda"]) == ("ok", False, None, None)
    assert (told["activeJobs"], told["maxConcurrentJobs"]) == (0, 1)
    assert told["models"] == ["fake-model@0"]


async def test_the_status_page_follows_a_job_and_remembers_it(
    start_worker: StartWorker, producer: Producer, api: FakeApi
) -> None:
    async with start_worker() as worker:
        await until_ready(worker)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{worker.http.port}") as client:
            payload = producer.payload("slow")
            job = await producer.add(payload)
            await api.until(lambda: len(api.percents(payload["jobId"])) > 2)
            running = (await client.get("/v1/status")).json()["running"]
            assert [one["jobId"] for one in running] == [payload["jobId"]]
            assert 20 <= running[0]["percent"] <= 100
            engine, _, stage = running[0]["stage"].partition(".")
            assert (engine, stage in STAGE_SHARES) == ("engine", True)
            await producer.settled(job)
            await producer.settled(await producer.add(producer.payload("no-person")))
            async with asyncio.timeout(5):
                while worker.consumer.active_jobs:  # noqa: ASYNC110 - polled, as a page would
                    await asyncio.sleep(0.02)
            told = (await client.get("/v1/status")).json()
            metrics = (await client.get("/metrics")).text
    assert told["ready"]
    assert [(one["outcome"], one["code"]) for one in told["ended"]] == [
        ("failed", "NO_PERSON"),
        ("completed", None),
    ]
    assert 'avatar_job_attempts_total{code="NO_PERSON",outcome="failed"} 1.0' in metrics
    assert 'avatar_job_stage_duration_seconds_count{stage="engine.fit"} 1.0' in metrics
    assert "avatar_worker_ready 1.0" in metrics
    assert "avatar_reports_parked 0.0" in metrics
    assert re.search(r'avatar_engine_resident_bytes\{engine="0"\} [1-9]', metrics)
    assert payload["jobId"] not in metrics
