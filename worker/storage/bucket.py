"""One bucket of MinIO as awaitable calls with named errors.

minio-py blocks, so its calls run in a small pool of threads.  What was measured about it is in
docs/reference and decides the settings here: its default timeouts are 300 s, its `bucket_exists`
is refused under a narrow policy, and its `fget_object` accepts corrupt and replaced objects.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import certifi
import urllib3
from minio import Minio
from minio.error import MinioException, S3Error

from worker.errors import StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.settings import StorageSettings

THREADS: Final = 4
CONNECT_TIMEOUT_S: Final = 5.0
READ_TIMEOUT_S: Final = 60.0
CHUNK_BYTES: Final = 256 * 1024
REGION: Final = "us-east-1"
"""MinIO's default; naming it saves a request before the first one."""
_MISSING = {"NoSuchKey", "NoSuchObject", "ResourceNotFound"}

T = TypeVar("T")


class ObjectTooLarge(Exception):
    """The object has more bytes than the caller accepts; the rest was not read."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What the server says about a stored object."""

    size: int
    etag: str


class Bucket:
    """The worker's bucket, reached with the worker's own credentials."""

    def __init__(self, settings: StorageSettings) -> None:
        self.name = settings.bucket
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="storage")
        self._minio = Minio(
            endpoint=settings.host,
            access_key=settings.access_key,
            secret_key=settings.secret_key.get_secret_value(),
            secure=settings.secure,
            region=REGION,
            http_client=_http_pool(),
        )

    def close(self) -> None:
        """Start nothing more; calls that are under way end by themselves."""
        self._pool.shutdown(wait=False, cancel_futures=True)

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
        chunks: list[bytes] = []
        found = await self._run(partial(self._stream, key, max_bytes, chunks.append), missing=False)
        return b"".join(chunks) if found else None

    async def download(self, key: str, path: Path, *, max_bytes: int) -> bool:
        """Write an object to `path`; False when there is none.

        Raises:
            ObjectTooLarge: it has more than `max_bytes`; nothing more than that was read.
            StorageUnavailable: MinIO did not answer, refused, or the body ended early.
        """

        def call() -> bool:
            with path.open("wb") as file:
                return self._stream(key, max_bytes, file.write)

        return await self._run(call, missing=False)

    async def upload(self, path: Path, key: str, content_type: str) -> ObjectInfo:
        """Store a file in one request, so that it is there whole or not at all."""

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

    # ------------------------------------------------------------ inside a thread
    def _stream(self, key: str, max_bytes: int, write: Callable[[bytes], object]) -> bool:
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
        return True

    async def _run(self, call: Callable[[], T], *, missing: T | None = None) -> T:
        """Run a blocking call in the pool and give its errors our names."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._pool, call)
        except S3Error as error:
            if error.code in _MISSING:
                return missing  # type: ignore[return-value]  # callers pass what "missing" is
            raise StorageUnavailable(
                f"MinIO answered {error.code}: {error.message}",
                advice=_ADVICE.get(error.code or ""),
            ) from None
        except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
            raise StorageUnavailable(f"MinIO did not answer: {_root(error)}") from None


_ADVICE = {
    "AccessDenied": (
        "The worker's MinIO user needs s3:GetObject on uploads/*, s3:GetObject and s3:PutObject "
        "on avatars/*, and s3:ListBucket on both."
    ),
    "InvalidAccessKeyId": "Check MINIO_ACCESS_KEY.",
    "SignatureDoesNotMatch": "Check MINIO_SECRET_KEY, and that the clocks agree.",
    "NoSuchBucket": "Check MINIO_BUCKET.",
}


def _chunks(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """Read with a deadline for the whole body too: a server may drip for ever."""
    deadline = time.monotonic() + 2 * READ_TIMEOUT_S
    for chunk in response.stream(CHUNK_BYTES):
        if time.monotonic() > deadline:
            raise TimeoutError("the object took too long to arrive")
        yield chunk


def _root(error: BaseException) -> str:
    reason = getattr(error, "reason", None)
    return f"{type(error).__name__}: {reason or error}"


def _http_pool() -> urllib3.PoolManager:
    context = ssl.create_default_context()  # the system's authorities and SSL_CERT_FILE
    context.load_verify_locations(certifi.where())  # and Mozilla's, for images without any
    return urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S),
        maxsize=THREADS + 4,
        ssl_context=context,
        retries=urllib3.Retry(
            total=2,
            backoff_factor=0.2,
            status_forcelist=(500, 502, 503, 504),
            allowed_methods=None,
            raise_on_status=False,
        ),
    )
