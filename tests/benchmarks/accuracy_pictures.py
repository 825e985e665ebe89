"""Pictures of fitted people: the photo, the body that was found, and the body that was true."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy.ndimage import binary_dilation, binary_erosion

from tests.benchmarks.cases import Case
from tests.benchmarks.observing import SeenCases
from tests.benchmarks.setups import Setup
from worker.avatar.body.free import free_body
from worker.avatar.body.model import BodyModel
from worker.avatar.fit import fit_body
from worker.avatar.raster import coverage
from worker.avatar.types import BodyFit, BoolArray, FittedView, Gender

FOUND, TRUE = (40, 220, 90), (255, 255, 255)
"""Colours of outlines: what was fitted, and the undressed body as it was."""
_CAPTION_PX = 26


def contact_sheet(setup: Setup, cases: Mapping[str, Case], *, height_px: int) -> Image.Image:
    """Fit each case again and show its photos with both outlines, a caption below each."""
    strips = [_strip(setup, case, caption, height_px) for caption, case in cases.items()]
    sheet = Image.new("RGB", (sum(strip.width for strip in strips), strips[0].height), "white")
    left = 0
    for strip in strips:
        sheet.paste(strip, (left, 0))
        left += strip.width
    return sheet


def _strip(setup: Setup, case: Case, caption: str, height_px: int) -> Image.Image:
    gender = Gender.NEUTRAL if setup.neutral else case.gender
    body = BodyModel(free_body(gender), dtype=torch.float64)
    seen = [SeenCases().observation(case, view) for view in setup.views]
    fit = fit_body(
        body,
        seen,
        height_m=case.request["heightCm"] / 100,
        weight_kg=case.request["weightKg"] if setup.weight else None,
    )
    tiles = [_tile(case, fit, body, view, height_px) for view in fit.views]
    strip = Image.new(
        "RGB", (sum(tile.width for tile in tiles) + 8, height_px + _CAPTION_PX), "white"
    )
    left = 0
    for tile in tiles:
        strip.paste(tile, (left, 0))
        left += tile.width
    ImageDraw.Draw(strip).text((6, height_px + 6), f"{caption}  ({case.name})", fill="black")
    return strip


def _tile(
    case: Case, fit: BodyFit, body: BodyModel, view: FittedView, height_px: int
) -> Image.Image:
    path = case.photo(view.view)
    if path is None:
        raise ValueError(f"{case.folder} has no {view.view.value} photo")
    with Image.open(path) as photo:
        pixels = np.array(photo.convert("RGB"))
    pixels[_edge(_silhouette(fit, body, view, pixels.shape[:2]))] = FOUND
    with np.load(case.folder / "photos_truth.npz") as truth:
        bare = truth[f"{view.view.value}_bare"]
    pixels[_edge(bare)] = TRUE
    rows, columns = np.nonzero(bare)
    margin = 40
    box = (
        max(0, int(columns.min()) - margin),
        max(0, int(rows.min()) - margin),
        min(pixels.shape[1], int(columns.max()) + margin),
        min(pixels.shape[0], int(rows.max()) + margin),
    )
    crop = Image.fromarray(pixels).crop(box)
    return crop.resize((round(crop.width * height_px / crop.height), height_px))


@torch.inference_mode()
def _silhouette(
    fit: BodyFit, body: BodyModel, view: FittedView, shape: tuple[int, ...]
) -> BoolArray:
    camera = view.intrinsics
    points = body(
        *(torch.as_tensor(one)[None] for one in (fit.betas, view.pose, view.transl))
    ).vertices[0]
    uv = camera.focal_px * points[:, :2] / points[:, 2:]
    uv = uv + points.new_tensor((camera.width / 2, camera.height / 2))
    return np.asarray(coverage(uv, body.faces, shape[0], shape[1]).numpy())


def _edge(region: BoolArray) -> BoolArray:
    return np.asarray(binary_dilation(region, iterations=1) & ~binary_erosion(region, iterations=1))
