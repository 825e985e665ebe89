"""Left and right: every view is fitted looking one way, so that its mirror image fits the same.

Bodies are symmetric, photos are not, and where a photo has two answers it hangs on little which
one is found.  The mirror image of a photo must not find the other one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from worker.avatar.body.layout import JOINT_NAMES
from worker.avatar.fit.evidence import SEEN_CONFIDENCE
from worker.avatar.types import (
    KEYPOINTS,
    BodyFit,
    BoolArray,
    FittedView,
    Float32Array,
    Float64Array,
    InitialGuess,
    Int64Array,
    Observation,
)

_FRONTS_AND_BACKS = tuple(
    tuple(np.array([name.endswith(ends) for name in KEYPOINTS]) for ends in pair)
    for pair in ((("nose", "eye"), "ear"), ("toe", "heel"))
)
"""Masks (23,) of keypoints at the front of head and feet, and of those at the back."""


def _other_side(names: tuple[str, ...]) -> Int64Array:
    """(n,) the row of each name's counterpart; what has none is its own."""
    other = {"left": "right", "right": "left"}
    parted = (name.partition("_") for name in names)
    return np.array([names.index(other.get(side, side) + sep + rest) for side, sep, rest in parted])


Array = TypeVar("Array", Float32Array, Float64Array)

_OTHER_KEYPOINT = _other_side(tuple(KEYPOINTS))
_OTHER_JOINT = _other_side(JOINT_NAMES)
_MIRRORED_TURN = np.array([1.0, -1.0, -1.0])
"""A rotation's axis seen in the mirror x → −x: S R S with S = diag(−1, 1, 1)."""


def looks_left(observation: Observation) -> bool:
    """Whether the person looks to the left of the image rather than to its right.

    Said by where face and toes lie beside ears and heels, as far as they are seen.  An observation
    and its mirror image disagree on it where head or feet are seen, both their front and their
    back; of whom neither is, everybody looks to the right.
    """
    return ahead(observation.keypoints[:, 0], observation.keypoints[:, 2] > SEEN_CONFIDENCE) < 0.0


def ahead(x: NDArray[np.floating[Any]], seen: BoolArray) -> float:
    """How far to the right of the image face and toes lie of ears and heels, both together.

    Args:
        x: (23,) of keypoints.
        seen: (23,) which are.
    """
    return sum(
        float(x[front & seen].mean() - x[back & seen].mean())
        for front, back in _FRONTS_AND_BACKS
        if (front & seen).any() and (back & seen).any()
    )


def mirrored_keypoints(keypoints: Array, width: int) -> Array:
    """Keypoints (23, 2 or 3) in the mirror image of a photo, pixels."""
    other: Array = keypoints[_OTHER_KEYPOINT].copy()
    other[:, 0] = width - other[:, 0]
    return other


def mirrored(observation: Observation) -> Observation:
    """What would be seen in the mirror: left and right change places."""
    width = observation.intrinsics.width
    x0, y0, x1, y1 = observation.box
    skin = observation.skin
    return replace(
        observation,
        keypoints=mirrored_keypoints(observation.keypoints, width),
        mask=np.ascontiguousarray(observation.mask[:, ::-1]),
        box=np.array([width - x1, y0, width - x0, y1], dtype=np.float32),
        skin=None if skin is None else np.ascontiguousarray(skin[:, ::-1]),
    )


def mirrored_pose(pose: Float64Array) -> Float64Array:
    """The pose (J, 3), axis-angle, of the first J joints, as the mirror shows it."""
    turned: Float64Array = pose[_OTHER_JOINT[: len(pose)]] * _MIRRORED_TURN
    return turned


def mirrored_view(view: FittedView) -> FittedView:
    """Pose and place of the mirror image of the person."""
    return replace(
        view, pose=mirrored_pose(view.pose), transl=view.transl * np.array([-1.0, 1.0, 1.0])
    )


def all_one_way(
    observations: tuple[Observation, ...], initial: InitialGuess | None
) -> tuple[tuple[Observation, ...], InitialGuess | None]:
    """Mirror the views that look left, and the guess of their poses."""
    turned = {seen.view for seen in observations if looks_left(seen)}
    if initial is not None:
        poses = {
            view: mirrored_pose(pose) if view in turned else pose
            for view, pose in initial.poses.items()
        }
        initial = replace(initial, poses=poses)
    return tuple(mirrored(o) if o.view in turned else o for o in observations), initial


def as_seen(fit: BodyFit, observations: tuple[Observation, ...]) -> BodyFit:
    """Turn the views of a fit back to how the photos show them.

    Args:
        fit: to what `all_one_way` made of the observations.
        observations: as they were.
    """
    views = tuple(
        mirrored_view(view) if looks_left(seen) else view
        for view, seen in zip(fit.views, observations, strict=True)
    )
    return replace(fit, views=views)
