"""BlazePose's person detector: boxes and two alignment points a person.

The numbers are those of mediapipe 0.10's pose_detection_cpu.pbtxt: SSD anchors on a 224-pixel
letterboxed picture, 12 values an anchor (box centre and size, then four points), of which the
first point is the centre of the hips and the second lies on the circle around the body.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path

import numpy as np
from PIL import Image

from worker.avatar.observe.litert import LiteModel, sigmoid
from worker.avatar.observe.roi import Roi
from worker.avatar.types import Float32Array

_SIDE = 224
_STRIDES = (8, 16, 32, 32, 32)
_ANCHORS_PER_LAYER = 2
_MERGE_IOU = 0.3


@dataclass(frozen=True, slots=True)
class Detection:
    """One person, roughly, in pixels of the photo."""

    score: float
    box: Float32Array
    """(4,) x0, y0, x1, y1 around the head and shoulders region that the network looks for."""
    points: Float32Array
    """(4, 2): hips and body circle of the whole body, then of the upper body."""

    @property
    def roi(self) -> Roi:
        """The square around the whole body."""
        return Roi.around_body(self.points[0], self.points[1])


class PersonDetector:
    """Finds people whose head or torso fills a fair part of the picture it is given."""

    def __init__(self, path: Path, *, threads: int) -> None:
        self._model = LiteModel(path, threads=threads)

    def detect(
        self, image: Image.Image, window: Roi | None = None, *, min_score: float = 0.5
    ) -> list[Detection]:
        """Return the people in a window of the photo (default: all of it), best first.

        Args:
            image: the RGB photo.
            window: an upright square; what lies outside the photo is black.
            min_score: 0..1.
        """
        if window is None:
            whole = np.array([0, 0, image.width, image.height], dtype=np.float32)
            window = Roi.around_box(whole)
        picture = window.crop(image, _SIDE).astype(np.float32) / 127.5 - 1.0
        raw, logits = self._model.run(picture)
        scores = sigmoid(logits[:, 0])
        seen = np.flatnonzero(scores >= min_score)
        values = (raw[seen].reshape(-1, 6, 2) / _SIDE).astype(np.float32)
        centers = values[:, 0] + anchors()[seen]
        half = values[:, 1] / 2
        low = window.to_photo((centers - half).astype(np.float32))
        high = window.to_photo((centers + half).astype(np.float32))
        points = (values[:, 2:] + anchors()[seen][:, None]).reshape(-1, 2)
        points_px = window.to_photo(points.astype(np.float32)).reshape(-1, 4, 2)
        found = [
            Detection(float(score), np.concatenate([a, b]), p)
            for score, a, b, p in zip(scores[seen], low, high, points_px, strict=True)
        ]
        return merge(found)


@lru_cache(maxsize=1)
def anchors() -> Float32Array:
    """Return the (2254, 2) anchor centres, 0..1.

    Layers of one stride share a grid, and every cell repeats its centre once an anchor; all
    anchors have the size 1 (`fixed_anchor_size`), so that only centres matter.
    """
    centers = []
    for stride, layers in groupby(_STRIDES):
        repeats = _ANCHORS_PER_LAYER * len(list(layers))
        cells = _SIDE // stride
        axis = (np.arange(cells) + 0.5) / cells
        x, y = np.meshgrid(axis, axis)
        grid = np.stack([x.ravel(), y.ravel()], axis=1)
        centers.append(np.repeat(grid, repeats, axis=0))
    return np.concatenate(centers).astype(np.float32)


def merge(detections: list[Detection]) -> list[Detection]:
    """Average overlapping detections by their scores (BlazeFace's weighted suppression).

    arXiv 1907.05047, section 3.3: it jitters less than taking the best alone.
    """
    rest = sorted(detections, key=lambda d: d.score, reverse=True)
    merged = []
    while rest:
        best = rest[0]
        overlaps = [iou(best.box, other.box) >= _MERGE_IOU for other in rest]
        group = [d for d, near in zip(rest, overlaps, strict=True) if near] or [best]
        rest = [d for d, near in zip(rest[1:], overlaps[1:], strict=True) if not near]
        weights = np.array([d.score for d in group], dtype=np.float32)
        weights /= weights.sum()
        merged.append(
            Detection(
                best.score,
                np.tensordot(weights, np.stack([d.box for d in group]), axes=1),
                np.tensordot(weights, np.stack([d.points for d in group]), axes=1),
            )
        )
    return merged


def iou(a: Float32Array, b: Float32Array) -> float:
    """Return the intersection over union of two boxes (x0, y0, x1, y1)."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    common = float(np.prod(np.maximum(high - low, 0)))
    total = float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - common
    return common / total if total > 0 else 0.0
