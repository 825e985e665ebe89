"""One word and plain sentences about a result."""

import numpy as np
import pytest

from worker.avatar.quality import IOU_HIGH, IOU_LOW, NO_SIDE_PHOTO, assess
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


def judged(*ious: float, seen: str = "", fitted: str = "") -> QualityReport:
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
        Gender.NEUTRAL, np.zeros(5), np.eye(5), views, 14, warnings=(fitted,) if fitted else ()
    )
    return assess(fit, observations)


def test_two_photos_that_agree_without_a_warning_are_high() -> None:
    assert judged(IOU_HIGH, 0.99) == QualityReport(Confidence.HIGH, ())


@pytest.mark.parametrize(
    "report",
    [
        judged(0.99),
        judged(0.99, IOU_HIGH - 0.01),
        judged(0.99, 0.99, seen="turned"),
        judged(0.99, 0.99, fitted="odd"),
        judged(IOU_LOW, IOU_LOW),
    ],
    ids=["one photo", "outline", "observer warns", "fit warns", "edge of low"],
)
def test_anything_less_is_medium(report: QualityReport) -> None:
    assert report.confidence is Confidence.MEDIUM


def test_an_outline_that_does_not_fit_is_low_and_names_the_photo() -> None:
    report = judged(0.99, IOU_LOW - 0.01)
    assert report.confidence is Confidence.LOW
    (warning,) = report.warnings
    assert "Loose clothing" in warning
    assert "side photo" in warning


def test_every_warning_is_passed_on_once_and_a_missing_side_photo_is_said() -> None:
    assert judged(0.99, seen="turned", fitted="turned").warnings == ("turned", NO_SIDE_PHOTO)
