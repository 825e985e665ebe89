"""The crotch: where the surface of the two legs joins.

A fixed vertex drifts when hips and thighs change, so the crotch is found on every body.  Let
water rise from the floor over the surface: the two feet lie in separate pools until, at one
vertex, the pools meet.  That vertex is the lowest point of the trunk between the legs, a saddle
of the height function, and the pools just below it are the two legs.  The search follows the
mesh's edges and not its shape in space, so thighs that touch do not raise it.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import (
    breadth_first_order,
    connected_components,
    minimum_spanning_tree,
)

from worker.avatar.measure.sections import IntArray
from worker.avatar.types import BoolArray, Float64Array
from worker.errors import FitFailed


def find_crotch(heights: Float64Array, edges: IntArray, left: int, right: int) -> int:
    """The vertex where the legs join.

    The path between the feet whose highest vertex is lowest runs in a minimum spanning tree of
    the edges, each weighing its upper end (the bottleneck property of spanning trees).

    Args:
        heights: (V,) metres above the floor.
        edges: (E, 2) of trunk and legs.
        left: a vertex of one foot.
        right: a vertex of the other.

    Raises:
        FitFailed: no path joins the feet.
    """
    count = len(heights)
    upper = heights[edges].max(axis=1) - heights.min() + 1.0  # csgraph reads 0 as no edge
    tree = minimum_spanning_tree(coo_matrix((upper, edges.T), shape=(count, count)).tocsr())
    _, before = breadth_first_order(tree, left, directed=False, return_predecessors=True)
    path = [right]
    while path[-1] != left:
        step = int(before[path[-1]])
        if step < 0:
            raise FitFailed("The body cannot be measured: its legs do not join.")
        path.append(step)
    return path[int(np.argmax(heights[path]))]


def leg_below(heights: Float64Array, edges: IntArray, crotch: int, foot: int) -> BoolArray:
    """The vertices (V,) of the leg that ends in `foot`, up to the crotch."""
    count = len(heights)
    below = edges[(heights[edges] < heights[crotch]).all(axis=1)]
    graph = coo_matrix((np.ones(len(below)), below.T), shape=(count, count))
    _, label = connected_components(graph, directed=False)
    leg: BoolArray = label == label[foot]
    return leg
