"""One bucket of MinIO as awaitable calls with named errors, bounded in time.

What was measured about minio-py decides the settings here: its default timeouts are 300 s, its
`bucket_exists` is refused under a narrow policy, and its `fget_object` accepts corrupt and replaced
objects.

How long a call can take: a server that is silent costs READ_TIMEOUT_S a try, one that cannot be
reached CONNECT_TIMEOUT_S, and there are ATTEMPTS tries with up to two seconds between them; and
whatever happens, OPERATION_S after it was begun a call has returned or raised.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar
from xml.etree import ElementTree as ET

import tenacity
import urllib3
from minio import Minio
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError

from worker.errors import DiskFull, StorageUnavailable
from worker.storage.transport import Abandoned, Http, go_on, in_thread

if TYPE_CHECKING:
    from worker.settings import StorageSettings

THREADS: Final = 4
ATTEMPTS: Final = 3
OPERATION_S: Final = 90.0
"""For a whole operation: waiting for a thread, all tries and what lies between them."""
CHUNK_BYTES: Final = 256 * 1024
REGION: Final = "us-east-1"
"""MinIO's default; naming it saves a request before the first one."""
_MISSING = {"NoSuchKey", "NoSuchObject", "ResourceNotFound"}
_BUSY = {408, 429}
"""Beside 5xx: answers that may be another a moment later."""

_backoff = tenacity.wait_random_exponential(multiplier=0.4, min=0.1, max=2.0)

T = TypeVar("T")


class ObjectTooLarge(Exception):
    """The object has more bytes than the caller accepts; the rest was not read."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What the server says about a stored object."""

    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class ListedObject:
    """One line of a listing."""

    key: str
    modified_at: datetime
    """By the server's clock."""


class Bucket:
    """The worker's bucket, reached with the worker's own credentials."""

    def __init__(self, settings: StorageSettings) -> None:
        self.name = settings.bucket
        self._threads = asyncio.Semaphore(THREADS)
        self._http = Http()
        self._minio = Minio(
            endpoint=settings.host,
            access_key=settings.access_key,
            secret_key=settings.secret_key.get_secret_value(),
            secure=settings.secure,
            region=REGION,
            http_client=self._http,
        )

    def close(self) -> None:
        """Close the connections that are idle; calls that are under way end by themselves."""
        self._http.clear()

    async def stat(self, key: str) -> ObjectInfo | None:
        """Return what is stored under `key`, or None.

        Raises:
            StorageUnavailable: MinIO did not answer, or refused.
        """

        def call() -> ObjectInfo | None:
            found = self._minio.stat_object(bucket_name=self.name, object_name=key)
            return ObjectInfo(size=found.size or 0, etag=(found.etag or "").strip('"'))

        return await self._run(call, missing=None)

    async def read(self, key: str, *, max_bytes: int) -> bytes | None:
        """Return a small object whole, or None when there is none.

        Raises:
            ObjectTooLarge, StorageUnavailable: as `download`.
        """

        def call() -> bytes | None:
            chunks: list[bytes] = []
            self._stream(key, max_bytes, chunks.append)
            return b"".join(chunks)

        return await self._run(call, missing=None)

    async def download(self, key: str, path: Path, *, max_bytes: int) -> bool:
        """Write an object to `path`; False when there is none.

        Raises:
            ObjectTooLarge: it has more than `max_bytes`; nothing more than that was read.
            StorageUnavailable: MinIO did not answer, refused, or the body ended early.
            DiskFull: there is no room for it.
        """

        def call() -> bool:
            with path.open("wb") as file:
                self._stream(key, max_bytes, file.write)
            return True

        return await self._run(call, missing=False)

    async def upload(self, path: Path, key: str, content_type: str) -> ObjectInfo:
        """Store a file in one request, so that it is there whole or not at all.

        When the caller is cancelled, the request that is on its way may still arrive; no further
        one is sent.

        Raises:
            StorageUnavailable: MinIO did not answer, or refused.
        """

        def call() -> ObjectInfo:
            size = path.stat().st_size
            with path.open("rb") as file:
                stored = self._minio.put_object(
                    bucket_name=self.name,
                    object_name=key,
                    data=file,
                    length=size,
                    content_type=content_type,
                    part_size=max(size, 5 * 1024 * 1024),
                )
            return ObjectInfo(size=size, etag=(stored.etag or "").strip('"'))

        return await self._run(call)

    async def list(self, prefix: str, *, at_most: int) -> tuple[ListedObject, ...]:
        """List objects whose keys begin with `prefix`, in the order of their keys.

        Raises:
            StorageUnavailable: MinIO did not answer, or refused.
        """

        def call() -> tuple[ListedObject, ...]:
            found = self._minio.list_objects(bucket_name=self.name, prefix=prefix, recursive=True)
            return tuple(
                ListedObject(key=item.object_name, modified_at=item.last_modified)
                for item in islice(found, at_most)
                if item.object_name and item.last_modified and not item.is_dir
            )

        return await self._run(call)

    async def delete(self, keys: Collection[str]) -> None:
        """Delete objects; that one of them is not there is no error.

        Raises:
            StorageUnavailable: MinIO did not answer, or refused.
        """

        def call() -> None:
            # One by one: it is what makes a gateway over a file system remove the empty folders.
            for key in keys:
                self._minio.remove_object(bucket_name=self.name, object_name=key)

        await self._run(call)

    async def server_time(self) -> datetime:
        """Ask for the time by the server's clock, to the second; ours may be wrong.

        Raises:
            StorageUnavailable: MinIO did not answer, refused, or did not say.
        """

        def call() -> datetime:
            try:
                found = self._minio.stat_object(bucket_name=self.name, object_name="work/clock")
                said = (found.metadata or {}).get("date", "")
            except S3Error as error:
                if error.code not in _MISSING:
                    raise
                said = error.response.headers.get("date", "")
            try:
                return parsedate_to_datetime(said)
            except ValueError:
                raise StorageUnavailable("MinIO's answer carries no date.") from None

        return await self._run(call)

    # ------------------------------------------------------------ inside a thread
    def _stream(self, key: str, max_bytes: int, write: Callable[[bytes], object]) -> None:
        response = self._minio.get_object(bucket_name=self.name, object_name=key)
        try:
            if int(response.headers.get("Content-Length", 0)) > max_bytes:
                raise ObjectTooLarge
            received = 0
            for chunk in _chunks(response):
                received += len(chunk)
                if received > max_bytes:
                    raise ObjectTooLarge
                write(chunk)
        finally:
            response.close()
            response.release_conn()

    # ------------------------------------------------------------ around it
    async def _run(self, call: Callable[[], T], *, missing: T | None = None) -> T:
        """Run a blocking call, again when that may help, and give its errors our names."""
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(_may_help),
            wait=_backoff,
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            reraise=True,
        )
        try:
            async with asyncio.timeout(OPERATION_S), self._threads:
                return await retrying(partial(in_thread, call, deadline_s=OPERATION_S))
        except S3Error as error:
            if error.code in _MISSING:
                return missing  # type: ignore[return-value]  # callers pass what "missing" is
            raise StorageUnavailable(
                f"MinIO answered {error.code}: {error.message}",
                advice=_ADVICE.get(error.code or ""),
            ) from None
        except (TimeoutError, Abandoned):
            raise StorageUnavailable(
                f"MinIO did not answer: not done within {OPERATION_S:g} s."
            ) from None
        except _FAULTS as error:
            if full := DiskFull.behind(error):
                raise full from None
            raise StorageUnavailable(f"MinIO did not answer: {_root(error)}") from None


_FAULTS = (MinioException, urllib3.exceptions.HTTPError, OSError, ET.ParseError)
"""ParseError: the document that explains a refusal ended early."""

_ADVICE = {
    "AccessDenied": (
        "The worker's MinIO user needs s3:GetObject on uploads/*; s3:GetObject, s3:PutObject and "
        "s3:DeleteObject on avatars/* and work/*; and s3:ListBucket on all three."
    ),
    "InvalidAccessKeyId": "Check MINIO_ACCESS_KEY.",
    "RequestTimeTooSkewed": "The clock of this machine, or MinIO's, is wrong: set it.",
    "SignatureDoesNotMatch": "Check MINIO_SECRET_KEY, and that the clocks agree.",
    "NoSuchBucket": "Check MINIO_BUCKET.",
}


def _may_help(error: BaseException) -> bool:
    """Whether the same request could be answered better a moment later."""
    if isinstance(error, S3Error):
        status = error.response.status
    elif isinstance(error, ServerError):
        status = error.status_code
    elif isinstance(error, InvalidResponseError):
        status = error._code  # noqa: SLF001 - it has no other way to ask
    else:
        return isinstance(error, _FAULTS) and DiskFull.behind(error) is None
    return status >= 500 or status in _BUSY


def _chunks(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """Read as long as somebody waits: a server may drip for ever."""
    for chunk in response.stream(CHUNK_BYTES):
        go_on()
        yield chunk


def _root(error: BaseException) -> str:
    reason = getattr(error, "reason", None)
    return f"{type(error).__name__}: {reason or error}"
