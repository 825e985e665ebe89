"""Take the photo: a pinhole camera in a room, light, film and a JPEG with its EXIF."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from recipes.sample_person.light import Casters, Lamp, receive
from recipes.sample_person.noise import layered, noise
from recipes.sample_person.paint import Look, paint, relief
from recipes.sample_person.surface import FloatArray, Surface, unit
from recipes.sample_person.wardrobe import SOLE_M, Figure
from worker.avatar.raster import rasterise

_SUPERSAMPLING = 2
_WALL_M = -1.35
"""Depth of the wall behind the person, who stands at 0 and looks towards +z."""
_DIAGONAL_35MM = 43.266615
"""Diagonal of the 36 × 24 mm frame that FocalLengthIn35mmFilm refers to (CIPA DC-008)."""


@dataclass(frozen=True, slots=True)
class Camera:
    """A phone held upright in front of the person."""

    width: int
    height: int
    focal_35mm: int
    """Equivalent focal length, as EXIF gives it."""
    height_m: float
    """Above the ground."""
    distance_m: float
    aim_m: float
    """Height of the point on the person's axis at which it looks."""

    @property
    def focal_px(self) -> float:
        """Focal length in pixels of the photo."""
        return self.focal_35mm / _DIAGONAL_35MM * float(np.hypot(self.width, self.height))

    def axes(self) -> FloatArray:
        """(3, 3) rows: right, down and forward in the room's coordinates."""
        forward = unit(np.array([0.0, self.aim_m - self.height_m, -self.distance_m]))
        right = unit(np.cross(forward, [0.0, 1.0, 0.0]))
        return np.stack((right, np.cross(forward, right), forward))

    def see(self, points: FloatArray, ground: float) -> tuple[FloatArray, FloatArray]:
        """Pixels (N, 2) and depths (N,) of `points` (N, 3) in the room."""
        seen = (points - self.position(ground)) @ self.axes().T
        uv = seen[:, :2] / seen[:, 2:] * self.focal_px
        return uv + np.array([self.width, self.height]) / 2, seen[:, 2]

    def position(self, ground: float) -> FloatArray:
        """(3,) where the lens is."""
        return np.array([0.0, ground + self.height_m, self.distance_m])


def photograph(
    layers: Mapping[str, Surface],
    figure: Figure,
    look: Look,
    camera: Camera,
    *,
    lamps: list[Lamp],
    rng: np.random.Generator,
) -> np.ndarray:
    """Render the dressed person in the room: (H, W, 3) uint8 sRGB."""
    ground = figure.floor - SOLE_M
    names = list(layers)
    starts = np.cumsum([0] + [len(layers[n].points) for n in names])
    points = np.concatenate([layers[n].points for n in names])
    rest = np.concatenate([layers[n].rest for n in names])
    normals = np.concatenate([layers[n].normals() for n in names])
    faces = np.concatenate([layers[n].faces + s for n, s in zip(names, starts, strict=False)])
    owner = np.concatenate([np.full(len(layers[n].faces), k) for k, n in enumerate(names)])

    casters = Casters.of(points, faces, rng)
    background = _background(camera, ground, casters, lamps)
    scale = _SUPERSAMPLING
    height, width = camera.height * scale, camera.width * scale
    uv, depth = camera.see(points, ground)
    raster = rasterise(
        torch.from_numpy(uv * scale),
        torch.from_numpy(depth),
        torch.from_numpy(faces),
        height,
        width,
    )
    face = raster.face_index.numpy()
    hit = face >= 0
    corners = faces[face[hit]]
    bary = raster.bary.numpy()[hit][..., None]
    at, rest_at, normal = (
        (values[corners] * bary).sum(axis=1) for values in (points, rest, normals)
    )
    material = owner[face[hit]]
    toward_eye = unit(camera.position(ground) - at)
    albedo, gloss = np.zeros((len(at), 3)), np.zeros(len(at))
    exponent, soft = np.ones(len(at)), np.zeros(len(at))
    for k, name in enumerate(names):
        mine = material == k
        if not mine.any():
            continue
        painted = paint(name, rest_at[mine], figure, look)
        albedo[mine], gloss[mine] = painted.albedo, painted.gloss
        exponent[mine], soft[mine] = painted.exponent, painted.soft
        normal[mine] = _embossed(name, rest_at[mine], unit(normal[mine]))
    # Seen from inside (a sleeve's lining), a surface shows its other side.
    away = (normal * toward_eye).sum(axis=1) < -0.2
    normal[away] *= -1
    got = receive(
        lamps,
        casters,
        points=at.astype(np.float32),
        normals=normal.astype(np.float32),
        toward_eye=toward_eye.astype(np.float32),
        exponent=exponent.astype(np.float32),
    )
    # Red light travels farthest in skin, so the wrapped light is warm.
    warm = soft[:, None] * np.array([1.0, 0.55, 0.42])
    light = got.diffuse * (1 - warm) + got.wrapped * warm
    rim = (1 - np.clip((normal * toward_eye).sum(axis=1), 0, 1)) ** 4
    shine = gloss + 0.10 * gloss * rim
    colour = albedo * light + got.gloss * shine[:, None] * 0.55

    image = np.repeat(np.repeat(background, scale, axis=0), scale, axis=1)
    image[hit] = colour
    image = image.reshape(camera.height, scale, camera.width, scale, 3).mean(axis=(1, 3))
    return develop(image, rng)


def _embossed(name: str, rest: FloatArray, normal: FloatArray) -> FloatArray:
    """Tilt the normals by the slope of the material's relief."""
    step = 0.0006
    here = relief(name, rest)
    slope = np.stack(
        [(relief(name, rest + step * axis) - here) / step for axis in np.eye(3)], axis=1
    )
    slope -= (slope * normal).sum(axis=1, keepdims=True) * normal
    return unit(normal - slope)


def _background(camera: Camera, ground: float, casters: Casters, lamps: list[Lamp]) -> FloatArray:
    """Wall, skirting board and floor with the person's shadow, (H, W, 3) linear."""
    row, column = np.mgrid[0 : camera.height, 0 : camera.width] + 0.5
    ray = (
        np.stack(
            (
                (column - camera.width / 2) / camera.focal_px,
                (row - camera.height / 2) / camera.focal_px,
                np.ones_like(row),
            ),
            axis=-1,
        ).reshape(-1, 3)
        @ camera.axes()
    )
    eye = camera.position(ground)
    to_floor = np.where(ray[:, 1] < -1e-6, (ground - eye[1]) / np.minimum(ray[:, 1], -1e-6), np.inf)
    to_wall = (_WALL_M - eye[2]) / ray[:, 2]
    on_floor = to_floor < to_wall
    at = eye + ray * np.minimum(to_floor, to_wall)[:, None]
    normal = np.where(on_floor[:, None], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0])
    # A skirting board: a bright strip with a dark gap under it.
    up = at[:, 1] - ground
    skirting = ~on_floor & (up < 0.09)
    wall = np.array([0.66, 0.65, 0.63]) * (1 + 0.012 * layered(at * 40.0, 3))[:, None]
    wall = np.where(skirting[:, None], [0.78, 0.78, 0.77], wall)
    edge = np.exp(-(((up - 0.09) / 0.004) ** 2)) + 0.8 * np.exp(-((up / 0.006) ** 2))
    wall = wall * (1 - 0.45 * np.clip(edge, 0, 1) * ~on_floor)[:, None]
    albedo = np.where(on_floor[:, None], _planks(at), wall)
    got = receive(
        lamps,
        casters,
        points=at.astype(np.float32),
        normals=normal.astype(np.float32),
        toward_eye=unit(eye - at).astype(np.float32),
        exponent=np.full(len(at), 30.0, np.float32),
    )
    # Light falls off away from the window; corners of the room are darker.
    fall = 1.04 - 0.10 * (at[:, 0] + 0.6) ** 2 / 2.0 - 0.05 * np.clip(at[:, 1] - 0.3, 0, None)
    near_corner = 1 - 0.28 * np.exp(-np.abs(up) / 0.12) * ~on_floor
    near_corner = near_corner * (1 - 0.28 * np.exp(-(at[:, 2] - _WALL_M) / 0.15) * on_floor)
    light = got.diffuse * (fall * near_corner)[:, None]
    colour = albedo * light + 0.020 * got.gloss * on_floor[:, None]
    return colour.reshape(camera.height, camera.width, 3)


def _planks(at: FloatArray) -> FloatArray:
    """Pale oak boards that run towards the viewer, (N, 3)."""
    board = np.floor(at[:, 0] / 0.14)
    shift = (board * 0.618) % 1.0 * 1.2
    length = np.floor((at[:, 2] + shift) / 1.2)
    tone = noise(np.stack((board * 3.7, length * 5.3, board * 0), axis=1) + 0.5)
    grain = layered(at * np.array([190.0, 1.0, 9.0]), 3)
    colour = np.array([0.40, 0.30, 0.205]) * (1 + 0.10 * tone + 0.07 * grain)[:, None]
    across = np.abs((at[:, 0] / 0.14) % 1.0 - 0.5) * 0.14
    along = np.abs(((at[:, 2] + shift) / 1.2) % 1.0 - 0.5) * 1.2
    gap = np.exp(-(((0.07 - across) / 0.0024) ** 2)) + np.exp(-(((0.6 - along) / 0.0024) ** 2))
    return colour * (1 - 0.5 * np.clip(gap, 0, 1))[:, None]


def develop(
    image: FloatArray, rng: np.random.Generator, *, grain: float = 1.0, glow: bool = True
) -> np.ndarray:
    """Lens, sensor and tone curve: linear light to sRGB bytes.

    Args:
        image: (H, W, 3) linear.
        rng: decides the noise.
        grain: its strength; 1 is a phone in daylight.
        glow: whether the lens scatters a little light.
    """
    height, width = image.shape[:2]
    if glow:
        image = 0.97 * image + 0.03 * gaussian_filter(image, (14, 14, 0))
    image = gaussian_filter(image, (0.55, 0.55, 0))
    row, column = np.mgrid[0:height, 0:width]
    off = ((row - height / 2) ** 2 + (column - width / 2) ** 2) / (height**2 / 4 + width**2 / 4)
    image = image * (1 - 0.16 * off)[..., None]
    # Photon noise grows with the root of the light; phones smooth it to small blotches.
    field = gaussian_filter(rng.standard_normal(image.shape), (0.6, 0.6, 0)) * (2.0 * grain)
    image = image + field * 0.0045 * np.sqrt(np.clip(image, 0, None) + 0.01)
    image = np.clip(image * 0.92, 0, None)
    toned = image * (1 + image / 1.7**2) / (1 + image * 0.62)  # a soft shoulder (Reinhard, 2002)
    toned = np.clip(toned, 0, 1)
    srgb = np.where(toned <= 0.0031308, 12.92 * toned, 1.055 * toned ** (1 / 2.4) - 0.055)
    return (srgb * 255 + 0.5).astype(np.uint8)


def save_photo(pixels: np.ndarray, camera: Camera, path: Path) -> None:
    """Write a JPEG whose EXIF names the focal length and nothing about a device."""
    exif = Image.Exif()
    exif[0x0112] = 1  # Orientation
    exif[0x0131] = "avatar-worker recipes/sample_person"  # Software
    exif.get_ifd(0x8769)[0xA405] = camera.focal_35mm  # FocalLengthIn35mmFilm
    Image.fromarray(pixels).save(path, quality=88, optimize=True, exif=exif)
