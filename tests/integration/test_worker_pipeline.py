"""The worker with its real engine: photographs in, a measured avatar out, or the named refusal."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.conftest import until_ready
from tests.fakes.api import FakeApi
from tests.producer import Producer
from worker.lifecycle import Worker
from worker.settings import Settings

PHOTOS = Path(__file__).resolve().parents[2].parent / "shared" / "photos"


@pytest.mark.photos
@pytest.mark.skipif(not PHOTOS.is_dir(), reason="../shared/photos is not here")
async def test_a_photograph_becomes_a_published_avatar_and_another_a_refusal(
    environment: dict[str, str], producer: Producer, api: FakeApi
) -> None:
    man = producer.payload(heightCm=183)
    man["frontPhotoUrl"] = producer.upload((PHOTOS / "standing-man-3551487.jpg").read_bytes())
    cut = producer.payload(heightCm=165)
    cut["frontPhotoUrl"] = producer.upload((PHOTOS / "woman-feet-cut-off-2448525.jpg").read_bytes())
    worker = Worker(Settings.load(environment | {"WORKER_DEVICE": "cpu"}))
    running = asyncio.create_task(worker.run())
    try:
        await until_ready(worker, timeout_s=60)
        done = await producer.settled(await producer.add(man), timeout_s=60)
        refused = await producer.settled(await producer.add(cut), timeout_s=60)
    finally:
        worker.stop()
        await running

    assert await done.getState() == "completed", done.failedReason
    avatar = api.jobs[man["jobId"]]["avatar"]
    assert len(avatar["measurements"]) == 16
    assert avatar["measurements"]["heightCm"] == pytest.approx(183, abs=0.1)
    stored = producer.objects(man["jobId"])
    assert set(stored) >= {
        "avatar.glb",
        "measurements.json",
        "quality_report.json",
        "appearance.json",
        "result.json",
    }
    assert not {name for name in stored if name.startswith(("mask", "overlay"))}
    marker = json.loads(producer.read(man["jobId"], "result.json"))
    assert marker["sources"]
    assert producer.read(man["jobId"], "avatar.glb").startswith(b"glTF")
    assert {10, 20, 40, 60, 70, 85, 95} & set(api.percents(man["jobId"]))

    assert refused.failedReason.startswith("FEET_NOT_VISIBLE: ")
    assert api.jobs[cut["jobId"]]["error"] == refused.failedReason
