"""How sure each measurement is: intervals that hold the truth nine times in ten.

The fit knows how far each direction of shape may be off.  The measurements are taken again on
bodies moved along the directions that move the skin most, which gives their derivative there; what
the model itself cannot know (other bodies than its own, cloth than it expects) is added.  How much
was found on the development split, measurement by measurement (docs/explanation/fit.md).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from worker.avatar.body.model import BodyModel
from worker.avatar.measure.measurer import Measurer
from worker.avatar.types import BodyFit, Float64Array

Intervals = Mapping[str, tuple[float, float]]
"""Low and high by the contract's names, in centimetres."""

_DIRECTIONS = 8
"""Beyond, all others together move no girth by a tenth of what these do."""
_VERTEX_STRIDE = 12
"""Every how manieth vertex tells how far a direction moves the skin."""
_HEIGHT_SIGMA = 0.006 / 1.72
"""Of the declared height, as a share: every length scales with it."""
_NINETY_PERCENT = 1.645
"""Half width in standard deviations of the interval that holds nine tenths of a Gaussian."""

MODEL_ERROR_CM: Mapping[str, float] = {}
INFLATION: Mapping[str, float] = {}


def standard_errors_cm(
    body: BodyModel, measurer: Measurer, fit: BodyFit, *, height_m: float
) -> dict[str, float]:
    """Standard deviation of each measurement as the fit alone sees it.

    Args:
        body: the body that was fitted.
        measurer: of the same body.
        fit: betas and their covariance.
        height_m: the declared stature, to which bodies are scaled before they are measured.
    """
    directions = body.shapedirs.detach().cpu().numpy().astype(np.float64)[::_VERTEX_STRIDE]
    spread = np.linalg.cholesky(fit.covariance + 1e-9 * np.eye(len(fit.betas)))
    moved = directions.reshape(-1, directions.shape[-1]) @ spread
    _, _, main = np.linalg.svd(moved.T @ moved)
    middle = _measured(body, measurer, fit.betas, height_m)
    variance = {key: (_HEIGHT_SIGMA * value) ** 2 for key, value in middle.items()}
    for direction in main[:_DIRECTIONS]:
        there = _measured(body, measurer, fit.betas + spread @ direction, height_m)
        for key, value in middle.items():
            variance[key] += (there[key] - value) ** 2
    return {key: float(np.sqrt(value)) for key, value in variance.items()}


def measurement_intervals_cm(
    body: BodyModel, measurer: Measurer, fit: BodyFit, *, height_m: float
) -> dict[str, tuple[float, float]]:
    """Interval of each measurement that should hold the truth nine times in ten.

    Args:
        body: the body that was fitted.
        measurer: of the same body.
        fit: betas and their covariance.
        height_m: the declared stature.
    """
    middle = _measured(body, measurer, fit.betas, height_m)
    errors = standard_errors_cm(body, measurer, fit, height_m=height_m)
    return {key: _interval(key, value, errors[key]) for key, value in middle.items()}


def _interval(key: str, value_cm: float, error_cm: float) -> tuple[float, float]:
    sigma_cm = np.hypot(INFLATION.get(key, 1.0) * error_cm, MODEL_ERROR_CM.get(key, 0.0))
    half_cm = float(_NINETY_PERCENT * sigma_cm)
    return value_cm - half_cm, value_cm + half_cm


@torch.inference_mode()
def _measured(
    body: BodyModel, measurer: Measurer, betas: Float64Array, height_m: float
) -> dict[str, float]:
    like = body.v_template
    shaped = body.shaped(torch.as_tensor(betas, dtype=like.dtype, device=like.device)[None])[0]
    vertices = shaped.double().cpu().numpy()
    return dict(measurer.measure(vertices * (height_m / float(np.ptp(vertices[:, 1])))))
