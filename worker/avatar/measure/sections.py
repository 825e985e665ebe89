"""Plane sections of a triangle mesh whose topology is known beforehand.

The topology is prepared once per body model; a section of one body is then a comparison over
its edges, about 0.1 ms, so that girths can be swept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from worker.avatar.measure.tape import plane_basis
from worker.avatar.types import BoolArray, Float64Array

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Bone:
    """A line along which a limb runs."""

    start: Float64Array
    """(3,) metres."""
    along: Float64Array
    """(3,) unit vector."""

    def lies_in(self, outline: Float64Array) -> bool:
        """Whether points (P, 3) of a plane across the bone stand all around it.

        They do where nowhere half a turn is free of them: then their hull holds the bone.
        """
        x, y = plane_basis(self.along) @ (outline - self.start).T
        turns = np.sort(np.arctan2(y, x))
        return bool(np.diff(turns, append=turns[0] + 2.0 * np.pi).max() < np.pi)


class Surface:
    """The edges of a mesh, or of the part of it that `keep` names.

    Args:
        faces: (F, 3) vertex indices.
        keep: (V,) vertices of the part; a face belongs to it with all its vertices.

    Attributes:
        edges: (E, 2) vertex indices, each edge once.
        face_edges: (F', 3) the edges of each face of the part.
    """

    def __init__(self, faces: NDArray[np.integer], keep: BoolArray) -> None:
        part = np.asarray(faces, dtype=np.int64)
        part = part[keep[part].all(axis=1)]
        sides = np.sort(np.concatenate([part[:, [0, 1]], part[:, [1, 2]], part[:, [2, 0]]]), axis=1)
        codes, inverse = np.unique(sides[:, 0] * len(keep) + sides[:, 1], return_inverse=True)
        self.edges: IntArray = np.stack([codes // len(keep), codes % len(keep)], axis=1)
        self.face_edges: IntArray = inverse.reshape(3, -1).T

    def section(self, vertices: Float64Array, heights: Float64Array, level: float) -> Float64Array:
        """The points where edges cross the plane `heights == level`.

        Args:
            vertices: (V, 3) metres.
            heights: (V,) `vertices @ normal`.
            level: on that axis.

        Returns:
            (P, 3) metres, without order.
        """
        crossing = self._crossing(heights, level)
        return self._points(vertices, heights, level, np.flatnonzero(crossing))

    def section_near(
        self,
        vertices: Float64Array,
        heights: Float64Array,
        level: float,
        point: Float64Array,
        *,
        bone: Bone | None = None,
    ) -> Float64Array:
        """The one connected outline of the section that passes closest to `point` (3,).

        Args:
            vertices: (V, 3) metres.
            heights: (V,) `vertices @ normal`.
            level: on that axis.
            point: of the skin.
            bone: outlines that surround it come before all others: a point of the skin may stand
                on a bump that the plane cuts off by itself.  The plane lies across it.

        Returns:
            (P, 3) metres, without order; empty when the plane misses the part.
        """
        crossing = self._crossing(heights, level)
        index = np.flatnonzero(crossing)
        if not len(index):
            return np.empty((0, 3))
        points = self._points(vertices, heights, level, index)
        number = np.cumsum(crossing) - 1  # of each crossing edge among the points
        cut = self.face_edges[crossing[self.face_edges].sum(axis=1) == 2]
        pairs = number[cut[crossing[cut]].reshape(-1, 2)]
        graph = coo_matrix((np.ones(len(pairs)), pairs.T), shape=(len(index), len(index)))
        count, outline = connected_components(graph, directed=False)
        apart = ((points - point) ** 2).sum(axis=1)
        if bone is not None:
            around = np.array([bone.lies_in(points[outline == each]) for each in range(count)])
            apart[~around[outline]] += np.ptp(apart) + 1.0
        chosen: Float64Array = points[outline == outline[np.argmin(apart)]]
        return chosen

    def _crossing(self, heights: Float64Array, level: float) -> BoolArray:
        above = heights > level  # a vertex in the plane counts as below: no edge crosses twice
        crossing: BoolArray = above[self.edges[:, 0]] != above[self.edges[:, 1]]
        return crossing

    def _points(
        self, vertices: Float64Array, heights: Float64Array, level: float, index: IntArray
    ) -> Float64Array:
        start, end = self.edges[index].T
        t = (level - heights[start]) / (heights[end] - heights[start])
        points: Float64Array = vertices[start] + t[:, None] * (vertices[end] - vertices[start])
        return points
