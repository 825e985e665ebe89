"""The skin's colour, read from the photo where skin is most likely bare.

Samples come from the face and from the forearms and hands, placed by keypoints and kept inside
the person's mask.  The face speaks first; arms join only when their colour agrees with it, for
they are often in sleeves.  Medians are taken in CIELAB, after hair, lips, shadow and highlight
are left out.  A photo without colour, or without enough skin, gives a neutral tone, and the
result says so.

The hue limits follow the skin locus: under daylight and lamps alike, human skin lies between
about 20° and 85° of CIELAB hue, whatever its lightness (Chardon et al., "Skin colour typology",
1991, and the Monk Skin Tone swatches, all within 38°-75°).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.avatar.export.colour import Rgb, hex_of, lab_from_srgb, srgb_from_lab
from worker.avatar.types import KEYPOINTS, BoolArray, Float64Array, Observation, Photo

NEUTRAL_SKIN: Rgb = (196, 154, 128)
"""A medium tone, for photos that do not say."""

_HUE_DEG = (20.0, 85.0)
_CHROMA = (6.0, 55.0)
_LIGHTNESS = (12.0, 96.0)
_MONOCHROME_CHROMA = 5.0
"""A photo whose most colourful pixels (95th percentile) stay below this holds no colour."""
_MIN_PIXELS = 60
_MIN_SHARE = 0.25
"""Of a region's pixels, how many must look like skin for it to be used."""
_ARM_AGREES = 14.0
"""Largest distance in (a, b) between an arm's colour and the face's."""
_LIT = (45.0, 92.0)
"""Percentiles of lightness between which skin is evenly lit."""
_MIN_CONFIDENCE = 0.5
_MAX_SAMPLES = 20_000


@dataclass(frozen=True, slots=True)
class SkinTone:
    """A colour of skin and where it came from."""

    rgb: Rgb
    regions: tuple[str, ...]
    """Where it was read: face, left_arm, right_arm; empty for the neutral tone."""
    pixels: int
    """How many pixels it is the median of."""
    reason: str | None = None
    """Why the neutral tone was taken; None when the photo said."""

    def document(self) -> dict[str, Any]:
        """Return appearance.json's content."""
        source: dict[str, Any]
        if self.reason is None:
            source = {"from": "photo", "regions": list(self.regions), "pixels": self.pixels}
        else:
            source = {"from": "default", "reason": self.reason}
        return {
            "skinColor": {"rgb": list(self.rgb), "hex": hex_of(self.rgb)},
            "sources": {"skinColor": source},
        }


def skin_tone(photo: Photo, seen: Observation) -> SkinTone:
    """Read the colour of the person's skin.

    Args:
        photo: (H, W, 3) sRGB.
        seen: the person in that photo.
    """
    mask = seen.mask > 0.5
    if _monochrome(photo.pixels):
        return _neutral("the photo holds no colour")
    regions: dict[str, Float64Array] = {}
    for name, area in _regions(seen, mask).items():
        lab = _skin_pixels(photo.pixels[area])
        if lab is not None:
            regions[name] = lab
    if not regions:
        return _neutral("no bare skin was found")
    chosen = _agreeing(regions)
    tone = _typical(np.concatenate(list(chosen.values())))
    red, green, blue = (round(value * 255) for value in srgb_from_lab(tone).tolist())
    return SkinTone((red, green, blue), tuple(chosen), sum(map(len, chosen.values())))


def _neutral(reason: str) -> SkinTone:
    return SkinTone(NEUTRAL_SKIN, (), 0, reason)


def _monochrome(pixels: NDArray[np.uint8]) -> bool:
    height, width, _ = pixels.shape
    step = max(1, int(np.sqrt(height * width / _MAX_SAMPLES)))
    lab = lab_from_srgb(pixels[::step, ::step].reshape(-1, 3) / 255.0)
    return bool(np.percentile(np.hypot(lab[:, 1], lab[:, 2]), 95) < _MONOCHROME_CHROMA)


def _regions(seen: Observation, mask: BoolArray) -> dict[str, BoolArray]:
    """Boolean images (H, W) of where skin may be bare."""
    points = {name: seen.keypoints[number] for number, name in enumerate(KEYPOINTS)}
    regions: dict[str, BoolArray] = {}
    face = [
        points[name][:2].astype(np.float64)
        for name in ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
        if points[name][2] >= _MIN_CONFIDENCE
    ]
    if len(face) >= 3:
        spread = np.stack(face)
        centre = spread.mean(axis=0)
        reach = float(np.linalg.norm(spread - centre, axis=1).max())
        # From under the eyes to the mouth: cheeks, not hair, and little of a pair of glasses.
        down = np.array([0.0, reach])
        regions["face"] = _near(mask, centre + 0.25 * down, centre + 0.6 * down, 0.65 * reach)
    for side in ("left", "right"):
        elbow, wrist = points[f"{side}_elbow"], points[f"{side}_wrist"]
        if min(elbow[2], wrist[2]) >= _MIN_CONFIDENCE:
            start = elbow[:2].astype(np.float64)
            along = wrist[:2].astype(np.float64) - start
            length = float(np.linalg.norm(along))
            # From the middle of the forearm to the knuckles.
            regions[f"{side}_arm"] = _near(
                mask, start + 0.5 * along, start + 1.3 * along, 0.09 * length
            )
    return regions


def _near(mask: BoolArray, start: Float64Array, end: Float64Array, reach_px: float) -> BoolArray:
    """Pixels of the mask within `reach_px` of the segment from `start` to `end`."""
    height, width = mask.shape
    low = np.floor(np.minimum(start, end) - reach_px).astype(int)
    high = np.ceil(np.maximum(start, end) + reach_px).astype(int) + 1
    x0, y0 = np.clip(low, 0, (width, height))
    x1, y1 = np.clip(high, 0, (width, height))
    area = np.zeros_like(mask)
    if x1 <= x0 or y1 <= y0:
        return area
    grid = np.stack(np.meshgrid(np.arange(x0, x1), np.arange(y0, y1)), axis=-1) + 0.5
    along = end - start
    share = np.clip((grid - start) @ along / max(float(along @ along), 1e-12), 0.0, 1.0)
    distance = np.linalg.norm(grid - (start + share[..., None] * along), axis=-1)
    area[y0:y1, x0:x1] = (distance <= reach_px) & mask[y0:y1, x0:x1]
    return area


def _skin_pixels(pixels: NDArray[np.uint8]) -> Float64Array | None:
    """CIELAB (N, 3) of the pixels (M, 3) that can be skin, or None if they are too few."""
    if len(pixels) < _MIN_PIXELS:
        return None
    lab = lab_from_srgb(pixels[:: max(1, len(pixels) // _MAX_SAMPLES)] / 255.0)
    hue = np.rad2deg(np.arctan2(lab[:, 2], lab[:, 1]))
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    kept = np.ones(len(lab), dtype=bool)
    for value, (low, high) in ((hue, _HUE_DEG), (chroma, _CHROMA), (lab[:, 0], _LIGHTNESS)):
        kept &= (value >= low) & (value <= high)
    if kept.mean() < _MIN_SHARE or kept.sum() < _MIN_PIXELS:
        return None
    result: Float64Array = lab[kept]
    return result


def _typical(lab: Float64Array) -> Float64Array:
    """Median colour of the evenly lit pixels: between shadow, beard and highlight."""
    low, high = np.percentile(lab[:, 0], _LIT)
    lit = lab[(lab[:, 0] >= low) & (lab[:, 0] <= high)]
    result: Float64Array = np.median(lit, axis=0)
    return result


def _agreeing(regions: dict[str, Float64Array]) -> dict[str, Float64Array]:
    """The face and the regions that look like it; without a face, the two arms if they agree."""
    reference = next(iter(regions.values()))
    if "face" not in regions and len(regions) == 1:
        return regions
    towards = _typical(reference)[1:]
    return {
        name: lab
        for name, lab in regions.items()
        if np.linalg.norm(_typical(lab)[1:] - towards) <= _ARM_AGREES
    }
