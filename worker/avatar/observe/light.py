"""How well a person stands out from what is behind."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from worker.avatar.types import BoolArray, ByteArray, Float32Array

_GAP_PX = 3
_REACH_PX = 9


def outline_contrast(pixels: ByteArray, mask: Float32Array) -> float:
    """Return the median colour difference across the outline, in grey levels.

    For each piece of the outline the mean colours of a strip inside and a strip outside are
    compared.  The strips leave out the pixels next to the outline, which blur mixes.

    Args:
        pixels: (H, W, 3).
        mask: (H, W) probability.
    """
    body = mask > 0.5
    inner = ndimage.distance_transform_edt(body)
    outer = ndimage.distance_transform_edt(~body)
    inside = (inner > _GAP_PX) & (inner <= _REACH_PX)
    outside = (outer > _GAP_PX) & (outer <= _REACH_PX)
    colours = pixels.astype(np.float32)
    differences = _local_mean(colours, inside) - _local_mean(colours, outside)
    outline = body & (inner <= 1.0)
    if not outline.any():
        return 0.0
    return float(np.median(np.linalg.norm(differences[outline], axis=-1)) / np.sqrt(3.0))


def _local_mean(colours: Float32Array, region: BoolArray) -> Float32Array:
    size = 2 * _REACH_PX + 1
    weight = ndimage.uniform_filter(region.astype(np.float32), size)
    channels = [
        ndimage.uniform_filter(colours[..., c] * region, size) / np.maximum(weight, 1e-6)
        for c in range(3)
    ]
    return np.asarray(np.stack(channels, axis=-1), dtype=np.float32)
