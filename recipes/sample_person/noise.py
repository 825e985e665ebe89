"""Smooth random fields in space, the same on every machine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def noise(points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Value noise about -1..1 at `points` (N, 3), one feature a unit: trilinear, C1."""
    cell = np.floor(points).astype(np.int64)
    t = points - cell
    t = t * t * (3 - 2 * t)
    total = np.zeros(len(points))
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(np.array(corner, bool), t, 1 - t), axis=1)
        total += weight * _lattice(cell + np.array(corner))
    return total


def layered(points: NDArray[np.floating], octaves: int) -> NDArray[np.float64]:
    """Noise of several scales, each half as large and half as strong as the one before."""
    total = np.zeros(len(points))
    for k in range(octaves):
        total += noise(points * 2.0**k + 17.3 * k) / 2.0**k
    return total


def _lattice(cell: NDArray[np.int64]) -> NDArray[np.float64]:
    """A number in -1..1 for each lattice point, by integer hashing."""
    mixed = cell.astype(np.uint64) * np.array([0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D], np.uint64)
    h = mixed[:, 0] ^ mixed[:, 1] ^ mixed[:, 2]
    h ^= h >> np.uint64(15)
    h *= np.uint64(0x2C1B3C6D)
    h &= np.uint64(0xFFFFFFFF)
    h ^= h >> np.uint64(12)
    h *= np.uint64(0x297A2D39)
    h &= np.uint64(0xFFFFFFFF)
    h ^= h >> np.uint64(15)
    return h.astype(np.float64) / 2147483647.5 - 1.0
