"""BlazePose's landmark network: 33 points, a mask, and metric 3D points of one person.

The numbers are those of mediapipe 0.10's pose_landmark modules
(tensors_to_pose_landmarks_and_segmentation.pbtxt): 39 points × (x, y, z, visibility, presence)
in pixels of the 256-pixel crop, heat maps that refine them, and 39 × 3 metres around the hips.

The network does not see the same in a crop and in its mirror image: on rendered people keypoints
came out 6 px apart (person 820 px high), and girths 1 cm.  So it looks at both (`BothWays`), and
the mean is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from worker.avatar.observe.litert import LiteModel, sigmoid
from worker.avatar.observe.mirrored import BothWays
from worker.avatar.observe.roi import Roi
from worker.avatar.types import Float32Array

_NUM_POINTS = 39
_NUM_BODY_POINTS = 33
_HIPS, _TOP = 33, 34  # auxiliary points that place the next crop
_HEATMAP_KERNEL = 7
_HEATMAP_MIN_CONFIDENCE = 0.5
_MIRROR_ORDER = (
    *(0, 4, 5, 6, 1, 2, 3, 8, 7, 10, 9),
    *(left + side for left in range(11, 33, 2) for side in (1, 0)),
    *range(33, 39),
)
"""Which point each one is in the mirror: mediapipe numbers eyes, ears and mouth left to right of
the person, then left and right in turns from the shoulders down; the rest lies in the middle."""


@dataclass(frozen=True, slots=True)
class Landmarks:
    """One person as the network sees them, in pixels of the photo."""

    score: float
    """0..1: whether there is a person in the crop at all."""
    points: Float32Array
    """(33, 2) pixels."""
    depth: Float32Array
    """(33,) relative to the hips, in pixels, smaller is nearer to the camera."""
    visibility: Float32Array
    """(33,) 0..1: in the picture and not hidden."""
    presence: Float32Array
    """(33,) 0..1: inside the crop."""
    world: Float32Array
    """(33, 3) metres around the hips, in the crop's turned axes: x right, y down."""
    mask: Float32Array
    """(256, 256) probability, over `roi`."""
    roi: Roi
    next_roi: Roi
    """The square around the body that these landmarks imply."""


class LandmarkNetwork:
    """Finds the landmarks of the person in a crop."""

    def __init__(self, path: Path, *, threads: int) -> None:
        self._model = LiteModel(path, threads=threads)

    def locate(self, photo: BothWays, roi: Roi) -> Landmarks:
        """Run the network on one square of the photo, and on its mirror image."""
        side = self._model.input_side_px
        straight, turned = (self._run(crop) for crop in photo.crops(roi, side, outside="edge"))
        flag, values, unit, mask_logits, world = (
            np.asarray((one + other) / 2, dtype=np.float32)
            for one, other in zip(straight, mirror(turned), strict=True)
        )
        points = roi.to_photo(unit)
        return Landmarks(
            score=float(flag[0]),
            points=points[:_NUM_BODY_POINTS],
            depth=(values[:_NUM_BODY_POINTS, 2] * (roi.side_px / side)).astype(np.float32),
            visibility=sigmoid(values[:_NUM_BODY_POINTS, 3]),
            presence=sigmoid(values[:_NUM_BODY_POINTS, 4]),
            world=world[:_NUM_BODY_POINTS],
            mask=sigmoid(mask_logits),
            roi=roi,
            next_roi=Roi.around_body(points[_HIPS], points[_TOP]),
        )

    def _run(self, picture: Float32Array) -> Sight:
        flat, flag, mask_logits, heatmaps, world = self._model.run(picture)
        values = flat.reshape(_NUM_POINTS, 5)
        unit = refine((values[:, :2] / self._model.input_side_px).astype(np.float32), heatmaps)
        return Sight(flag, values, unit, mask_logits[..., 0], world.reshape(_NUM_POINTS, 3))


class Sight(NamedTuple):
    """What the network says of one crop."""

    flag: Float32Array
    """(1,) whether there is a person."""
    values: Float32Array
    """(39, 5) x, y, z in pixels of the crop, visibility and presence as logits."""
    unit: Float32Array
    """(39, 2) refined places, 0..1."""
    mask: Float32Array
    """(256, 256) logits."""
    world: Float32Array
    """(39, 3) metres."""


def mirror(seen: Sight) -> Sight:
    """Give what would have been seen in the mirror image of a crop; x in `values` is left alone."""
    order = list(_MIRROR_ORDER)
    unit, world = seen.unit[order], seen.world[order]
    unit[:, 0] = 1.0 - unit[:, 0]
    world[:, 0] = -world[:, 0]
    return Sight(seen.flag, seen.values[order], unit, seen.mask[:, ::-1], world)


def refine(unit: Float32Array, heatmaps: Float32Array) -> Float32Array:
    """Move points to the centre of mass of their heat map nearby, where it is sure.

    mediapipe's RefineLandmarksFromHeatmap with kernel size 7 and minimum confidence 0.5.

    Args:
        unit: (N, 2) points, 0..1.
        heatmaps: (h, w, N) logits.
    """
    rows, columns, _ = heatmaps.shape
    reach = _HEATMAP_KERNEL // 2
    refined = unit.copy()
    for index, (x, y) in enumerate(unit):
        column, row = int(x * columns), int(y * rows)
        if not (0 <= column < columns and 0 <= row < rows):
            continue
        top, left = max(0, row - reach), max(0, column - reach)
        window = sigmoid(heatmaps[top : row + reach + 1, left : column + reach + 1, index])
        total = float(window.sum())
        if float(window.max()) < _HEATMAP_MIN_CONFIDENCE or total <= 0:
            continue
        r, c = np.indices(window.shape)
        refined[index] = (
            (left + float((c * window).sum()) / total) / columns,
            (top + float((r * window).sum()) / total) / rows,
        )
    return refined
