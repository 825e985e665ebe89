"""A plain room around the person: wall, floor, a few things on the wall, and the light in it.

Cheap where the sample person's photographs are fine: light is traced at the vertices and on a
coarse grid of the background, and read in between.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from recipes.cases.phone import Phone
from recipes.sample_person.light import Casters, Fineness, Lamp, receive, room
from recipes.sample_person.paint import linear
from recipes.sample_person.surface import FloatArray, IntArray, unit

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


def backdrop(
    studio: Studio, phone: Phone, casters: Casters, rng: np.random.Generator
) -> FloatArray:
    """The room without the person but with the person's shadow, (H, W, 3) linear."""
    row, column = np.mgrid[0 : phone.height, 0 : phone.width] + 0.5
    at, on_floor = _hit(studio, phone, row, column)
    rough = gaussian_filter(rng.standard_normal(row.shape), 1.5) * 3
    rough += gaussian_filter(rng.standard_normal(row.shape), 12.0) * 20
    up = at[..., 1]
    skirting = (up < 0.08) & ~on_floor
    albedo = np.where(on_floor[..., None], _floor(studio, at), studio.wall)
    for thing in studio.things:
        beside = at[..., 0] - thing.left_m
        above = up - thing.low_m
        depth = np.minimum.reduce([beside, thing.width_m - beside, above, thing.height_m - above])
        shown = ~on_floor & (depth > 0)
        edge = (depth < 0.035)[..., None]
        albedo = np.where(shown[..., None], np.where(edge, thing.frame, thing.albedo), albedo)
    albedo = np.where(skirting[..., None], 0.7, albedo) * (1 + 0.02 * rough)[..., None]
    near_corner = 1 - 0.3 * np.exp(
        -np.abs(np.where(on_floor, at[..., 2] - studio.wall_m, up)) / 0.12
    )
    light = _light(studio, phone, casters)
    return albedo * light * near_corner[..., None]


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
    if not studio.boards_m:
        return np.broadcast_to(studio.floor, at.shape)
    x, z = at[..., 0] / studio.boards_m, at[..., 2] / studio.boards_m
    z = z if studio.boards_m > 0.3 else z / 8.0
    tone = np.sin(np.floor(x) * 12.9898 + np.floor(z) * 78.233) * 43758.5453
    gap = (np.abs(x - np.floor(x) - 0.5) > 0.485) | (np.abs(z - np.floor(z) - 0.5) > 0.49)
    shade = (1 + 0.16 * (tone - np.floor(tone) - 0.5)) * np.where(gap, 0.6, 1.0)
    return np.asarray(studio.floor * shade[..., None])


def _light(studio: Studio, phone: Phone, casters: Casters) -> FloatArray:
    """Light on floor and wall, traced on a coarse grid, (H, W, 3)."""
    rows = np.arange(0, phone.height + _GRID_PX, _GRID_PX)
    columns = np.arange(0, phone.width + _GRID_PX, _GRID_PX)
    row, column = np.meshgrid(rows.astype(float), columns.astype(float), indexing="ij")
    at, on_floor = _hit(studio, phone, row, column)
    normal = np.where(on_floor[..., None], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0])
    flat = at.reshape(-1, 3)
    got = receive(
        studio.lamps,
        casters,
        points=flat.astype(np.float32),
        normals=normal.reshape(-1, 3).astype(np.float32),
        toward_eye=unit(phone.place - flat).astype(np.float32),
        exponent=np.full(len(flat), 30.0, np.float32),
    )
    light = got.diffuse.reshape(*at.shape)
    size = (len(columns) * _GRID_PX, len(rows) * _GRID_PX)
    full = [
        np.asarray(Image.fromarray(light[..., k]).resize(size, Image.Resampling.BILINEAR))
        for k in range(3)
    ]
    half = _GRID_PX // 2  # a cell's middle is where its ray was sent
    stacked = np.stack(full, axis=-1)
    return stacked[half : half + phone.height, half : half + phone.width].astype(np.float64)
