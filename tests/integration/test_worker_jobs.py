"""One job's life on real Valkey, real storage and a real HTTP API; only the engine is a fake."""

from __future__ import annotations

import json

from tests.conftest import StartWorker, until_ready
from tests.fakes.api import FakeApi
from tests.producer import Producer


async def test_a_job_becomes_an_avatar_a_marker_and_one_report(
    start_worker: StartWorker, producer: Producer, api: FakeApi
) -> None:
    payload = producer.payload("ok")
    job_id = payload["jobId"]
    async with start_worker() as worker:
        await until_ready(worker)
        job = await producer.settled(await producer.add(payload))
    assert await job.getState() == "completed", job.failedReason
    assert set(producer.objects(job_id)) == {"avatar.glb", "measurements.json", "result.json"}
    marker = json.loads(producer.read(job_id, "result.json"))
    assert {file["name"] for file in marker["files"]} == {"avatar.glb", "measurements.json"}
    assert api.statuses(job_id)[-1] == "completed"
    assert api.statuses(job_id).count("completed") == 1
    assert api.jobs[job_id]["avatar"]["measurements"] == {"chestCm": 100.0, "heightCm": 178.0}
    assert job.returnvalue["glbUrl"] == api.jobs[job_id]["avatar"]["glbUrl"]
