"""The Node client that the API uses, on its oldest supported, latest 5.x and latest 6.x release.

Node enqueues, waits and watches as the API does; the whole worker takes the jobs.  What the queue
itself can do is in test_bullmq_features.py, with the consumer alone.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import NodeClient, StartWorker, until_ready
from tests.fakes.api import FakeApi
from tests.producer import Producer
from worker.consumer import retries


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "BACKOFF", {"type": "exponential", "delay": 20})


async def test_a_job_added_with_no_options_is_seen_from_node_from_end_to_end(
    node: NodeClient,
    start_worker: StartWorker,
    producer: Producer,
    queue: str,
    api: FakeApi,
) -> None:
    good, refused = producer.payload("ok"), producer.payload("no-person")
    async with start_worker() as worker:
        await node("open", queue)
        await until_ready(worker)
        job_id = await node("add", queue, data=good)
        waited = await node("wait", queue, id=job_id, ttlMs=15_000)
        workers = await node("workers", queue)
        refused_id = await node("add", queue, data=refused)
        refusal = await node("wait", queue, id=refused_id, ttlMs=15_000)

    result = api.jobs[good["jobId"]]["avatar"]
    expected = {name: value for name, value in result.items() if name != "id"}
    assert waited["returnvalue"] == expected
    job = await node("job", queue, id=job_id)
    assert (job["state"], job["attemptsMade"], job["progress"]) == ("completed", 1, 100)

    seen = await node("seen", queue, id=job_id)
    percents = [event["data"] for event in seen if event["event"] == "progress"]
    assert set(percents) >= {10, 20, 40, 60, 70, 85, 95, 100}
    assert percents == sorted(percents)
    assert [event["event"] for event in seen if event["event"] != "progress"] == [
        "waiting",
        "active",
        "completed",
    ]
    assert seen[-1]["event"] == "completed"

    # One worker, as Node names workers: one connection carries the name.
    assert len(workers) == 1, workers

    # An InputError: failed at once, code and advice in plain text.
    assert refusal["error"].startswith("NO_PERSON: Please stand in front")
    job = await node("job", queue, id=refused_id)
    assert (job["state"], job["attemptsMade"]) == ("failed", 1)
    assert job["failedReason"] == refusal["error"]


@pytest.mark.parametrize(
    ("options", "attempts"),
    [(None, 3), ({"attempts": 2, "backoff": {"type": "fixed", "delay": 10}}, 2)],
    ids=["none: MAX_RETRIES", "two"],
)
async def test_attempts_are_counted_as_node_counts_them(
    node: NodeClient,
    start_worker: StartWorker,
    producer: Producer,
    options: dict[str, Any] | None,
    attempts: int,
) -> None:
    queue = producer.name
    async with start_worker() as worker:
        await node("open", queue)
        await until_ready(worker)
        job_id = await node("add", queue, data=producer.payload("oom"), opts=options)
        waited = await node("wait", queue, id=job_id, ttlMs=15_000)
    assert waited["error"].startswith("OUT_OF_MEMORY: ")
    job = await node("job", queue, id=job_id)
    assert (job["state"], job["attemptsMade"]) == ("failed", attempts)
    seen = [event["event"] for event in await node("seen", queue, id=job_id)]
    assert seen.count("active") == attempts
    assert seen.count("failed") == 1
    assert seen.count("delayed") == attempts - 1
