"""Draw landmarks and girths on bodies, to be looked at.

    python recipes/landmarks/picture.py docs/images/landmarks.png
    python recipes/landmarks/picture.py random.png --seed 3

A row a gender: front, left side, back, and the crotch from the front and from below.  Landmarks
are red, or pale blue where the body hides them; the parts of a curve that are hidden are grey.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from worker.avatar.body.free import free_body
from worker.avatar.body.model import BodyData
from worker.avatar.measure import Measurements, Measurer
from worker.avatar.raster import rasterise
from worker.avatar.types import Float64Array, Gender

VIEWS = {  # what points right and what points up in the picture
    "front": ((1, 0, 0), (0, 1, 0)),
    "left": ((0, 0, -1), (0, 1, 0)),
    "back": ((-1, 0, 0), (0, 1, 0)),
    "below": ((1, 0, 0), (0, 0, 1)),
}
SKIN = np.array([226, 196, 178])
SEEN, HIDDEN = (200, 20, 30), (150, 160, 235)
COLOURS = {
    "chestCm": (0, 110, 40),
    "waistCm": (20, 60, 200),
    "hipCm": (190, 30, 30),
    "shoulderCm": (90, 40, 140),
    "sleeveCm": (230, 90, 0),
    "lengthCm": (30, 30, 30),
    "neckCm": (0, 120, 130),
    "bicepCm": (190, 90, 0),
    "forearmCm": (130, 110, 0),
    "wristCm": (140, 0, 140),
    "thighCm": (120, 0, 180),
    "calfCm": (200, 0, 110),
    "ankleCm": (0, 130, 90),
    "insideLegCm": (60, 60, 60),
    "heightCm": (120, 120, 120),
}


@dataclass(frozen=True)
class Window:
    """A parallel projection of `span_m` metres onto `height` pixels."""

    view: str
    centre: Float64Array
    span_m: float
    width: int
    height: int

    @property
    def axes(self) -> Float64Array:
        """(3, 3): right, up, and towards the viewer."""
        right, up = (np.array(axis, dtype=np.float64) for axis in VIEWS[self.view])
        return np.stack([right, up, np.cross(right, up)])

    def project(self, points: Float64Array) -> tuple[Float64Array, Float64Array]:
        """(N, 2) pixels and (N,) depth in metres."""
        seen = (points - self.centre) @ self.axes.T
        scale = self.height / self.span_m
        pixels = seen[:, :2] * (scale, -scale) + (self.width / 2, self.height / 2)
        return pixels, 10.0 - seen[:, 2]


def draw(
    body: BodyData, vertices: Float64Array, measured: Measurements, dots: Float64Array, at: Window
) -> Image.Image:
    """One view of one body."""
    pixels, depth = at.project(vertices)
    raster = rasterise(
        torch.tensor(pixels), torch.tensor(depth), torch.tensor(body.faces), at.height, at.width
    )
    corner = vertices[body.faces]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-12
    light = np.array([0.35, 0.45, 0.82]) @ at.axes
    shade = (
        np.round((0.35 + 0.65 * np.clip(normal @ light, 0, 1)) * 24) / 24
    )  # few tones: a small file
    face, near = raster.face_index.numpy(), raster.depth.numpy()
    canvas = np.full((at.height, at.width, 3), 255, dtype=np.uint8)
    canvas[face >= 0] = (shade[face[face >= 0]][:, None] * SKIN).astype(np.uint8)
    image = Image.fromarray(canvas)
    pen = ImageDraw.Draw(image)

    def visible(points: Float64Array, slack_m: float) -> list[bool]:
        places, depths = at.project(points)
        x, y = np.clip(places.astype(int), 0, (at.width - 1, at.height - 1)).T
        return list(depths <= near[y, x] + slack_m)

    for key, colour in COLOURS.items():
        curve = measured.curves[key]
        places, _ = at.project(curve)
        shown = visible((curve[1:] + curve[:-1]) / 2, 0.02)
        for start, end, seen in zip(places[:-1], places[1:], shown, strict=True):
            pen.line([*start, *end], fill=colour if seen else (205, 205, 215), width=2)
    places, _ = at.project(dots)
    for (x, y), seen in zip(places, visible(dots, 0.012), strict=True):
        pen.ellipse([x - 3, y - 3, x + 3, y + 3], fill=SEEN if seen else HIDDEN)
    return image


def row(gender: Gender, betas: Float64Array) -> Image.Image:
    """All views of one body, and its measurements."""
    body = free_body(gender)
    vertices = body.v_template.astype(np.float64)
    vertices += body.shapedirs[:, :, : len(betas)].astype(np.float64) @ betas
    measurer = Measurer(body)
    measured = measurer.measure(vertices)
    dots = vertices[list(asdict(measurer.landmarks).values())]
    middle = (vertices.max(axis=0) + vertices.min(axis=0)) / 2
    crotch = measured.curves["insideLegCm"][0]
    windows = [
        Window("front", middle, 2.05, 680, 700),
        Window("left", middle, 2.05, 260, 700),
        Window("back", middle, 2.05, 680, 700),
        Window("front", crotch, 0.45, 300, 350),
        Window("below", crotch, 0.45, 300, 350),
    ]
    front, left, back, groin, below = (
        draw(body, vertices, measured, dots, window) for window in windows
    )
    canvas = Image.new("RGB", (2120, 700), "white")
    for image, x, y in ((front, 0, 0), (left, 680, 0), (back, 940, 0), (groin, 1620, 0)):
        canvas.paste(image, (x, y))
    canvas.paste(below, (1620, 350))
    pen = ImageDraw.Draw(canvas)
    pen.text((1940, 20), gender.value, fill="black", font_size=22)
    for index, (key, colour) in enumerate(COLOURS.items()):
        line = f"{key.removesuffix('Cm')}  {measured[key]:.1f}"
        pen.text((1940, 60 + 28 * index), line, fill=colour, font_size=18)
    return canvas


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", type=Path)
    parser.add_argument("--seed", type=int, help="random betas instead of the mean body")
    options = parser.parse_args(arguments)
    betas = np.zeros(10)
    if options.seed is not None:
        betas = np.random.default_rng(options.seed).standard_normal(40)
    rows = [row(gender, betas) for gender in Gender]
    sheet = Image.new("RGB", (rows[0].width, sum(image.height for image in rows)), "white")
    for index, image in enumerate(rows):
        sheet.paste(image, (0, index * image.height))
    sheet.quantize(256, method=Image.Quantize.FASTOCTREE).save(options.target, optimize=True)
    print(f"wrote {options.target}, {options.target.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()
