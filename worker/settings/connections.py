"""Where jobs come from and where results go: Redis, the API, MinIO."""

from __future__ import annotations

from pathlib import Path
from typing import Self
from urllib.parse import SplitResult, urlsplit

from pydantic import SecretStr
from pydantic import model_validator as validates_model

from worker.settings.base import Group, var
from worker.settings.values import (
    BaseUrl,
    Endpoint,
    HttpUrl,
    RedisUrl,
    SigningSecret,
    is_loopback,
)


class QueueSettings(Group):
    """Redis and BullMQ."""

    title = "Queue"
    url: RedisUrl = var(
        "REDIS_URL",
        "Redis (or Valkey) that holds the BullMQ queue; rediss:// for TLS. Reserved characters "
        "of the password are percent-encoded.",
        example="redis://:PASSWORD@redis.example.com:6379",
    )
    ca_certs: Path | None = var(
        "REDIS_SSL_CA_CERTS",
        "File with the certificate authorities that Redis' certificate is checked against; the "
        "system's when unset.",
        example="/etc/ssl/redis-ca.pem",
        default=None,
    )
    tls_insecure: bool = var(
        "REDIS_TLS_INSECURE",
        "Accept any certificate of Redis. Only for tests: anyone on the way can read the password.",
        example="false",
        default=False,
    )
    queue: str = var(
        "AVATAR_QUEUE", "Name of the queue.", example="avatar_build", default="avatar_build"
    )
    prefix: str = var(
        "BULLMQ_PREFIX", "BullMQ's key prefix, as the API sets it.", example="bull", default="bull"
    )
    max_retries: int = var(
        "MAX_RETRIES",
        "Attempts in all for a job whose producer set none.",
        example="3",
        default=3,
        ge=1,
        le=100,
    )


class ApiSettings(Group):
    """The API that jobs are reported to."""

    title = "API"
    base_url: HttpUrl = var(
        "API_BASE_URL",
        "Where status reports go. https:// unless the host is this machine or API_ALLOW_HTTP is "
        "set.",
        example="https://api.example.com",
    )
    allow_http: bool = var(
        "API_ALLOW_HTTP",
        "Allow plain http:// to a host other than this machine, for a private network.",
        example="true",
        default=False,
    )
    token: SecretStr | None = var(
        "API_TOKEN", "Bearer token sent with every report.", example="a-long-secret", default=None
    )
    signing_secret: SigningSecret | None = var(
        "API_SIGNING_SECRET",
        "Signs every report by Standard Webhooks, so that the API can check its origin.",
        example="whsec_" + "bXktc2VjcmV0LW9mLTI0LWJ5dGVzISE=",
        default=None,
    )

    @validates_model(mode="after")
    def _no_plain_http(self) -> Self:
        parts = urlsplit(self.base_url)
        private = self.allow_http or is_loopback(parts.hostname or "")
        if parts.scheme == "http" and not private:
            raise ValueError(
                "API_BASE_URL is plain http:// to another host: results and tokens could be read "
                "on the way. Use https://, or set API_ALLOW_HTTP=true on a private network"
            )
        return self


class StorageSettings(Group):
    """MinIO: photos in, avatars out."""

    title = "Storage"
    endpoint: Endpoint = var(
        "MINIO_ENDPOINT",
        "MinIO's host, optionally with a port; a scheme is accepted and then decides about TLS.",
        example="s3.example.com",
    )
    secure_flag: bool = var(
        "MINIO_SECURE",
        "Whether MINIO_ENDPOINT, given without a scheme, is spoken to by TLS.",
        example="true",
        default=False,
    )
    access_key: str = var(
        "MINIO_ACCESS_KEY",
        "MinIO user of the worker: may read uploads/ and write avatars/ of the bucket.",
        example="avatar-worker",
    )
    secret_key: SecretStr = var("MINIO_SECRET_KEY", "That user's secret.", example="a-long-secret")
    bucket: str = var(
        "MINIO_BUCKET",
        "Bucket that holds uploads/ and avatars/.",
        example="tryfitted",
        default="tryfitted",
        pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$",
    )
    output_base_url: BaseUrl | None = var(
        "OUTPUT_BASE_URL",
        "Public address of MinIO in glbUrl; MINIO_ENDPOINT when unset. Ends after the host.",
        example="https://cdn.example.com",
        default=None,
    )
    publish_inspection: bool = var(
        "PUBLISH_INSPECTION",
        "Also publish masks, overlays and silhouette targets. They show a person: personal data.",
        example="false",
        default=False,
    )

    @property
    def _parts(self) -> SplitResult:
        return urlsplit(self.endpoint if "://" in self.endpoint else f"//{self.endpoint}")

    @property
    def host(self) -> str:
        """`host[:port]`, as minio-py takes it."""
        return self._parts.netloc

    @property
    def secure(self) -> bool:
        """Whether to speak TLS: what the scheme says, else MINIO_SECURE."""
        return self._parts.scheme == "https" if self._parts.scheme else self.secure_flag

    @property
    def public_base(self) -> str:
        """What stands before `/<bucket>/<key>` in the URLs that are reported."""
        return self.output_base_url or f"{'https' if self.secure else 'http'}://{self.host}"
