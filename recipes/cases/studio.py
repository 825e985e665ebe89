"""A plain room around the person: wall, floor, a few things on the wall, and the light in it.

Cheap where the sample person's photographs are fine: light is traced at the vertices and on a
coarse grid of the background, and read in between.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from recipes.cases.phone import Phone
from recipes.sample_person.light import Casters, Fineness, Lamp, room
from recipes.sample_person.paint import linear
from recipes.sample_person.surface import FloatArray, IntArray

COARSE = Fineness(window_lamps=24, room_lamps=28, cell_m=0.010, cloud_points=120_000)
_GRID_PX = 10

_WALLS = (
    (226, 224, 218),
    (204, 200, 190),
    (178, 184, 188),
    (214, 196, 168),
    (160, 176, 160),
    (140, 150, 168),
    (196, 168, 156),
    (110, 112, 118),
)
_FLOORS = ((170, 142, 108), (120, 90, 64), (150, 150, 148), (96, 98, 102), (190, 182, 168))
_THINGS = (
    (250, 250, 248),
    (60, 56, 52),
    (122, 88, 60),
    (60, 84, 110),
    (70, 96, 66),
    (150, 70, 60),
)


@dataclass(frozen=True, slots=True)
class Thing:
    """A flat rectangle on the wall: a door, a picture, a shelf."""

    left_m: float
    low_m: float
    width_m: float
    height_m: float
    albedo: FloatArray
    frame: FloatArray


@dataclass(frozen=True, slots=True)
class Studio:
    """Where a photo is taken."""

    wall_m: float
    """Depth of the wall; the person stands at 0."""
    wall: FloatArray
    floor: FloatArray
    boards_m: float
    """Width of the floor's boards or tiles; 0: none."""
    things: tuple[Thing, ...]
    lamps: list[Lamp]
    exposure: float
    grain: float
    tint: FloatArray
    """(3,) white balance."""


def draw_studio(rng: np.random.Generator) -> Studio:
    """Draw a room."""
    things = []
    for _ in range(rng.integers(0, 5)):
        door = rng.random() < 0.3
        width = rng.uniform(0.75, 0.95) if door else rng.uniform(0.15, 0.8)
        height = 2.0 if door else rng.uniform(0.15, 0.9)
        colours = [linear(_THINGS[rng.integers(len(_THINGS))]) for _ in range(2)]
        low = 0.0 if door else rng.uniform(0.4, 1.8)
        things.append(Thing(rng.uniform(-1.8, 1.4), low, width, height, colours[0], colours[1]))
    azimuth, elevation = np.radians(rng.uniform(-75, 75)), np.radians(rng.uniform(20, 60))
    toward = (
        float(np.sin(azimuth) * np.cos(elevation)),
        float(np.sin(elevation)),
        float(np.cos(azimuth) * np.cos(elevation)),
    )
    return Studio(
        wall_m=-rng.uniform(0.35, 2.2),
        wall=linear(_WALLS[rng.integers(len(_WALLS))]),
        floor=linear(_FLOORS[rng.integers(len(_FLOORS))]),
        boards_m=float(rng.choice([0.0, 0.12, 0.18, 0.4])),
        things=tuple(things),
        lamps=room(rng, toward, COARSE),
        exposure=float(np.exp(rng.normal(0, 0.18))),
        grain=float(rng.uniform(0.7, 2.5)),
        tint=np.exp(rng.normal(0, 0.03, 3)),
    )


def casters_of(points: FloatArray, faces: IntArray, rng: np.random.Generator) -> Casters:
    """What throws shadows."""
    return Casters.of(points, faces, rng, COARSE)


@dataclass(frozen=True, slots=True)
class Grid:
    """Points of the background at which light is traced."""

    points: FloatArray
    """(R, C, 3)."""
    normals: FloatArray

    @classmethod
    def of(cls, studio: Studio, phone: Phone) -> Grid:
        """Every few pixels of the picture."""
        rows = np.arange(0, phone.height + _GRID_PX, _GRID_PX)
        columns = np.arange(0, phone.width + _GRID_PX, _GRID_PX)
        row, column = np.meshgrid(rows.astype(float), columns.astype(float), indexing="ij")
        at, on_floor = _hit(studio, phone, row, column)
        return cls(at, np.where(on_floor[..., None], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]))

    def enlarged(self, light: FloatArray, phone: Phone) -> FloatArray:
        """Light (R * C, 3) at these points, read at every pixel: (H, W, 3)."""
        rows, columns = self.points.shape[:2]
        planes = light.reshape(rows, columns, 3).astype(np.float32)
        size = (columns * _GRID_PX, rows * _GRID_PX)
        full = [
            np.asarray(Image.fromarray(planes[..., k]).resize(size, Image.Resampling.BILINEAR))
            for k in range(3)
        ]
        half = _GRID_PX // 2  # a cell's middle is where its ray was sent
        here = np.stack(full, axis=-1)[half : half + phone.height, half : half + phone.width]
        return here.astype(np.float64)


def backdrop(
    studio: Studio, phone: Phone, light: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """The room without the person, (H, W, 3) linear, in the light (H, W, 3) that reaches it."""
    row, column = np.mgrid[0 : phone.height, 0 : phone.width] + 0.5
    at, on_floor = _hit(studio, phone, row, column)
    up = at[..., 1]
    skirting = (up < 0.08) & ~on_floor
    albedo = np.broadcast_to(studio.wall, at.shape).copy()
    albedo[on_floor] = _floor(studio, at[on_floor])
    for thing in studio.things:
        beside = at[..., 0] - thing.left_m
        above = up - thing.low_m
        depth = np.minimum.reduce([beside, thing.width_m - beside, above, thing.height_m - above])
        shown = ~on_floor & (depth > 0)
        albedo[shown] = thing.albedo
        albedo[shown & (depth < 0.035)] = thing.frame
    albedo[skirting] = 0.7
    from_corner = np.where(on_floor, at[..., 2] - studio.wall_m, up)
    near_corner = 1 - 0.3 * np.exp(-np.abs(from_corner) / 0.12)
    return albedo * light * (near_corner * (1 + 0.02 * _mottle(row.shape, rng)))[..., None]


def _mottle(shape: tuple[int, ...], rng: np.random.Generator) -> FloatArray:
    """Unevenness of walls and floors, about -1..1: coarse blots and finer ones."""
    total = np.zeros(shape)
    for blot_px in (3, 14):
        small = rng.standard_normal([edge // blot_px + 2 for edge in shape]).astype(np.float32)
        size = (shape[1], shape[0])
        total += np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC))
    return total


def _hit(
    studio: Studio, phone: Phone, row: FloatArray, column: FloatArray
) -> tuple[FloatArray, np.ndarray]:
    """Where the rays of pixels meet floor or wall: points (..., 3) and whether it is the floor."""
    ray = np.stack(
        (
            (column - phone.width / 2) / phone.focal_px,
            (row - phone.height / 2) / phone.focal_px,
            np.ones_like(row),
        ),
        axis=-1,
    )
    ray = ray @ phone.axes()
    eye = phone.place
    falling = np.minimum(ray[..., 1], -1e-6)
    to_floor = np.where(ray[..., 1] < -1e-6, -eye[1] / falling, np.inf)
    to_wall = (studio.wall_m - eye[2]) / ray[..., 2]
    on_floor = to_floor < to_wall
    return eye + ray * np.minimum(to_floor, to_wall)[..., None], on_floor


def _floor(studio: Studio, at: FloatArray) -> FloatArray:
    """Boards or tiles at points (N, 3)."""
    if not studio.boards_m:
        return np.broadcast_to(studio.floor, at.shape)
    x, z = at[..., 0] / studio.boards_m, at[..., 2] / studio.boards_m
    z = z if studio.boards_m > 0.3 else z / 8.0
    tone = np.sin(np.floor(x) * 12.9898 + np.floor(z) * 78.233) * 43758.5453
    gap = (np.abs(x - np.floor(x) - 0.5) > 0.485) | (np.abs(z - np.floor(z) - 0.5) > 0.49)
    shade = (1 + 0.16 * (tone - np.floor(tone) - 0.5)) * np.where(gap, 0.6, 1.0)
    return np.asarray(studio.floor * shade[..., None])
