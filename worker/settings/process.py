"""The worker's own process: how weights come to it at start, its limits, pages and pod."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import SecretStr
from pydantic import model_validator as validates_model

from worker.settings.base import Group, var
from worker.settings.values import CommaList, Endpoint, HttpUrl


class SyncSettings(Group):
    """Weights from the private bucket; read by `models-sync` and, for its switch, here."""

    title = "Model sync"
    enabled: bool = var(
        "MODEL_SYNC_ENABLED",
        "Fetch missing weights from the private bucket at start.",
        example="false",
        default=False,
    )
    endpoint: Endpoint | None = var(
        "MODEL_SYNC_MINIO_ENDPOINT",
        "MinIO that holds the weights.",
        example="s3.example.com",
        default=None,
    )
    secure: bool = var("MODEL_SYNC_MINIO_SECURE", "Speak TLS to it.", example="true", default=True)
    bucket: str = var(
        "MODEL_SYNC_MINIO_BUCKET",
        "Private bucket of the weights.",
        example="tryfitted-models",
        default="tryfitted-models",
    )
    access_key: str | None = var(
        "MODEL_SYNC_MINIO_ACCESS_KEY",
        "Read-only user of that bucket.",
        example="models-reader",
        default=None,
    )
    secret_key: SecretStr | None = var(
        "MODEL_SYNC_MINIO_SECRET_KEY",
        "That user's secret.",
        example="a-long-secret",
        default=None,
    )
    prefix: str | None = var(
        "MODEL_SYNC_PREFIX",
        "Folder in the bucket that holds smplx/, pixie/ and the others.",
        example="production",
        default=None,
    )
    embedded: bool = var(
        "MODELS_EMBEDDED",
        "The image holds the weights: they are hashed at start, against the manifest that came "
        "with them. The target `embedded-models` sets it.",
        example="false",
        default=False,
    )
    sources: CommaList = var(
        "MODEL_SYNC_SOURCES",
        "Which sets of weights to fetch.",
        example="smplx,pixie",
        default=("smplx", "pixie", "sam3d", "sam2"),
    )
    local_root: Path = var(
        "MODEL_SYNC_LOCAL_ROOT",
        "Where the weights are kept.",
        example="/app/models",
        default=Path("/app/models"),
    )

    public_key: str | None = var(
        "MODEL_SYNC_PUBLIC_KEY",
        "Who may have signed the bucket's manifest: ed25519 public keys in base64, separated by "
        "commas. Without it an unsigned manifest is accepted.",
        example="lQUzbIozY4YrsehCDlttNlVIiOELlFdcPOYhCzG/ETM=",
        default=None,
    )

    @validates_model(mode="after")
    def _complete(self) -> Self:
        needed = {
            "MODEL_SYNC_MINIO_ENDPOINT": self.endpoint,
            "MODEL_SYNC_MINIO_ACCESS_KEY": self.access_key,
            "MODEL_SYNC_MINIO_SECRET_KEY": self.secret_key,
        }
        if self.enabled and (unset := [name for name, value in needed.items() if value is None]):
            raise ValueError(f"MODEL_SYNC_ENABLED=true needs {', '.join(unset)}")
        return self

    @validates_model(mode="after")
    def _known_sources(self) -> Self:
        if unknown := set(self.sources) - {"smplx", "pixie", "sam3d", "sam2"}:
            raise ValueError(
                f"MODEL_SYNC_SOURCES names {', '.join(sorted(unknown))}; "
                "known are smplx, pixie, sam3d, sam2"
            )
        return self


class WorkerSettings(Group):
    """The worker's own process."""

    title = "Worker"
    processing_timeout_s: float = var(
        "PROCESSING_TIMEOUT",
        "Longest time that one attempt may compute, in seconds.",
        example="300",
        default=300.0,
        gt=0,
        allow_inf_nan=False,
    )
    drain_s: float = var(
        "WORKER_DRAIN_SECONDS",
        "How long SIGTERM lets the running job finish before it is put back into the "
        "queue; 0 puts it back at once.",
        example="30",
        default=0.0,
        ge=0,
        allow_inf_nan=False,
    )
    port: int = var(
        "WORKER_PORT",
        "Port of the worker's own pages, /health and /ready among them; 0 takes a free one.",
        example="8477",
        default=8477,
        ge=0,
        le=65535,
    )
    token: SecretStr | None = var(
        "WORKER_TOKEN",
        "Token that protects the worker's own pages, all but /health and /ready; sent as a Bearer "
        "token, or as the password that a browser asks for. Without it they answer this machine "
        "alone.",
        example="a-long-secret",
        default=None,
    )
    otlp_endpoint: HttpUrl | None = var(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OpenTelemetry collector (OTLP over HTTP) that spans go to; none when unset. The other "
        "OTEL_ variables hold as OpenTelemetry documents them.",
        example="http://otel-collector:4318",
        default=None,
    )
    otlp_headers: SecretStr | None = var(
        "OTEL_EXPORTER_OTLP_HEADERS",
        "Headers for the collector, read by OpenTelemetry itself.",
        example="authorization=Bearer%20TOKEN",
        default=None,
    )
    unfit_stop_minutes: float = var(
        "WORKER_UNFIT_STOP_MINUTES",
        "On RunPod: how long a pod that cannot compute, because it has no usable GPU or its engine "
        "does not come up, stays up, saying why, before it is stopped through RunPod's API (needs "
        "RUNPOD_API_KEY).",
        example="15",
        default=15.0,
        gt=0,
        allow_inf_nan=False,
    )
    runpod_pod_id: str | None = var(
        "RUNPOD_POD_ID",
        "Set by RunPod: the pod that this is.",
        example="xedezhzb9la3ye",
        default=None,
    )
    runpod_api_key: SecretStr | None = var(
        "RUNPOD_API_KEY",
        "Lets an unfit pod stop itself. RunPod puts a key of the pod's own here.",
        example="a-long-secret",
        default=None,
    )
    image_digest: str | None = var(
        "IMAGE_DIGEST",
        "Digest of the container image that the operator deployed; /v1/ping tells it.",
        example="sha256:…",
        default=None,
    )
    git_commit: str | None = var(
        "GIT_COMMIT",
        "Commit that the image was built from; the image sets it, and /v1/ping tells it.",
        example="0123456789abcdef0123456789abcdef01234567",
        default=None,
    )
    build_time: str | None = var(
        "BUILD_TIME",
        "When the image was built; the image sets it, and /v1/ping tells it.",
        example="2026-11-21T09:00:00Z",
        default=None,
    )
