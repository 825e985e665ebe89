"""The sixteen measurements of the contract on one body.

docs/reference/measurements.md gives each its definition and its limits; the functions here
follow that page's order.  Every level and window is a landmark, a joint or a share of the
stature, so that scaling a body scales every measurement by the same factor.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from worker.avatar.measure.anatomy import (
    HEAD,
    LEFT_ANKLE,
    LEFT_KNEE,
    NECK,
    RIGHT_ELBOW,
    RIGHT_SHOULDER,
    RIGHT_WRIST,
    Anatomy,
    SkinnedBody,
    Standing,
    direction,
)
from worker.avatar.measure.landmarks import Landmarks, load_landmarks
from worker.avatar.measure.record import Measurements
from worker.avatar.measure.sections import Bone, Surface
from worker.avatar.measure.tape import Tape, TapeAt, fullest, girth, narrowest, polyline
from worker.avatar.types import Float64Array

UP = np.array([0.0, 1.0, 0.0])
FORWARD = np.array([0.0, 0.0, 1.0])

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


class Measurer:
    """Measures bodies of one topology.

    Args:
        body: the model whose bodies are measured.
        landmarks: vertex ids; by default those that are shipped for the topology.

    Raises:
        ModelInvalid: no landmarks are known for the topology, or the arrays do not fit.
    """

    def __init__(self, body: SkinnedBody, landmarks: Landmarks | None = None) -> None:
        self.landmarks = landmarks or load_landmarks(body.faces)
        self._anatomy = Anatomy(body, self.landmarks)

    def measure(self, vertices: NDArray[np.floating]) -> Measurements:
        """Measure one body.

        Args:
            vertices: (V, 3) metres in the T-pose, y up, +z forward, scaled to the stature.

        Raises:
            ModelInvalid: the array is not of this topology.
            FitFailed: the body is so broken that a section or a leg cannot be found.
        """
        pose = self._anatomy.locate(vertices)
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

    # ------------------------------------------------------------------ trunk
    def _chest(self, pose: Standing) -> Tape:
        level = self._level(pose, "bust_point_left", "bust_point_right")
        reach = CHEST_WINDOW * pose.stature
        heights = pose.arms_down[:, 1]
        return fullest(
            lambda y: girth(
                self._anatomy.trunk.section(pose.arms_down, heights, y), UP, what="chest"
            ),
            level - reach,
            level + reach,
        )

    def _waist(self, pose: Standing) -> Tape:
        rib = self._level(pose, "lowest_rib_left", "lowest_rib_right")
        crest = self._level(pose, "iliac_crest_left", "iliac_crest_right")
        return self._around(self._anatomy.trunk, pose, UP, "waist")((rib + crest) / 2)

    def _hip(self, pose: Standing) -> Tape:
        level = self._level(pose, "gluteal_left", "gluteal_right")
        reach = BUTTOCK_WINDOW * pose.stature
        levels = np.linspace(level - reach, level + reach, 31)
        heights = pose.vertices[:, 1]
        rear = np.array(
            [-self._anatomy.trunk.section(pose.vertices, heights, y)[:, 2].min() for y in levels]
        )
        # A blend instead of the first maximum: on a flat seat the level would jump.
        share = np.exp((rear - rear.max()) / (BUTTOCK_BLEND * pose.stature))
        return self._around(self._anatomy.trunk, pose, UP, "hip")(
            float(levels @ share / share.sum())
        )

    def _shoulder(self, pose: Standing) -> Tape:
        left, right = self._shoulder_points(pose)
        return polyline(right, self._mark(pose, "cervicale"), left)

    def _length(self, pose: Standing) -> Tape:
        left, right = self._shoulder_points(pose)
        top = np.array([right[0], (left[1] + right[1]) / 2, right[2]])
        return _plumb(top, float(pose.crotch[1]))

    def _neck_girth(self, pose: Standing) -> Tape:
        front = self._mark(pose, "neck_front")
        axis = direction(pose.joints[NECK], pose.joints[HEAD])
        points = self._anatomy.neck.section_near(
            pose.vertices,
            pose.vertices @ axis,
            float(front @ axis),
            front,
            bone=Bone(pose.joints[NECK], axis),
        )
        return girth(points, axis, what="neck")

    # ------------------------------------------------------------------ right arm
    def _sleeve(self, pose: Standing) -> Tape:
        """Shoulder point, elbow point, wrist point, as on an arm that hangs, bent at 90°.

        Skinning deforms the skin where the arm joins, so the arm is not posed: its landmarks
        are carried along with the bones, and the length is that of the straight pieces between.
        """
        olecranon, wrist = (
            self._mark(pose, f"{name}_right") for name in ("olecranon", "ulnar_styloid")
        )
        _, acromion = self._shoulder_points(pose)
        shoulder, elbow = pose.joints[RIGHT_SHOULDER], pose.joints[RIGHT_ELBOW]
        along = direction(shoulder, elbow)
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

    def _bicep(self, pose: Standing) -> Tape:
        axis = direction(pose.joints[RIGHT_SHOULDER], pose.joints[RIGHT_ELBOW])
        ends = self._mark(pose, "acromion_right"), self._mark(pose, "olecranon_right")
        level = float((ends[0] + ends[1]) @ axis / 2)
        return self._around(self._anatomy.right_arm, pose, axis, "upper arm")(level)

    def _forearm(self, pose: Standing) -> Tape:
        around, low, high = self._along(
            self._anatomy.right_arm, pose, (RIGHT_ELBOW, RIGHT_WRIST), FOREARM_WINDOW, "forearm"
        )
        return fullest(around, low, high)

    def _wrist(self, pose: Standing) -> Tape:
        axis = direction(pose.joints[RIGHT_ELBOW], pose.joints[RIGHT_WRIST])
        level = float(self._mark(pose, "ulnar_styloid_right") @ axis)
        return self._around(self._anatomy.right_arm, pose, axis, "wrist")(level)

    # ------------------------------------------------------------------ left leg
    def _thigh(self, pose: Standing) -> Tape:
        heights, crotch = pose.vertices[:, 1], float(pose.crotch[1])
        # Lift the other leg out of the way: what is below the crotch is then the left leg.
        inside = np.where(pose.leg | (heights >= crotch), heights, np.inf)
        bottom, top = (crotch - share * pose.stature for share in THIGH_WINDOW[::-1])
        return fullest(
            lambda y: girth(
                self._anatomy.trunk.section(pose.vertices, inside, y), UP, what="thigh"
            ),
            bottom,
            top,
        )

    def _calf(self, pose: Standing) -> Tape:
        around, low, high = self._along(
            self._anatomy.left_leg, pose, (LEFT_KNEE, LEFT_ANKLE), CALF_WINDOW, "calf"
        )
        return fullest(around, low, high)

    def _ankle(self, pose: Standing) -> Tape:
        around, low, high = self._along(
            self._anatomy.left_leg, pose, (LEFT_KNEE, LEFT_ANKLE), ANKLE_WINDOW, "ankle"
        )
        return narrowest(around, low, high)

    # ------------------------------------------------------------------ tools
    def _mark(self, pose: Standing, name: str) -> Float64Array:
        place: Float64Array = pose.vertices[getattr(self.landmarks, name)]
        return place

    def _shoulder_points(self, pose: Standing) -> tuple[Float64Array, Float64Array]:
        """Left and right, on the body with lowered arms."""
        marks = self.landmarks
        return pose.arms_down[marks.acromion_left], pose.arms_down[marks.acromion_right]

    def _level(self, pose: Standing, *names: str) -> float:
        return float(np.mean([self._mark(pose, name)[1] for name in names]))

    @staticmethod
    def _around(part: Surface, pose: Standing, axis: Float64Array, what: str) -> TapeAt:
        """The girth of a part across an axis, as a function of the level on that axis."""
        heights = pose.vertices @ axis
        return lambda level: girth(part.section(pose.vertices, heights, level), axis, what=what)

    def _along(
        self,
        part: Surface,
        pose: Standing,
        bone: tuple[int, int],
        window: tuple[float, float],
        what: str,
    ) -> tuple[TapeAt, float, float]:
        """The girth across a bone, and the levels of a window between its joints (0..1)."""
        start, end = pose.joints[bone[0]], pose.joints[bone[1]]
        axis = direction(start, end)
        length = float(np.linalg.norm(end - start))
        low, high = (float(start @ axis) + share * length for share in window)
        return self._around(part, pose, axis, what), low, high


def _plumb(top: Float64Array, to_height: float) -> Tape:
    """The plumb line from a point to a height."""
    return polyline(top, np.array([top[0], to_height, top[2]]))
