"""Every environment variable of the worker: typed, documented, read here and nowhere else.

A field's alias is the variable's name, its description says what it is for and its example is
what the error message shows.  `Settings.load()` reads all groups and raises one `SettingsError`
that lists everything that is wrong; `describe()` feeds the reference page in docs.

Blank values count as unset, because Coolify and RunPod pass variables that were left empty.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, SecretStr, ValidationError
from pydantic import model_validator as validates_model
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from worker.errors import SettingsError
from worker.settings_values import (
    BaseUrl,
    CommaList,
    Endpoint,
    GpuList,
    HttpUrl,
    RedisUrl,
    SigningSecret,
    is_loopback,
)


def _var(
    name: str, about: str, *, example: str, default: Any = PydanticUndefined, **limits: Any
) -> Any:
    """Declare a variable: name, what it is for, an example, what holds when unset, limits."""
    return Field(default, validation_alias=name, description=about, examples=[example], **limits)


class _Group(BaseSettings):
    """Variables that one part of the worker is handed."""

    model_config = SettingsConfigDict(
        frozen=True, case_sensitive=True, extra="ignore", hide_input_in_errors=True
    )
    title: ClassVar[str]

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Self:
        """Read this group's variables from `environ`."""
        given: dict[str, Any] = {"environ": environ}
        return cls(**given)

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read this group alone, for a tool that needs no other.

        Raises:
            SettingsError: as `Settings.load` raises it.
        """
        try:
            return cls.read(os.environ if environ is None else environ)
        except ValidationError as error:
            raise SettingsError(
                "\n".join(["The environment is wrong:", *_explain(cls, error)])
            ) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - called by these names
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - same
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - same
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the mapping that `read` was given, and nothing that it was not given."""
        if isinstance(env_settings, EnvSettingsSource):
            env_settings.env_vars = init_settings()["environ"]
        return (env_settings,)

    @validates_model(mode="before")
    @classmethod
    def _blank_is_unset(cls, values: dict[str, Any]) -> dict[str, Any]:
        stripped = {k: v.strip() if isinstance(v, str) else v for k, v in values.items()}
        return {name: value for name, value in stripped.items() if value != ""}


class QueueSettings(_Group):
    """Redis and BullMQ."""

    title = "Queue"
    url: RedisUrl = _var(
        "REDIS_URL",
        "Redis (or Valkey) that holds the BullMQ queue; rediss:// for TLS. Reserved characters "
        "of the password are percent-encoded.",
        example="redis://:PASSWORD@redis.example.com:6379",
    )
    ca_certs: Path | None = _var(
        "REDIS_SSL_CA_CERTS",
        "File with the certificate authorities that Redis' certificate is checked against; the "
        "system's when unset.",
        example="/etc/ssl/redis-ca.pem",
        default=None,
    )
    tls_insecure: bool = _var(
        "REDIS_TLS_INSECURE",
        "Accept any certificate of Redis. Only for tests: anyone on the way can read the password.",
        example="false",
        default=False,
    )
    queue: str = _var(
        "AVATAR_QUEUE", "Name of the queue.", example="avatar_build", default="avatar_build"
    )
    prefix: str = _var(
        "BULLMQ_PREFIX", "BullMQ's key prefix, as the API sets it.", example="bull", default="bull"
    )
    max_retries: int = _var(
        "MAX_RETRIES",
        "Attempts in all for a job whose producer set none.",
        example="3",
        default=3,
        ge=1,
        le=100,
    )


class ApiSettings(_Group):
    """The API that jobs are reported to."""

    title = "API"
    base_url: HttpUrl = _var(
        "API_BASE_URL",
        "Where status reports go. https:// unless the host is this machine or API_ALLOW_HTTP is "
        "set.",
        example="https://api.example.com",
    )
    allow_http: bool = _var(
        "API_ALLOW_HTTP",
        "Allow plain http:// to a host other than this machine, for a private network.",
        example="true",
        default=False,
    )
    token: SecretStr | None = _var(
        "API_TOKEN", "Bearer token sent with every report.", example="a-long-secret", default=None
    )
    signing_secret: SigningSecret | None = _var(
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


class StorageSettings(_Group):
    """MinIO: photos in, avatars out."""

    title = "Storage"
    endpoint: Endpoint = _var(
        "MINIO_ENDPOINT",
        "MinIO's host, optionally with a port; a scheme is accepted and then decides about TLS.",
        example="s3.example.com",
    )
    secure_flag: bool = _var(
        "MINIO_SECURE",
        "Whether MINIO_ENDPOINT, given without a scheme, is spoken to by TLS.",
        example="true",
        default=False,
    )
    access_key: str = _var(
        "MINIO_ACCESS_KEY",
        "MinIO user of the worker: may read uploads/ and write avatars/ of the bucket.",
        example="avatar-worker",
    )
    secret_key: SecretStr = _var("MINIO_SECRET_KEY", "That user's secret.", example="a-long-secret")
    bucket: str = _var(
        "MINIO_BUCKET",
        "Bucket that holds uploads/ and avatars/.",
        example="tryfitted",
        default="tryfitted",
        pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$",
    )
    output_base_url: BaseUrl | None = _var(
        "OUTPUT_BASE_URL",
        "Public address of MinIO in glbUrl; MINIO_ENDPOINT when unset. Ends after the host.",
        example="https://cdn.example.com",
        default=None,
    )
    publish_inspection: bool = _var(
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


class PipelineSettings(_Group):
    """How bodies are fitted and written."""

    title = "Pipeline"
    require_real_avatar: bool = _var(
        "REQUIRE_REAL_AVATAR",
        "Take jobs only when the licensed estimators are loaded and verified. When false, the "
        "free body is fitted, for real, and `sources` says so.",
        example="false",
        default=False,
    )
    device: Literal["auto", "cuda", "cpu"] = _var(
        "WORKER_DEVICE",
        "Where to compute; auto takes CUDA when it is there, and with REQUIRE_REAL_AVATAR nothing "
        "else.",
        example="cpu",
        default="auto",
    )
    gpus: GpuList = _var(
        "WORKER_GPUS", "GPUs to use: all, or their numbers.", example="0,1", default="all"
    )
    observer_model_dir: Path | None = _var(
        "OBSERVER_MODEL_DIR",
        "Where the free pose models lie; the user's cache folder when unset.",
        example="/app/models/observers",
        default=None,
    )
    display_pose: Literal["apose", "tpose", "pixie"] = _var(
        "AVATAR_DISPLAY_POSE",
        "Pose of avatar.glb: apose, tpose, or pixie for the pose in the front photo.",
        example="tpose",
        default="apose",
    )
    apose_arm_down_deg: float = _var(
        "AVATAR_APOSE_ARM_DOWN_DEG",
        "How far the A-pose lowers the arms from the horizontal, in degrees.",
        example="25",
        default=25.0,
        ge=0,
        le=90,
        allow_inf_nan=False,
    )
    silhouette_refine: bool = _var(
        "SILHOUETTE_REFINE_ENABLED",
        "Fit the body to the person's outline too, not to the keypoints alone.",
        example="true",
        default=True,
    )
    silhouette_torso_erode_px: int = _var(
        "SILHOUETTE_TORSO_ERODE_PX",
        "How thick clothes are expected to be, beside the usual 8: at 16 all garments are expected "
        "to stand off twice as far, at 0 nobody wears anything. How far they do is solved.",
        example="8",
        default=8,
        ge=0,
        le=200,
    )
    gltfpack_path: str | None = _var(
        "GLTFPACK_PATH",
        "gltfpack program that optimises avatar.glb.",
        example="/usr/local/bin/gltfpack",
        default=None,
    )
    require_gltfpack: bool = _var(
        "REQUIRE_GLTFPACK",
        "Fail a job when gltfpack is missing, instead of publishing the GLB without it.",
        example="false",
        default=False,
    )

    @property
    def wanted_device(self) -> Literal["auto", "cuda", "cpu"]:
        """What WORKER_DEVICE comes to.

        REQUIRE_REAL_AVATAR leaves auto no way to the CPU: there the licensed estimators take
        minutes, or nothing at all, on a machine that is paid for its GPU.  Who wants that says cpu.
        """
        return "cuda" if self.device == "auto" and self.require_real_avatar else self.device


class ModelSettings(_Group):
    """Licensed models on the operator's volume."""

    title = "Models"
    estimators: CommaList = _var(
        "AVATAR_ESTIMATORS",
        "In which order estimators propose the first body: the first one that is enabled is asked, "
        "the next one where it fails on a job. sam3d_body is enabled by SAM3DBODY_ENABLED, pixie "
        "by its weights in PIXIE_MODEL_DIR.",
        example="pixie,sam3d_body",
        default=("sam3d_body", "pixie"),
    )
    smplx_dir: Path = _var(
        "SMPLX_MODEL_DIR",
        "Folder of the operator's SMPLX_{NEUTRAL,FEMALE,MALE}.npz. Where it holds "
        "SMPLX_NEUTRAL.npz, SMPL-X is fitted, by the declared gender; else the free body.",
        example="/app/models/smplx",
        default=Path("/app/models/smplx"),
    )
    pixie_dir: Path = _var(
        "PIXIE_MODEL_DIR",
        "Folder of PIXIE's code, with its files in data/. PIXIE is enabled where "
        "data/pixie_model.tar lies.",
        example="/app/src/pipeline/PIXIE",
        default=Path("/app/src/pipeline/PIXIE"),
    )
    pixie_use_tex: bool = _var(
        "PIXIE_USE_TEX",
        "Asks for PIXIE's texture model, which is not used: skin comes from the photo.",
        example="false",
        default=False,
    )
    smpl_anthro_model_ext: str | None = _var(
        "SMPL_ANTHRO_MODEL_EXT",
        "File ending of the body models; npz alone is read (`models-sync place` converts pkl).",
        example="npz",
        default=None,
    )
    sam3d_enabled: bool = _var(
        "SAM3DBODY_ENABLED", "Estimate with SAM 3D Body.", example="false", default=False
    )
    sam3d_repo_dir: Path = _var(
        "SAM3DBODY_REPO_DIR",
        "Folder of SAM 3D Body's code; dinov3 and SMPL-Anthropometry are looked for beside it.",
        example="/app/vendors/sam-3d-body",
        default=Path("/app/vendors/sam-3d-body"),
    )
    sam3d_checkpoint: Path = _var(
        "SAM3DBODY_CHECKPOINT_PATH",
        "SAM 3D Body's weights; model_config.yaml lies beside them or one folder up.",
        example="/app/models/sam3d/model.ckpt",
        default=Path("/app/models/sam3d/model.ckpt"),
    )
    sam3d_mhr: Path = _var(
        "SAM3DBODY_MHR_PATH",
        "The MHR body model of SAM 3D Body.",
        example="/app/models/sam3d/assets/mhr_model.pt",
        default=Path("/app/models/sam3d/assets/mhr_model.pt"),
    )
    sam3d_segmentor: Path = _var(
        "SAM3DBODY_SEGMENTOR_PATH",
        "Folder of SAM 2, with its checkpoints in checkpoints/.",
        example="/app/vendors/sam2",
        default=Path("/app/vendors/sam2"),
    )
    sam3d_use_mask: bool = _var(
        "SAM3DBODY_USE_MASK",
        "Give SAM 3D Body the person's mask, and take SAM 2's outline where its checkpoint lies; "
        "the free outline serves where it does not.",
        example="true",
        default=True,
    )
    sam3d_detector: Path | None = _var(
        "SAM3DBODY_DETECTOR_PATH",
        "Person detector of SAM 3D Body; not used: it is given our box.",
        example="/app/models/sam3d/detector",
        default=None,
    )
    sam3d_fov: Path | None = _var(
        "SAM3DBODY_FOV_PATH",
        "Field-of-view estimator of SAM 3D Body; not used: it is given our camera.",
        example="/app/models/sam3d/fov",
        default=None,
    )

    @validates_model(mode="after")
    def _known_estimators(self) -> Self:
        wanted = self.estimators
        if unknown := set(wanted) - {"sam3d_body", "pixie"}:
            raise ValueError(
                f"AVATAR_ESTIMATORS names {', '.join(sorted(unknown))}; "
                "known are sam3d_body and pixie"
            )
        if len(set(wanted)) != len(wanted):
            raise ValueError("AVATAR_ESTIMATORS names one of them twice")
        return self


class SyncSettings(_Group):
    """Weights from the private bucket; read by `models-sync` and, for its switch, here."""

    title = "Model sync"
    enabled: bool = _var(
        "MODEL_SYNC_ENABLED",
        "Fetch missing weights from the private bucket at start.",
        example="false",
        default=False,
    )
    endpoint: Endpoint | None = _var(
        "MODEL_SYNC_MINIO_ENDPOINT",
        "MinIO that holds the weights.",
        example="s3.example.com",
        default=None,
    )
    secure: bool = _var("MODEL_SYNC_MINIO_SECURE", "Speak TLS to it.", example="true", default=True)
    bucket: str = _var(
        "MODEL_SYNC_MINIO_BUCKET",
        "Private bucket of the weights.",
        example="tryfitted-models",
        default="tryfitted-models",
    )
    access_key: str | None = _var(
        "MODEL_SYNC_MINIO_ACCESS_KEY",
        "Read-only user of that bucket.",
        example="models-reader",
        default=None,
    )
    secret_key: SecretStr | None = _var(
        "MODEL_SYNC_MINIO_SECRET_KEY",
        "That user's secret.",
        example="a-long-secret",
        default=None,
    )
    prefix: str | None = _var(
        "MODEL_SYNC_PREFIX",
        "Folder in the bucket that holds smplx/, pixie/ and the others.",
        example="production",
        default=None,
    )
    embedded: bool = _var(
        "MODELS_EMBEDDED",
        "The image holds the weights: they are hashed at start, against the manifest that came "
        "with them. The target `embedded-models` sets it.",
        example="false",
        default=False,
    )
    sources: CommaList = _var(
        "MODEL_SYNC_SOURCES",
        "Which sets of weights to fetch.",
        example="smplx,pixie",
        default=("smplx", "pixie", "sam3d", "sam2"),
    )
    local_root: Path = _var(
        "MODEL_SYNC_LOCAL_ROOT",
        "Where the weights are kept.",
        example="/app/models",
        default=Path("/app/models"),
    )

    public_key: str | None = _var(
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


class WorkerSettings(_Group):
    """The worker's own process."""

    title = "Worker"
    processing_timeout_s: float = _var(
        "PROCESSING_TIMEOUT",
        "Longest time that one attempt may compute, in seconds.",
        example="300",
        default=300.0,
        gt=0,
        allow_inf_nan=False,
    )
    drain_s: float = _var(
        "WORKER_DRAIN_SECONDS",
        "How long SIGTERM lets the running job finish before it is put back into the "
        "queue; 0 puts it back at once.",
        example="30",
        default=0.0,
        ge=0,
        allow_inf_nan=False,
    )
    port: int = _var(
        "WORKER_PORT",
        "Port of the worker's own pages, /health and /ready among them; 0 takes a free one.",
        example="8477",
        default=8477,
        ge=0,
        le=65535,
    )
    token: SecretStr | None = _var(
        "WORKER_TOKEN",
        "Token that protects the worker's own pages, all but /health and /ready; sent as a Bearer "
        "token, or as the password that a browser asks for. Without it they answer this machine "
        "alone.",
        example="a-long-secret",
        default=None,
    )
    otlp_endpoint: HttpUrl | None = _var(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OpenTelemetry collector (OTLP over HTTP) that spans go to; none when unset. The other "
        "OTEL_ variables hold as OpenTelemetry documents them.",
        example="http://otel-collector:4318",
        default=None,
    )
    otlp_headers: SecretStr | None = _var(
        "OTEL_EXPORTER_OTLP_HEADERS",
        "Headers for the collector, read by OpenTelemetry itself.",
        example="authorization=Bearer%20TOKEN",
        default=None,
    )
    unfit_stop_minutes: float = _var(
        "WORKER_UNFIT_STOP_MINUTES",
        "On RunPod: how long a pod that cannot compute, because it has no usable GPU or its engine "
        "does not come up, stays up, saying why, before it is stopped through RunPod's API (needs "
        "RUNPOD_API_KEY).",
        example="15",
        default=15.0,
        gt=0,
        allow_inf_nan=False,
    )
    runpod_pod_id: str | None = _var(
        "RUNPOD_POD_ID",
        "Set by RunPod: the pod that this is.",
        example="xedezhzb9la3ye",
        default=None,
    )
    runpod_api_key: SecretStr | None = _var(
        "RUNPOD_API_KEY",
        "Lets an unfit pod stop itself. RunPod puts a key of the pod's own here.",
        example="a-long-secret",
        default=None,
    )
    image_digest: str | None = _var(
        "IMAGE_DIGEST",
        "Digest of the container image that the operator deployed; /v1/ping tells it.",
        example="sha256:…",
        default=None,
    )
    git_commit: str | None = _var(
        "GIT_COMMIT",
        "Commit that the image was built from; the image sets it, and /v1/ping tells it.",
        example="0123456789abcdef0123456789abcdef01234567",
        default=None,
    )
    build_time: str | None = _var(
        "BUILD_TIME",
        "When the image was built; the image sets it, and /v1/ping tells it.",
        example="2026-11-21T09:00:00Z",
        default=None,
    )


_GROUPS: dict[str, type[_Group]] = {
    "queue": QueueSettings,
    "api": ApiSettings,
    "storage": StorageSettings,
    "pipeline": PipelineSettings,
    "models": ModelSettings,
    "sync": SyncSettings,
    "worker": WorkerSettings,
}


# ---------------------------------------------------------------- all of them
@dataclass(frozen=True, slots=True)
class VariableDoc:
    """One line of the reference page."""

    name: str
    group: str
    about: str
    example: str
    default: str | None
    """None: it must be set, or nothing holds when it is not."""
    required: bool
    secret: bool


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole environment, in groups that are handed to the parts that need them."""

    queue: QueueSettings
    api: ApiSettings
    storage: StorageSettings
    pipeline: PipelineSettings
    models: ModelSettings
    sync: SyncSettings
    worker: WorkerSettings

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read and check everything.

        Args:
            environ: what to read instead of the process's environment.

        Raises:
            SettingsError: naming every variable that is missing or wrong, what it is for and an
                example; never the value of a secret.
        """
        source = os.environ if environ is None else environ
        groups: dict[str, Any] = {}
        wrong: list[str] = []
        for name, group in _GROUPS.items():
            try:
                groups[name] = group.read(source)
            except ValidationError as error:
                wrong.extend(_explain(group, error))
        if wrong:
            raise SettingsError("\n".join(["The environment is wrong:", *wrong]))
        return cls(**groups)

    def limitations(self) -> list[str]:
        """What the environment asks for and this version cannot do; told at start and on /ready."""
        asked = {
            "PIXIE_USE_TEX=true: PIXIE's texture is not used; skin comes from the photo.": (
                self.models.pixie_use_tex
            ),
            "SAM3DBODY_DETECTOR_PATH is not used: SAM 3D Body is given our box.": (
                self.models.sam3d_detector is not None
            ),
            "SAM3DBODY_FOV_PATH is not used: SAM 3D Body is given our camera.": (
                self.models.sam3d_fov is not None
            ),
            "SAM3DBODY_ENABLED=true has no effect: AVATAR_ESTIMATORS does not name sam3d_body.": (
                self.models.sam3d_enabled and "sam3d_body" not in self.models.estimators
            ),
            "SMPL_ANTHRO_MODEL_EXT has no effect: npz alone is read.": (
                self.models.smpl_anthro_model_ext not in {None, "npz", ".npz"}
            ),
        }
        return [sentence for sentence, is_asked in asked.items() if is_asked]

    def secrets(self) -> frozenset[str]:
        """Every secret value, and the passwords inside URLs, for the log's redaction."""
        found: set[str] = set()
        for name in _GROUPS:
            group: _Group = getattr(self, name)
            for field in type(group).model_fields:
                value = getattr(group, field)
                if isinstance(value, SecretStr):
                    found.add(value.get_secret_value())
        found.add(urlsplit(self.queue.url.get_secret_value()).password or "")
        return frozenset(secret for secret in found if len(secret) >= 4)


def child_environment() -> dict[str, str]:
    """Return our environment without the secrets, for the process that decodes users' bytes."""
    hidden = {doc.name for doc in describe() if doc.secret}
    return {name: value for name, value in os.environ.items() if name not in hidden}


def describe() -> list[VariableDoc]:
    """Return every variable with its documentation, in the order of this module."""
    return [doc for group in _GROUPS.values() for doc in _documents(group)]


def _documents(group: type[_Group]) -> Iterator[VariableDoc]:
    for field in group.model_fields.values():
        default = None if field.is_required() or field.default is None else field.default
        if isinstance(default, tuple):
            default = ",".join(default)
        elif isinstance(default, bool):
            default = str(default).lower()
        yield VariableDoc(
            name=_alias(field),
            group=group.title,
            about=field.description or "",
            example=str((field.examples or [""])[0]),
            default=None if default is None else str(default),
            required=field.is_required(),
            secret="SecretStr" in str(field.annotation),
        )


def _alias(field: FieldInfo) -> str:
    return str(field.validation_alias)


def _explain(group: type[_Group], error: ValidationError) -> Iterator[str]:
    by_alias = {_alias(field): field for field in group.model_fields.values()}
    for detail in error.errors(include_url=False, include_input=False, include_context=False):
        name = str(detail["loc"][0]) if detail["loc"] else ""
        problem = detail["msg"].removeprefix("Value error, ")
        field = by_alias.get(name)
        if field is None:  # a rule over several variables names them itself
            yield f"  {problem}."
            continue
        problem = "is not set" if detail["type"] == "missing" else problem
        example = (field.examples or [""])[0]
        yield f"  {name}: {problem}. {field.description} Example: {name}={example}"
