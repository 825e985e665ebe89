"""The parts of a body that are measured: their vertices, and where they are on one body."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from worker.avatar.measure.crotch import leg_below, midline
from worker.avatar.measure.landmarks import Landmarks
from worker.avatar.measure.sections import Surface
from worker.avatar.types import BoolArray, Float64Array
from worker.errors import FitFailed, ModelInvalid

# Rows of the SMPL-X skeleton.
LEFT_KNEE, LEFT_ANKLE = 4, 7
NECK, HEAD = 12, 15
LEFT_SHOULDER, RIGHT_SHOULDER, RIGHT_ELBOW, RIGHT_WRIST = 16, 17, 19, 21
LEGS = {"left": [1, 4, 7, 10], "right": [2, 5, 8, 11]}
ARMS = {"left": [16, 18, 20, *range(25, 40)], "right": [17, 19, 21, *range(40, 55)]}
SKULL = [15, 22, 23, 24]

ARMS_DOWN_DEG = 48.0
"""How far the arms are lowered for what is measured about the shoulders.

ISO 8559-1 measures with hanging arms.  Raised arms lift the skin of chest and back: on the free
body the chest reads up to 6 cm more in the T-pose.  At 48°, the pose in which the free body's
skin was modelled, it is within 1 % of hanging arms, and skinning folds the armpit no further
than its authors saw (docs/reference/measurements.md has the figures).
"""

SMALLEST_M = 0.3
"""Whatever is smaller is no body: betas have run away or units are wrong."""


class SkinnedBody(Protocol):
    """What the measurer needs of a body model; `BodyData` has it."""

    @property
    def v_template(self) -> NDArray[Any]:
        """(V, 3) metres."""
        ...

    @property
    def faces(self) -> NDArray[Any]:
        """(F, 3) triangles."""
        ...

    @property
    def lbs_weights(self) -> NDArray[Any]:
        """(V, 55) how much each joint moves each vertex."""
        ...

    @property
    def J_regressor(self) -> NDArray[Any]:
        """(55, V) the joints as means of vertices."""
        ...


@dataclass(frozen=True, slots=True)
class Standing:
    """One body, and what is found on it before it is measured."""

    vertices: Float64Array
    """(V, 3) metres, y up, in the T-pose."""
    arms_down: Float64Array
    """(V, 3) the same with the arms lowered by `ARMS_DOWN_DEG`."""
    joints: Float64Array
    """(55, 3)."""
    floor: float
    stature: float
    crotch: Float64Array
    """(3,)."""
    leg: BoolArray
    """(V,) the left leg below the crotch."""


class Anatomy:
    """The parts of one topology, prepared for many sections.

    Attributes:
        trunk: the skin without arms and skull; the legs belong to it.
        neck: trunk and head, without arms and legs.
        right_arm: from the shoulder to the finger tips.
        left_leg: from the hip to the toes.

    Raises:
        ModelInvalid: the arrays do not fit each other, or the template has no midline.
    """

    def __init__(self, body: SkinnedBody, landmarks: Landmarks) -> None:
        weights = np.asarray(body.lbs_weights, dtype=np.float64)
        self._joints = np.asarray(body.J_regressor, dtype=np.float64)
        if self._joints.shape != weights.shape[::-1] or weights.shape[1] != 55:
            raise ModelInvalid(
                f"The body has weights {weights.shape} and joints {self._joints.shape}; "
                "(V, 55) and (55, V) were expected."
            )
        self._landmarks = landmarks
        arms = {side: weights[:, joints].sum(axis=1) > 0.5 for side, joints in ARMS.items()}
        legs = {side: weights[:, joints].sum(axis=1) > 0.5 for side, joints in LEGS.items()}
        self._arm_weights = {side: weights[:, joints].sum(axis=1) for side, joints in ARMS.items()}
        either_arm = arms["left"] | arms["right"]
        skull = weights[:, SKULL].sum(axis=1) > 0.5
        self.trunk = Surface(body.faces, ~either_arm & ~skull)
        self._midline = midline(np.asarray(body.v_template, dtype=np.float64), self.trunk.edges)
        self.neck = Surface(body.faces, ~either_arm & ~legs["left"] & ~legs["right"])
        self.right_arm = Surface(body.faces, arms["right"])
        self.left_leg = Surface(body.faces, legs["left"])

    def locate(self, vertices: NDArray[np.floating]) -> Standing:
        """Find joints, crotch and left leg, and lower the arms.

        Raises:
            ModelInvalid: the array is not of this topology.
            FitFailed: the body is not finite, has no height or no two legs.
        """
        places = np.asarray(vertices, dtype=np.float64)
        expected = (self._joints.shape[1], 3)
        if places.shape != expected:
            raise ModelInvalid(f"The body has shape {places.shape}; {expected} was expected.")
        if not np.isfinite(places).all():
            raise FitFailed("The body cannot be measured: some of its points are not finite.")
        heights = places[:, 1]
        floor = float(heights.min())
        stature = float(heights.max()) - floor
        if stature < SMALLEST_M:
            raise FitFailed(f"The body cannot be measured: it is {stature:.3f} m tall.")
        crotch = places[self._midline[np.argmin(heights[self._midline])]]
        marks = self._landmarks
        joints = self._joints @ places
        return Standing(
            vertices=places,
            arms_down=lower_arms(places, joints, self._arm_weights, ARMS_DOWN_DEG),
            joints=joints,
            floor=floor,
            stature=stature,
            crotch=crotch,
            leg=leg_below(
                heights, self.trunk.edges, float(crotch[1]), marks.heel_left, marks.heel_right
            ),
        )


def lower_arms(
    vertices: Float64Array,
    joints: Float64Array,
    arm_weights: Mapping[str, Float64Array],
    degrees: float,
) -> Float64Array:
    """Linear blend skinning of one turn of each shoulder about the forward axis.

    Args:
        vertices: (V, 3) metres in the T-pose.
        joints: (55, 3).
        arm_weights: by side, (V,) how much each vertex moves with that shoulder and what hangs
            on it.
        degrees: from the T-pose downwards.
    """
    lowered = vertices.copy()
    for side, shoulder, sense in (("left", LEFT_SHOULDER, -1), ("right", RIGHT_SHOULDER, 1)):
        angle = sense * math.radians(degrees)
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        from_joint = (vertices - joints[shoulder])[:, :2]
        lowered[:, :2] += arm_weights[side][:, None] * (from_joint @ turn.T - from_joint)
    return lowered


def direction(start: Float64Array, end: Float64Array) -> Float64Array:
    """The unit vector (3,) from one point to another."""
    unit: Float64Array = (end - start) / np.linalg.norm(end - start)
    return unit
