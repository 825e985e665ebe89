"""Weights come before jobs: a real start of the worker on an empty folder."""

import asyncio
import contextlib
import hashlib
import io
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pytest
from blake3 import blake3
from minio import Minio

from models_sync import transfer
from models_sync.manifest import MANIFEST_NAME, PART_BYTES, Manifest, ManifestFile
from models_sync.progress import Phase, Progress
from models_sync.state import keep_manifest
from tests.conftest import StartWorker, until_ready
from tests.seaweed import ROOT_USER, SeaweedFS
from worker import weights as weights_module
from worker.demo.stack import EmbeddedStack
from worker.engine.pool import EnginePool
from worker.errors import SettingsError, WeightsUnavailable
from worker.lifecycle import Worker
from worker.settings import Settings
from worker.weights import Weights

BUCKET = "weights-at-start"
FILES = {
    "smplx/SMPLX_NEUTRAL.npz": os.urandom(200_000),
    "sam2/checkpoints/sam2.1_hiera_large.pt": os.urandom(3_000_000),
}


@pytest.fixture(scope="module")
def bucket(stack: EmbeddedStack) -> Minio:
    root = stack.minio(stack.root)
    root.make_bucket(bucket_name=BUCKET)
    for key, content in FILES.items():
        root.put_object(
            bucket_name=BUCKET, object_name=key, data=io.BytesIO(content), length=len(content)
        )
    return root


@pytest.fixture
def sync(stack: EmbeddedStack, bucket: Minio, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "sam2").mkdir()
    return {
        "MODEL_SYNC_ENABLED": "true",
        "MODEL_SYNC_MINIO_ENDPOINT": stack.s3_endpoint,
        "MODEL_SYNC_MINIO_SECURE": "false",
        "MODEL_SYNC_MINIO_BUCKET": BUCKET,
        "MODEL_SYNC_MINIO_ACCESS_KEY": stack.root.access_key,
        "MODEL_SYNC_MINIO_SECRET_KEY": stack.root.secret_key,
        "MODEL_SYNC_SOURCES": "smplx,sam2",
        "MODEL_SYNC_LOCAL_ROOT": str(tmp_path / "models"),
        "PIXIE_MODEL_DIR": str(tmp_path / "pixie"),
        "SAM3DBODY_SEGMENTOR_PATH": str(tmp_path / "sam2"),
    }


def published(key: str) -> ManifestFile:
    content = FILES[key]
    return ManifestFile(
        key=key,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        parts=tuple(
            blake3(content[at : at + PART_BYTES]).hexdigest()
            for at in range(0, len(content), PART_BYTES)
        ),
    )


async def until(worker: Worker, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    async with asyncio.timeout(15), httpx.AsyncClient() as client:
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = await client.get(f"http://127.0.0.1:{worker.http.port}/ready")
                if holds(answer.json()):
                    return dict(answer.json())
            await asyncio.sleep(0.02)


async def test_a_start_on_an_empty_folder_ends_ready_with_everything_in_its_place(
    start_worker: StartWorker, sync: dict[str, str], tmp_path: Path
) -> None:
    async with start_worker(**sync) as worker:
        await until_ready(worker)
    for key, content in FILES.items():
        assert (tmp_path / "models" / key).read_bytes() == content
    placed = tmp_path / "sam2" / "checkpoints" / "sam2.1_hiera_large.pt"
    assert placed.read_bytes() == FILES["sam2/checkpoints/sam2.1_hiera_large.pt"]


async def test_no_engine_loads_before_the_weights_are_in_their_places(
    start_worker: StartWorker,
    sync: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    placed = tmp_path / "sam2" / "checkpoints" / "sam2.1_hiera_large.pt"
    seen: list[bool] = []
    start = EnginePool.start

    def starting(pool: EnginePool) -> None:
        seen.append(placed.is_file())
        start(pool)

    monkeypatch.setattr(EnginePool, "start", starting)
    async with start_worker(**sync) as worker:
        await until_ready(worker)
    assert seen == [True]


async def test_so_does_one_whose_weights_are_on_seaweedfs(
    start_worker: StartWorker, sync: dict[str, str], seaweed: SeaweedFS, tmp_path: Path
) -> None:
    client, bucket = seaweed.minio(), "weights-of-a-worker"
    client.make_bucket(bucket_name=bucket)
    for key, content in FILES.items():
        client.put_object(bucket, key, io.BytesIO(content), len(content))
    manifest = Manifest(files=tuple(map(published, FILES))).to_bytes()
    client.put_object(bucket, MANIFEST_NAME, io.BytesIO(manifest), len(manifest))
    there = {
        "MODEL_SYNC_MINIO_ENDPOINT": seaweed.endpoint,
        "MODEL_SYNC_MINIO_BUCKET": bucket,
        "MODEL_SYNC_MINIO_ACCESS_KEY": ROOT_USER.access_key,
        "MODEL_SYNC_MINIO_SECRET_KEY": ROOT_USER.secret_key,
    }
    async with start_worker(**sync | there) as worker:
        await until_ready(worker, timeout_s=30)
    for key, content in FILES.items():
        assert (tmp_path / "models" / key).read_bytes() == content


async def test_what_is_wrong_with_the_bucket_is_said_and_tried_again(
    start_worker: StartWorker,
    sync: dict[str, str],
    stack: EmbeddedStack,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(weights_module, "RETRY_S", (0.2,))
    nothing = sync | {"MODEL_SYNC_MINIO_BUCKET": "weights-come-later"}
    async with start_worker(**nothing) as worker:
        told = await until(worker, lambda facts: "code" in facts)
        assert (told["state"], told["code"]) == ("SETUP_FAILED", "WEIGHTS_UNAVAILABLE")
        assert told["advice"]
        root = stack.minio(stack.root)
        root.make_bucket(bucket_name="weights-come-later")
        for key in FILES:
            root.put_object("weights-come-later", key, io.BytesIO(b"later"), 5)
        await until_ready(worker, timeout_s=15)


async def test_a_bucket_that_is_down_stops_nobody_who_has_everything(
    start_worker: StartWorker, sync: dict[str, str], tmp_path: Path
) -> None:
    from models_sync.catalog import CATALOG

    for name in ("smplx", "sam2"):
        for file in CATALOG[name].required:
            path = tmp_path / "models" / CATALOG[name].prefix / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"copied by hand")
    gone = sync | {"MODEL_SYNC_MINIO_ENDPOINT": "127.0.0.1:9"}
    async with start_worker(**gone) as worker:
        await until_ready(worker, timeout_s=60)


async def test_jobs_wait_until_the_weights_are_there(
    start_worker: StartWorker, sync: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    really_pull = transfer.pull

    def slowly(settings: Any, tell: Any, cancel: Any) -> Any:
        tell(Progress(Phase.FETCHING, 12_400_000_000, 31_000_000_000, rate=8e7, eta_s=232.0))
        go_on.wait(10)
        return really_pull(settings, tell, cancel)

    monkeypatch.setattr(transfer, "pull", slowly)
    async with start_worker(**sync) as worker:
        told = await until(worker, lambda facts: "sync" in facts)
        assert told["state"] == "STARTING"
        assert told["reason"] == "syncing 12.4/31.0 GB, 4 min left"
        assert not worker.consumer.is_taking
        go_on.set()
        await until_ready(worker)


async def test_a_real_avatar_without_weights_names_every_file(
    start_worker: StartWorker, sync: dict[str, str], tmp_path: Path
) -> None:
    off = sync | {"MODEL_SYNC_ENABLED": "false", "REQUIRE_REAL_AVATAR": "true"}
    async with start_worker(**off) as worker:
        told = await until(worker, lambda facts: "code" in facts)
    assert told["code"] == "LICENSED_ESTIMATOR_MISSING"
    for name in ("SMPLX_NEUTRAL.npz", "SMPLX_MALE.npz", "sam2.1_hiera_large.pt"):
        assert name in told["reason"]
    assert "models-sync pull" in told["reason"]


def test_a_sync_without_a_bucket_is_refused_by_name(environment: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="MODEL_SYNC_MINIO_ENDPOINT"):
        Settings.load(environment | {"MODEL_SYNC_ENABLED": "true"})


def weights_of(environment: dict[str, str], sync: dict[str, str]) -> Weights:
    return Weights(Settings.load(environment | sync), on_change=lambda: None)


async def test_a_variable_that_only_the_sync_reads_is_named_and_ends_no_worker(
    environment: dict[str, str], sync: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_SYNC_STALL_S", "abc")
    trouble = await weights_of(environment, sync)._try()
    assert trouble is not None
    assert "MODEL_SYNC_STALL_S" in trouble.message


async def test_an_error_that_nobody_thought_of_ends_no_worker(
    environment: dict[str, str], sync: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "pull", mock.Mock(side_effect=RuntimeError("unheard of")))
    trouble = await weights_of(environment, sync)._try()
    assert trouble is not None
    assert trouble.message == "RuntimeError: unheard of"


async def test_what_went_wrong_before_is_told_until_the_next_attempt_gets_further(
    environment: dict[str, str], sync: dict[str, str]
) -> None:
    weights = weights_of(environment, sync)
    weights.trouble = WeightsUnavailable("The bucket was away.")
    weights._note(Progress(Phase.PLANNING))
    assert weights.trouble is not None
    weights._note(Progress(Phase.FETCHING, 1, 2))
    assert weights.trouble is None


async def test_what_is_enabled_and_has_no_weights_is_named_and_the_free_body_is_fitted(
    start_worker: StartWorker, sync: dict[str, str], tmp_path: Path
) -> None:
    elsewhere = tmp_path / "my.ckpt"
    elsewhere.write_bytes(b"of another place")
    off = sync | {
        "MODEL_SYNC_ENABLED": "false",
        "SAM3DBODY_ENABLED": "true",
        "SAM3DBODY_USE_MASK": "false",
        "SAM3DBODY_CHECKPOINT_PATH": str(elsewhere),
    }
    async with start_worker(**off) as worker:
        await until_ready(worker)
        told = await until(worker, lambda facts: "mhr_model.pt" in str(facts.get("warnings")))
    (lacking,) = [text for text in told["warnings"] if "mhr_model.pt" in text]
    assert "models-sync pull" in lacking
    for name in ("model.ckpt", "sam2", "smplx"):  # there, not needed, not needed
        assert name not in lacking


async def test_weights_of_the_image_are_hashed_before_jobs_are_taken(
    start_worker: StartWorker, sync: dict[str, str], tmp_path: Path
) -> None:
    root = tmp_path / "models"
    for key, content in FILES.items():
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(content)
    keep_manifest(root, Manifest(files=tuple(map(published, FILES))).to_bytes(), None)
    embedded = sync | {"MODEL_SYNC_ENABLED": "false", "MODELS_EMBEDDED": "true"}
    async with start_worker(**embedded) as worker:
        await until_ready(worker)
    (root / "smplx/SMPLX_NEUTRAL.npz").write_bytes(bytes(200_000))
    async with start_worker(**embedded) as worker:
        told = await until(worker, lambda facts: "code" in facts)
    assert told["code"] == "WEIGHTS_UNAVAILABLE"
    assert "SMPLX_NEUTRAL.npz (is damaged" in told["reason"]
