"""One word and plain sentences about a result."""

import numpy as np
import pytest

from worker.avatar.quality import (
    GIRTHS,
    HIGH_WITHIN_CM,
    IOU_LOW,
    LOW_BEYOND_CM,
    NO_SIDE_PHOTO,
    assess,
)
from worker.avatar.types import (
    BodyFit,
    Confidence,
    FittedView,
    Gender,
    Intrinsics,
    Observation,
    QualityReport,
    ViewName,
)

CAMERA = Intrinsics(1000.0, 600, 800, known=True)
VIEWS = (ViewName.FRONT, ViewName.SIDE)
TIGHT = ("tight", "tight")


def judged(
    *ious: float,
    seen: str = "",
    fitted: str = "",
    half_cm: float = HIGH_WITHIN_CM,
    wear: tuple[str, ...] = TIGHT,
) -> QualityReport:
    views = tuple(
        FittedView(view, CAMERA, np.zeros((55, 3)), np.zeros(3), iou, 3.0)
        for view, iou in zip(VIEWS, ious, strict=False)
    )
    observations = [
        Observation(
            view=view.view,
            intrinsics=CAMERA,
            box=np.zeros(4, dtype=np.float32),
            keypoints=np.zeros((23, 3), dtype=np.float32),
            mask=np.zeros((800, 600), dtype=np.float32),
            warnings=(seen,) if seen else (),
        )
        for view in views
    ]
    fit = BodyFit(
        Gender.NEUTRAL,
        np.zeros(5),
        np.eye(5),
        views,
        14,
        warnings=(fitted,) if fitted else (),
        wear=wear,
    )
    intervals = dict.fromkeys(GIRTHS, (90.0 - half_cm, 90.0 + half_cm))
    return assess(fit, observations, intervals)


def test_narrow_intervals_without_a_warning_are_high() -> None:
    assert judged(0.9, 0.99) == QualityReport(Confidence.HIGH, ())


@pytest.mark.parametrize(
    "report",
    [
        judged(0.9, 0.9, half_cm=HIGH_WITHIN_CM + 0.1),
        judged(0.9, 0.9, seen="turned"),
        judged(0.9, 0.9, fitted="odd"),
        judged(0.9, 0.9, half_cm=LOW_BEYOND_CM),
        judged(IOU_LOW, IOU_LOW, half_cm=9.0),
    ],
    ids=["intervals", "observer warns", "fit warns", "edge of low", "edge of the outline"],
)
def test_anything_less_is_medium(report: QualityReport) -> None:
    assert report.confidence is Confidence.MEDIUM


def test_wide_intervals_are_low() -> None:
    assert judged(0.9, 0.9, half_cm=LOW_BEYOND_CM + 0.1).confidence is Confidence.LOW


def test_an_outline_that_does_not_fit_is_low_and_names_the_photo() -> None:
    report = judged(0.99, IOU_LOW - 0.01)
    assert report.confidence is Confidence.LOW
    (warning,) = report.warnings
    assert "Loose clothing" in warning
    assert "side photo" in warning


def test_the_garment_that_hides_is_named_with_what_it_costs() -> None:
    report = judged(0.9, 0.9, half_cm=8.2, wear=("loose", "everyday"))
    top, bottom = report.warnings
    assert top.startswith("Loose top: chest ±8 cm, waist ±8 cm; fitted clothes")
    assert bottom.startswith("Not fitted trousers or skirt: hip ±8 cm;")
    assert judged(0.9, 0.9, half_cm=8.2, wear=TIGHT).warnings == ()
    assert judged(0.9, 0.9, half_cm=8.2, wear=("slim", "slim")).warnings == ()
    assert judged(0.9, 0.9, half_cm=8.2, wear=()).warnings == ()


def test_every_warning_is_passed_on_once_and_a_missing_side_photo_is_said() -> None:
    assert judged(0.99, seen="turned", fitted="turned").warnings == ("turned", NO_SIDE_PHOTO)
