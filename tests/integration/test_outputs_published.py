"""Published avatars: whole, repaired, and never a mixture of two workers' files."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from worker.contract import AvatarResultPayload, Measurements, QualityReport
from worker.demo.stack import EmbeddedStack
from worker.errors import DiskFull, JobHeldElsewhere, StorageUnavailable
from worker.settings import StorageSettings
from worker.storage.bucket import Bucket
from worker.storage.outputs import MARKER, CompletionMarker, Outputs
from worker.storage.work import OUTPUTS, WorkStore

FILES = {"avatar.glb": b"glTF ours", "measurements.json": b'{"chestCm": 100.0}'}
RESULT = AvatarResultPayload(
    glb_url="https://s3/tryfitted/avatars/j/avatar.glb",
    measurements=Measurements(chest_cm=100.0),
    quality_report=QualityReport(confidence="high"),
)

Publish = Callable[..., Awaitable[CompletionMarker]]
Keep = Callable[..., Awaitable[None]]


class Shelf:
    """One job's objects, as somebody else sees and changes them."""

    def __init__(self, stack: EmbeddedStack, job_id: str) -> None:
        self._minio = stack.minio(stack.worker)
        self._bucket = stack.bucket
        self._prefix = f"avatars/{job_id}/"

    def put(self, name: str, content: bytes) -> None:
        self._minio.put_object(
            bucket_name=self._bucket,
            object_name=self._prefix + name,
            data=io.BytesIO(content),
            length=len(content),
        )

    def get(self, name: str) -> bytes:
        response = self._minio.get_object(bucket_name=self._bucket, object_name=self._prefix + name)
        try:
            return response.read()
        finally:
            response.close()
            response.release_conn()

    def remove(self, name: str) -> None:
        self._minio.remove_object(bucket_name=self._bucket, object_name=self._prefix + name)

    def names(self) -> set[str]:
        found = self._minio.list_objects(
            bucket_name=self._bucket, prefix=self._prefix, recursive=True
        )
        return {
            str(item.object_name).removeprefix(self._prefix) for item in found if not item.is_dir
        }


@pytest.fixture
def job(request: pytest.FixtureRequest) -> str:
    return f"cout-{abs(hash(request.node.nodeid)):x}"


@pytest.fixture
def shelf(stack: EmbeddedStack, job: str) -> Shelf:
    return Shelf(stack, job)


@pytest.fixture
async def bucket(stack: EmbeddedStack) -> AsyncIterator[Bucket]:
    opened = Bucket(StorageSettings.read(stack.worker_environment()))
    yield opened
    opened.close()


@pytest.fixture
async def work(bucket: Bucket, job: str) -> AsyncIterator[WorkStore]:
    store = WorkStore(bucket)
    yield store
    await store.clean(job)


@pytest.fixture
def outputs(bucket: Bucket, work: WorkStore) -> Outputs:
    return Outputs(bucket, "https://s3.example.com", work=work)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.fixture
def keep(work: WorkStore, job: str, tmp_path: Path) -> Keep:
    """Saves finished files in the work store, some with other contents."""

    async def run(**others: bytes) -> None:
        kept = tmp_path / "kept"
        kept.mkdir()
        for name, content in (FILES | others).items():
            (kept / name).write_bytes(content)
        await work.save(job, "f" * 64, OUTPUTS, kept, list(FILES))

    return run


@pytest.fixture
def publish(outputs: Outputs, job: str, folder: Path) -> Publish:
    async def run(**options: object) -> CompletionMarker:
        sources = {"body": "fake", "views": ("front",)}
        return await outputs.publish(
            job,
            folder,
            list(FILES),
            result=RESULT,
            sources=sources,
            **options,  # type: ignore[arg-type]  # only `check` is given
        )

    return run


async def held_elsewhere() -> None:
    raise JobHeldElsewhere


async def test_what_was_published_is_found(outputs: Outputs, job: str, publish: Publish) -> None:
    assert await outputs.find_marker(job) is None
    marker = await publish()
    found = await outputs.find_marker(job)
    assert found is not None
    assert found.to_json() == marker.to_json()
    assert {file.name: file.size for file in found.files} == {k: len(v) for k, v in FILES.items()}


async def test_a_job_that_is_to_be_run_afresh_loses_its_marker_only(
    outputs: Outputs, job: str, publish: Publish, shelf: Shelf
) -> None:
    await publish()
    await outputs.remove_marker(job)
    assert await outputs.find_marker(job) is None
    assert shelf.names() == set(FILES)


# ---------------------------------------------------------------- found with damage
@pytest.mark.parametrize("content", [b"another's", b"glTF", None], ids=["same size", "cut", "gone"])
async def test_a_damaged_file_is_published_again_from_the_work_store(
    outputs: Outputs, keep: Keep, publish: Publish, shelf: Shelf, content: bytes | None
) -> None:
    await keep()
    marker = await publish()
    shelf.remove("avatar.glb") if content is None else shelf.put("avatar.glb", content)
    found = await outputs.find_marker(marker.job_id)
    assert found is not None
    assert found.to_json() == marker.to_json()
    assert shelf.get("avatar.glb") == FILES["avatar.glb"]


async def test_nothing_is_repaired_without_the_lease(
    outputs: Outputs, job: str, keep: Keep, publish: Publish, shelf: Shelf
) -> None:
    await keep()
    await publish()
    shelf.put("avatar.glb", b"another's")
    with pytest.raises(JobHeldElsewhere):
        await outputs.find_marker(job, check=held_elsewhere)
    assert shelf.get("avatar.glb") == b"another's"


async def test_damage_that_cannot_be_repaired_means_computing_anew(
    outputs: Outputs, job: str, keep: Keep, publish: Publish, shelf: Shelf
) -> None:
    await publish()
    shelf.put("avatar.glb", b"another's")
    assert await outputs.find_marker(job) is None, "nothing is in the work store"
    await keep(**{"avatar.glb": b"of yet another run"})
    assert await outputs.find_marker(job) is None, "something else is in the work store"


@pytest.mark.parametrize("etag", ["0" * 32, "0123456789abcdef-2"])
async def test_where_etags_say_nothing_the_content_is_compared(
    outputs: Outputs, job: str, publish: Publish, shelf: Shelf, etag: str
) -> None:
    await publish()
    marker = json.loads(shelf.get(MARKER))
    for file in marker["files"]:
        file["etag"] = etag
    shelf.put(MARKER, json.dumps(marker).encode())
    assert await outputs.find_marker(job) is not None
    shelf.put("avatar.glb", b"another's")
    assert await outputs.find_marker(job) is None


@pytest.mark.parametrize(
    "content", [b"{", b"x" * 1_100_000, b"{}", None], ids=["cut", "huge", "empty", "another's"]
)
async def test_a_marker_that_is_none_is_not_believed(
    outputs: Outputs, job: str, publish: Publish, shelf: Shelf, content: bytes | None
) -> None:
    await publish()
    other = json.dumps(json.loads(shelf.get(MARKER)) | {"job_id": "another"}).encode()
    shelf.put(MARKER, other if content is None else content)
    assert await outputs.find_marker(job) is None


# ---------------------------------------------------------------- two workers on one job
@pytest.mark.parametrize("uploads", range(len(FILES) + 1))
async def test_without_the_lease_no_upload_begins_and_no_marker_is_written(
    publish: Publish, shelf: Shelf, uploads: int
) -> None:
    asked = 0

    async def check() -> None:
        nonlocal asked
        asked += 1
        if asked > uploads:
            raise JobHeldElsewhere

    with pytest.raises(JobHeldElsewhere):
        await publish(check=check)
    assert len(shelf.names()) <= uploads
    assert MARKER not in shelf.names()


@pytest.mark.parametrize("name", ["avatar.glb", MARKER])
async def test_what_a_late_request_of_another_overwrote_is_stored_again(
    outputs: Outputs, job: str, publish: Publish, shelf: Shelf, name: str
) -> None:
    asked = 0
    whole = {**FILES}

    async def check() -> None:
        nonlocal asked
        asked += 1
        if asked == len(FILES) + 1:  # all files are there; the marker is next
            shelf.put("avatar.glb", b"another's")

    async def check_marker() -> None:
        nonlocal asked
        asked += 1
        if asked == len(FILES) + 2:
            shelf.put(MARKER, b"another's")
        await check()

    if name == MARKER:
        # The file draws a second round, in which the marker is overwritten.
        marker = await publish(check=check_marker)
    else:
        marker = await publish(check=check)
    assert {name: shelf.get(name) for name in FILES} == whole
    assert shelf.get(MARKER) == marker.to_json()
    assert await outputs.find_marker(job) is not None


async def test_who_keeps_overwriting_is_trouble(publish: Publish, shelf: Shelf) -> None:
    asked = 0

    async def check() -> None:
        nonlocal asked
        asked += 1
        if asked > len(FILES):
            shelf.put(list(FILES)[asked % 2], b"%d" % asked)  # not the one that is stored next

    with pytest.raises(StorageUnavailable, match="Somebody else"):
        await publish(check=check)


async def test_no_room_for_the_marker_is_a_full_disk(
    publish: Publish, folder: Path, shelf: Shelf
) -> None:
    (folder / MARKER).symlink_to("/dev/full")
    with pytest.raises(DiskFull) as caught:
        await publish()
    assert caught.value.retryable
    assert MARKER not in shelf.names()
