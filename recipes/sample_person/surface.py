"""Triangle surfaces that remember where on the undressed body they came from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
import trimesh
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Surface:
    """A mesh in the pose of the photo, with the T-pose position of each vertex."""

    points: FloatArray
    """(V, 3) metres, y up, posed."""
    rest: FloatArray
    """(V, 3) metres, the same vertices of the undressed body in T-pose: what cuts and paints."""
    faces: IntArray
    """(F, 3) vertex indices, counter-clockwise from outside."""

    def normals(self) -> FloatArray:
        """Unit normals of the vertices, (V, 3), weighted by the area of the faces."""
        corner = self.points[self.faces]
        across = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
        total = np.zeros_like(self.points)
        for k in range(3):
            np.add.at(total, self.faces[:, k], across)
        return unit(total)

    def subdivided(self) -> Surface:
        """Each triangle made four by Loop's rule, which rounds the facets off."""
        points, faces = trimesh.remesh.subdivide_loop(self.points, self.faces, iterations=1)
        rest, _ = trimesh.remesh.subdivide_loop(self.rest, self.faces, iterations=1)
        return Surface(points, rest, np.asarray(faces, dtype=np.int64))

    def cut(self, keep: FloatArray) -> Surface:
        """Keep the part where `keep` (V,), read as linear within each triangle, is positive.

        Triangles that the zero line crosses are split along it, so a hem is a clean curve.
        """
        inside = keep > 0
        count = inside[self.faces].sum(axis=1)
        edges = np.concatenate([self.faces[:, (k, (k + 1) % 3)] for k in range(3)])
        edges = np.sort(edges[inside[edges[:, 0]] != inside[edges[:, 1]]], axis=1)
        edges = np.unique(edges, axis=0)
        low, high = edges.T
        t = (keep[low] / (keep[low] - keep[high]))[:, None]
        span = len(self.points)
        keys = low * span + high

        def crossing(a: IntArray, b: IntArray) -> IntArray:
            """Index of the new vertex on each edge a-b, shared by both of its triangles."""
            return span + np.searchsorted(keys, np.minimum(a, b) * span + np.maximum(a, b))

        pieces = [self.faces[count == 3]]
        for lone_inside in (True, False):
            crossed = self.faces[count == (1 if lone_inside else 2)]
            # Turn each triangle so that its odd corner comes first; order keeps the winding.
            odd = np.argmax(inside[crossed] == lone_inside, axis=1)
            a, b, c = np.take_along_axis(crossed, (odd[:, None] + np.arange(3)) % 3, axis=1).T
            ab, ac = crossing(a, b), crossing(a, c)
            if lone_inside:
                pieces.append(np.stack((a, ab, ac), axis=1))
            else:
                pieces += [np.stack((ab, b, c), axis=1), np.stack((ab, c, ac), axis=1)]
        return Surface(
            np.concatenate((self.points, self.points[low] * (1 - t) + self.points[high] * t)),
            np.concatenate((self.rest, self.rest[low] * (1 - t) + self.rest[high] * t)),
            np.concatenate(pieces),
        ).compact()

    def compact(self) -> Surface:
        """Drop the vertices that no face uses."""
        used, index = np.unique(self.faces, return_inverse=True)
        return Surface(self.points[used], self.rest[used], index.reshape(-1, 3))

    def parts(self) -> list[Surface]:
        """Its connected parts, the smallest first."""
        start, end = self.faces[:, (0, 1)].ravel(), self.faces[:, (1, 2)].ravel()
        link = sp.coo_array((np.ones(len(start)), (start, end)), shape=(len(self.points),) * 2)
        count, label = connected_components(link, directed=False)
        owner = label[self.faces[:, 0]]
        found = [replace(self, faces=self.faces[owner == k]).compact() for k in range(count)]
        return sorted(found, key=lambda part: len(part.points))

    def moved(self, points: FloatArray) -> Surface:
        """The same surface with its vertices elsewhere."""
        return replace(self, points=points)

    def averaging(self) -> sp.csr_array:
        """(V, V) matrix that replaces each vertex by the mean of its neighbours and itself."""
        count = len(self.points)
        start, end = self.faces[:, (0, 1, 2)].ravel(), self.faces[:, (1, 2, 0)].ravel()
        ones = np.ones(len(start))
        link = sp.coo_array((ones, (start, end)), shape=(count, count))
        link = ((link + link.T) > 0).astype(np.float64) + sp.eye_array(count)
        return sp.csr_array(sp.diags_array(1.0 / np.asarray(link.sum(axis=1)).ravel()) @ link)


def unit(vectors: FloatArray) -> FloatArray:
    """Vectors of length one, zero where the length was zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def smoothed(averaging: sp.csr_array, values: FloatArray, times: int) -> FloatArray:
    """Apply the matrix `times` times to (V,) or (V, C) values."""
    for _ in range(times):
        values = averaging @ values
    return values
