"""From BlazePose's 33 landmarks to the pipeline's 23 keypoints."""

from __future__ import annotations

import numpy as np

from worker.avatar.observe.landmarks import Landmarks
from worker.avatar.types import KEYPOINTS, Float32Array

BLAZEPOSE_INDEX: dict[str, int] = {
    "nose": 0,
    "left_eye": 2,
    "right_eye": 5,
    "left_ear": 7,
    "right_ear": 8,
    "left_shoulder": 11,
    "right_shoulder": 12,
    "left_elbow": 13,
    "right_elbow": 14,
    "left_wrist": 15,
    "right_wrist": 16,
    "left_hip": 23,
    "right_hip": 24,
    "left_knee": 25,
    "right_knee": 26,
    "left_ankle": 27,
    "right_ankle": 28,
    "left_heel": 29,
    "right_heel": 30,
    "left_big_toe": 31,  # BlazePose's "foot index"
    "right_big_toe": 32,
}
"""By the names of `KEYPOINTS`.  BlazePose does not see the small toes."""


def confidences(person: Landmarks) -> Float32Array:
    """Return (33,) 0..1: visible and present."""
    return person.visibility * person.presence


def to_keypoints(person: Landmarks, width: int, height: int) -> Float32Array:
    """Return (23, 3) x_px, y_px, confidence; confidence 0 outside the photo or not seen."""
    keypoints = np.zeros((len(KEYPOINTS), 3), dtype=np.float32)
    confidence = confidences(person)
    for row, name in enumerate(KEYPOINTS):
        index = BLAZEPOSE_INDEX.get(name)
        if index is None:
            continue
        x, y = person.points[index]
        inside = 0 <= x < width and 0 <= y < height
        keypoints[row] = x, y, confidence[index] if inside else 0.0
    return keypoints
