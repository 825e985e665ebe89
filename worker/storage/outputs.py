"""Outputs: an avatar's files, then `result.json`, whose presence means that all of it is there.

The marker lists size, SHA-256 and the server's ETag of every file.  A second delivery of the job
finds it, checks that the files are the ones listed, and computes nothing.

Who may write is decided by the caller: a lease on the job's id belongs around `publish`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, ValidationError

from worker.contract import AvatarResultPayload
from worker.observability.logs import get_logger
from worker.storage.bucket import Bucket, ObjectTooLarge

log = get_logger("worker.storage")

MARKER: Final = "result.json"
GLB: Final = "avatar.glb"
MAX_MARKER_BYTES: Final = 1024 * 1024
CONTENT_TYPES: Final = {
    ".glb": "model/gltf-binary",
    ".json": "application/json",
    ".png": "image/png",
}


class PublishedFile(BaseModel):
    """A file of a finished avatar."""

    model_config = ConfigDict(frozen=True)

    name: str
    size: int
    sha256: str
    etag: str


class CompletionMarker(BaseModel):
    """`result.json`: what was published and what was reported."""

    model_config = ConfigDict(frozen=True)

    version: int = 1
    job_id: str
    result: AvatarResultPayload
    files: tuple[PublishedFile, ...]
    sources: dict[str, Any] = {}
    """Which observer, estimator and body made the avatar."""


class Outputs:
    """The folder `avatars/<jobId>/` of the bucket."""

    def __init__(self, bucket: Bucket, public_base: str) -> None:
        self._bucket = bucket
        self._public_base = public_base

    def key(self, job_id: str, name: str) -> str:
        """Return the object key of one file."""
        return f"avatars/{job_id}/{name}"

    def glb_url(self, job_id: str) -> str:
        """Return the address of avatar.glb; the API takes the key from its path."""
        return f"{self._public_base}/{self._bucket.name}/{quote(self.key(job_id, GLB))}"

    async def find_marker(self, job_id: str) -> CompletionMarker | None:
        """Return the marker of a finished job when every file it lists is there, unchanged."""
        try:
            raw = await self._bucket.read(self.key(job_id, MARKER), max_bytes=MAX_MARKER_BYTES)
            if raw is None:
                return None
            marker = CompletionMarker.model_validate_json(raw)
        except (ObjectTooLarge, ValidationError):
            log.warning("marker.unreadable", key=self.key(job_id, MARKER))
            return None
        for file in marker.files:
            stored = await self._bucket.stat(self.key(job_id, file.name))
            if stored is None or (stored.size, stored.etag) != (file.size, file.etag):
                log.warning("marker.file_differs", file=file.name)
                return None
        return marker

    async def remove_marker(self, job_id: str) -> None:
        """Make a finished job an unfinished one; its files stay until they are overwritten.

        Raises:
            StorageUnavailable: MinIO did not answer.
        """
        await self._bucket.delete([self.key(job_id, MARKER)])

    async def publish(
        self,
        job_id: str,
        folder: Path,
        names: Collection[str],
        *,
        result: AvatarResultPayload,
        sources: Mapping[str, Any],
    ) -> CompletionMarker:
        """Store the files, then the marker.

        Raises:
            StorageUnavailable: MinIO did not answer; no marker was written.
        """
        files = await asyncio.gather(
            *(self._publish_file(job_id, folder / name) for name in sorted(names))
        )
        marker = CompletionMarker(
            job_id=job_id, result=result, files=tuple(files), sources=dict(sources)
        )
        path = folder / MARKER
        document = marker.model_dump(mode="json") | {"result": result.to_wire()}
        path.write_text(json.dumps(document, indent=1, allow_nan=False))
        await self._bucket.upload(path, self.key(job_id, MARKER), CONTENT_TYPES[".json"])
        return marker

    async def _publish_file(self, job_id: str, path: Path) -> PublishedFile:
        digest = await asyncio.to_thread(_sha256, path)
        content_type = CONTENT_TYPES.get(path.suffix, "application/octet-stream")
        stored = await self._bucket.upload(path, self.key(job_id, path.name), content_type)
        return PublishedFile(name=path.name, size=stored.size, sha256=digest, etag=stored.etag)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
