"""Pictures of what was seen: the fitted outline on the photo, and the mask."""

from __future__ import annotations

import io
from typing import Any

import contourpy
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from worker.avatar.types import BoolArray, Float32Array, Photo

MAX_HEIGHT_PX = 1200

_LINE = (64, 224, 255)
"""A bright cyan: rare in clothes, skin and rooms."""
_EDGE = (10, 26, 44)
"""Its dark border, without which it is lost on bright photos."""
_TINT = 0.14
_SUPERSAMPLING = 3


def overlay_png(photo: Photo, body: BoolArray, *, keypoints: Float32Array | None = None) -> bytes:
    """Draw the outline of the fitted body on the photo.

    Args:
        photo: (H, W, 3).
        body: (H, W), true where the fitted body covers the photo.
        keypoints: (N, 3) x_px, y_px, confidence; those above 0.5 are marked.

    Returns:
        A PNG at most `MAX_HEIGHT_PX` high.
    """
    height, width = body.shape
    scale = min(1.0, MAX_HEIGHT_PX / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = Image.fromarray(photo.pixels).resize(size, Image.Resampling.LANCZOS)
    outlines = [outline * scale for outline in outlines_of(body)]

    inside = Image.fromarray(body.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)
    picture.paste(
        Image.new("RGB", size, _LINE), mask=inside.point(lambda value: round(value * _TINT))
    )
    # 0.6 % of the height, and never under 4 pixels, of which the bright core takes under half.
    stroke = max(4.0, 0.006 * size[1])
    for colour, stroke_px in ((_EDGE, stroke), (_LINE, 0.45 * stroke)):
        picture.paste(Image.new("RGB", size, colour), mask=_strokes(outlines, size, stroke_px))
    if keypoints is not None:
        marks = keypoints[keypoints[:, 2] > 0.5, :2] * scale
        for colour, radius in ((_EDGE, stroke), ((255, 255, 255), 0.62 * stroke)):
            picture.paste(Image.new("RGB", size, colour), mask=_discs(marks, size, radius))
    return _png(picture)


def mask_png(mask: Float32Array) -> bytes:
    """Write a mask (H, W) of 0..1 as an 8-bit grey PNG."""
    grey = np.rint(np.clip(mask, 0.0, 1.0) * 255).astype(np.uint8)
    return _png(Image.fromarray(grey))


def outlines_of(body: NDArray[Any], level: float = 0.5) -> list[NDArray[np.float64]]:
    """Trace where a mask (H, W) crosses `level`.

    Returns:
        Closed polylines (N, 2) in pixels, x right, y down, first pixel's centre (0.5, 0.5).
    """
    # A border of zeros closes outlines at the photo's edge.
    padded = np.pad(body.astype(np.float64), 1)
    lines = contourpy.contour_generator(z=padded, name="serial").lines(level)
    return [np.asarray(line, dtype=np.float64) - 0.5 for line in lines if len(line) > 3]


def _strokes(
    lines: list[NDArray[np.float64]], size: tuple[int, int], width_px: float
) -> Image.Image:
    """Coverage (8 bit) of lines that are `width_px` wide, antialiased by supersampling."""
    canvas, draw = _canvas(size)
    for line in lines:
        smooth = _smoothed(line) * _SUPERSAMPLING
        draw.line(
            [(float(x), float(y)) for x, y in smooth],
            fill=255,
            width=round(width_px * _SUPERSAMPLING),
            joint="curve",
        )
    return canvas.resize(size, Image.Resampling.BOX)


def _discs(points: NDArray[Any], size: tuple[int, int], radius_px: float) -> Image.Image:
    canvas, draw = _canvas(size)
    for x, y in points * _SUPERSAMPLING:
        reach = radius_px * _SUPERSAMPLING
        draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=255)
    return canvas.resize(size, Image.Resampling.BOX)


def _canvas(size: tuple[int, int]) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    canvas = Image.new("L", (size[0] * _SUPERSAMPLING, size[1] * _SUPERSAMPLING))
    return canvas, ImageDraw.Draw(canvas)


def _smoothed(line: NDArray[np.float64]) -> NDArray[np.float64]:
    """Take the stairs of the pixel grid out of a closed line; it moves by under half a pixel."""
    ring = line[:-1]
    for _ in range(2):
        ring = 0.25 * np.roll(ring, 1, axis=0) + 0.5 * ring + 0.25 * np.roll(ring, -1, axis=0)
    return np.concatenate((ring, ring[:1]))


def _png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, format="PNG")
    return stream.getvalue()
