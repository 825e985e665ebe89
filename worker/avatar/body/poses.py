"""The standing poses that bodies are measured and shown in, as (55, 3) axis-angle."""

from __future__ import annotations

import math

import numpy as np

from worker.avatar.body.layout import JOINT_INDEX, NUM_JOINTS
from worker.avatar.types import Float64Array


def t_pose() -> Float64Array:
    """Arms along ±x: the pose of the template."""
    return np.zeros((NUM_JOINTS, 3))


def a_pose(arm_down_deg: float = 25.0) -> Float64Array:
    """The T-pose with the arms lowered.

    Args:
        arm_down_deg: angle of the arms below the horizontal, 0..90.
    """
    pose = t_pose()
    angle = math.radians(arm_down_deg)
    pose[JOINT_INDEX["left_shoulder"], 2] = -angle
    pose[JOINT_INDEX["right_shoulder"], 2] = angle
    return pose
