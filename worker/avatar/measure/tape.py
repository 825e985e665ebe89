"""A tape measure: around a section, and along straight pieces between points.

A tape under light tension bridges hollows, so a girth is the perimeter of the convex hull of
a section and not the length of its outline.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.spatial import ConvexHull, QhullError

from worker.avatar.types import Float64Array
from worker.errors import FitFailed


@dataclass(frozen=True, slots=True)
class Tape:
    """A length and the polyline along which it was read."""

    length_m: float
    curve: Float64Array
    """(N, 3) metres."""


TapeAt = Callable[[float], Tape]
"""A tape as a function of the level at which it is laid."""


def plane_basis(normal: Float64Array) -> Float64Array:
    """(2, 3): two unit vectors that span the plane across `normal` (3,), unit length.

    T. Duff et al., "Building an orthonormal basis, revisited", JCGT 6(1), 2017.
    """
    x, y, z = normal
    sign = math.copysign(1.0, z)
    a = -1.0 / (sign + z)
    b = x * y * a
    return np.array([[1.0 + sign * x * x * a, sign * b, -sign * x], [b, sign + y * y * a, -y]])


def girth(points: Float64Array, normal: Float64Array, *, what: str) -> Tape:
    """The tape around the points of a plane section.

    Args:
        points: (P, 3) metres, all in one plane.
        normal: (3,) unit vector across that plane.
        what: the measurement's name, for the error.

    Raises:
        FitFailed: there is no section there, or it has no area.
    """
    try:
        hull = ConvexHull(points @ plane_basis(normal).T)
    except (QhullError, ValueError) as error:
        raise FitFailed(f"The body cannot be measured: no section for {what}.") from error
    ring = points[np.append(hull.vertices, hull.vertices[0])]
    return Tape(float(hull.area), ring)  # in the plane, Qhull's area is the perimeter


def fullest(tape_at: TapeAt, low: float, high: float) -> Tape:
    """The longest tape between two levels.

    Nine levels find the place and two rounds of seven narrow it down: a girth has one broad
    maximum in the windows that we sweep, and its level is then known to 1/72 of the window.
    """
    return _search(tape_at, low, high, sign=1.0)


def narrowest(tape_at: TapeAt, low: float, high: float) -> Tape:
    """The shortest tape between two levels; see `fullest`."""
    return _search(tape_at, low, high, sign=-1.0)


def _search(tape_at: TapeAt, low: float, high: float, *, sign: float) -> Tape:
    found: list[Tape] = []
    for count in (9, 7, 7):
        levels = np.linspace(low, high, count)
        tapes = [tape_at(float(level)) for level in levels]
        best = int(np.argmax([sign * tape.length_m for tape in tapes]))
        found.append(tapes[best])
        low, high = float(levels[max(best - 1, 0)]), float(levels[min(best + 1, count - 1)])
    return max(found, key=lambda tape: sign * tape.length_m)


def polyline(*points: Float64Array) -> Tape:
    """The tape along straight pieces between points, each (3,) in metres."""
    curve = np.stack(points)
    return Tape(float(np.linalg.norm(np.diff(curve, axis=0), axis=1).sum()), curve)
