"""What is known before looking: how people stand, and how far each source can be believed.

The joints, their spreads and the sizes of the noise were measured with the prototype that
facts/fitting.md describes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from worker.avatar.body.articulated import BODY_JOINTS
from worker.avatar.fit import rotation
from worker.avatar.types import ViewName

_Axes = tuple[float, float, float]


def _any_way(degrees: float) -> _Axes:
    return (degrees, degrees, degrees)


_SHOULDER: _Axes = (40.0, 20.0, 40.0)
_ELBOW: _Axes = (30.0, 20.0, 8.0)
"""Degrees about the arm itself, forwards and backwards, and up and down; an elbow is a hinge that
turns forwards, the forearm turns about itself, and there is no third way."""

POSE_SPREAD_DEG: dict[int, _Axes] = {
    # Pelvis: lean towards the camera (its own tilt included), the way the person faces, lean to a
    # side.
    0: (12.0, 60.0, 8.0),
    1: _any_way(12.0),  # left hip
    2: _any_way(12.0),  # right hip
    3: _any_way(6.0),  # spine1
    4: _any_way(10.0),  # left knee
    5: _any_way(10.0),  # right knee
    6: _any_way(5.0),  # spine2
    7: _any_way(10.0),  # left ankle
    8: _any_way(10.0),  # right ankle
    9: _any_way(5.0),  # spine3
    12: _any_way(10.0),  # neck
    13: _any_way(6.0),  # left collar
    14: _any_way(6.0),  # right collar
    15: _any_way(12.0),  # head
    16: _SHOULDER,  # left shoulder
    17: _SHOULDER,  # right shoulder
    18: _ELBOW,  # left elbow
    19: _ELBOW,  # right elbow
}
"""The joints that are fitted, and the standard deviation of their rotation from standing, about
their own x, y and z.

Tight where standing people hardly bend: a spine or a hip that may bend freely explains away
what is the person's shape.  Half as tight as this (the prototype's spreads), chest, waist and
hip from two views were 0.1 to 0.3 cm worse; arms are left loose for hands on hips, but not towards
the camera: one photo does not tell a long arm that points ahead from a short one that does not.
"""

PROFILE_TURN_DEG = 15.0
"""How far people who show their profile are turned from it, instead of the pelvis's 60 degrees: six
degrees to one side or the other fit a profile alike, and hips differ by 3 cm."""

FITTED_JOINTS: tuple[int, ...] = tuple(POSE_SPREAD_DEG)

ARMS_DOWN_DEG = 50.0
"""How far the arms of someone who stands for a photo hang below the T-pose's."""

ELBOWS_BENT_DEG = 12.0
"""How far the elbows of someone who stands at ease are bent."""

PERSON_HEIGHT_PX = 820.0
"""Every view is scaled so that the person is this high: sizes in pixels below refer to it."""

KEYPOINT_SIGMA_PX = 4.0
"""Noise of a keypoint that means exactly what the body's own keypoint means."""

CONTOUR_SIGMA_PX = 2.5
"""Noise of the outline, across it."""

CONTOUR_INDEPENDENT_POINTS = 160.0
"""Outline noise is correlated along it: however many points are sampled, they count as these."""

FOLDS = 0.2
"""Unevenness of hair and collars beside how far they stand off; garments' folds are learnt."""

KEYPOINT_OUTLIER_SIGMAS = 4.0
"""Scale of the Geman-McClure loss of keypoints."""

CONTOUR_OUTLIER_SIGMAS = 5.8
"""Scale of the Geman-McClure loss of the outline."""

USUAL_HEIGHT_M = 1.72

HEIGHT_SIGMA_M = 0.006
"""How well people know their height, with the change over a day."""

FARTHEST_HEIGHT_SIGMAS = 3.5
"""Heights farther from the model's mean are refused: 1.29 to 2.00 m for women, 1.47 to 2.17 m for
men, 1.25 to 2.21 m where the gender was not declared."""

FARTHEST_SHAPE = 12.0
"""Length of betas beyond which a body is refused; people of BMI 17 to 40 come out at 4 to 7."""

WEIGHT_DISAGREES_SIGMAS = 3.0
"""A declared weight this far from what the photos allow is mentioned."""

WEIGHT_SIGMA_KG = 2.0
"""Scales, clothes and breakfast, and the spread of density between people."""

BODY_DENSITY_KG_M3 = 985.0
"""Mass over the volume of the closed skin surface, lungs included; the figure that SHAPY (Choutas
et al., CVPR 2022, `body_measurements.py`) uses for SMPL-X bodies."""

KNOWN_FOCAL_SIGMA = 0.003
"""Spread of the logarithm of a focal length that the photo states."""

ASSUMED_FOCAL_SIGMA = 0.15
"""The same of an assumed one: 24 to 32 mm equivalents of phones' main cameras."""


DRESSED_CASE = "synthetic, dressed"
"""`Observation.source` of benchmark cases whose masks hold clothes."""


def standing_pose(*, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Local rotations (22, 3, 3) of someone standing for a photo, arms away from the body."""
    pose = torch.eye(3, dtype=dtype, device=device).repeat(BODY_JOINTS, 1, 1)
    pose[16] = rotation.about(2, -ARMS_DOWN_DEG, like=pose)
    pose[17] = rotation.about(2, ARMS_DOWN_DEG, like=pose)
    pose[18] = rotation.about(1, -ELBOWS_BENT_DEG, like=pose)
    pose[19] = rotation.about(1, ELBOWS_BENT_DEG, like=pose)
    return pose


def pose_sigma(view: ViewName, *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Standard deviation (A, 3) of each of `FITTED_JOINTS` about its axes, radians."""
    spread = dict(POSE_SPREAD_DEG)
    if view is ViewName.SIDE:
        lean, _, aside = spread[0]
        spread[0] = (lean, PROFILE_TURN_DEG, aside)
    radians = [[math.radians(degrees) for degrees in axes] for axes in spread.values()]
    return torch.tensor(radians, dtype=dtype, device=device)


def is_photograph(source: str) -> bool:
    """Whether an observation was seen in a photo, by an observer with definitions of its own.

    Args:
        source: `Observation.source`; anything but BlazePose is taken to mean the body's own
            keypoints, as synthetic cases have them.
    """
    return "blazepose" in source.lower()
