"""What crosses the wire between the API and the worker (the contract), typed.

Names are the API's, in camelCase on the wire.  The job is read leniently, because the API may
send keys that this worker does not know; what the worker sends is exactly what is written here.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from worker.errors import AvatarError, InputError, PayloadInvalid

DEFAULT_USER_ID = "default-user"
"""What the API's first worker sent; used when the job names no user."""


class ProgressMark(IntEnum):
    """The percentages that the API's first worker reported, kept for those who wait for them."""

    ACCEPTED = 10
    PHOTOS_READ = 20
    BODY_FITTED = 40
    MEASURED = 60
    MESH_WRITTEN = 70
    OPTIMISED = 85
    UPLOADED = 95
    COMPLETED = 100


class JobStatus(StrEnum):
    """What the API knows of a job's state."""

    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"


class _Wire(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        extra="forbid",
    )


# ---------------------------------------------------------------- the job, as the API adds it
JobId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,127}$")]
"""Becomes part of object keys and of URLs, so nothing else is let in."""

PhotoUrl = Annotated[str, Field(min_length=1, max_length=4096)]


class AvatarJob(_Wire):
    """The data of a job in the queue `avatar_build`."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    job_id: JobId
    front_photo_url: PhotoUrl
    side_photo_url: PhotoUrl | None = None
    height_cm: Annotated[float, Field(strict=True, ge=100, le=250, allow_inf_nan=False)]
    weight_kg: Annotated[float, Field(strict=True, ge=20, le=300, allow_inf_nan=False)] | None = (
        None
    )
    gender: Annotated[
        Literal["neutral", "female", "male"],
        BeforeValidator(lambda value: "neutral" if value is None else value),
    ] = "neutral"
    user_id: str | None = None

    @classmethod
    def parse(cls, data: object) -> Self:
        """Read a job's data.

        Raises:
            PayloadInvalid: naming the field that is wrong, in words that a person understands.
        """
        if not isinstance(data, dict):
            raise PayloadInvalid("The job's data is not an object.")
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            problems = [_in_plain_words(detail) for detail in error.errors(include_url=False)]
        raise PayloadInvalid(" ".join(problems), advice=" ".join(problems))


_MEANING = {
    "jobId": "must be the id of the avatar job: letters, digits and - _ . ~ only",
    "frontPhotoUrl": "must be the address of the uploaded front photo",
    "sidePhotoUrl": "must be the address of the uploaded side photo, or be left out",
    "heightCm": "must be a number of centimetres between 100 and 250",
    "weightKg": "must be a number of kilograms between 20 and 300, or be left out",
    "gender": "must be female, male or neutral, or be left out",
    "userId": "must be text, or be left out",
}


def _in_plain_words(detail: Any) -> str:
    field = str(detail["loc"][0]) if detail["loc"] else "the job's data"
    if detail["type"] == "missing":
        return f"{field} is missing; it {_MEANING[field]}."
    return f"{field} {_MEANING.get(field, 'is wrong')}."


class _OnlyId(_Wire):
    model_config = ConfigDict(extra="ignore")

    job_id: JobId


def claimed_job_id(data: object) -> str | None:
    """Return the job's id when it is usable, even if the rest of its data is not."""
    try:
        return _OnlyId.model_validate(data).job_id
    except ValidationError:
        return None


# ---------------------------------------------------------------- what the worker reports
Centimetres = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Measurements(_Wire):
    """The sixteen body measurements, in centimetres."""

    chest_cm: Centimetres | None = None
    waist_cm: Centimetres | None = None
    hip_cm: Centimetres | None = None
    shoulder_cm: Centimetres | None = None
    sleeve_cm: Centimetres | None = None
    length_cm: Centimetres | None = None
    neck_cm: Centimetres | None = None
    bicep_cm: Centimetres | None = None
    forearm_cm: Centimetres | None = None
    wrist_cm: Centimetres | None = None
    thigh_cm: Centimetres | None = None
    calf_cm: Centimetres | None = None
    ankle_cm: Centimetres | None = None
    inside_leg_cm: Centimetres | None = None
    shoulder_breadth_cm: Centimetres | None = None
    height_cm: Centimetres | None = None


class QualityReport(_Wire):
    """How far the result can be trusted, and what the shopper could do better."""

    confidence: Literal["high", "medium", "low"]
    warnings: tuple[str, ...] | None = None


class AvatarResultPayload(_Wire):
    """`result` of a completed job: in the status report and as BullMQ's return value."""

    user_id: str = DEFAULT_USER_ID
    glb_url: str
    measurements: Measurements
    measurement_intervals_cm: dict[str, tuple[float, float]] = Field(default_factory=dict)
    """An addition to the contract: low and high of each measurement, nine times in ten right."""
    quality_report: QualityReport

    def to_wire(self) -> dict[str, Any]:
        """As JSON-ready values; what was not measured, and intervals if none are, is left out."""
        wire = self.model_dump(mode="json")
        wire["measurements"] = self.measurements.model_dump(mode="json", exclude_none=True)
        if not self.measurement_intervals_cm:
            del wire["measurementIntervalsCm"]
        return wire


class StatusUpdate(_Wire):
    """Body of `PATCH /v1/avatar/jobs/:id/status`."""

    status: JobStatus
    progress: Annotated[int, Field(ge=0, le=100)] | None = None
    error: str | None = None
    result: AvatarResultPayload | None = None

    def to_wire(self) -> dict[str, Any]:
        """As JSON-ready values; `result` is there only when there is one."""
        wire = self.model_dump(mode="json", exclude={"result"})
        if self.result is not None:
            wire["result"] = self.result.to_wire()
        return wire


class JobView(_Wire):
    """What the worker reads of the API's answer to `GET /v1/avatar/jobs/:id`."""

    model_config = ConfigDict(extra="ignore")

    status: str
    error: str | None = None
    avatar: dict[str, Any] | None = None


def failure_text(error: AvatarError) -> str:
    """What a failed job says, to BullMQ as failedReason and to the API as error.

    The code, then a sentence: to the shopper what to do, to the operator what happened.
    """
    return f"{error.code}: {error.advice if isinstance(error, InputError) else error.message}"
