"""The bucket as the publisher may use it: writing, removing, asking for what is not there."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

import urllib3
from minio.deleteobjects import DeleteObject

from models_sync.bucket import Bucket
from models_sync.digests import UPLOAD_PART_BYTES, Digests, OnBytes
from models_sync.errors import (
    BucketRefused,
    NothingThere,
    ObjectDamaged,
    ObjectMissing,
    SourceUnusable,
)
from models_sync.ledger import Stamp
from models_sync.library import make_client, named_answers
from models_sync.settings import SyncSettings

_PARTS_AT_ONCE = 3
_READ_BYTES = 4 << 20
"""How often progress is told and a wish to stop is heard."""


_RETRIES = urllib3.Retry(
    total=5,
    backoff_factor=0.5,
    status_forcelist=[500, 502, 503, 504],
    allowed_methods=None,
    raise_on_status=False,
)
"""Of each part: 0.5 to 8 s apart.  Storing the same part twice is storing it once."""


class Store(Bucket):
    """Write access to the bucket.  Safe to share between threads."""

    def __init__(self, settings: SyncSettings) -> None:
        super().__init__(settings)
        self._client = make_client(settings, read_s=settings.stall_s, retries=_RETRIES)

    def make_bucket(self) -> bool:
        """Make the bucket; False: it was there.

        Raises:
            BucketRefused: this user may not.
        """
        with named_answers(f"{self.where}: "):
            if self._client.bucket_exists(self._bucket):
                return False
            self._client.make_bucket(self._bucket)
            return True

    def stored(self, prefixes: dict[str, str]) -> dict[str, tuple[int, str]]:
        """Size and ETag by path of every object below the prefixes; none there is no error."""
        found: dict[str, tuple[int, str]] = {}
        for local, remote in prefixes.items():
            try:
                listed = self.list({local: remote})
            except NothingThere:
                continue
            found |= {item.path: (item.size, item.etag or "") for item in listed}
        return found

    def read_or_none(self, key: str, max_bytes: int) -> bytes | None:
        """Read a small object; None when there is no such object."""
        try:
            return self.read_small(key, max_bytes)
        except ObjectMissing:
            return None

    def write_small(self, key: str, data: bytes, content_type: str) -> None:
        """Store a small object at once.

        Raises:
            BucketRefused, BucketUnreachable: it was not stored.
        """
        with named_answers(f"{self.where}: {key}: "):
            self._client.put_object(
                self._bucket, key, io.BytesIO(data), len(data), content_type=content_type
            )

    def upload(self, key: str, path: Path, known: Digests, on_bytes: OnBytes) -> str | None:
        """Store a file that has been digested; its version id, where the bucket keeps versions.

        Raises:
            SourceUnusable: the file is not the one that was digested.
            ObjectDamaged: the bucket holds something else than what was sent.
            BucketRefused, BucketUnreachable: it was not stored.
        """
        try:
            file = path.open("rb")
        except OSError as error:
            raise SourceUnusable(f"{path}: {error.strerror}") from error
        with file, named_answers(f"{self.where}: {key}: "):
            result = self._client.put_object(
                self._bucket,
                key,
                cast("BinaryIO", _Counted(file.read, on_bytes)),
                known.stamp.size,
                part_size=UPLOAD_PART_BYTES,
                num_parallel_uploads=_PARTS_AT_ONCE,
            )
        if Stamp.of(path) != known.stamp:
            raise SourceUnusable(f"{path} changed while it was published")
        if (result.etag or "").strip('"') != known.etag:
            # Not always damage: an encrypting server's ETag is no MD5.
            self._read_back(key, known)
        return result.version_id if result.version_id not in {"", "null"} else None

    def _read_back(self, key: str, known: Digests) -> None:
        with named_answers(f"{self.where}: {key}: "):
            response = self._client.get_object(self._bucket, key)
            try:
                sha256 = hashlib.sha256()
                for chunk in response.stream(_READ_BYTES):
                    sha256.update(chunk)
            finally:
                response.close()
                response.release_conn()
        if sha256.hexdigest() != known.sha256:
            raise ObjectDamaged(f"{key}: the bucket holds something else than what was sent")

    def remove(self, keys: list[str]) -> None:
        """Remove objects; one that is gone already is no error.

        Raises:
            BucketRefused: one of them may not be removed.
        """
        with named_answers(f"{self.where}: "):
            failed = list(
                self._client.remove_objects(self._bucket, [DeleteObject(key) for key in keys])
            )
        if failed:
            raise BucketRefused(f"{failed[0].name}: {failed[0].code}: {failed[0].message}")


class _Counted:
    """A file that tells how much of it was read."""

    def __init__(self, read: Callable[[int], bytes], on_bytes: OnBytes) -> None:
        self._read, self._on_bytes = read, on_bytes

    def read(self, size: int) -> bytes:
        data = self._read(min(size, _READ_BYTES))
        self._on_bytes(len(data))
        return data
