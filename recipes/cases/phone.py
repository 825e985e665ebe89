"""The phone that takes the photo: lens, height, tilt, and where the person lies in the frame."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from recipes.sample_person.surface import FloatArray, unit

WIDTH, HEIGHT = 900, 1200
DIAGONAL_35MM_MM = 43.27
LENSES_MM = (23.0, 34.0)
"""35 mm equivalents of phones' main cameras, slightly cropped ones included."""

_HEIGHT = (0.5, 0.95)
"""Of the lens, in statures: on a shelf, at the chest, before the eyes."""
_SHARE = (0.52, 0.82)
"""How much of the picture's height the person takes."""
_NEAREST_M = 1.7
_ROLL_DEG = 1.2
_EDGE = 0.03
"""Least distance of the person from the picture's edge, in its height and width."""


@dataclass(frozen=True, slots=True)
class Phone:
    """A pinhole camera held upright, somewhat tilted and rolled.  The floor is at y = 0."""

    focal_px: float
    place: FloatArray
    """(3,) where the lens is."""
    pitch_rad: float
    """Positive: looks down."""
    yaw_rad: float
    roll_rad: float
    width: int = WIDTH
    height: int = HEIGHT

    def axes(self) -> FloatArray:
        """(3, 3) rows: right, down and forward in the room's coordinates."""
        cos, sin = np.cos(self.pitch_rad), np.sin(self.pitch_rad)
        turn, aside = np.cos(self.yaw_rad), np.sin(self.yaw_rad)
        forward = np.array([aside * cos, -sin, -turn * cos])
        right = unit(np.cross(forward, [0.0, 1.0, 0.0]))
        down = np.cross(forward, right)
        cos, sin = np.cos(self.roll_rad), np.sin(self.roll_rad)
        return np.stack((cos * right + sin * down, cos * down - sin * right, forward))

    def see(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Pixels (N, 2) and depths (N,) of `points` (N, 3) in the room."""
        seen = (points - self.place) @ self.axes().T
        uv = seen[:, :2] / seen[:, 2:] * self.focal_px
        return uv + np.array([self.width, self.height]) / 2, seen[:, 2]


def focal_px_of(lens_mm: float) -> float:
    """Focal length in pixels of a lens in 35 mm terms (CIPA DC-008)."""
    return lens_mm / DIAGONAL_35MM_MM * float(np.hypot(WIDTH, HEIGHT))


def draw_phone(points: FloatArray, rng: np.random.Generator) -> Phone:
    """Draw a camera that has all of `points` (N, 3), a person standing at the origin, in view."""
    focal_px = focal_px_of(rng.uniform(*LENSES_MM))
    top = float(points[:, 1].max())
    share = rng.uniform(*_SHARE)
    height_m = rng.uniform(*_HEIGHT) * top
    distance_m = max(focal_px * top / (share * HEIGHT), _NEAREST_M)
    phone = Phone(
        focal_px,
        np.array([rng.normal(0, 0.04), height_m, distance_m]),
        float(np.arctan2(height_m - top / 2, distance_m)),
        0.0,
        np.radians(rng.normal(0, _ROLL_DEG)),
    )
    # Nobody centres a person exactly; nobody cuts one off either.
    wish = rng.normal(0, (0.03, 0.02)) * (WIDTH, HEIGHT)
    for _ in range(8):
        uv, _ = phone.see(points)
        low, high = uv.min(axis=0), uv.max(axis=0)
        room = (np.array([WIDTH, HEIGHT]) * (1 - 2 * _EDGE) - (high - low)) / 2
        if (room < 0).any():
            phone = replace(phone, place=phone.place * (1, 1, 1.04))
            continue
        off = np.clip(wish, -room, room) - ((low + high) / 2 - np.array([WIDTH, HEIGHT]) / 2)
        phone = replace(
            phone,
            yaw_rad=phone.yaw_rad - float(off[0]) / focal_px,
            pitch_rad=phone.pitch_rad - float(off[1]) / focal_px,
        )
    return phone
