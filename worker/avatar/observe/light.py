"""How well a person stands out from what is behind."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from worker.avatar.observe.mask import box_of
from worker.avatar.types import BoolArray, ByteArray, Float32Array

_STEP = 2
"""Every second pixel is enough for mean colours."""
_GAP = 2
_REACH = 5
"""The strips lie between 2 and 5 steps from the outline."""


def outline_contrast(pixels: ByteArray, mask: Float32Array) -> float:
    """Return the median colour difference across the outline, in grey levels.

    For each piece of the outline the mean colours of a strip inside and a strip outside are
    compared.  The strips leave out the pixels next to the outline, which blur mixes.

    Args:
        pixels: (H, W, 3).
        mask: (H, W) probability.
    """
    body = mask[::_STEP, ::_STEP] > 0.5
    box = box_of(body)
    if box is None:
        return 0.0
    x0, y0, x1, y1 = (int(edge) for edge in box)
    margin = 2 * _REACH
    near = np.s_[max(0, y0 - margin) : y1 + margin, max(0, x0 - margin) : x1 + margin]
    body = body[near]
    colours = pixels[::_STEP, ::_STEP][near].astype(np.float32)
    inside = _shrunk(body, _GAP) & ~_shrunk(body, _REACH)
    outside = _shrunk(~body, _GAP) & ~_shrunk(~body, _REACH)
    differences = _local_mean(colours, inside) - _local_mean(colours, outside)
    outline = body & ~_shrunk(body, 1)
    return float(np.median(np.linalg.norm(differences[outline], axis=-1)) / np.sqrt(3.0))


def _shrunk(region: BoolArray, by: int) -> BoolArray:
    return np.asarray(ndimage.minimum_filter(region, 2 * by + 1, mode="nearest"), dtype=np.bool_)


def _local_mean(colours: Float32Array, region: BoolArray) -> Float32Array:
    size = 2 * _REACH + 1
    weight = ndimage.uniform_filter(region.astype(np.float32), size)
    channels = [
        ndimage.uniform_filter(colours[..., c] * region, size) / np.maximum(weight, 1e-6)
        for c in range(3)
    ]
    return np.asarray(np.stack(channels, axis=-1), dtype=np.float32)
