"""Joints from the vertices around them: sparse, affine, and steady beyond the sampled shapes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recipes.free_body.sampling import Bodies
from recipes.free_body.source import Source
from worker.avatar.body.layout import JOINT_INDEX, JOINT_NAMES
from worker.avatar.types import KEYPOINTS

RIDGE = 3e-7
"""m², against weights that only noise asks for."""

_WIDE = {"pelvis", "spine1", "spine2", "spine3", "left_hip", "right_hip", "left_knee", "right_knee"}
_MIDDLE = {"neck", "head"} | {
    f"{side}_{name}"
    for side in ("left", "right")
    for name in ("collar", "shoulder", "elbow", "ankle")
}


def _patch_size(name: str) -> tuple[int, int]:
    """How many of the nearest vertices a joint's patch spreads over, and how many it takes."""
    if name in _WIDE:
        return 4000, 480
    return (900, 120) if name in _MIDDLE else (160, 64)


def _spread(points: np.ndarray, count: int) -> np.ndarray:
    """Choose `count` of the points (n, 3) far from each other, from the first on."""
    chosen = [0]
    distance = np.linalg.norm(points - points[0], axis=1)
    while len(chosen) < min(count, len(points)):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return np.array(chosen)


def _affine_weights(patch: np.ndarray, joint: np.ndarray) -> np.ndarray:
    """Solve min ‖patch'w − joint‖² + RIDGE·n·‖w‖² with Σw = 1.

    Args:
        patch: (n, P, 3) the vertices of n bodies.
        joint: (n, 3).
    """
    size = patch.shape[1]
    # Relative to the joint the target is zero, and the constraint is what keeps w from it.
    relative = (patch - joint[:, None]).transpose(0, 2, 1).reshape(-1, size)
    system = relative.T @ relative / len(patch) + RIDGE * np.eye(size)
    weights = np.linalg.solve(system, np.ones(size))
    return weights / weights.sum()


def joint_regressor(source: Source, bodies: Bodies) -> np.ndarray:
    """Fit (55, V) on bodies; rows sum to one, so joints move with a body wherever it goes."""
    vertices = bodies.vertices.astype(np.float64)
    joints = bodies.joints.astype(np.float64)
    mean_vertices, mean_joints = vertices.mean(axis=0), joints.mean(axis=0)
    regressor = np.zeros((len(JOINT_NAMES), vertices.shape[1]))
    ears = [KEYPOINTS.index("left_ear"), KEYPOINTS.index("right_ear")]
    regressor[JOINT_INDEX["jaw"]] = source.keypoint_regressor[ears].mean(axis=0)
    for name, row in JOINT_INDEX.items():
        if name == "jaw":
            continue
        distance = np.linalg.norm(mean_vertices - mean_joints[row], axis=1)
        reach, count = _patch_size(name)
        near = np.argsort(distance, kind="stable")[:reach]
        near = near[_spread(mean_vertices[near], count)]
        regressor[row, near] = _affine_weights(vertices[:, near], joints[:, row])
    return regressor


@dataclass(frozen=True)
class JointErrors:
    """How far regressed joints are from true ones, mm."""

    mean_mm: np.ndarray
    """(55,)."""
    max_mm: np.ndarray
    """(55,)."""


def joint_errors(regressor: np.ndarray, bodies: Bodies) -> JointErrors:
    """Hold a regressor against bodies that it has not seen."""
    found = np.einsum("jv,nvc->njc", regressor, bodies.vertices, optimize=True)
    errors = np.linalg.norm(found - bodies.joints, axis=2) * 1000.0
    return JointErrors(errors.mean(axis=0), errors.max(axis=0))
