"""The sixteen measurements of the contract on one body.

docs/reference/measurements.md gives each its definition and its limits; the functions here
follow that page's order.  Every level and window is a landmark, a joint or a share of the
stature, so that scaling a body scales every measurement by the same factor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from worker.avatar.measure.crotch import leg_below, midline
from worker.avatar.measure.landmarks import Landmarks, load_landmarks
from worker.avatar.measure.record import Measurements
from worker.avatar.measure.sections import Surface
from worker.avatar.measure.tape import (
    Tape,
    TapeAt,
    fullest,
    girth,
    narrowest,
    polyline,
)
from worker.avatar.types import BoolArray, Float64Array
from worker.errors import FitFailed, ModelInvalid

UP = np.array([0.0, 1.0, 0.0])
FORWARD = np.array([0.0, 0.0, 1.0])

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

CHEST_WINDOW = 0.01
"""Half the height of the sweep about the bust points, in statures: 1.75 cm at 1.75 m."""
BUTTOCK_WINDOW = 0.03
"""Half the height of the search for the rearmost point about the gluteal landmarks."""
BUTTOCK_BLEND = 0.0002
"""Levels within about this share of the stature of the rearmost point count with it."""
THIGH_WINDOW = (0.01, 0.06)
"""Below the crotch, in statures: from under the gluteal fold to the upper third of the thigh."""
FOREARM_WINDOW = (0.08, 0.5)
"""Between elbow and wrist joint, along the bone."""
CALF_WINDOW = (0.22, 0.55)
"""Between knee and ankle joint, along the bone; the knee, wider on some, lies above."""
ANKLE_WINDOW = (0.6, 0.97)
"""Between knee and ankle joint, along the bone: the narrowest place above the ankle bones."""


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
class _Pose:
    """One body."""

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


class Measurer:
    """Measures bodies of one topology.

    Args:
        body: the model whose bodies are measured.
        landmarks: vertex ids; by default those that are shipped for the topology.

    Raises:
        ModelInvalid: no landmarks are known for the topology, or the arrays do not fit.
    """

    def __init__(self, body: SkinnedBody, landmarks: Landmarks | None = None) -> None:
        weights = np.asarray(body.lbs_weights, dtype=np.float64)
        self._joints = np.asarray(body.J_regressor, dtype=np.float64)
        if self._joints.shape != weights.shape[::-1] or weights.shape[1] != 55:
            raise ModelInvalid(
                f"The body has weights {weights.shape} and joints {self._joints.shape}; "
                "(V, 55) and (55, V) were expected."
            )
        self.landmarks = landmarks or load_landmarks(body.faces)
        arms = {side: weights[:, joints].sum(axis=1) > 0.5 for side, joints in ARMS.items()}
        legs = {side: weights[:, joints].sum(axis=1) > 0.5 for side, joints in LEGS.items()}
        self._arm_weights = {side: weights[:, joints].sum(axis=1) for side, joints in ARMS.items()}
        either_arm = arms["left"] | arms["right"]
        skull = weights[:, SKULL].sum(axis=1) > 0.5
        self._trunk = Surface(body.faces, ~either_arm & ~skull)
        self._midline = midline(np.asarray(body.v_template, dtype=np.float64), self._trunk.edges)
        self._neck = Surface(body.faces, ~either_arm & ~legs["left"] & ~legs["right"])
        self._right_arm = Surface(body.faces, arms["right"])
        self._left_leg = Surface(body.faces, legs["left"])

    def measure(self, vertices: NDArray[np.floating]) -> Measurements:
        """Measure one body.

        Args:
            vertices: (V, 3) metres in the T-pose, y up, +z forward, scaled to the stature.

        Raises:
            ModelInvalid: the array is not of this topology.
            FitFailed: the body is so broken that a section or a leg cannot be found.
        """
        pose = self._locate(vertices)
        shoulder = self._shoulder(pose)
        tapes = {
            "chestCm": self._chest(pose),
            "waistCm": self._waist(pose),
            "hipCm": self._hip(pose),
            "shoulderCm": shoulder,
            "sleeveCm": self._sleeve(pose),
            "lengthCm": self._length(pose),
            "neckCm": self._neck_girth(pose),
            "bicepCm": self._bicep(pose),
            "forearmCm": self._forearm(pose),
            "wristCm": self._wrist(pose),
            "thighCm": self._thigh(pose),
            "calfCm": self._calf(pose),
            "ankleCm": self._ankle(pose),
            "insideLegCm": _plumb(pose.crotch, pose.floor),
            "shoulderBreadthCm": shoulder,
            "heightCm": _plumb(pose.vertices[np.argmax(pose.vertices[:, 1])], pose.floor),
        }
        return Measurements(
            {key: 100.0 * tape.length_m for key, tape in tapes.items()},
            {key: tape.curve for key, tape in tapes.items()},
        )

    def _locate(self, vertices: NDArray[np.floating]) -> _Pose:
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
        marks = self.landmarks
        joints = self._joints @ places
        return _Pose(
            vertices=places,
            arms_down=lower_arms(places, joints, self._arm_weights, ARMS_DOWN_DEG),
            joints=joints,
            floor=floor,
            stature=stature,
            crotch=crotch,
            leg=leg_below(
                heights, self._trunk.edges, float(crotch[1]), marks.heel_left, marks.heel_right
            ),
        )

    # ------------------------------------------------------------------ trunk
    def _chest(self, pose: _Pose) -> Tape:
        level = self._level(pose, "bust_point_left", "bust_point_right")
        reach = CHEST_WINDOW * pose.stature
        heights = pose.arms_down[:, 1]
        return fullest(
            lambda y: girth(self._trunk.section(pose.arms_down, heights, y), UP, what="chest"),
            level - reach,
            level + reach,
        )

    def _waist(self, pose: _Pose) -> Tape:
        rib = self._level(pose, "lowest_rib_left", "lowest_rib_right")
        crest = self._level(pose, "iliac_crest_left", "iliac_crest_right")
        return self._around(self._trunk, pose, UP, "waist")((rib + crest) / 2)

    def _hip(self, pose: _Pose) -> Tape:
        level = self._level(pose, "gluteal_left", "gluteal_right")
        reach = BUTTOCK_WINDOW * pose.stature
        levels = np.linspace(level - reach, level + reach, 31)
        heights = pose.vertices[:, 1]
        rear = np.array(
            [-self._trunk.section(pose.vertices, heights, y)[:, 2].min() for y in levels]
        )
        # A blend instead of the first maximum: on a flat seat the level would jump.
        share = np.exp((rear - rear.max()) / (BUTTOCK_BLEND * pose.stature))
        return self._around(self._trunk, pose, UP, "hip")(float(levels @ share / share.sum()))

    def _shoulder(self, pose: _Pose) -> Tape:
        left, right = self._shoulder_points(pose)
        return polyline(right, self._mark(pose, "cervicale"), left)

    def _length(self, pose: _Pose) -> Tape:
        left, right = self._shoulder_points(pose)
        top = np.array([right[0], (left[1] + right[1]) / 2, right[2]])
        return _plumb(top, float(pose.crotch[1]))

    def _neck_girth(self, pose: _Pose) -> Tape:
        front = self._mark(pose, "neck_front")
        axis = _direction(pose.joints[NECK], pose.joints[HEAD])
        points = self._neck.section_near(
            pose.vertices, pose.vertices @ axis, float(front @ axis), front
        )
        return girth(points, axis, what="neck")

    # ------------------------------------------------------------------ right arm
    def _sleeve(self, pose: _Pose) -> Tape:
        """Shoulder point, elbow point, wrist point, as on an arm that hangs, bent at 90°.

        Skinning deforms the skin where the arm joins, so the arm is not posed: its landmarks
        are carried along with the bones, and the length is that of the straight pieces between.
        """
        olecranon, wrist = (
            self._mark(pose, f"{name}_right") for name in ("olecranon", "ulnar_styloid")
        )
        _, acromion = self._shoulder_points(pose)
        shoulder, elbow = pose.joints[RIGHT_SHOULDER], pose.joints[RIGHT_ELBOW]
        along = _direction(shoulder, elbow)
        ahead = FORWARD - (FORWARD @ along) * along
        ahead /= np.linalg.norm(ahead)
        tip = olecranon - elbow
        # Bent, the forearm points ahead: what lay behind the elbow now lies below it.
        below = float(np.linalg.norm(elbow - shoulder) - tip @ ahead)
        hanging = shoulder - below * UP + float(tip @ along) * FORWARD
        return Tape(
            float(np.linalg.norm(hanging - acromion) + np.linalg.norm(wrist - olecranon)),
            np.stack([self._mark(pose, "acromion_right"), olecranon, wrist]),
        )

    def _bicep(self, pose: _Pose) -> Tape:
        axis = _direction(pose.joints[RIGHT_SHOULDER], pose.joints[RIGHT_ELBOW])
        ends = self._mark(pose, "acromion_right"), self._mark(pose, "olecranon_right")
        level = float((ends[0] + ends[1]) @ axis / 2)
        return self._around(self._right_arm, pose, axis, "upper arm")(level)

    def _forearm(self, pose: _Pose) -> Tape:
        around, low, high = self._along(
            self._right_arm, pose, (RIGHT_ELBOW, RIGHT_WRIST), FOREARM_WINDOW, "forearm"
        )
        return fullest(around, low, high)

    def _wrist(self, pose: _Pose) -> Tape:
        axis = _direction(pose.joints[RIGHT_ELBOW], pose.joints[RIGHT_WRIST])
        level = float(self._mark(pose, "ulnar_styloid_right") @ axis)
        return self._around(self._right_arm, pose, axis, "wrist")(level)

    # ------------------------------------------------------------------ left leg
    def _thigh(self, pose: _Pose) -> Tape:
        heights, crotch = pose.vertices[:, 1], float(pose.crotch[1])
        # Lift the other leg out of the way: what is below the crotch is then the left leg.
        inside = np.where(pose.leg | (heights >= crotch), heights, np.inf)
        bottom, top = (crotch - share * pose.stature for share in THIGH_WINDOW[::-1])
        return fullest(
            lambda y: girth(self._trunk.section(pose.vertices, inside, y), UP, what="thigh"),
            bottom,
            top,
        )

    def _calf(self, pose: _Pose) -> Tape:
        around, low, high = self._along(
            self._left_leg, pose, (LEFT_KNEE, LEFT_ANKLE), CALF_WINDOW, "calf"
        )
        return fullest(around, low, high)

    def _ankle(self, pose: _Pose) -> Tape:
        around, low, high = self._along(
            self._left_leg, pose, (LEFT_KNEE, LEFT_ANKLE), ANKLE_WINDOW, "ankle"
        )
        return narrowest(around, low, high)

    # ------------------------------------------------------------------ tools
    def _mark(self, pose: _Pose, name: str) -> Float64Array:
        place: Float64Array = pose.vertices[getattr(self.landmarks, name)]
        return place

    def _shoulder_points(self, pose: _Pose) -> tuple[Float64Array, Float64Array]:
        """Left and right, on the body with lowered arms."""
        marks = self.landmarks
        return pose.arms_down[marks.acromion_left], pose.arms_down[marks.acromion_right]

    def _level(self, pose: _Pose, *names: str) -> float:
        return float(np.mean([self._mark(pose, name)[1] for name in names]))

    @staticmethod
    def _around(part: Surface, pose: _Pose, axis: Float64Array, what: str) -> TapeAt:
        """The girth of a part across an axis, as a function of the level on that axis."""
        heights = pose.vertices @ axis
        return lambda level: girth(part.section(pose.vertices, heights, level), axis, what=what)

    def _along(
        self,
        part: Surface,
        pose: _Pose,
        bone: tuple[int, int],
        window: tuple[float, float],
        what: str,
    ) -> tuple[TapeAt, float, float]:
        """The girth across a bone, and the levels of a window between its joints (0..1)."""
        start, end = pose.joints[bone[0]], pose.joints[bone[1]]
        axis = _direction(start, end)
        length = float(np.linalg.norm(end - start))
        low, high = (float(start @ axis) + share * length for share in window)
        return self._around(part, pose, axis, what), low, high


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


def _direction(start: Float64Array, end: Float64Array) -> Float64Array:
    unit: Float64Array = (end - start) / np.linalg.norm(end - start)
    return unit


def _plumb(top: Float64Array, to_height: float) -> Tape:
    """The plumb line from a point to a height."""
    return polyline(top, np.array([top[0], to_height, top[2]]))
