"""The turned square around a person that the landmark network looks at.

A point (u, v) of the square, 0..1 with the origin at its top left, lies in the picture at

    centre + side_px · R(angle) · (u − ½, v − ½)

where R turns clockwise on screen (y points down).  Pixel centres are at half-integers in both
pictures, so that crops of any size agree with the photo they come from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from worker.avatar.types import ByteArray, Float32Array, Float64Array

Outside = Literal["black", "edge"]

_ROI_SCALE = 1.25
"""mediapipe/modules/pose_landmark/pose_detection_to_roi.pbtxt, scale_x and scale_y."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A rectangle of whole pixels of the photo."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return self.x1 - self.x0

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return self.y1 - self.y0

    def common_with(self, x0: int, y0: int, x1: int, y1: int) -> Frame:
        """Return the common part; empty, but still inside this one, when there is none."""
        left, right = (min(max(x, self.x0), self.x1) for x in (x0, x1))
        top, bottom = (min(max(y, self.y0), self.y1) for y in (y0, y1))
        return Frame(left, top, right, bottom)

    def rows_columns(self, outer: Frame) -> tuple[slice, slice]:
        """Return where this part lies in an array over `outer`."""
        return (
            slice(self.y0 - outer.y0, self.y1 - outer.y0),
            slice(self.x0 - outer.x0, self.x1 - outer.x0),
        )


@dataclass(frozen=True, slots=True)
class Roi:
    """A turned square, in pixels of the photo."""

    center_x: float
    center_y: float
    side_px: float
    angle: float = 0.0
    """Radians, clockwise on screen; 0 when the person is upright."""

    @classmethod
    def around_body(cls, hips: Float32Array, top: Float32Array) -> Roi:
        """Return BlazePose's square from its two alignment points.

        Args:
            hips: (2,) centre of the hips.
            top: (2,) a point on the circle around the whole body, straight above the hips of
                an upright person.
        """
        dx, dy = float(top[0] - hips[0]), float(top[1] - hips[1])
        # Upright means that `top` is at −y: turn what it is off that direction.
        angle = math.pi / 2 - math.atan2(-dy, dx)
        angle = math.remainder(angle, 2 * math.pi)
        side_px = 2.0 * math.hypot(dx, dy) * _ROI_SCALE
        return cls(float(hips[0]), float(hips[1]), max(side_px, 1.0), angle)

    @classmethod
    def around_box(cls, box: Float32Array, margin: float = 1.0) -> Roi:
        """Return the upright square that holds a box (x0, y0, x1, y1), `margin` times its size."""
        x0, y0, x1, y1 = (float(edge) for edge in box)
        side_px = max(x1 - x0, y1 - y0, 1.0) * margin
        return cls((x0 + x1) / 2, (y0 + y1) / 2, side_px)

    def mirrored(self, width: int) -> Roi:
        """Return the same square in the mirror image of a photo `width` pixels wide."""
        return Roi(width - self.center_x, self.center_y, self.side_px, -self.angle)

    def to_photo(self, points: Float32Array) -> Float32Array:
        """Map (N, 2) points of the square, 0..1, to pixels of the photo."""
        basis, corner = self._basis()
        return (points.astype(np.float64) @ basis.T + corner).astype(np.float32)

    def from_photo(self, points: Float32Array) -> Float32Array:
        """Map (N, 2) pixels of the photo to the square, 0..1 inside it."""
        basis, corner = self._basis()
        return np.linalg.solve(basis, (points.astype(np.float64) - corner).T).T.astype(np.float32)

    def corners(self) -> Float32Array:
        """Return the square's (4, 2) corners in the photo, from the top left, clockwise."""
        return self.to_photo(np.array([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=np.float32))

    def crop(self, image: Image.Image, size_px: int, *, outside: Outside) -> ByteArray:
        """Return the square as (size_px, size_px, 3).

        Shrinking averages first: plain interpolation would skip most of the photo's pixels.

        Args:
            image: the RGB photo.
            size_px: side of the picture that is returned.
            outside: what is shown where the square leaves the photo: black, or the photo's
                outermost pixels.
        """
        factor = max(1, math.floor(self.side_px / size_px))
        part = self._part_of(image.width, image.height, factor)
        source = np.asarray(image.reduce(factor, box=part), dtype=np.uint8)
        basis, corner = self._basis()
        origin = (corner - np.array(part[:2])) / factor
        basis = basis / factor
        corners = origin + np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) @ basis.T
        height, width = source.shape[:2]
        before = np.ceil(np.maximum(0, -corners.min(axis=0))).astype(int)
        after = np.ceil(np.maximum(0, corners.max(axis=0) - (width, height))).astype(int)
        padding = ((before[1], after[1]), (before[0], after[0]), (0, 0))
        padded = np.pad(source, padding, mode="edge" if outside == "edge" else "constant")
        # Pillow maps output pixel centres to input positions, both counted from the corners.
        a, b, d, e = (basis / size_px).ravel()
        c, f = origin + before
        turned = Image.fromarray(padded).transform(
            (size_px, size_px),
            Image.Transform.AFFINE,
            (a, b, c, d, e, f),
            resample=Image.Resampling.BILINEAR,
        )
        return np.asarray(turned, dtype=np.uint8)

    def uncrop(self, values: Float32Array, frame: Frame) -> Float32Array:
        """Lay a (S, S) map of the square over a part of the photo; 0 outside the square."""
        basis, corner = self._basis()
        inverse = np.linalg.inv(basis) * values.shape[0]
        a, b, d, e = inverse.ravel()
        c, f = inverse @ (np.array([frame.x0, frame.y0]) - corner)
        laid = Image.fromarray(values.astype(np.float32)).transform(
            (frame.width, frame.height),
            Image.Transform.AFFINE,
            (a, b, c, d, e, f),
            resample=Image.Resampling.BILINEAR,
        )
        return np.asarray(laid, dtype=np.float32)

    def frame(self, within: Frame) -> Frame:
        """Return the part of a frame that the square can touch."""
        corners = self.corners()
        x0, y0 = np.floor(corners.min(axis=0)).astype(int)
        x1, y1 = np.ceil(corners.max(axis=0)).astype(int)
        return within.common_with(int(x0), int(y0), int(x1), int(y1))

    def _part_of(self, width: int, height: int, factor: int) -> tuple[int, int, int, int]:
        """Return the photo's pixels that the square shows, and a little more."""
        part = self.frame(Frame(0, 0, width, height))
        if part.width == 0 or part.height == 0:
            return 0, 0, width, height
        edge = 2 * factor
        return (
            max(0, part.x0 - edge),
            max(0, part.y0 - edge),
            min(width, part.x1 + edge),
            min(height, part.y1 + edge),
        )

    def _basis(self) -> tuple[Float64Array, Float64Array]:
        """Return the square's edges as columns, and its top left corner."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        basis = self.side_px * np.array([[cos, -sin], [sin, cos]])
        corner = np.array([self.center_x, self.center_y]) - basis @ np.array([0.5, 0.5])
        return basis, corner
