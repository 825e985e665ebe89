"""Plane sections of a triangle mesh whose topology is known beforehand.

The topology is prepared once per body model; a section of one body is then a comparison over
its edges, about 0.1 ms, so that girths can be swept.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from worker.avatar.types import BoolArray, Float64Array

IntArray = NDArray[np.int64]


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
        self, vertices: Float64Array, heights: Float64Array, level: float, point: Float64Array
    ) -> Float64Array:
        """The one connected outline of the section that passes closest to `point` (3,).

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
        _, outline = connected_components(graph, directed=False)
        nearest = np.argmin(((points - point) ** 2).sum(axis=1))
        chosen: Float64Array = points[outline == outline[nearest]]
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
