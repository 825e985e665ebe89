"""What an observer's keypoints mean: where they lie beside the body's own, and how they err.

BlazePose marks other places than the free body's keypoint regressor does: its knee is the kneecap
and lies lower, its eyes and ears lie on the image and not on a vertex.  And what it gets wrong it
gets wrong together: both hips too low, a foot with its heel.  `recipes/keypoints` measures offsets
and covariances on rendered people, whose true keypoints are known, seen as `mirror.all_one_way`
turns them (docs/decisions/0023).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np

from worker.avatar.fit import priors
from worker.avatar.types import Float64Array, Observation, ViewName

NOISE_PATH = Path(str(resources.files("worker.avatar.fit"))) / "data" / "blazepose.npz"

_WIDER_PX = 3.0
"""Added in square to every spread, independently: what rendered people cannot show."""


@dataclass(frozen=True, slots=True, eq=False)
class KeypointNoise:
    """Of one view, in pixels for a person of `priors.PERSON_HEIGHT_PX`."""

    offset: Float64Array
    """(23, 2) from the body's own keypoints to the observer's."""
    covariance: Float64Array
    """(46, 46) of x and y of one keypoint after the other."""


@cache
def _blazepose(view: ViewName) -> KeypointNoise:
    with np.load(NOISE_PATH, allow_pickle=False) as archive:
        offset, covariance = (
            archive[f"{view.value}_{name}"].astype(np.float64) for name in ("offset", "covariance")
        )
    return KeypointNoise(offset, covariance + _WIDER_PX**2 * np.eye(len(covariance)))


def keypoint_noise(observation: Observation) -> KeypointNoise:
    """How an observer's keypoints lie beside the body's own.

    Args:
        observation: by whom, from where; looking one way (`mirror.all_one_way`).
    """
    if priors.is_photograph(observation.source):
        return _blazepose(observation.view)
    count = observation.keypoints.shape[0]
    own = np.eye(2 * count) * priors.KEYPOINT_SIGMA_PX**2
    return KeypointNoise(np.zeros((count, 2)), own)
