"""sRGB, linear light and CIELAB, each an array with the channels last.

sRGB: IEC 61966-2-1.  CIELAB: CIE 15:2004 with the D65 white that sRGB has.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Rgb = tuple[int, int, int]
"""sRGB, 0..255."""

_XYZ_FROM_LINEAR = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
_WHITE = _XYZ_FROM_LINEAR.sum(axis=1)
_CUT = 6.0 / 29.0
"""Where CIELAB's cube root turns into a line."""


def linear_from_srgb(srgb: NDArray[Any]) -> NDArray[np.float64]:
    """Take sRGB 0..1 to linear light 0..1."""
    value = np.asarray(srgb, dtype=np.float64)
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def srgb_from_linear(linear: NDArray[Any]) -> NDArray[np.float64]:
    """Take linear light to sRGB, both clipped to 0..1."""
    value = np.clip(np.asarray(linear, dtype=np.float64), 0.0, 1.0)
    return np.where(value <= 0.0031308, value * 12.92, 1.055 * value ** (1 / 2.4) - 0.055)


def lab_from_srgb(srgb: NDArray[Any]) -> NDArray[np.float64]:
    """Take sRGB 0..1 to CIELAB: L 0..100, a towards red, b towards yellow."""
    relative = linear_from_srgb(srgb) @ _XYZ_FROM_LINEAR.T / _WHITE
    f = np.where(relative > _CUT**3, np.cbrt(relative), relative / (3.0 * _CUT**2) + 4.0 / 29.0)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack((116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)), axis=-1)


def srgb_from_lab(lab: NDArray[Any]) -> NDArray[np.float64]:
    """Take CIELAB to sRGB 0..1; what lies outside sRGB is clipped."""
    value = np.asarray(lab, dtype=np.float64)
    y = (value[..., 0] + 16.0) / 116.0
    f = np.stack((y + value[..., 1] / 500.0, y, y - value[..., 2] / 200.0), axis=-1)
    relative = np.where(f > _CUT, f**3, 3.0 * _CUT**2 * (f - 4.0 / 29.0))
    return srgb_from_linear(relative * _WHITE @ np.linalg.inv(_XYZ_FROM_LINEAR).T)


def hex_of(rgb: Rgb) -> str:
    """Write a colour as the web does: `#rrggbb`."""
    return "#{:02x}{:02x}{:02x}".format(*rgb)
