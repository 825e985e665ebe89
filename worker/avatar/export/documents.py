"""The JSON files beside the GLB: measurements, quality, appearance, what the fit aimed at."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from worker.avatar.export.overlay import outlines_of
from worker.avatar.types import (
    KEYPOINTS,
    BodyFit,
    FittedView,
    Float64Array,
    Observation,
    QualityReport,
)

_OUTLINE_POINTS = 600
"""An outline is thinned to about as many: one every four to eight pixels of a usual photo."""


def write_json(path: Path, document: Mapping[str, Any], *, indent: int | None = 2) -> None:
    """Write a document as UTF-8 with a final newline; NaN and infinity are refused.

    Args:
        path: where to; an existing file is replaced.
        document: what to write.
        indent: how far to indent; None puts all on one line.

    Raises:
        ValueError: the document holds a number that JSON cannot.
    """
    text = json.dumps(document, indent=indent, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def measurements_document(measurements_cm: Mapping[str, float]) -> dict[str, float]:
    """Return the contract's measurements in cm, to the millimetre."""
    return {name: round(float(value), 1) for name, value in measurements_cm.items()}


def quality_document(quality: QualityReport, fit: BodyFit) -> dict[str, Any]:
    """Return the contract's quality report, and how well each view agrees with its photo."""
    return {
        "confidence": quality.confidence.value,
        "warnings": list(quality.warnings) or None,
        "iou": {view.view.value: round(view.iou, 4) for view in fit.views},
        "keypointRmsePx": {view.view.value: round(view.keypoint_rmse_px, 2) for view in fit.views},
    }


def targets_document(observations: Sequence[Observation], fit: BodyFit) -> dict[str, Any]:
    """Return what the fit was held against, for a person who wants to know why it came out so.

    Per view: the photo's size and camera, the person's box, the outer outlines of the mask and
    the keypoints, all in pixels of the upright photo.
    """
    fitted = {view.view: view for view in fit.views}
    return {
        "unit": "px",
        "views": {seen.view.value: _target(seen, fitted[seen.view]) for seen in observations},
    }


def _target(seen: Observation, fitted: FittedView) -> dict[str, Any]:
    return {
        "width": seen.intrinsics.width,
        "height": seen.intrinsics.height,
        "focalPx": round(fitted.intrinsics.focal_px, 1),
        "focalKnown": fitted.intrinsics.known,
        "box": np.round(seen.box.astype(np.float64), 1).tolist(),
        "outlines": [_thinned(line) for line in outlines_of(seen.mask)],
        "keypoints": {
            name: [round(float(x), 1), round(float(y), 1), round(float(confidence), 3)]
            for name, (x, y, confidence) in zip(KEYPOINTS, seen.keypoints, strict=True)
        },
        "source": seen.source,
    }


def _thinned(line: Float64Array) -> list[list[float]]:
    """Leave every n-th point of a closed line, and its end."""
    every = max(1, len(line) // _OUTLINE_POINTS)
    thin: list[list[float]] = np.round(np.concatenate((line[:-1:every], line[-1:])), 1).tolist()
    return thin
