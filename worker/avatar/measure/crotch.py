"""The crotch: the lowest point of the trunk between the legs.

A fixed vertex drifts when hips and thighs change, and a lowest point in space finds thighs that
touch.  The midline of the skin does neither: it is a loop of vertices, the same on every body,
that runs over crown, belly, perineum and back and never over a leg.  Its lowest vertex is where
a ruler pressed up between the legs would stop.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from worker.avatar.measure.sections import IntArray
from worker.avatar.types import BoolArray, Float64Array
from worker.errors import FitFailed, ModelInvalid

MIDLINE_M = 0.002
"""Vertices of the template this close to the plane of symmetry are the midline."""


def midline(template: NDArray[np.floating], edges: IntArray) -> IntArray:
    """The vertices of the trunk's midline.

    Args:
        template: (V, 3) metres; the plane of symmetry is x = 0.
        edges: (E, 2) of the trunk.

    Raises:
        ModelInvalid: the template has no midline.
    """
    trunk = np.unique(edges)
    found: IntArray = trunk[np.abs(template[trunk, 0]) < MIDLINE_M]
    if not len(found):
        raise ModelInvalid("The body's template has no vertex on its plane of symmetry.")
    return found


def leg_below(
    heights: Float64Array, edges: IntArray, level: float, foot: int, other: int
) -> BoolArray:
    """The vertices (V,) of one leg below the crotch.

    The search follows the mesh's edges and not its shape in space, so thighs that touch or
    overlap stay two legs.

    Args:
        heights: (V,) metres.
        edges: (E, 2) of trunk and legs.
        level: of the crotch.
        foot: a vertex of that leg's foot.
        other: a vertex of the other foot.

    Raises:
        FitFailed: below that level the legs are still one.
    """
    count = len(heights)
    below = edges[(heights[edges] < level).all(axis=1)]
    graph = coo_matrix((np.ones(len(below)), below.T), shape=(count, count))
    _, label = connected_components(graph, directed=False)
    if label[foot] == label[other]:
        raise FitFailed("The body cannot be measured: its legs do not part below the crotch.")
    leg: BoolArray = label == label[foot]
    return leg
