"""What crosses the wire: jobs read leniently and checked strictly, reports exactly as written."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from worker.contract import (
    AvatarJob,
    AvatarResultPayload,
    JobStatus,
    Measurements,
    QualityReport,
    StatusUpdate,
    claimed_job_id,
    failure_text,
)
from worker.errors import FeetNotVisible, OutOfMemory, PayloadInvalid

JOB: dict[str, Any] = {
    "jobId": "cm3abc",
    "frontPhotoUrl": "https://cdn.example.com/tryfitted/uploads/a.jpg",
    "heightCm": 178,
}


def test_a_job_as_the_api_sends_it() -> None:
    job = AvatarJob.parse(JOB)
    assert (job.job_id, job.height_cm, job.gender) == ("cm3abc", 178.0, "neutral")
    assert job.side_photo_url is None
    assert job.weight_kg is None


def test_optional_keys_and_nulls_and_unknown_keys() -> None:
    job = AvatarJob.parse(
        JOB
        | {"weightKg": 74.5, "gender": "female", "userId": "u1", "sidePhotoUrl": None, "new": [1]}
    )
    assert (job.weight_kg, job.gender, job.user_id) == (74.5, "female", "u1")
    assert AvatarJob.parse(JOB | {"gender": None, "weightKg": None}).gender == "neutral"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("heightCm", 99.9),
        ("heightCm", 251),
        ("heightCm", "178"),
        ("heightCm", True),
        ("heightCm", None),
        ("heightCm", math.nan),
        ("heightCm", math.inf),
        ("weightKg", 19),
        ("weightKg", 301),
        ("gender", "other"),
        ("jobId", "../../etc"),
        ("jobId", ".hidden"),
        ("jobId", ""),
        ("jobId", 7),
        ("jobId", "a" * 129),
        ("frontPhotoUrl", ""),
        ("frontPhotoUrl", {"url": "x"}),
        ("sidePhotoUrl", 5),
    ],
)
def test_a_wrong_field_is_named_in_plain_words(field: str, value: object) -> None:
    with pytest.raises(PayloadInvalid) as caught:
        AvatarJob.parse(JOB | {field: value})
    assert caught.value.advice.startswith(f"{field} must be ")
    assert caught.value.retryable is False


@pytest.mark.parametrize("data", [None, [], "text", 5])
def test_data_that_is_no_object_is_refused(data: object) -> None:
    with pytest.raises(PayloadInvalid):
        AvatarJob.parse(data)
    assert claimed_job_id(data) is None


def test_a_missing_field_says_what_it_should_be() -> None:
    with pytest.raises(PayloadInvalid, match="heightCm is missing; it must be a number"):
        AvatarJob.parse({"jobId": "a", "frontPhotoUrl": "x"})


def test_the_job_id_is_known_even_when_the_rest_is_wrong() -> None:
    assert claimed_job_id({"jobId": "cm3abc", "heightCm": "tall"}) == "cm3abc"
    assert claimed_job_id({"jobId": "a/b"}) is None


RESULT = AvatarResultPayload(
    glb_url="https://s3.example.com/tryfitted/avatars/cm3abc/avatar.glb",
    measurements=Measurements(chest_cm=101.2, inside_leg_cm=80.1),
    quality_report=QualityReport(confidence="high"),
)


def test_reports_on_the_wire() -> None:
    assert StatusUpdate(status=JobStatus.PROCESSING, progress=20).to_wire() == {
        "status": "processing",
        "progress": 20,
        "error": None,
    }
    assert StatusUpdate(status=JobStatus.COMPLETED, progress=100, result=RESULT).to_wire() == {
        "status": "completed",
        "progress": 100,
        "error": None,
        "result": {
            "userId": "default-user",
            "glbUrl": "https://s3.example.com/tryfitted/avatars/cm3abc/avatar.glb",
            "measurements": {"chestCm": 101.2, "insideLegCm": 80.1},
            "qualityReport": {"confidence": "high", "warnings": None},
        },
    }


def test_there_are_sixteen_measurements_and_none_of_them_is_nonsense() -> None:
    assert len(Measurements.model_fields) == 16
    for value in (math.nan, math.inf, 0, -3):
        with pytest.raises(ValidationError):
            Measurements(waist_cm=value)
    with pytest.raises(ValidationError):
        Measurements.model_validate({"waistline": 80})


def test_failures_tell_shoppers_what_to_do_and_operators_what_happened() -> None:
    assert failure_text(FeetNotVisible()) == f"FEET_NOT_VISIBLE: {FeetNotVisible.default_advice}"
    assert failure_text(OutOfMemory("12 GB wanted")) == "OUT_OF_MEMORY: 12 GB wanted"
