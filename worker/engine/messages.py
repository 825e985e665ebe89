"""Every message between the worker and its engine process: one JSON object a line.

They go over a pair of pipes of their own, because libraries print to stdout.  This module imports
nothing of the pipeline; both sides import it.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from worker import errors
from worker.errors import AvatarError, EngineError

HEARTBEAT_INTERVAL_S: Final = 0.5
"""How often the engine process says that its interpreter runs."""


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def line(self) -> bytes:
        """As it goes through the pipe."""
        return self.model_dump_json().encode() + b"\n"


# ---------------------------------------------------------------- worker → engine
class EstimatorsConfig(BaseModel):
    """Which estimators; the fields of `worker.avatar.estimate.load.EstimatorConfig`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    order: tuple[str, ...] = ("sam3d_body", "pixie")
    required: bool = False
    pixie_dir: str | None = None
    sam3d_enabled: bool = False
    sam3d_repo_dir: str | None = None
    sam3d_checkpoint: str | None = None
    sam3d_mhr: str | None = None
    sam3d_use_mask: bool = True


class EngineConfig(_Message):
    """How to load the pipeline; the fields of `worker.avatar.config.PipelineConfig`."""

    kind: Literal["config"] = "config"
    device: str = "auto"
    observer_models_dir: str | None = None
    display_pose: str = "apose"
    apose_arm_down_deg: float = 25.0
    silhouette_refine: bool = True
    silhouette_torso_erode_px: int = 8
    gltfpack_path: str | None = None
    require_gltfpack: bool = False
    smplx_dir: str | None = None
    sam2_dir: str | None = None
    sam2_required: bool = True
    anthropometry_dir: str | None = None
    estimators: EstimatorsConfig = EstimatorsConfig()


class RunJob(_Message):
    """Build one avatar in `folder`, which holds the photos."""

    kind: Literal["run"] = "run"
    job_id: str
    folder: str
    front: str
    """File name in `folder`."""
    side: str | None = None
    height_m: float
    weight_kg: float | None = None
    gender: str = "neutral"
    resume: tuple[str, ...] = ()
    """Stages whose checkpoint files lie in `folder` already.  They are loaded instead of computed;
    one that is damaged or belongs to something else is ignored and computed again."""
    economy: bool = False
    """Work at lower cost: the job has run out of memory."""


# ---------------------------------------------------------------- engine → worker
class Ready(_Message):
    """The models are loaded and verified."""

    kind: Literal["ready"] = "ready"
    device_name: str
    cuda: str | None = None
    """CUDA's version, when it computes there."""
    models: tuple[str, ...]
    licensed: tuple[str, ...] = ()
    """Names of those that the operator brought: a process that comes after must have them, too."""
    fingerprint: str
    """Of code, weights and configuration: what was computed under one can be used under it."""


class Beat(_Message):
    """The interpreter runs, also while it computes; and how much memory it holds."""

    kind: Literal["beat"] = "beat"
    rss_bytes: int
    cuda_reserved_bytes: int
    """What torch's allocator held after the last job; 0 without CUDA."""


class Advanced(_Message):
    """A stage of the running job got further."""

    kind: Literal["advanced"] = "advanced"
    stage: str
    fraction: float


class Checkpointed(_Message):
    """What a stage computed lies in the job's folder, for whoever has to take the job over."""

    kind: Literal["checkpointed"] = "checkpointed"
    stage: str
    files: tuple[str, ...]


class Built(_Message):
    """The job's avatar is in its folder."""

    kind: Literal["built"] = "built"
    files: tuple[str, ...]
    inspection_files: frozenset[str]
    measurements_cm: dict[str, float]
    measurement_intervals_cm: dict[str, tuple[float, float]] = Field(default_factory=dict)
    confidence: Literal["high", "medium", "low"]
    warnings: tuple[str, ...]
    view_iou: dict[str, float]
    stage_seconds: dict[str, float]
    sources: dict[str, Any]


class Failed(_Message):
    """The job, or before `Ready` the loading, ended with an error."""

    kind: Literal["failed"] = "failed"
    code: str
    message: str
    advice: str
    retryable: bool
    leaving: bool = False
    """The process ends after this: its CUDA context is lost."""

    @classmethod
    def from_error(cls, error: AvatarError, *, leaving: bool = False) -> Failed:
        """Take an error apart to send it."""
        return cls(
            code=error.code,
            message=error.message,
            advice=error.advice,
            retryable=error.retryable,
            leaving=leaving,
        )

    def to_error(self) -> AvatarError:
        """Put the error together again, as the class that it was."""
        kind = _error_classes().get(self.code)
        if kind is None or kind.retryable != self.retryable:
            return EngineError(f"{self.code}: {self.message}", advice=self.advice)
        return kind(self.message, advice=self.advice)


FromEngine = Ready | Beat | Advanced | Checkpointed | Built | Failed
from_engine: TypeAdapter[FromEngine] = TypeAdapter(
    Annotated[FromEngine, Field(discriminator="kind")]
)

ToEngine = EngineConfig | RunJob
to_engine: TypeAdapter[ToEngine] = TypeAdapter(Annotated[ToEngine, Field(discriminator="kind")])


def _error_classes() -> dict[str, type[AvatarError]]:
    classes = (value for value in vars(errors).values() if isinstance(value, type))
    return {kind.code: kind for kind in classes if issubclass(kind, AvatarError)}
