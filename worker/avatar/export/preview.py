"""A picture of the published body, drawn in software: no graphics driver, no window.

It draws the record that the GLB is written from, skinned as a viewer skins it.  The light is a
cool sky, a warm floor and one soft lamp at the upper left that stands still while the body
turns; the feet shade the ground.  The background is transparent, so that it fits any page.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from worker.avatar.export.colour import Rgb, linear_from_srgb, srgb_from_linear
from worker.avatar.export.dress import Part
from worker.avatar.export.skinned import SkinnedBody
from worker.avatar.raster import rasterise
from worker.avatar.types import Float64Array, Int64Array

VIEWS_DEG: tuple[float, ...] = (20.0, 90.0, 180.0)
"""Front, a little turned; the left side; the back."""

_HEIGHT_PX = 560
_MARGIN_PX = 24
_SUPERSAMPLING = 2
_CAMERA_M = 6.0
"""Distance of the camera: a portrait lens that still shows a little depth."""

_LAMP = np.array([-0.45, 0.65, 0.75]) / np.linalg.norm([-0.45, 0.65, 0.75])
_LAMP_LIGHT = np.array([0.78, 0.75, 0.70])
_SKY_LIGHT = np.array([0.48, 0.50, 0.54])
_FLOOR_LIGHT = np.array([0.25, 0.23, 0.21])
_WRAP = 0.25
"""How far the lamp reaches round the body: a large, soft source."""
_SHADOW_RGBA = (24, 28, 40, 105)
_GROUND_PX = 96
"""How much of the picture, from below, the shadow may take."""
_FOOT_M = 0.05
"""What is lower than this shades the ground."""


def preview_png(
    body: SkinnedBody, colours: Mapping[Part, Rgb], *, views_deg: Sequence[float] = VIEWS_DEG
) -> bytes:
    """Draw the body from several sides, side by side.

    Args:
        body: what to draw, in its display pose.
        colours: sRGB of each part.
        views_deg: from which side each picture is taken: 0 from the front, 90 from the left.

    Returns:
        A PNG with a transparent background.
    """
    vertices, normals = body.posed()
    faces = np.concatenate(list(body.faces.values()))
    albedo = np.concatenate(
        [
            np.tile(linear_from_srgb(np.array(colours[part]) / 255.0), (len(of_part), 1))
            for part, of_part in body.faces.items()
        ]
    )
    pictures = [
        _picture(vertices @ turn, normals @ turn, faces, albedo)
        for turn in (_turn(angle) for angle in views_deg)
    ]
    strip = Image.new("RGBA", (sum(picture.width for picture in pictures), _HEIGHT_PX))
    left = 0
    for picture in pictures:
        strip.paste(picture, (left, 0))
        left += picture.width
    stream = io.BytesIO()
    strip.save(stream, format="PNG")
    return stream.getvalue()


def _turn(angle_deg: float) -> Float64Array:
    """Matrix (3, 3) for rows of points: what is `angle_deg` to the left comes to the front."""
    cosine, sine = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    return np.array([[cosine, 0.0, sine], [0.0, 1.0, 0.0], [-sine, 0.0, cosine]])


def _picture(
    vertices: Float64Array, normals: Float64Array, faces: Int64Array, albedo: Float64Array
) -> Image.Image:
    """Draw the body as seen from +z."""
    top_m = float(vertices[:, 1].max())
    px_per_m = (_HEIGHT_PX - 2 * _MARGIN_PX) / top_m
    depth = _CAMERA_M - vertices[:, 2]
    magnified = px_per_m * _CAMERA_M / depth
    x = vertices[:, 0] * magnified
    y = _HEIGHT_PX / 2 - (vertices[:, 1] - top_m / 2) * magnified
    width = int(np.ceil(x.max() - x.min())) + 2 * _MARGIN_PX
    x += _MARGIN_PX - x.min()

    screen = np.stack((x, y), axis=1)
    front = _faces_camera(screen, faces)
    seen = rasterise(
        torch.from_numpy(screen * _SUPERSAMPLING).float(),
        torch.from_numpy(depth).float(),
        torch.from_numpy(faces[front]),
        _HEIGHT_PX * _SUPERSAMPLING,
        width * _SUPERSAMPLING,
    )
    hit = (seen.face_index >= 0).numpy()
    face = front[seen.face_index.numpy()[hit]]
    normal = np.einsum("pk,pki->pi", seen.bary.numpy()[hit], normals[faces[face]])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    light = np.zeros((*hit.shape, 4), dtype=np.float32)
    light[hit, :3] = albedo[face] * _light(normal)
    light[hit, 3] = 1.0

    standing = vertices[:, 1] < _FOOT_M
    # The ground is seen from a little above, so that the shadow is more than a line.
    depth_px = -0.12 * px_per_m * (vertices[standing, 2] - vertices[standing, 2].mean())
    ground_y = _HEIGHT_PX / 2 + top_m / 2 * px_per_m
    shadow = _shadow(x[standing], ground_y - depth_px, width)
    return Image.alpha_composite(shadow, _resolved(light))


def _faces_camera(screen: Float64Array, faces: Int64Array) -> Int64Array:
    """Indices of the triangles whose outside is seen; the body is closed, the rest is hidden."""
    a, b, c = (screen[faces[:, corner]] for corner in range(3))
    u, v = b - a, c - a
    # Counter-clockwise with y up is clockwise with y down.
    return np.flatnonzero(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0] < 0)


def _light(normal: Float64Array) -> Float64Array:
    """Light (P, 3) that arrives at surfaces with these normals (P, 3)."""
    up = 0.5 + 0.5 * normal[:, 1:2]
    lamp = np.clip((normal @ _LAMP[:, None] + _WRAP) / (1 + _WRAP), 0.0, None)
    result: Float64Array = up * _SKY_LIGHT + (1 - up) * _FLOOR_LIGHT + lamp * _LAMP_LIGHT
    return result


def _resolved(light: NDArray[np.float32]) -> Image.Image:
    """Average the samples of each pixel in linear light, and encode."""
    every = _SUPERSAMPLING
    samples = [light[row::every, column::every] for row in range(every) for column in range(every)]
    mean = np.sum(samples, axis=0) / len(samples)
    alpha = mean[..., 3:]
    colour = srgb_from_linear(mean[..., :3] / np.maximum(alpha, 1e-6))
    rgba = np.rint(np.concatenate((colour, alpha), axis=-1) * 255).astype(np.uint8)
    return Image.fromarray(rgba)


def _shadow(x: Float64Array, y: Float64Array, width: int) -> Image.Image:
    """Blurred dark where the feet are, given their points in pixels."""
    feet = np.zeros((_GROUND_PX, width), dtype=np.uint8)
    column = np.clip(np.rint(x).astype(int), 0, width - 1)
    row = np.clip(np.rint(y).astype(int) - (_HEIGHT_PX - _GROUND_PX), 0, _GROUND_PX - 1)
    feet[row, column] = 255
    soft = np.asarray(
        Image.fromarray(feet).filter(ImageFilter.MaxFilter(7)).filter(ImageFilter.GaussianBlur(5))
    )
    red, green, blue, strength = _SHADOW_RGBA
    rgba = np.zeros((_HEIGHT_PX, width, 4), dtype=np.uint8)
    rgba[-_GROUND_PX:, :, :3] = (red, green, blue)
    rgba[-_GROUND_PX:, :, 3] = np.rint(soft / 255.0 * strength).astype(np.uint8)
    return Image.fromarray(rgba)
