"""BlazePose's and BlazeFace's detectors: single-shot networks that tell boxes and points.

The numbers are those of mediapipe 0.10 (pose_detection_cpu.pbtxt, face_detection_full_range.
pbtxt): the picture is letterboxed into a square and scaled to −1..1; every anchor gives a box
and points, relative to the anchor's centre, in pixels of the square.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from PIL import Image

from worker.avatar.observe.litert import LiteModel, sigmoid
from worker.avatar.observe.roi import Roi
from worker.avatar.types import Float32Array

_MERGE_IOU = 0.3


@dataclass(frozen=True, slots=True)
class Detection:
    """One find, in pixels of the photo."""

    score: float
    box: Float32Array
    """(4,) x0, y0, x1, y1."""
    points: Float32Array
    """(P, 2).  Of a person: the centre of the hips, a point on the circle around the body,
    and the same two for the upper body."""

    @property
    def center(self) -> Float32Array:
        """Middle of the box, (2,)."""
        return np.asarray((self.box[:2] + self.box[2:]) / 2, dtype=np.float32)

    def mirrored(self, width: int) -> Detection:
        """Return the same find in the mirror image of a photo `width` pixels wide."""
        box, points = self.box[[2, 1, 0, 3]], self.points.copy()
        box[[0, 2]] = width - box[[0, 2]]
        points[:, 0] = width - points[:, 0]
        return Detection(self.score, box, points)

    @property
    def size_px(self) -> float:
        """Mean of the box's width and height."""
        return float((self.box[2:] - self.box[:2]).mean())


class Detector:
    """A single-shot detector.

    The square that it sees is small (224 or 192 pixels), so that people who fill little of the
    photo are only found through windows.
    """

    def __init__(self, path: Path, anchors: Float32Array, *, threads: int) -> None:
        self._model = LiteModel(path, threads=threads)
        self._anchors = anchors

    @classmethod
    def of_people(cls, path: Path, *, threads: int) -> Detector:
        """Load BlazePose's detector: 2254 anchors, four points."""
        return cls(path, anchor_centers(224, (8, 16, 32, 32, 32), per_layer=2), threads=threads)

    @classmethod
    def of_faces(cls, path: Path, *, threads: int) -> Detector:
        """Load BlazeFace's full-range detector: 2304 anchors, six points."""
        return cls(path, anchor_centers(192, (4,), per_layer=1), threads=threads)

    def detect(
        self, image: Image.Image, window: Roi | None = None, *, min_score: float
    ) -> list[Detection]:
        """Return the finds in a window of the photo, best first.

        Args:
            image: the RGB photo.
            window: a square, by default one around the whole photo; black outside the photo.
            min_score: 0..1.
        """
        if window is None:
            whole = np.array([0, 0, image.width, image.height], dtype=np.float32)
            window = Roi.around_box(whole)
        side = self._model.input_side_px
        picture = window.crop(image, side, outside="black").astype(np.float32) / 127.5 - 1.0
        raw, logits = self._model.run(picture)
        scores = sigmoid(logits[:, 0])
        seen = np.flatnonzero(scores >= min_score)
        if len(seen) == 0:
            return []
        values = (raw[seen].reshape(len(seen), -1, 2) / side).astype(np.float32)
        centers = self._anchors[seen]
        middle, half = values[:, 0] + centers, values[:, 1] / 2
        low = window.to_photo((middle - half).astype(np.float32))
        high = window.to_photo((middle + half).astype(np.float32))
        points = (values[:, 2:] + centers[:, None]).reshape(-1, 2)
        points_px = window.to_photo(points.astype(np.float32)).reshape(len(seen), -1, 2)
        return merge(
            [
                Detection(float(score), np.concatenate([a, b]), p)
                for score, a, b, p in zip(scores[seen], low, high, points_px, strict=True)
            ]
        )


def body_square(detection: Detection) -> Roi:
    """Return the square around the whole body of a detected person."""
    return Roi.around_body(detection.points[0], detection.points[1])


def anchor_centers(side: int, strides: Sequence[int], *, per_layer: int) -> Float32Array:
    """Return the (N, 2) anchor centres, 0..1, as mediapipe's SsdAnchorsCalculator orders them.

    Layers of one stride share a grid, and every cell repeats its centre once an anchor.  All
    anchors have the size 1 (`fixed_anchor_size`), so that only centres matter.
    """
    grids = []
    for stride, layers in groupby(strides):
        cells = -(-side // stride)
        axis = (np.arange(cells) + 0.5) / cells
        x, y = np.meshgrid(axis, axis)
        grid = np.stack([x.ravel(), y.ravel()], axis=1)
        grids.append(np.repeat(grid, per_layer * len(list(layers)), axis=0))
    return np.concatenate(grids).astype(np.float32)


def merge(detections: list[Detection]) -> list[Detection]:
    """Average overlapping detections by their scores (BlazeFace's weighted suppression).

    arXiv 1907.05047, section 3.3: it jitters less than taking the best alone.
    """
    rest = sorted(detections, key=lambda d: d.score, reverse=True)
    merged = []
    while rest:
        best = rest[0]
        near = [other is best or iou(best.box, other.box) >= _MERGE_IOU for other in rest]
        group = [d for d, is_near in zip(rest, near, strict=True) if is_near]
        rest = [d for d, is_near in zip(rest, near, strict=True) if not is_near]
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
