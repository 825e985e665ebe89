"""How a person stands, as angles that rules can be made of."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from worker.avatar.observe.landmarks import Landmarks
from worker.avatar.types import Float32Array, Float64Array

# BlazePose's landmark numbers, left and right.
SHOULDERS, HIPS, KNEES, ANKLES = [11, 12], [23, 24], [25, 26], [27, 28]


@dataclass(frozen=True, slots=True)
class Posture:
    """A person's posture; all angles in degrees."""

    trunk_tilt_deg: float
    """Between the trunk and the picture's vertical; 0 upright, 90 lying, 180 upside down."""
    hip_flexion_deg: float
    """Between thighs and trunk, mean of both sides; 0 standing, 90 sitting."""
    knee_flexion_deg: float
    """Between shanks and thighs, mean of both sides; 0 straight."""
    thigh_tilt_deg: float
    """Between the thighs and the trunk's axis in the picture, mean of both sides."""
    leg_to_trunk: float
    """How far the lower ankle lies below the hips, in lengths of the trunk; about 1.5."""
    yaw_deg: float
    """Where shoulders and hips face: 0 the camera, ±90 sideways, ±180 away from it."""

    @classmethod
    def of(cls, person: Landmarks) -> Posture:
        """Measure a person.

        Angles that need depth come from the network's metric landmarks, whose x and y are
        turned with the crop; they are turned back first.
        """
        cos, sin = math.cos(person.roi.angle), math.sin(person.roi.angle)
        world = person.world.astype(np.float64)
        world[:, :2] = world[:, :2] @ np.array([[cos, -sin], [sin, cos]]).T
        points = person.points.astype(np.float64)
        trunk = points[HIPS].mean(axis=0) - points[SHOULDERS].mean(axis=0)
        down = trunk / max(float(np.linalg.norm(trunk)), 1e-6)
        thighs = points[KNEES] - points[HIPS]
        legs = (points[ANKLES] - points[HIPS].mean(axis=0)) @ down
        world_trunk = world[HIPS].mean(axis=0) - world[SHOULDERS].mean(axis=0)
        world_thighs = world[KNEES] - world[HIPS]
        world_shanks = world[ANKLES] - world[KNEES]
        return cls(
            trunk_tilt_deg=abs(math.degrees(math.atan2(trunk[0], trunk[1]))),
            hip_flexion_deg=_mean([_angle(thigh, world_trunk) for thigh in world_thighs]),
            knee_flexion_deg=_mean(
                [_angle(a, b) for a, b in zip(world_shanks, world_thighs, strict=True)]
            ),
            thigh_tilt_deg=_mean([_angle(thigh, trunk) for thigh in thighs]),
            leg_to_trunk=float(legs.max() / max(float(np.linalg.norm(trunk)), 1e-6)),
            yaw_deg=_yaw_deg(world),
        )


def _yaw_deg(world: Float64Array) -> float:
    """Return the direction of the line from right to left, shoulders and hips together."""
    across = world[11] - world[12] + world[23] - world[24]
    return math.degrees(math.atan2(across[2], across[0]))


def _angle(a: Float64Array | Float32Array, b: Float64Array | Float32Array) -> float:
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    cosine = float(np.dot(a, b)) / max(lengths, 1e-9)
    return math.degrees(math.acos(min(1.0, max(-1.0, cosine))))


def _mean(angles: list[float]) -> float:
    return float(np.mean(angles))
