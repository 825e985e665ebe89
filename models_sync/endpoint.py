"""The server: how it is named, whom to trust for it, and how a request to it is signed.

Nothing here imports minio-py, whose import alone takes as long as fetching 200 small files.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, quote

from models_sync.presign import PATTERN_KEY, Presigner
from models_sync.remote import RemoteObject
from models_sync.settings import SyncSettings

if TYPE_CHECKING:
    import ssl

CONNECT_S = 5.0
REGION = "us-east-1"
"""MinIO's own default; named, so that no call goes out to ask for it."""
_BUCKET_IN_HOST = ("amazonaws.com", "aliyuncs.com")
"""Clouds that want the bucket's name in the host's, by rules that minio-py knows."""


class Endpoint:
    """One bucket's address, and requests that read from it.  Safe to share between threads."""

    def __init__(self, settings: SyncSettings) -> None:
        self._presigner = Presigner(
            _pattern(settings),
            settings.minio_access_key,
            settings.minio_secret_key,
            REGION,
        )
        host = settings.minio_endpoint.split("://")[-1].rstrip("/")
        self.where = f"{host}/{settings.minio_bucket}"
        """As an error names it."""

    def sign(self, remote: RemoteObject) -> SplitResult:
        """A URL that reads an object for an hour; a request adds its own Range to it."""
        published = remote.published
        return self._presigner.sign(remote.key, published.version_id if published else None)

    def authorize(self, key: str) -> tuple[SplitResult, dict[str, str]]:
        """A URL, and the headers with which it reads an object at once."""
        return self._presigner.authorize(key)


def host_of(settings: SyncSettings) -> tuple[str, bool]:
    """`host[:port]`, and whether to speak TLS: what a scheme says, else MODEL_SYNC_MINIO_SECURE."""
    scheme, separator, host = settings.minio_endpoint.partition("://")
    if not separator:
        return scheme.rstrip("/"), settings.minio_secure
    return host.rstrip("/"), scheme == "https"


@cache
def authorities() -> ssl.SSLContext:
    """The system's authorities and SSL_CERT_FILE, and Mozilla's for images without any."""
    import ssl  # noqa: PLC0415 - only who speaks TLS needs the two

    import certifi  # noqa: PLC0415 - as above

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def _pattern(settings: SyncSettings) -> str:
    """The URL of the object PATTERN_KEY; tests hold it against minio-py's."""
    host, secure = host_of(settings)
    if any(cloud in host.lower() for cloud in _BUCKET_IN_HOST):
        from models_sync.library import make_client  # noqa: PLC0415 - see the module

        client = make_client(settings, read_s=settings.stall_s)
        return client.get_presigned_url("GET", settings.minio_bucket, PATTERN_KEY)
    scheme, usual_port = ("https", ":443") if secure else ("http", ":80")
    bucket = quote(settings.minio_bucket, safe="")
    return f"{scheme}://{host.removesuffix(usual_port)}/{bucket}/{PATTERN_KEY}"
