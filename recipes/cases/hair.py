"""Long hair: a sheet that falls from the head, behind and beside it, down to the back."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from recipes.cases.subject import Subject
from recipes.sample_person.surface import FloatArray, IntArray
from worker.avatar.body.layout import JOINT_INDEX

_ROWS, _COLUMNS = 48, 61
_OPEN_DEG = 62.0
"""The face: this far to either side of straight ahead there is no hair."""
_WIDEST_M = 0.135
"""Hair does not lie around the shoulders: there it falls before or behind."""
_REACH_M, _REACH_RAD = 0.02, 0.16
"""Skin this near in height and direction holds the hair off."""


def long_hair(
    subject: Subject, weights: FloatArray, down_m: float, volume_m: float
) -> tuple[FloatArray, IntArray]:
    """Hair of a T-posed person.

    Args:
        subject: who.
        weights: (V, 55) skinning weights, by which arms are told from the trunk.
        down_m: how far it falls below the neck's joint.
        volume_m: how far it stands off the skull.

    Returns:
        Points (N, 3) of the outer sheet, moving with the head, and its triangles (F, 3).
    """
    joints, points = subject.joints, subject.vertices
    arms = [JOINT_INDEX[f"{s}_{j}"] for s in ("left", "right") for j in ("shoulder", "elbow")]
    held = weights[:, arms].sum(axis=1) < 0.3
    head = joints[JOINT_INDEX["head"]]
    low = float(joints[JOINT_INDEX["neck"], 1]) - down_m
    top = float(points[:, 1].max())
    held &= points[:, 1] > low - 0.05
    axis = np.array([0.0, float(head[2]) + 0.005])
    out = points[held][:, [0, 2]] - axis
    radius = np.linalg.norm(out, axis=1)
    # Directions are counted from straight behind.
    toward = np.arctan2(out[:, 0], -out[:, 1])
    height = points[held, 1]
    rows = np.linspace(top - 0.012, low, _ROWS)
    columns = np.radians(np.linspace(-180 + _OPEN_DEG, 180 - _OPEN_DEG, _COLUMNS))
    skin = np.zeros((_ROWS, _COLUMNS))
    for i, y in enumerate(rows):
        level = np.abs(height - y) < _REACH_M
        near = np.abs(toward[level][None] - columns[:, None]) < _REACH_RAD
        skin[i] = np.where(near, radius[level][None], 0.0).max(axis=1, initial=0.0)
    hair = np.minimum(gaussian_filter(skin, (1.5, 2.0)), _WIDEST_M)
    hair[0] = np.minimum(hair[0], 0.05)
    for i in range(1, _ROWS):
        hair[i] = np.maximum(hair[i], 0.985 * hair[i - 1])
    rise = np.clip((top - rows) / 0.05, 0.25, 1.0)[:, None]
    hair = np.minimum(hair, _WIDEST_M) + volume_m * rise
    x = hair * np.sin(columns)
    z = axis[1] - hair * np.cos(columns)
    y = np.broadcast_to((rows + volume_m * (rows > top - 0.06))[:, None], x.shape)
    sheet = np.stack((x, y, z), axis=-1).reshape(-1, 3)
    crown = np.array([[0.0, top + volume_m, axis[1]]])
    index = np.arange(_ROWS * _COLUMNS).reshape(_ROWS, _COLUMNS)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    faces = [np.stack((a, b, c), -1).reshape(-1, 3), np.stack((b, d, c), -1).reshape(-1, 3)]
    cap = np.stack((np.full(_COLUMNS - 1, len(sheet)), index[0, 1:], index[0, :-1]), axis=-1)
    return np.concatenate((sheet, crown)), np.concatenate((*faces, cap)).astype(np.int64)
