"""Soft light by many small lamps, each with a shadow map.

A window is eighty distant lamps in a cone, the room's light some sixty all around; averaged,
their hard shadows become penumbras, contact shadows and darkened creases.  It is the plain
many-lights method (Keller, "Instant radiosity", 1997) without its bounces.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from recipes.sample_person.surface import FloatArray, IntArray, unit

_SURFACE_BIAS_M = 0.004
"""A point is moved this far along its normal before it is looked up: no shadow on itself."""
_DEPTH_BIAS_M = 0.003

ScreenArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Lamp:
    """A distant light."""

    toward: FloatArray
    """(3,) unit vector from the scene to the lamp."""
    radiance: FloatArray
    """(3,) linear RGB."""
    mirrored: bool
    """Whether glossy surfaces show it as a highlight."""


@dataclass(frozen=True, slots=True)
class Fineness:
    """How finely light is traced."""

    window_lamps: int = 80
    room_lamps: int = 64
    cell_m: float = 0.004
    """Edge of a shadow map's cell."""
    cloud_points: int = 1_400_000
    """About five in each cell of a dressed person."""


FINE = Fineness()


def room(
    rng: np.random.Generator,
    toward: tuple[float, float, float] = (-0.62, 0.62, 0.75),
    fineness: Fineness = FINE,
) -> list[Lamp]:
    """A window `toward` which light comes from, and a pale room around it."""
    window = unit(np.array(toward))
    side = unit(np.cross(window, [0.0, 1.0, 0.0]))
    up = np.cross(side, window)
    lamps = []
    count = fineness.window_lamps
    for k in range(count):
        radius = 0.36 * np.sqrt((k + 0.5) / count)
        angle = k * 2.399963 + rng.uniform(0, 0.4)  # the golden angle spreads them evenly
        offset = radius * (np.cos(angle) * side + np.sin(angle) * up)
        lamps.append(Lamp(unit(window + offset), np.array([1.02, 1.0, 0.95]) * 2.1 / count, True))
    count = fineness.room_lamps
    for k in range(count):
        height = 1 - 2 * (k + 0.5) / count
        angle = k * 2.399963
        ring = np.sqrt(1 - height * height)
        toward = np.array([ring * np.cos(angle), height, ring * np.sin(angle)])
        # Ceiling bright and cool, walls less, the floor returns a little warm light.
        sky = np.array([0.98, 1.0, 1.04]) * (0.55 + 0.75 * max(height, 0.0))
        ground = np.array([0.42, 0.37, 0.32])
        share = np.clip(0.5 + 1.5 * height, 0.0, 1.0)
        lamps.append(Lamp(toward, (sky * share + ground * (1 - share)) * 3.0 / count, False))
    return lamps


@dataclass(frozen=True, slots=True)
class Received:
    """What arrives at each point, (N, 3) linear RGB each."""

    diffuse: ScreenArray
    wrapped: ScreenArray
    """Light that reaches a little past the terminator, as it does inside skin."""
    gloss: ScreenArray
    """Blinn-Phong highlight of the window, with each point's own exponent."""


@dataclass(frozen=True, slots=True)
class Casters:
    """The shadow-throwing surfaces as a cloud of points, denser than the shadow maps' cells."""

    points: ScreenArray
    """(P, 3)."""
    cell_m: float
    """Edge of the shadow maps' cells."""

    @classmethod
    def of(
        cls,
        vertices: FloatArray,
        faces: IntArray,
        rng: np.random.Generator,
        fineness: Fineness = FINE,
    ) -> Casters:
        """Strew points evenly over the faces."""
        count = fineness.cloud_points
        corner = vertices[faces]
        across = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
        area = np.linalg.norm(across, axis=1)
        start = rng.uniform()
        ladder = np.cumsum(area) / area.sum() * count
        chosen = np.searchsorted(ladder, np.arange(count) + start).clip(max=len(faces) - 1)
        u, v = rng.uniform(size=(2, count, 1))
        over = u + v > 1
        u, v = np.where(over, 1 - u, u), np.where(over, 1 - v, v)
        a, b, c = corner[chosen].transpose(1, 0, 2)
        points = (a + u * (b - a) + v * (c - a)).astype(np.float32)
        return cls(points, fineness.cell_m)


def receive(
    lamps: list[Lamp],
    casters: Casters,
    *,
    points: ScreenArray,
    normals: ScreenArray,
    toward_eye: ScreenArray,
    exponent: ScreenArray,
) -> Received:
    """Add up all lamps at `points` (N, 3), shadowed by `casters`."""
    centre = (casters.points.min(axis=0) + casters.points.max(axis=0)) / 2
    radius = float(np.linalg.norm(casters.points - centre, axis=1).max()) + 0.02
    map_px = int(np.ceil(2 * radius / casters.cell_m))
    cloud = torch.from_numpy(casters.points - centre)
    lifted = torch.from_numpy(points + normals * np.float32(_SURFACE_BIAS_M) - centre)
    normal, eye = torch.from_numpy(normals), torch.from_numpy(toward_eye)
    power = torch.from_numpy(exponent)
    diffuse, wrapped, gloss = (torch.zeros((len(points), 3)) for _ in range(3))
    for lamp in lamps:
        axes = torch.from_numpy(_frame(lamp.toward)).to(torch.float32)
        seen = cloud @ axes.T
        cell = ((seen[:, :2] + radius) / casters.cell_m).to(torch.int64)
        nearest = torch.full((map_px * map_px,), -torch.inf)
        nearest.scatter_reduce_(0, cell[:, 1] * map_px + cell[:, 0], seen[:, 2], reduce="amax")
        local = lifted @ axes.T
        cell = ((local[:, :2] + radius) / casters.cell_m).floor().to(torch.int64)
        within = ((cell >= 0) & (cell < map_px)).all(dim=1)
        cell = cell.clamp(0, map_px - 1)
        shaded = nearest[cell[:, 1] * map_px + cell[:, 0]] > local[:, 2] + _DEPTH_BIAS_M
        lit = (~(shaded & within)).to(torch.float32)
        toward = axes[2]
        radiance = torch.from_numpy(lamp.radiance).to(torch.float32)
        cosine = normal @ toward
        falling = lit * cosine.clamp(min=0)
        diffuse += falling[:, None] * radiance
        wrapped += (lit * ((cosine + 0.22) / 1.22).clamp(min=0))[:, None] * radiance
        if lamp.mirrored:
            half = torch.nn.functional.normalize(eye + toward, dim=1)
            shine = (normal * half).sum(dim=1).clamp(0, 1) ** power * (power + 8) / 25
            gloss += (falling * shine)[:, None] * radiance
    return Received(diffuse.numpy(), wrapped.numpy(), gloss.numpy())


def _frame(toward: FloatArray) -> FloatArray:
    """(3, 3) rows: two axes across the light, then the one towards it."""
    across = unit(np.cross(toward, [0.31, 0.17, 0.93] if abs(toward[1]) > 0.9 else [0, 1.0, 0]))
    return np.stack((across, np.cross(toward, across), toward))
