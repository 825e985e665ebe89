"""The bucket: one client with timeouts that end, listings, and errors with names."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import SplitResult

import certifi
import urllib3
from minio import Minio
from minio.error import InvalidResponseError, S3Error, ServerError
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_exponential
from urllib3 import exceptions as http

from models_sync.answers import name_answer, name_refusal
from models_sync.errors import (
    AnswerStrange,
    BucketUnreachable,
    HostUnknown,
    NothingThere,
    ObjectDamaged,
    SyncError,
    TransferCut,
    TransferStalled,
)
from models_sync.manifest import ManifestFile
from models_sync.presign import PATTERN_KEY, Presigner
from models_sync.settings import SyncSettings

CONNECT_S = 5.0
REGION = "us-east-1"
"""MinIO's own default; named, so that no call goes out to ask for it."""
MAX_CONNECTIONS = 64
_ASK_AGAIN = retry(
    retry=retry_if_exception(
        lambda error: isinstance(error, BucketUnreachable) and not isinstance(error, AnswerStrange)
    ),
    stop=stop_after_attempt(3),
    wait=wait_exponential(multiplier=0.25, max=2),
    reraise=True,
)


@dataclass(frozen=True, slots=True)
class RemoteObject:
    """One file that is wanted."""

    key: str
    """Its full name in the bucket."""
    path: str
    """Where it belongs below the local root."""
    size: int
    etag: str | None
    """As it was listed; None where a manifest says what the content is."""
    published: ManifestFile | None = None
    """What the manifest says about it; without one, nothing about it can be verified."""


class Bucket:
    """Read access to the private bucket.  Safe to share between threads."""

    def __init__(self, settings: SyncSettings) -> None:
        self._bucket = settings.minio_bucket
        self._client = make_client(settings, read_s=settings.stall_s)
        self._presigner = Presigner(
            self._client.get_presigned_url("GET", self._bucket, PATTERN_KEY),
            settings.minio_access_key.get_secret_value(),
            settings.minio_secret_key.get_secret_value(),
            REGION,
        )
        self.where = f"{settings.minio_endpoint.split('://')[-1].rstrip('/')}/{self._bucket}"

    @_ASK_AGAIN
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

    @_ASK_AGAIN
    def read_small(self, key: str, max_bytes: int) -> bytes:
        """Read a small object whole.

        Raises:
            ObjectMissing: it is not there.
            ObjectDamaged: it is larger than `max_bytes`.
        """
        with self._named_errors(key):
            response = self._client.get_object(self._bucket, key)
            try:
                data: bytes = response.read(max_bytes + 1)
            finally:
                response.close()
                response.release_conn()
        if len(data) > max_bytes:
            raise ObjectDamaged(f"{key} is larger than {max_bytes:,} bytes")
        return data

    def sign(self, remote: RemoteObject) -> SplitResult:
        """A URL that reads an object for an hour; a request adds its own Range to it."""
        published = remote.published
        return self._presigner.sign(remote.key, published.version_id if published else None)

    @contextmanager
    def _named_errors(self, key: str = "") -> Iterator[None]:
        about = f"{self.where}: {key}: " if key else f"{self.where}: "
        try:
            yield
        except S3Error as error:
            raise name_refusal(
                about, error.code or "", error.message or "", error.response.status
            ) from error
        except (InvalidResponseError, ServerError) as error:
            # minio-py keeps one of the two to itself, and there is no other way to it.
            status: int = getattr(error, "_code", 0) or getattr(error, "status_code", 0)
            raise name_answer(about, status) from error
        except http.HTTPError as error:
            raise _name_failure(about, error) from error


def make_client(
    settings: SyncSettings, *, read_s: float, retries: urllib3.Retry | bool = False
) -> Minio:
    """A client whose calls end: 5 s to connect, `read_s` without a byte.

    It repeats nothing by itself.
    """
    endpoint, secure = host_of(settings)
    return Minio(
        endpoint,
        access_key=settings.minio_access_key.get_secret_value(),
        secret_key=settings.minio_secret_key.get_secret_value(),
        secure=secure,
        region=REGION,
        http_client=make_pool(secure=secure, read_s=read_s, retries=retries),
    )


def host_of(settings: SyncSettings) -> tuple[str, bool]:
    """`host[:port]`, and whether to speak TLS: what a scheme says, else MODEL_SYNC_MINIO_SECURE."""
    scheme, separator, host = settings.minio_endpoint.partition("://")
    if not separator:
        return scheme.rstrip("/"), settings.minio_secure
    return host.rstrip("/"), scheme == "https"


def make_pool(
    *, secure: bool, read_s: float, retries: urllib3.Retry | bool = False
) -> urllib3.PoolManager:
    """Connections of `make_client`."""
    pool: dict[str, Any] = {"ssl_context": authorities()} if secure else {}
    return urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=CONNECT_S, read=read_s),
        maxsize=MAX_CONNECTIONS,
        retries=retries,
        **pool,
    )


@cache
def authorities() -> ssl.SSLContext:
    """The system's authorities and SSL_CERT_FILE, and Mozilla's for images without any."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def _name_failure(about: str, error: http.HTTPError) -> SyncError:
    said = f"{about}{error}"
    if isinstance(error, http.NameResolutionError):
        return HostUnknown(said)
    if isinstance(error, http.ConnectTimeoutError | http.NewConnectionError):
        return BucketUnreachable(said)
    if isinstance(error, http.TimeoutError):
        return TransferStalled(said)
    if isinstance(error, http.ProtocolError):
        return TransferCut(said)
    return BucketUnreachable(said)
