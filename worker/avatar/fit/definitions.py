"""What an observer's keypoints mean: where they lie beside the body's own, and how they err.

BlazePose marks other places than the free body's keypoint regressor does: its knee is the kneecap
and lies lower, its eyes and ears lie on the image and not on a vertex.  And what it gets wrong it
gets wrong together: both hips too low, a foot with its heel (docs/decisions/0023).  And errors go
with where keypoints are: who has high hips gets them marked nearer to where hips usually are, and
in profile the far knee is marked beside the near one (0025).  `recipes/keypoints` measures all
three on rendered people, whose true keypoints are known, seen as `mirror.all_one_way` turns them.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np

from worker.avatar.fit import priors
from worker.avatar.types import KEYPOINTS, Float64Array, Observation, ViewName
from worker.errors import ModelInvalid, ModelMissing

NOISE_PATH = Path(str(resources.files("worker.avatar.fit"))) / "data" / "blazepose.npz"

_WIDER_PX = 3.0
"""Added in square to every spread, independently: what rendered people cannot show."""


@dataclass(frozen=True, slots=True, eq=False)
class KeypointNoise:
    """Of one view, in pixels for a person of `priors.PERSON_HEIGHT_PX`."""

    offset: Float64Array
    """(23, 2) from the body's own keypoints to the observer's."""
    covariance: Float64Array
    """(46, 46) of what `offset` and `slope` leave, of x and y of one keypoint after the other."""
    slope: Float64Array
    """(46, 46) how errors grow with where keypoints are; where all of them are makes none."""
    usual: Float64Array
    """(46,) where keypoints usually are, from their middle."""

    @property
    def marking(self) -> Float64Array:
        """(46, 46) from places to marks, but for a constant."""
        return np.eye(len(self.slope)) + self.slope

    @property
    def expected_at_usual(self) -> Float64Array:
        """(23, 2) what `slope` would add where keypoints are as usual: `offset` has it already."""
        return (self.slope @ self.usual).reshape(self.offset.shape)


@cache
def blazepose_noise() -> Mapping[ViewName, KeypointNoise]:
    """Read how BlazePose errs, by view.

    Raises:
        ModelMissing: the file is not in the package.
        ModelInvalid: it does not hold what it should.
    """
    return _read(NOISE_PATH)


def noise_digest() -> str:
    """Give the SHA-256 of the file: other numbers make another fit."""
    return hashlib.sha256(NOISE_PATH.read_bytes()).hexdigest()


def _read(path: Path) -> Mapping[ViewName, KeypointNoise]:
    if not path.is_file():
        raise ModelMissing(f"{path.name} is not in the package")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {view: _of(archive, view) for view in ViewName}
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ModelInvalid(f"{path.name} does not say how keypoints err: {error}") from error


def _of(archive: Mapping[str, Float64Array], view: ViewName) -> KeypointNoise:
    count = len(KEYPOINTS)
    offset, covariance, slope, usual = (
        archive[f"{view.value}_{name}"].astype(np.float64)
        for name in ("offset", "covariance", "slope", "usual")
    )
    square = (2 * count, 2 * count)
    shapes = tuple(each.shape for each in (offset, covariance, slope, usual))
    if shapes != ((count, 2), square, square, (2 * count,)):
        raise ValueError(f"of the {view.value}: {shapes}")
    wider = covariance + _WIDER_PX**2 * np.eye(len(covariance))
    return KeypointNoise(offset, wider, slope, usual)


def keypoint_noise(observation: Observation) -> KeypointNoise:
    """How an observer's keypoints lie beside the body's own.

    Args:
        observation: by whom, from where; looking one way (`mirror.all_one_way`).
    """
    if priors.is_photograph(observation.source):
        return blazepose_noise()[observation.view]
    count = observation.keypoints.shape[0]
    own = np.eye(2 * count) * priors.KEYPOINT_SIGMA_PX**2
    return KeypointNoise(np.zeros((count, 2)), own, 0.0 * own, np.zeros(2 * count))
