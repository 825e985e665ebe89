"""What an observer's keypoints mean: where they lie beside the body's own, and how far they spread.

BlazePose marks other places than the free body's keypoint regressor does: its knee is the kneecap
and lies lower, its eyes and ears lie on the image and not on a vertex.  The offsets and spreads
were measured on the development split of rendered people, whose true keypoints are known
(docs/explanation/fit.md); the spreads are widened, since real joints differ from rendered ones.
"""

from __future__ import annotations

import numpy as np

from worker.avatar.fit import priors
from worker.avatar.types import KEYPOINTS, Float64Array, Observation, ViewName

_Row = tuple[float, float, float, float]
"""Offset outwards (front) or forwards (side), offset down, and the spreads of the two; pixels for a
person of `priors.PERSON_HEIGHT_PX`."""

_FRONT: dict[str, _Row] = {
    "nose": (0.0, 2.3, 2.7, 3.4),
    "eye": (0.3, 2.6, 2.5, 2.7),
    "ear": (-6.6, -8.2, 2.9, 5.3),
    "shoulder": (3.6, 1.2, 3.4, 3.4),
    "elbow": (-1.2, -1.9, 4.5, 6.0),
    "wrist": (-1.1, -0.1, 3.9, 5.2),
    "hip": (2.5, 2.1, 4.0, 10.0),
    "knee": (-3.1, 14.4, 4.0, 10.6),
    "ankle": (-0.3, 5.9, 3.1, 7.9),
    "big_toe": (0.2, -0.4, 3.4, 4.3),
    "heel": (-4.8, 4.8, 4.6, 5.7),
}
_SIDE_NEAR: dict[str, _Row] = {
    "nose": (0.0, -8.9, 3.4, 4.7),
    "eye": (-5.6, -6.3, 2.9, 4.1),
    "ear": (9.7, -1.7, 4.3, 6.2),
    "shoulder": (3.3, -4.6, 6.8, 11.9),
    "elbow": (-6.3, 1.4, 9.3, 11.5),
    "wrist": (1.2, 2.4, 7.8, 7.4),
    "hip": (-0.3, -3.4, 5.1, 12.7),
    "knee": (1.0, -3.4, 4.7, 13.5),
    "ankle": (0.7, -1.1, 4.4, 9.5),
    "big_toe": (-12.3, -4.3, 8.9, 8.0),
    "heel": (-2.1, 6.5, 3.8, 7.4),
}
_SIDE_FAR: dict[str, _Row] = {
    "nose": (0.0, -8.9, 3.4, 4.7),
    "eye": (-1.1, -12.5, 3.9, 5.4),
    "ear": (15.3, -16.3, 5.5, 6.9),
    "shoulder": (1.9, -11.2, 10.0, 11.0),
    "elbow": (-1.6, 5.3, 16.0, 16.8),
    "wrist": (8.5, 15.9, 23.3, 25.0),
    "hip": (2.5, 6.4, 9.1, 15.3),
    "knee": (6.6, 18.5, 9.4, 16.7),
    "ankle": (1.6, 15.4, 10.0, 17.6),
    "big_toe": (-7.1, 12.4, 12.5, 16.1),
    "heel": (1.0, 16.9, 10.3, 23.1),
}
_WIDER_PX = 3.0
"""Added in square to every spread: what rendered people cannot show."""


def as_the_body_means(
    observation: Observation, places: Float64Array
) -> tuple[Float64Array, Float64Array]:
    """Move keypoints to where the body's own lie, and say how far they may be off.

    Args:
        observation: by whom, from where.
        places: (23, 2) its keypoints at working scale.

    Returns:
        Places (23, 2) and standard deviations (23, 2), working pixels.
    """
    if not priors.is_photograph(observation.source):
        return places, np.full(places.shape, priors.KEYPOINT_SIGMA_PX)
    confidence = observation.keypoints[:, 2].astype(np.float64)
    rows = np.array([_row(name, observation.view, places, confidence) for name in KEYPOINTS])
    spread = np.hypot(rows[:, 2:], _WIDER_PX)
    return places - rows[:, :2], spread


def _row(name: str, view: ViewName, places: Float64Array, confidence: Float64Array) -> _Row:
    side, _, part = name.partition("_") if "_" in name else ("", "", name)
    # BlazePose has one toe mark a foot, near the big one.
    part = "big_toe" if part == "small_toe" else part
    if view is ViewName.FRONT:
        across, down, wide, high = _FRONT[part]
        middle = _mean(places, confidence, "shoulder", "hip")
        sign = np.sign(places[KEYPOINTS.index(name), 0] - middle)
        return float(sign * across), down, wide, high
    forward = _facing(places, confidence)
    near = "right" if forward > 0 else "left"
    table = _SIDE_NEAR if side in (near, "") else _SIDE_FAR
    across, down, wide, high = table[part]
    return float(forward * across), down, wide, high


def _mean(places: Float64Array, confidence: Float64Array, *parts: str) -> float:
    at = [KEYPOINTS.index(f"{side}_{part}") for part in parts for side in ("left", "right")]
    seen = [index for index in at if confidence[index] > 0] or at
    return float(places[seen, 0].mean())


def _facing(places: Float64Array, confidence: Float64Array) -> float:
    """1 when the person in profile looks to the right of the image, else -1."""
    ahead = places[KEYPOINTS.index("nose"), 0] - _mean(places, confidence, "ear")
    return 1.0 if ahead > 0 else -1.0
