"""What a job has computed is kept, resumed by another worker, and gone in the end."""

from __future__ import annotations

import io
import time
import warnings
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from worker.demo.servers import free_port
from worker.demo.stack import EmbeddedStack
from worker.errors import StorageUnavailable
from worker.settings import StorageSettings
from worker.storage import work as work_module
from worker.storage.bucket import Bucket
from worker.storage.work import OUTPUTS, WorkStore, sha256

FINGERPRINT = "f" * 64
JOB = "cwork1"


@pytest.fixture
async def bucket(stack: EmbeddedStack) -> AsyncIterator[Bucket]:
    opened = Bucket(StorageSettings.read(stack.worker_environment()))
    yield opened
    opened.close()


@pytest.fixture
async def work(bucket: Bucket) -> AsyncIterator[WorkStore]:
    store = WorkStore(bucket)
    yield store
    await store.clean(JOB)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """The folder of the worker that computed something."""
    folder = tmp_path / "made"
    folder.mkdir()
    for name in ("observation.npz", "mask_front.png", "fit.npz"):
        (folder / name).write_bytes(name.encode() * 1000)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of the worker that takes the job up; its photo is there already."""
    folder = tmp_path / "resumed"
    folder.mkdir()
    (folder / "photo_front").write_bytes(b"photo")
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def keys(bucket: Bucket) -> list[str]:
    return [item.key for item in await bucket.list(f"work/{JOB}/", at_most=100)]


def plant(stack: EmbeddedStack, stage: str, content: bytes) -> None:
    stack.minio(stack.worker).put_object(
        bucket_name=stack.bucket,
        object_name=f"work/{JOB}/{FINGERPRINT}/{stage}.zip",
        data=io.BytesIO(content),
        length=len(content),
    )


def archive(*members: tuple[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(packed, "w") as file:
        warnings.simplefilter("ignore")  # a name that is there twice is what one test is about
        for name, content in members:
            file.writestr(name, content)
    return packed.getvalue()


async def test_stages_are_resumed_by_whoever_takes_the_job_up(
    work: WorkStore, made: Path, folder: Path
) -> None:
    await work.save(JOB, FINGERPRINT, "observe", made, ["observation.npz", "mask_front.png"])
    await work.save(JOB, FINGERPRINT, "fit", made, ["fit.npz"])
    await work.save(JOB, FINGERPRINT, OUTPUTS, made, ["fit.npz"])
    assert set(await work.load(JOB, FINGERPRINT, folder)) == {"observe", "fit"}
    assert names(folder) == {"photo_front", *names(made)}
    for name in names(made):
        assert (folder / name).read_bytes() == (made / name).read_bytes()


async def test_what_other_code_or_weights_computed_is_not_resumed(
    work: WorkStore, made: Path, folder: Path
) -> None:
    await work.save(JOB, "0" * 64, "observe", made, ["observation.npz"])
    assert await work.load(JOB, FINGERPRINT, folder) == ()
    assert names(folder) == {"photo_front"}


async def test_finished_files_are_found_by_their_digests(
    work: WorkStore, made: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    await work.save(JOB, FINGERPRINT, OUTPUTS, made, ["fit.npz"])
    wanted = {"fit.npz": sha256(made / "fit.npz")}
    assert not await work.load_outputs(JOB, empty, {"fit.npz": "0" * 64})
    assert not await work.load_outputs(JOB, empty, wanted | {"avatar.glb": "0" * 64})
    assert names(empty) == set()
    (made / "fit.npz").write_bytes(b"of another worker")
    await work.save(JOB, "0" * 64, OUTPUTS, made, ["fit.npz"])  # listed first
    assert await work.load_outputs(JOB, empty, wanted)
    assert sha256(empty / "fit.npz") == wanted["fit.npz"]


@pytest.mark.parametrize(
    "content",
    [
        b"no archive",
        archive(("fit.npz", b"x" * 500))[:-40],
        archive(("fit.npz", b"x" * 500)).replace(b"xxx", b"xyx", 1),
        archive(),
        archive(("../fit.npz", b"x")),
        archive(("/etc/fit.npz", b"x")),
        archive(("deep/fit.npz", b"x")),
        archive((".hidden", b"x")),
        archive(("photo_front", b"another person")),
        archive(("fit.npz", b"x"), ("fit.npz", b"y")),
        archive(*((f"f{number}", b"") for number in range(65))),
        archive(("a", b"x" * 600_000), ("b", b"x" * 600_000)),
    ],
    ids=[
        "not a zip",
        "cut off",
        "a changed byte",
        "empty",
        "a file above the folder",
        "an absolute path",
        "a file in a folder",
        "a hidden file",
        "a photo replaced",
        "the same name twice",
        "too many files",
        "too much to unpack",
    ],
)
async def test_a_stage_that_is_damaged_is_ignored_whole(
    stack: EmbeddedStack,
    work: WorkStore,
    folder: Path,
    content: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(work_module, "MAX_STAGE_BYTES", 1_000_000)
    plant(stack, "observe", content)
    plant(stack, "fit", archive(("good.npz", b"good")))
    assert await work.load(JOB, FINGERPRINT, folder) == ("fit",)
    assert names(folder) == {"photo_front", "good.npz"}
    assert (folder / "photo_front").read_bytes() == b"photo"


async def test_a_job_that_is_done_leaves_nothing(
    work: WorkStore, bucket: Bucket, made: Path
) -> None:
    for fingerprint in (FINGERPRINT, "0" * 64):
        for stage in ("observe", "fit", OUTPUTS):
            await work.save(JOB, fingerprint, stage, made, ["fit.npz"])
    assert len(await keys(bucket)) == 6
    await work.clean(JOB)
    assert await keys(bucket) == []
    await work.clean(JOB)


async def test_what_nobody_came_back_for_is_swept_by_the_servers_clock(
    work: WorkStore, bucket: Bucket, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stage in ("observe", "fit", OUTPUTS):
        await work.save(JOB, FINGERPRINT, stage, made, ["fit.npz"])
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert await work.sweep(3600) == 0
    monkeypatch.setattr(work_module, "MAX_SWEPT", 2)
    assert await work.sweep(-3600) == 2
    assert len(await keys(bucket)) == 1
    assert await work.sweep(-3600) == 1
    assert await keys(bucket) == []


async def test_no_storage_costs_a_job_nothing(
    stack: EmbeddedStack, made: Path, folder: Path
) -> None:
    nowhere = stack.worker_environment() | {"MINIO_ENDPOINT": f"127.0.0.1:{free_port()}"}
    opened = Bucket(StorageSettings.read(nowhere))
    work = WorkStore(opened)
    await work.save(JOB, FINGERPRINT, "fit", made, ["fit.npz"])
    await work.save(JOB, FINGERPRINT, "fit", made, ["never-written.npz"])
    assert await work.load(JOB, FINGERPRINT, folder) == ()
    assert not await work.load_outputs(JOB, folder, {})
    await work.clean(JOB)
    with pytest.raises(StorageUnavailable):
        await work.sweep(1)
    opened.close()
