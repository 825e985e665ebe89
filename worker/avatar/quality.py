"""How far a result can be trusted, in one word and in plain sentences.

The word follows from the intervals of chest, waist and hip: what limits a fit from photos is what
cannot be seen, the body's depth without a side photo and the body under loose clothes, and the
intervals know of both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from worker.avatar.types import (
    BodyFit,
    Confidence,
    FittedView,
    Observation,
    QualityReport,
    ViewName,
)

IOU_LOW = 0.8
"""Below this the outline is not that of the body in any usual clothes: rendered people reach 0.85
and more (518 fits, the overlap of the dressed body), a photographed open coat 0.75."""

GIRTHS: tuple[str, ...] = ("chestCm", "waistCm", "hipCm")
HIGH_WITHIN_CM = 5.0
"""Half width of an interval up to which a girth is known as well as photographs of dressed people
allow today: two sides and a weight give 3 to 4 cm."""
LOW_BEYOND_CM = 13.0
"""Half width beyond which it is hardly known: no better than a guess from the height, whose mean
error of 8 to 10 cm is ±17 to 20."""
WORTH_A_WORD_CM = 7.5
"""Half width from which the clothes are named as the cause."""
FITTED_CM = 4
"""What fitted clothes, a side photo and a weight bring the half widths to, on the development
split."""

NO_SIDE_PHOTO = "No side photo: chest, waist and hip are less certain. Adding one helps."

_HIDDEN_BY = {"top": ("chestCm", "waistCm"), "trousers or skirt": ("hipCm",)}
"""Which measurements what is worn hides."""

_FITTED = ("tight", "slim")
"""Kinds of garments that nobody need change for a better photo."""


def assess(
    fit: BodyFit,
    observations: Sequence[Observation],
    intervals_cm: Mapping[str, tuple[float, float]],
) -> QualityReport:
    """Weigh how sure the measurements are, and say what makes them unsure.

    Args:
        fit: the solved body; its warnings and those of the observations are passed on.
        observations: what the fit was made from.
        intervals_cm: low and high of the measurements, by the contract's names.
    """
    warnings = [text for seen in observations for text in seen.warnings]
    warnings += fit.warnings
    half_cm = {key: (high - low) / 2 for key, (low, high) in intervals_cm.items()}
    widest_cm = max(half_cm[key] for key in GIRTHS)
    worst = min(fit.views, key=lambda view: view.iou)
    if worst.iou < IOU_LOW or widest_cm > LOW_BEYOND_CM:
        confidence = Confidence.LOW
    elif widest_cm <= HIGH_WITHIN_CM and not warnings:
        confidence = Confidence.HIGH
    else:
        confidence = Confidence.MEDIUM
    if worst.iou < IOU_LOW:
        warnings.append(_unexplained(worst))
    warnings += _hidden(fit.wear, half_cm)
    if not any(view.view is ViewName.SIDE for view in fit.views):
        warnings.append(NO_SIDE_PHOTO)
    return QualityReport(confidence, tuple(dict.fromkeys(warnings)))


def _hidden(wear: Sequence[str], half_cm: Mapping[str, float]) -> list[str]:
    """Name the garments that make measurements unsure."""
    found = []
    for sits, (garment, keys) in zip(wear, _HIDDEN_BY.items(), strict=False):
        unsure = [key for key in keys if half_cm[key] > WORTH_A_WORD_CM]
        if sits in _FITTED or not unsure:
            continue
        said = ", ".join(f"{key.removesuffix('Cm')} ±{half_cm[key]:.0f} cm" for key in unsure)
        found.append(
            f"{'Loose' if sits == 'loose' else 'Not fitted'} {garment}: {said}; "
            f"fitted clothes, a side photo and the weight bring it to about ±{FITTED_CM}."
        )
    return found


def _unexplained(view: FittedView) -> str:
    return (
        f"Loose clothing or bags in the {view.view.value} photo hide the outline of the body: "
        "chest, waist and hip may be several centimetres off. Fitted clothes give better results."
    )
