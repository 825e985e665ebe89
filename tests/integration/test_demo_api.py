"""The reference API on the real queue and storage: the contract's answers, traps included."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from bullmq import Queue
from starlette.routing import Route

from worker.demo.api import ApiConfig, create_api
from worker.demo.serve import ApiServer
from worker.demo.stack import EmbeddedStack
from worker.demo.store import Store
from worker.errors import ApiUnavailable

TOKEN = "token-of-the-tests"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PHOTO = "http://photos.example/tryfitted/uploads/x.jpg"
RESULT: dict[str, Any] = {
    "userId": "default-user",
    "glbUrl": "http://s3.example/tryfitted/avatars/j/avatar.glb",
    "measurements": {"chestCm": 98.2, "heightCm": 178.0},
    "qualityReport": {"confidence": "medium", "warnings": ["Loose clothes."]},
}


@pytest.fixture(scope="module")
def stack() -> Iterator[EmbeddedStack]:
    with EmbeddedStack() as running:
        yield running


@pytest.fixture(scope="module")
def api(stack: EmbeddedStack) -> Iterator[httpx.Client]:
    store = Store(stack.data_dir / "api.sqlite")
    config = ApiConfig(
        redis_url=stack.redis_url,
        storage=stack.minio(stack.api),
        bucket=stack.bucket,
        public_base_url=stack.s3_url,
        token=TOKEN,
    )
    with (
        ApiServer(create_api(config, store)) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        yield client
    store.close()


def create(api: httpx.Client, **more: object) -> str:
    answer = api.post("/v1/avatar/jobs", json={"frontPhotoUrl": PHOTO, "heightCm": 178, **more})
    assert answer.status_code == 201, answer.text
    job_id: str = answer.json()["jobId"]
    return job_id


def report(api: httpx.Client, job_id: str, **body: object) -> httpx.Response:
    return api.patch(f"/v1/avatar/jobs/{job_id}/status", json=body, headers=BEARER)


def test_a_photo_goes_up_by_presigned_link_and_keeps_its_raw_name(
    api: httpx.Client, stack: EmbeddedStack
) -> None:
    name = "Me & you #1 100%? ü.jpg"
    where = api.post("/v1/uploads/presign", json={"fileName": name}).json()
    httpx.put(where["uploadUrl"], content=b"photo").raise_for_status()
    assert where["fileUrl"] == f"{stack.s3_url}/{stack.bucket}/{where['key']}"
    assert where["key"].startswith("uploads/")
    assert where["key"].endswith(f"-{name}")
    found = stack.minio(stack.worker).get_object(bucket_name=stack.bucket, object_name=where["key"])
    assert found.read() == b"photo"
    found.close()
    found.release_conn()


def test_a_browser_of_another_origin_may_upload(api: httpx.Client) -> None:
    where = api.post("/v1/uploads/presign", json={"fileName": "a.jpg"}).json()
    asked = {
        "Origin": "http://127.0.0.1:1",
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": "content-type",
    }
    allowed = httpx.options(where["uploadUrl"], headers=asked)
    assert allowed.headers["access-control-allow-origin"] in {"*", "http://127.0.0.1:1"}
    assert "PUT" in allowed.headers["access-control-allow-methods"]


async def test_a_job_is_queued_as_the_contract_says(
    api: httpx.Client, stack: EmbeddedStack
) -> None:
    job_id = await asyncio.to_thread(
        create, api, sidePhotoUrl=f"{PHOTO}2", weightKg=74.5, gender="female"
    )
    queue = Queue("avatar_build", {"connection": stack.redis_url})
    try:
        jobs = await queue.getJobs(["waiting"])
    finally:
        await queue.close()
    [job] = [job for job in jobs if job.data["jobId"] == job_id]
    assert job.name == "avatar_build"
    assert job.id != job_id
    assert job.opts.get("attempts", 0) in {0, 1}
    assert job.data == {
        "jobId": job_id,
        "frontPhotoUrl": PHOTO,
        "sidePhotoUrl": f"{PHOTO}2",
        "heightCm": 178.0,
        "weightKg": 74.5,
        "gender": "female",
    }


def test_progress_is_kept_and_a_report_without_it_does_not_lose_it(api: httpx.Client) -> None:
    job_id = create(api)
    fresh = api.get(f"/v1/avatar/jobs/{job_id}").json()
    assert set(fresh) == {"jobId", "status", "createdAt"}
    answer = report(api, job_id, status="processing", progress=40, error=None)
    assert answer.status_code == 200
    assert answer.json() == {"success": True, "jobId": job_id}
    assert api.get(f"/v1/avatar/jobs/{job_id}").json()["progress"] == 40
    report(api, job_id, status="processing", progress=None, error=None)
    assert api.get(f"/v1/avatar/jobs/{job_id}").json()["progress"] == 40


def test_a_completion_makes_the_avatar_and_becomes_the_current_one(api: httpx.Client) -> None:
    job_id = create(api)
    answer = report(api, job_id, status="completed", progress=100, error=None, result=RESULT)
    assert answer.status_code == 200
    job = api.get(f"/v1/avatar/jobs/{job_id}").json()
    assert job["status"] == "completed"
    assert job["completedAt"]
    assert {name: job["avatar"][name] for name in ("glbUrl", "measurements", "qualityReport")} == {
        name: RESULT[name] for name in ("glbUrl", "measurements", "qualityReport")
    }
    current = api.get("/v1/avatar/current").json()
    assert current["jobId"] == job_id
    assert current["id"] == job["avatar"]["id"]


def test_the_same_completion_twice_is_answered_500(api: httpx.Client) -> None:
    job_id = create(api)
    done = {"status": "completed", "progress": 100, "error": None}
    assert report(api, job_id, **done, result=RESULT).status_code == 200
    assert report(api, job_id, **done, result=RESULT).status_code == 500
    assert report(api, job_id, **done).status_code == 200


def test_a_late_report_overwrites_completed_but_not_the_avatar(api: httpx.Client) -> None:
    job_id = create(api)
    report(api, job_id, status="completed", progress=100, error=None, result=RESULT)
    report(api, job_id, status="failed", progress=None, error="ENGINE_TIMEOUT: late")
    job = api.get(f"/v1/avatar/jobs/{job_id}").json()
    assert job["status"] == "failed"
    assert job["error"] == "ENGINE_TIMEOUT: late"
    assert "completedAt" not in job
    assert job["avatar"]["glbUrl"] == RESULT["glbUrl"]


def test_a_report_needs_the_token(api: httpx.Client) -> None:
    job_id = create(api)
    path = f"/v1/avatar/jobs/{job_id}/status"
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
        answer = api.patch(path, json={"status": "processing"}, headers=headers)
        assert answer.status_code == 401
    assert api.get(f"/v1/avatar/jobs/{job_id}").json()["status"] == "queued"


def test_an_unknown_job_is_404(api: httpx.Client) -> None:
    assert api.get("/v1/avatar/jobs/cnone").status_code == 404
    assert api.get("/v1/avatar/jobs/cnone/files").status_code == 404
    assert report(api, "cnone", status="processing").status_code == 404


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"heightCm": 178}, "frontPhotoUrl"),
        ({"frontPhotoUrl": PHOTO}, "heightCm"),
        ({"frontPhotoUrl": PHOTO, "heightCm": 99}, "heightCm"),
        ({"frontPhotoUrl": PHOTO, "heightCm": 178, "weightKg": 500}, "weightKg"),
        ({"frontPhotoUrl": PHOTO, "heightCm": 178, "gender": "x"}, "gender"),
        ([], "body"),
    ],
)
def test_a_wrong_job_is_refused_by_name(api: httpx.Client, body: object, named: str) -> None:
    answer = api.post("/v1/avatar/jobs", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(named)


def test_the_files_of_a_job_are_linked(api: httpx.Client, stack: EmbeddedStack) -> None:
    job_id = create(api)
    assert api.get(f"/v1/avatar/jobs/{job_id}/files").json() == {"files": {}}
    source = Path(__file__)
    for name in ("avatar.glb", "overlay_front.png"):
        stack.minio(stack.worker).fput_object(
            bucket_name=stack.bucket,
            object_name=f"avatars/{job_id}/{name}",
            file_path=str(source),
        )
    files = api.get(f"/v1/avatar/jobs/{job_id}/files").json()["files"]
    assert set(files) == {"avatar.glb", "overlay_front.png"}
    assert httpx.get(files["avatar.glb"]).content == source.read_bytes()


def test_a_job_that_cannot_be_queued_is_told_and_not_lost(
    api: httpx.Client, stack: EmbeddedStack
) -> None:
    stack.valkey.kill()
    try:
        answer = api.post("/v1/avatar/jobs", json={"frontPhotoUrl": PHOTO, "heightCm": 178})
    finally:
        stack.valkey.start()
    assert answer.status_code == 503
    create(api)


def test_a_taken_port_is_named(api: httpx.Client) -> None:
    taken = httpx.URL(api.base_url).port
    assert taken
    with pytest.raises(ApiUnavailable, match=str(taken)):
        ApiServer(lambda *_: Route("/", lambda: None), taken)  # type: ignore[arg-type,return-value] # never served
