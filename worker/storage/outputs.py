"""Outputs: an avatar's files, then `result.json`, whose presence means that all of it is there.

The marker lists size, SHA-256 and the server's ETag of every file.  A second delivery of the job
finds it, compares the files with it, repairs what differs from the finished files in the work
store, and computes nothing.

Who may write is decided by the job's lease: it is asked before every upload.  It cannot stop a
request that another worker sent before it lost the lease, so after the marker everything is looked
at once more, and what such a request has overwritten is stored again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import tempfile
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, ValidationError

from worker.contract import AvatarResultPayload
from worker.errors import DiskFull, StorageUnavailable
from worker.observability.logs import get_logger
from worker.storage.bucket import Bucket, ObjectTooLarge
from worker.storage.work import WorkStore
from worker.tasks import all_of

log = get_logger("worker.storage")

MARKER: Final = "result.json"
GLB: Final = "avatar.glb"
MAX_FILES: Final = 100
MAX_MARKER_BYTES: Final = 1024 * 1024
ROUNDS: Final = 3
"""How often what another has overwritten is stored again, before it is called trouble."""
CONTENT_TYPES: Final = {
    ".glb": "model/gltf-binary",
    ".json": "application/json",
    ".png": "image/png",
}

Check = Callable[[], Awaitable[None]]
"""Asked before every write; raises JobHeldElsewhere when it must not be made."""
T = TypeVar("T")


class PublishedFile(BaseModel):
    """A file of a finished avatar."""

    model_config = ConfigDict(frozen=True)

    name: str
    size: int
    sha256: str
    etag: str
    """As the server gave it: the MD5 of the content, or something of its own making."""
    md5: str | None = None


class CompletionMarker(BaseModel):
    """`result.json`: what was published and what was reported."""

    model_config = ConfigDict(frozen=True)

    version: int = 1
    job_id: str
    result: AvatarResultPayload
    files: tuple[PublishedFile, ...]
    sources: dict[str, Any] = {}
    """Which observer, estimator and body made the avatar."""

    def to_json(self) -> bytes:
        """As it is stored."""
        document = self.model_dump(mode="json") | {"result": self.result.to_wire()}
        return json.dumps(document, indent=1, allow_nan=False).encode()


async def _nobody_else() -> None:
    """Stand in for a lease where there is none."""


class Outputs:
    """The folder `avatars/<jobId>/` of the bucket.

    Args:
        bucket: the worker's bucket.
        public_base: what stands before `/<bucket>/<key>` in the URL that the API is given.
        work: has the finished files from which a damaged avatar is repaired; without it, it is
            computed anew.
    """

    def __init__(self, bucket: Bucket, public_base: str, *, work: WorkStore | None = None) -> None:
        self._bucket = bucket
        self._public_base = public_base
        self._work = work

    def key(self, job_id: str, name: str) -> str:
        """Return the object key of one file."""
        return f"avatars/{job_id}/{name}"

    def glb_url(self, job_id: str) -> str:
        """Return the address of avatar.glb; the API takes the key from its path."""
        return f"{self._public_base}/{self._bucket.name}/{quote(self.key(job_id, GLB))}"

    # ------------------------------------------------------------ finished before?
    async def find_marker(
        self, job_id: str, *, check: Check = _nobody_else
    ) -> CompletionMarker | None:
        """Return the marker of a finished job, with every file that it lists as it lists it.

        Files that differ or are missing are stored again from the work store.

        Args:
            job_id: the API's id of the job.
            check: asked before each of them is stored.

        Returns:
            None when there is no marker that can be read, or when files differ and the work
            store does not have them either: the avatar is to be computed anew.

        Raises:
            StorageUnavailable: MinIO did not answer.
            JobHeldElsewhere: from `check`.
        """
        marker = await self._read_marker(job_id)
        if marker is None:
            return None
        damaged = await self._damaged(job_id, marker.files)
        if not damaged:
            return marker
        log.warning("marker.files_differ", files=[file.name for file in damaged])
        if self._work is None:
            return None
        with tempfile.TemporaryDirectory(prefix="avatar-repair-") as name:
            folder = Path(name)
            wanted = {file.name: file.sha256 for file in damaged}
            if not await self._work.load_outputs(job_id, folder, wanted):
                return None
            await all_of(self._store(job_id, folder / file.name, check) for file in damaged)
        log.info("marker.files_republished", files=sorted(wanted))
        return marker

    async def has_marker(self, job_id: str) -> bool:
        """Whether somebody has finished this job once, whatever became of its files.

        Raises:
            StorageUnavailable: MinIO did not answer.
        """
        return await self._bucket.stat(self.key(job_id, MARKER)) is not None

    async def discard(self, job_id: str, names: Collection[str] | None = None) -> None:
        """Remove files of a job that nobody is to see.  Never raises: the job's end counts more.

        Args:
            job_id: the API's id of the job.
            names: which; without, all files of a job that has no marker.
        """
        try:
            if names is None:
                if await self.has_marker(job_id):
                    return
                found = await self._bucket.list(self.key(job_id, ""), at_most=MAX_FILES)
                keys = [item.key for item in found]
            else:
                keys = [self.key(job_id, name) for name in names]
            if keys:
                await self._bucket.delete(keys)
        except StorageUnavailable as error:
            log.warning("outputs.not_discarded", why=error.message)

    async def remove_marker(self, job_id: str) -> None:
        """Make the job unfinished; its files stay until they are overwritten.

        Raises:
            StorageUnavailable: MinIO did not answer, or refused.
        """
        await self._bucket.delete([self.key(job_id, MARKER)])

    async def _read_marker(self, job_id: str) -> CompletionMarker | None:
        key = self.key(job_id, MARKER)
        try:
            raw = await self._bucket.read(key, max_bytes=MAX_MARKER_BYTES)
            marker = None if raw is None else CompletionMarker.model_validate_json(raw)
        except (ObjectTooLarge, ValidationError):
            marker = None
            log.warning("marker.unreadable", key=key)
        if marker is not None and marker.job_id != job_id:
            log.warning("marker.of_another_job", key=key, job_id=marker.job_id)
            return None
        return marker

    async def _damaged(self, job_id: str, files: Collection[PublishedFile]) -> list[PublishedFile]:
        whole = await all_of(self._is_whole(job_id, file) for file in files)
        return [file for file, is_whole in zip(files, whole, strict=True) if not is_whole]

    async def _is_whole(self, job_id: str, file: PublishedFile) -> bool:
        """Compare one stored file with its line in the marker, as cheaply as can be trusted."""
        key = self.key(job_id, file.name)
        stored = await self._bucket.stat(key)
        if stored is None or stored.size != file.size:
            return False
        if stored.etag == file.etag == file.md5:
            return True
        # Encrypted or uploaded in parts, the ETag says nothing of the content; and moved to
        # another server, the same content has another.
        try:
            content = await self._bucket.read(key, max_bytes=file.size)
        except ObjectTooLarge:
            return False
        return content is not None and hashlib.sha256(content).hexdigest() == file.sha256

    # ------------------------------------------------------------ finished now
    async def publish(
        self,
        job_id: str,
        folder: Path,
        names: Collection[str],
        *,
        result: AvatarResultPayload,
        sources: Mapping[str, Any],
        check: Check = _nobody_else,
        commit: Callable[[], None] = lambda: None,
    ) -> CompletionMarker:
        """Store the files, then the marker, then make sure that all of it is what is there.

        Args:
            job_id: the API's id of the job.
            folder: where the files lie; the marker is written there too.
            names: which files.
            result: what the API is told.
            sources: what made the avatar.
            check: asked before every upload.
            commit: called when nothing is left to do but to store the marker.

        Raises:
            StorageUnavailable: MinIO did not answer, or others keep overwriting the files.
            JobHeldElsewhere: from `check`; nothing was stored after it.
            DiskFull: there is no room for the marker.
        """
        files = await all_of(
            self._publish_file(job_id, folder / name, check) for name in sorted(names)
        )
        marker = CompletionMarker(
            job_id=job_id, result=result, files=tuple(files), sources=dict(sources)
        )
        path = folder / MARKER
        with _naming_a_full_disk():
            path.write_bytes(marker.to_json())
        commit()
        await self._store(job_id, path, check)
        for _ in range(ROUNDS):
            overwritten = [file.name for file in await self._damaged(job_id, marker.files)]
            stored = await self._bucket.read(self.key(job_id, MARKER), max_bytes=MAX_MARKER_BYTES)
            if stored != marker.to_json():
                overwritten.append(MARKER)
            if not overwritten:
                return marker
            log.warning("outputs.overwritten", files=overwritten)
            await all_of(self._store(job_id, folder / name, check) for name in overwritten)
        raise StorageUnavailable(f"Somebody else keeps writing to avatars/{job_id}/.")

    async def _publish_file(self, job_id: str, path: Path, check: Check) -> PublishedFile:
        sha256, md5 = await asyncio.to_thread(_digests, path)
        etag = await self._store(job_id, path, check)
        size = (await asyncio.to_thread(path.stat)).st_size
        return PublishedFile(name=path.name, size=size, sha256=sha256, etag=etag, md5=md5)

    async def _store(self, job_id: str, path: Path, check: Check) -> str:
        """Upload one file, if we still may; return its ETag."""
        await check()
        content_type = CONTENT_TYPES.get(path.suffix, "application/octet-stream")
        stored = await self._bucket.upload(path, self.key(job_id, path.name), content_type)
        return stored.etag


@contextlib.contextmanager
def _naming_a_full_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DiskFull.behind(error) or error from None


def _digests(path: Path) -> tuple[str, str]:
    """Return SHA-256 and MD5; the latter only to tell whether the server's ETag is one."""
    content = path.read_bytes()
    return (
        hashlib.sha256(content).hexdigest(),
        hashlib.md5(content, usedforsecurity=False).hexdigest(),
    )
