"""Every message between the worker and its engine process: one JSON object a line.

They go over a pair of pipes of their own, because libraries print to stdout.  This module imports
nothing of the pipeline; both sides import it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from worker import errors
from worker.errors import AvatarError, EngineError


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def line(self) -> bytes:
        """As it goes through the pipe."""
        return self.model_dump_json().encode() + b"\n"


# ---------------------------------------------------------------- worker → engine
class EngineConfig(_Message):
    """How to load the pipeline; the fields of `worker.avatar.pipeline.PipelineConfig`."""

    kind: Literal["config"] = "config"
    device: str = "auto"
    observer_models_dir: str | None = None
    display_pose: str = "apose"
    apose_arm_down_deg: float = 25.0
    silhouette_refine: bool = True
    silhouette_torso_erode_px: int = 8
    gltfpack_path: str | None = None
    require_gltfpack: bool = False


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


# ---------------------------------------------------------------- engine → worker
class Ready(_Message):
    """The models are loaded and verified."""

    kind: Literal["ready"] = "ready"
    device_name: str
    models: tuple[str, ...]


class Advanced(_Message):
    """A stage of the running job got further."""

    kind: Literal["advanced"] = "advanced"
    stage: str
    fraction: float


class Built(_Message):
    """The job's avatar is in its folder."""

    kind: Literal["built"] = "built"
    files: tuple[str, ...]
    inspection_files: frozenset[str]
    measurements_cm: dict[str, float]
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

    @classmethod
    def from_error(cls, error: AvatarError) -> Failed:
        """Take an error apart to send it."""
        return cls(
            code=error.code, message=error.message, advice=error.advice, retryable=error.retryable
        )

    def to_error(self) -> AvatarError:
        """Put the error together again, as the class that it was."""
        kind = _error_classes().get(self.code)
        if kind is None or kind.retryable != self.retryable:
            return EngineError(f"{self.code}: {self.message}", advice=self.advice)
        return kind(self.message, advice=self.advice)


FromEngine = Annotated[Ready | Advanced | Built | Failed, Field(discriminator="kind")]
from_engine: TypeAdapter[Ready | Advanced | Built | Failed] = TypeAdapter(FromEngine)

ToEngine = Annotated[EngineConfig | RunJob, Field(discriminator="kind")]
to_engine: TypeAdapter[EngineConfig | RunJob] = TypeAdapter(ToEngine)


def _error_classes() -> dict[str, type[AvatarError]]:
    classes = (value for value in vars(errors).values() if isinstance(value, type))
    return {kind.code: kind for kind in classes if issubclass(kind, AvatarError)}
