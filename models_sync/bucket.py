"""The bucket: one client with timeouts that end, listings, and errors with names."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import certifi
import urllib3
from minio import Minio
from minio.error import InvalidResponseError, S3Error, ServerError

from models_sync.errors import BucketRefused, BucketUnreachable, NothingThere, ObjectDamaged
from models_sync.settings import SyncSettings

CHUNK_BYTES = 1 << 20


def _authorities() -> ssl.SSLContext:
    """The system's authorities and SSL_CERT_FILE, and Mozilla's for images without any."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


@dataclass(frozen=True, slots=True)
class RemoteObject:
    """One file in the bucket."""

    key: str
    """Its full name in the bucket."""
    path: str
    """Where it belongs below the local root."""
    size: int
    etag: str


class Bucket:
    """Read access to the private bucket.  Safe to share between threads."""

    def __init__(self, settings: SyncSettings) -> None:
        self._bucket = settings.minio_bucket
        endpoint = settings.minio_endpoint
        secure = settings.minio_secure
        if "://" in endpoint:
            scheme, endpoint = endpoint.split("://", 1)
            secure = scheme == "https"
        self.where = f"{endpoint}/{self._bucket}"
        self._client = Minio(
            endpoint.rstrip("/"),
            access_key=settings.minio_access_key.get_secret_value(),
            secret_key=settings.minio_secret_key.get_secret_value(),
            secure=secure,
            region="us-east-1",  # named, so that no call goes out to ask for it
            http_client=urllib3.PoolManager(
                timeout=urllib3.Timeout(connect=5, read=60),
                maxsize=16,
                retries=urllib3.Retry(total=2, backoff_factor=0.5, status_forcelist=[503]),
                ssl_context=_authorities(),
            ),
        )

    def list(self, prefixes: dict[str, str]) -> list[RemoteObject]:
        """List the files below each of `prefixes` (local prefix → bucket prefix).

        One listing a prefix and no HEAD: a read-only user may do nothing else.

        Raises:
            NothingThere: one of the prefixes holds no file.
        """
        found: list[RemoteObject] = []
        with self._named_errors():
            for local, remote in prefixes.items():
                before = len(found)
                for item in self._client.list_objects(self._bucket, remote, recursive=True):
                    if item.object_name is None or item.is_dir:
                        continue
                    found.append(
                        RemoteObject(
                            key=item.object_name,
                            path=local + item.object_name.removeprefix(remote),
                            size=item.size or 0,
                            etag=(item.etag or "").strip('"'),
                        )
                    )
                if len(found) == before:
                    raise NothingThere(f"{self.where} holds nothing below {remote}")
        return found

    @contextmanager
    def stream(self, remote: RemoteObject) -> Iterator[Iterator[bytes]]:
        """Open the very version that was listed (If-Match) and give its chunks."""
        with self._named_errors():
            response = self._client.get_object(
                self._bucket, remote.key, request_headers={"If-Match": f'"{remote.etag}"'}
            )
            try:
                yield response.stream(CHUNK_BYTES)
            finally:
                response.close()
                response.release_conn()

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except S3Error as error:
            if error.code == "PreconditionFailed":
                raise ObjectDamaged(
                    f"{error.object_name} was replaced in the bucket meanwhile"
                ) from error
            raise BucketRefused(f"{self.where}: {error.code}: {error.message}") from error
        except (urllib3.exceptions.HTTPError, InvalidResponseError, ServerError) as error:
            raise BucketUnreachable(f"{self.where}: {error}") from error
