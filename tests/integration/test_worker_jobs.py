"""One job's life on real Valkey, real storage and a real HTTP API; only the engine is a fake.

One worker serves all tests of this module; each has jobs of its own.
"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from starlette.responses import JSONResponse, Response

from tests.conftest import FAKE_ENGINE, until_ready
from tests.fakes.api import FakeApi, serve_api
from tests.producer import Producer
from worker.consumer import retries
from worker.consumer.cancellation import request_cancel
from worker.consumer.connection import connect
from worker.consumer.keys import own_key
from worker.demo.stack import EmbeddedStack
from worker.errors import StorageUnavailable
from worker.lifecycle import Worker
from worker.reporter import outbox as outbox_module
from worker.reporter import reports as reports_module
from worker.settings import Settings

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api() -> AsyncIterator[FakeApi]:
    async with serve_api() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def producer(stack: EmbeddedStack, api: FakeApi) -> AsyncIterator[Producer]:
    async with Producer(stack, "avatar_build-jobs", api) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def worker(stack: EmbeddedStack, api: FakeApi, producer: Producer) -> AsyncIterator[Worker]:
    variables = {"API_BASE_URL": api.url, "AVATAR_QUEUE": producer.name, "WORKER_PORT": "0"}
    settings = Settings.load(stack.worker_environment() | variables)
    with pytest.MonkeyPatch.context() as patch:
        # Retries in milliseconds; what they do is the same.
        patch.setattr(retries, "BACKOFF", {"type": "exponential", "delay": 20})
        patch.setattr(outbox_module, "_backoff", lambda _state: 0.02)
        running = Worker(settings, engine_command=FAKE_ENGINE)
        work = asyncio.create_task(running.run())
        await until_ready(running)
        yield running
        running.stop()
        await work


async def test_a_job_becomes_an_avatar_a_marker_and_one_report(
    producer: Producer, api: FakeApi, stack: EmbeddedStack
) -> None:
    payload = producer.payload("ok", userId="user-7")
    job_id = payload["jobId"]
    job = await producer.settled(await producer.add(payload))

    assert await job.getState() == "completed", job.failedReason
    assert set(producer.objects(job_id)) == {"avatar.glb", "measurements.json", "result.json"}
    marker = json.loads(producer.read(job_id, "result.json"))
    sizes = {file["name"]: file["size"] for file in marker["files"]}
    assert sizes | {"result.json": -1} == producer.objects(job_id) | {"result.json": -1}
    assert all(len(file["sha256"]) == 64 for file in marker["files"])

    result = api.jobs[job_id]["avatar"]
    assert result["glbUrl"] == f"{stack.s3_url}/{stack.bucket}/avatars/{job_id}/avatar.glb"
    assert result["measurements"] == {"chestCm": 100.0, "heightCm": 178.0}
    assert result["qualityReport"] == {"confidence": "high", "warnings": None}
    assert result["userId"] == "user-7"
    assert job.returnvalue == {name: value for name, value in result.items() if name != "id"}
    assert marker["result"] == job.returnvalue

    statuses = api.statuses(job_id)
    assert statuses[-1] == "completed"
    assert set(statuses[:-1]) == {"processing"}
    percents = api.percents(job_id)
    assert percents == sorted(percents)


@pytest.mark.parametrize("name", ["my photo #1?.jpg", "größe 100%.jpg", "a%2541+b&c=d.jpg", "x"])
async def test_file_names_can_hold_any_character(producer: Producer, name: str) -> None:
    payload = producer.payload("ok")
    payload["frontPhotoUrl"] = producer.upload(b"ok", name)
    payload["sidePhotoUrl"] = producer.upload(b"ok", "side-" + name)
    job = await producer.settled(await producer.add(payload))
    assert await job.getState() == "completed", job.failedReason


async def test_an_encoded_url_is_decoded_once_when_the_raw_key_is_not_there(
    producer: Producer,
) -> None:
    payload = producer.payload("ok")
    payload["frontPhotoUrl"] = producer.upload(b"ok", "my photo.jpg").replace(" ", "%20")
    job = await producer.settled(await producer.add(payload))
    assert await job.getState() == "completed", job.failedReason


BAD_PAYLOADS: list[tuple[dict[str, Any], str]] = [
    ({"heightCm": 20}, "PAYLOAD_INVALID: heightCm must be a number of centimetres"),
    ({"frontPhotoUrl": "https://elsewhere.example.com/b/uploads/a.jpg"}, "PHOTO_URL_FOREIGN: "),
    ({"frontPhotoUrl": "https://x.example.com/tryfitted/uploads/gone.jpg"}, "PHOTO_NOT_FOUND: "),
]


@pytest.mark.parametrize(("wrong", "reason"), BAD_PAYLOADS, ids=lambda value: str(value)[:40])
async def test_what_the_person_can_fix_fails_once_with_code_and_advice(
    producer: Producer,
    api: FakeApi,
    wrong: dict[str, Any],
    reason: str,
) -> None:
    payload = producer.payload("ok") | wrong
    job = await producer.settled(await producer.add(payload, attempts=3))
    assert await job.getState() == "failed"
    assert job.attemptsMade == 1
    assert job.failedReason.startswith(reason)
    known = api.jobs[payload["jobId"]]
    assert (known["status"], known["error"]) == ("failed", job.failedReason)
    assert producer.objects(payload["jobId"]) == {}


async def test_the_engines_refusal_reaches_queue_and_api(producer: Producer, api: FakeApi) -> None:
    payload = producer.payload("no-person")
    job = await producer.settled(await producer.add(payload))
    assert job.failedReason.startswith("NO_PERSON: Please stand in front")
    assert api.jobs[payload["jobId"]]["error"] == job.failedReason
    assert api.statuses(payload["jobId"]).count("failed") == 1


async def test_a_photo_over_the_limit_is_not_read(producer: Producer) -> None:
    payload = producer.payload("ok")
    payload["frontPhotoUrl"] = producer.upload(b"\0" * (25 * 1024 * 1024 + 1))
    job = await producer.settled(await producer.add(payload))
    assert job.failedReason.startswith("PHOTO_TOO_LARGE: ")


async def test_data_without_a_usable_id_fails_in_the_queue_alone(
    producer: Producer, api: FakeApi
) -> None:
    told = len(api.patches)
    job = await producer.settled(await producer.add({"jobId": "../x", "heightCm": 170}))
    assert job.failedReason.startswith("PAYLOAD_INVALID: jobId must be")
    assert len(api.patches) == told


@pytest.mark.parametrize(
    ("options", "attempts"),
    [({}, 3), ({"attempts": 1}, 1), ({"attempts": 2}, 2)],
    ids=["unset: MAX_RETRIES", "one", "two"],
)
async def test_other_errors_follow_attempts_or_max_retries(
    producer: Producer,
    api: FakeApi,
    options: dict[str, Any],
    attempts: int,
) -> None:
    payload = producer.payload("oom")
    job = await producer.settled(await producer.add(payload, **options))
    assert (await job.getState(), job.attemptsMade) == ("failed", attempts)
    assert job.failedReason.startswith("OUT_OF_MEMORY: ")
    assert api.statuses(payload["jobId"]).count("failed") == 1, "told before the last attempt"


@pytest.mark.parametrize("backoff", [{"type": "of the producer", "delay": 30}, 30])
async def test_a_backoff_that_only_the_producer_knows_does_not_strand_the_job(
    producer: Producer, backoff: object
) -> None:
    payload = producer.payload("oom")
    job = await producer.settled(await producer.add(payload, attempts=2, backoff=backoff))
    assert (await job.getState(), job.attemptsMade) == ("failed", 2)


async def test_what_libraries_print_disturbs_nothing(producer: Producer) -> None:
    job = await producer.settled(await producer.add(producer.payload("print")))
    assert await job.getState() == "completed", job.failedReason


# ---------------------------------------------------------------- once, whatever happens
async def test_a_second_delivery_only_reports(producer: Producer, api: FakeApi) -> None:
    payload = producer.payload("ok")
    first = await producer.settled(await producer.add(payload))
    glb = producer.read(payload["jobId"], "avatar.glb")
    second = await producer.settled(await producer.add(payload))
    assert second.returnvalue == first.returnvalue
    assert producer.read(payload["jobId"], "avatar.glb") == glb, "computed again"
    assert api.statuses(payload["jobId"]).count("completed") == 1


async def test_a_marker_whose_files_differ_is_not_believed(
    producer: Producer, stack: EmbeddedStack
) -> None:
    payload = producer.payload("ok")
    await producer.settled(await producer.add(payload))
    stack.minio(stack.worker).put_object(
        bucket_name=stack.bucket,
        object_name=f"avatars/{payload['jobId']}/avatar.glb",
        data=io.BytesIO(b"something else"),
        length=14,
    )
    again = await producer.settled(await producer.add(payload))
    assert await again.getState() == "completed", again.failedReason
    assert producer.read(payload["jobId"], "avatar.glb").startswith(b"glTF")


def _stored_but_500(api: FakeApi, job_id: str, body: dict[str, Any]) -> Response:
    api.store(job_id, body)
    return JSONResponse({"error": "timeout"}, 500)


def _avatar_only_but_500(api: FakeApi, job_id: str, body: dict[str, Any]) -> Response:
    api.store(job_id, body)
    api.jobs[job_id]["status"] = "processing"
    return JSONResponse({"error": "deadlock"}, 500)


def _down(_api: FakeApi, _job_id: str, _body: dict[str, Any]) -> Response:
    return JSONResponse({"error": "down"}, 503)


@pytest.mark.parametrize("fault", [_stored_but_500, _avatar_only_but_500, _down])
async def test_the_trap_a_completion_is_never_delivered_twice(
    producer: Producer, api: FakeApi, fault: Any
) -> None:
    payload = producer.payload("ok")
    api.faults.append(fault)
    job = await producer.settled(await producer.add(payload))
    assert (await job.getState(), job.attemptsMade) == ("completed", 1), job.failedReason
    known = api.jobs[payload["jobId"]]
    assert known["status"] == "completed"
    assert known["avatar"]["glbUrl"]
    sent = [body for job_id, body in api.patches if job_id == payload["jobId"]]
    accepted = [body for body in sent if body.get("result")]
    assert len(accepted) == (2 if fault is _down else 1)


async def test_an_api_that_is_down_does_not_hold_the_job(
    producer: Producer, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports_module, "DELIVERY_WAIT_S", 0.0)
    payload = producer.payload("ok")
    api.faults += [_down, _down]
    job = await producer.settled(await producer.add(payload))
    assert (await job.getState(), job.attemptsMade) == ("completed", 1), job.failedReason
    await api.until(lambda: api.jobs[payload["jobId"]]["status"] == "completed")
    assert "failed" not in api.statuses(payload["jobId"])


async def test_a_fresh_run_passes_the_marker_by(
    producer: Producer, api: FakeApi, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = producer.payload("random")
    await producer.settled(await producer.add(payload))
    first = producer.read(payload["jobId"], "avatar.glb")
    key = own_key("bull", producer.name, "fresh", payload["jobId"])
    await worker._redis.set(key, "1")
    await producer.settled(await producer.add(payload))
    second = producer.read(payload["jobId"], "avatar.glb")
    assert second != first
    assert not await worker._redis.exists(key)
    await producer.settled(await producer.add(payload))
    assert producer.read(payload["jobId"], "avatar.glb") == second


async def test_a_job_that_kills_the_engine_twice_is_given_up(
    producer: Producer, api: FakeApi
) -> None:
    payload = producer.payload("segfault")
    job = await producer.settled(await producer.add(payload, attempts=5))
    assert (await job.getState(), job.attemptsMade) == ("failed", 2)
    assert job.failedReason.startswith("JOB_KILLS_ENGINE: ")
    assert "SIGSEGV" in job.failedReason
    assert api.statuses(payload["jobId"])[-1] == "failed"


async def test_two_jobs_with_one_id_make_one_avatar_and_one_report(
    producer: Producer, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = producer.payload("ok")
    jobs = [await producer.add(payload) for _ in range(2)]
    for job in jobs:
        settled = await producer.settled(job)
        assert await settled.getState() == "completed", settled.failedReason
    sent = [body for job_id, body in api.patches if job_id == payload["jobId"]]
    assert [body["status"] for body in sent].count("completed") == 1


async def test_nothing_of_a_job_stays_in_the_work_folder(
    producer: Producer, stack: EmbeddedStack
) -> None:
    for behaviour in ("ok", "no-person"):
        payload = producer.payload(behaviour)
        await producer.settled(await producer.add(payload))
        found = stack.minio(stack.root).list_objects(
            bucket_name=stack.bucket, prefix=f"work/{payload['jobId']}", recursive=True
        )
        assert not list(found)


async def test_a_cancellation_that_comes_after_the_marker_comes_too_late(
    producer: Producer, api: FakeApi, stack: EmbeddedStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = producer.payload("ok")
    held = asyncio.Event()

    def hold(_api: FakeApi, _job_id: str, _body: dict[str, Any]) -> Response | None:
        held.set()
        return JSONResponse({"error": "down"}, 503)

    api.faults += [hold] * 3
    monkeypatch.setattr(reports_module, "DELIVERY_WAIT_S", 5.0)
    monkeypatch.setattr(outbox_module, "_backoff", lambda _state: 0.8)
    job = await producer.add(payload)
    await held.wait()
    client = connect(Settings.load(stack.worker_environment() | {"API_BASE_URL": api.url}).queue)
    await request_cancel(client, "bull", producer.name, payload["jobId"], "too late")
    await client.aclose()
    settled = await producer.settled(job)
    assert await settled.getState() == "completed", settled.failedReason
    await api.until(lambda: api.jobs[payload["jobId"]]["status"] == "completed")


async def test_a_completion_is_not_sent_again_to_an_api_that_has_it(
    producer: Producer, api: FakeApi, worker: Worker
) -> None:
    payload = producer.payload("random")
    await producer.settled(await producer.add(payload))
    await worker._redis.set(own_key("bull", producer.name, "fresh", payload["jobId"]), "1")
    await producer.settled(await producer.add(payload))
    sent = [body for job_id, body in api.patches if job_id == payload["jobId"]]
    assert len([body for body in sent if body.get("result")]) == 1


async def test_a_job_that_redis_could_not_lease_is_not_failed(
    producer: Producer, api: FakeApi, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    from worker.consumer import worker as consumer_module

    class NoRedis:
        async def set(self, *_: Any, **__: Any) -> None:
            raise ConnectionError("gone")

    monkeypatch.setattr(consumer_module, "HELD_DELAY_MS", 100)
    payload = producer.payload("ok")
    marks = worker.consumer._handle.__self__._marks  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.setattr(marks, "_client", NoRedis())
        job = await producer.add(payload, attempts=1)
        await producer.in_state(job, "delayed")
    settled = await producer.settled(job)
    assert (await settled.getState(), settled.attemptsMade) == ("completed", 1)


async def test_nothing_of_a_failed_job_stays_published(
    producer: Producer, api: FakeApi, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = worker.consumer._handle.__self__._outputs  # type: ignore[attr-defined]
    really = outputs._store

    async def all_but_the_marker(job_id: str, path: Any, check: Any) -> str:
        if path.name == "result.json":
            raise StorageUnavailable
        return str(await really(job_id, path, check))

    monkeypatch.setattr(outputs, "_store", all_but_the_marker)
    payload = producer.payload("ok")
    job = await producer.settled(await producer.add(payload, attempts=1))
    assert await job.getState() == "failed"
    assert producer.objects(payload["jobId"]) == {}
