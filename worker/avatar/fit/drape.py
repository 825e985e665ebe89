"""Where cloth touches and where it hangs free: a factor for every vertex, from the body's form.

Cloth rests on what stands out, on bust, shoulder blades, seat and calves, and hangs off what lies
behind: the small of the back, the waist, the shin.  What stands out is told by comparing how far
the skin is from the middle of trunk or leg with how far it is a hand's breadth above and below.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from worker.avatar.body.jacobian import ArticulatedShape
from worker.avatar.types import BoolArray, Float64Array

_TRUNK = (0, 3, 6, 9, 13, 14)
_LEGS = ((1, 4), (2, 5))
_ANGLES = 24
_LEVEL_M = 0.015
_SMOOTHING_M = 0.07
_STANDING_OUT_M = 0.02
"""Standing out by this much takes off the share below."""
_LESS = 0.8
_LEAST, _MOST = 0.3, 1.3


def drape(shape: ArticulatedShape) -> Tensor:
    """(V,) how far cloth stands off at each vertex, beside its region's average."""
    weights = shape.weights.cpu().numpy()
    vertices = shape.template.cpu().numpy()
    factor = np.ones(len(vertices))
    for joints in (_TRUNK, *_LEGS):
        part = weights[:, list(joints)].sum(axis=1) > 0.5
        out = _standing_out(vertices, part)
        factor[part] = (1.0 - _LESS * out / _STANDING_OUT_M).clip(_LEAST, _MOST)
    return shape.template.new_tensor(factor)


def _standing_out(vertices: Float64Array, part: BoolArray) -> Float64Array:
    """(P,) metres by which the vertices of an upright part stand out over those above and below."""
    points = vertices[part]
    level = ((points[:, 1] - points[:, 1].min()) / _LEVEL_M).astype(np.int64)
    count = np.bincount(level).clip(min=1)
    middle = np.stack([np.bincount(level, points[:, axis]) / count for axis in (0, 2)], axis=1)
    middle = gaussian_filter1d(middle, _SMOOTHING_M / _LEVEL_M, axis=0, mode="nearest")
    away = points[:, [0, 2]] - middle[level]
    radius = np.linalg.norm(away, axis=1)
    angle = (np.arctan2(away[:, 1], away[:, 0]) / (2 * np.pi) % 1.0 * _ANGLES).astype(np.int64)
    total, seen = np.zeros((2, len(count), _ANGLES))
    np.add.at(total, (level, angle % _ANGLES), radius)
    np.add.at(seen, (level, angle % _ANGLES), 1.0)
    # What is not seen has no weight in the mean over the levels around.
    around = _SMOOTHING_M / _LEVEL_M
    smooth = gaussian_filter1d(total, around, axis=0, mode="constant")
    weight = gaussian_filter1d(seen, around, axis=0, mode="constant")
    usual = (smooth / np.maximum(weight, 1e-9))[level, angle % _ANGLES]
    result: Float64Array = radius - usual
    return result
