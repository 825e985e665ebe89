"""What an estimator gives, and how it is asked."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

import numpy as np

from worker.avatar.types import KEYPOINTS, Float32Array, Float64Array, Observation, Photo

_SEEN: Final = 0.5
_SPREAD: Final = 0.05
"""Of the person's height: an estimate whose keypoints lie this far off is worth 1/e."""


class Topology(StrEnum):
    """Whose vertices they are, in which order."""

    SMPLX = "smplx"
    """10,475 vertices."""
    MHR = "mhr"
    """18,439 vertices, the level of detail 1 of facebookresearch/MHR."""


VERTICES: Final = {Topology.SMPLX: 10_475, Topology.MHR: 18_439}


@dataclass(frozen=True, slots=True, eq=False)
class BodyEstimate:
    """One person's body as an estimator sees it in one photo.

    Metres.  Posed vertices are in the camera's frame: x right, y down, z forward.
    """

    topology: Topology
    rest_vertices: Float64Array
    """(V, 3) in the estimator's own rest pose, y up."""
    posed_vertices: Float64Array
    """(V, 3) where the person stands, in the camera's frame."""
    focal_px: float
    """Of the camera that `posed_vertices` are meant for."""
    confidence: float
    """0..1: how well its keypoints meet the observed ones; see `agreement`."""
    source: str
    """Name and digest, for `sources`."""
    betas: Float64Array | None = None
    """(K,) of the neutral SMPL-X, where the estimator speaks of them."""
    pose: Float64Array | None = None
    """(55, 3) axis-angle in SMPL-X's order, row 0 into the camera's frame, where it does."""

    def __post_init__(self) -> None:
        """Refuse what is no body of its topology.

        Raises:
            ValueError: an array has another shape or is not finite, or the body has no height.
        """
        expected = (VERTICES[self.topology], 3)
        for name in ("rest_vertices", "posed_vertices"):
            array = getattr(self, name)
            if array.shape != expected or not np.isfinite(array).all():
                raise ValueError(f"{name} {array.shape} is no finite {expected}")
        if not np.ptp(self.rest_vertices[:, 1]) > 0:
            raise ValueError("rest_vertices have no height")
        for name in ("betas", "pose"):
            array = getattr(self, name)
            if array is not None and not np.isfinite(array).all():
                raise ValueError(f"{name} is not finite")


class Estimator(Protocol):
    """A network that proposes a body."""

    @property
    def source(self) -> str:
        """Name and digest, for `sources`."""
        ...

    @property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of every file that shapes its outcome, for the fingerprint."""
        ...

    def estimate(self, photo: Photo, seen: Observation) -> BodyEstimate:
        """Propose the body of the one person.

        Args:
            photo: the pixels.
            seen: box, keypoints, mask and camera that observers found in it.

        Raises:
            EstimateFailed: the network gave no finite body.
        """
        ...


def agreement(keypoints_px: Float32Array, known: Float32Array, seen: Observation) -> float:
    """How well an estimate's keypoints meet the observed ones, 0..1.

    Args:
        keypoints_px: (23, 2) in the order of `KEYPOINTS`.
        known: (23,) 1 where the estimator has such a keypoint, else 0.
        seen: what was observed.

    Returns:
        exp(-d / 0.05), where d is the median distance in heights of the person; 0 where nothing
        can be compared.
    """
    compared = (seen.keypoints[:, 2] >= _SEEN) & (known > 0)
    height_px = float(seen.box[3] - seen.box[1])
    if not compared.any() or height_px <= 0:
        return 0.0
    apart = np.linalg.norm(keypoints_px[compared] - seen.keypoints[compared, :2], axis=1)
    distance = float(np.median(apart)) / height_px
    return float(np.exp(-distance / _SPREAD)) if np.isfinite(distance) else 0.0


def named_keypoints(
    names: dict[str, int], points: Float32Array
) -> tuple[Float32Array, Float32Array]:
    """Pick `KEYPOINTS` out of an estimator's points (N, 2) by name.

    Returns:
        (23, 2) points, and (23,) which of them it has.
    """
    picked = np.zeros((len(KEYPOINTS), 2), dtype=np.float32)
    known = np.zeros(len(KEYPOINTS), dtype=np.float32)
    for row, name in enumerate(KEYPOINTS):
        if name in names:
            picked[row] = points[names[name]]
            known[row] = 1.0
    return picked, known
