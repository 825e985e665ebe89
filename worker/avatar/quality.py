"""How far a result can be trusted, in one word and in plain sentences.

The rule is deliberately coarse.  What limits a fit from photos is what cannot be seen: the
body's depth without a side photo, and the body under loose clothes.  Calibrated intervals for
each measurement are work of their own; until then a single front photo is never `high`.
"""

from __future__ import annotations

from collections.abc import Sequence

from worker.avatar.types import (
    BodyFit,
    Confidence,
    FittedView,
    Observation,
    QualityReport,
    ViewName,
)

IOU_HIGH = 0.93
IOU_LOW = 0.87
"""Seen in photographs: 0.94 in fitted clothes, 0.76 in an open coat; by the prototype 0.87 in a
sweater.
"""

NO_SIDE_PHOTO = "No side photo: chest, waist and hip are less certain. Adding one helps most."


def assess(fit: BodyFit, observations: Sequence[Observation]) -> QualityReport:
    """Weigh how well the body explains the photos and what was missing.

    Args:
        fit: the solved body; its warnings and those of the observations are passed on.
        observations: what the fit was made from.
    """
    warnings = [text for seen in observations for text in seen.warnings]
    warnings += fit.warnings
    worst = min(view.iou for view in fit.views)
    has_side = any(view.view is ViewName.SIDE for view in fit.views)
    if worst < IOU_LOW:
        confidence = Confidence.LOW
        warnings.append(_loose(min(fit.views, key=lambda view: view.iou)))
    elif has_side and worst >= IOU_HIGH and not warnings:
        confidence = Confidence.HIGH
    else:
        confidence = Confidence.MEDIUM
    if not has_side:
        warnings.append(NO_SIDE_PHOTO)
    return QualityReport(confidence, tuple(dict.fromkeys(warnings)))


def _loose(view: FittedView) -> str:
    return (
        f"Loose clothing or bags in the {view.view.value} photo hide the outline of the body: "
        "chest, waist and hip may be several centimetres off. Fitted clothes give better results."
    )
