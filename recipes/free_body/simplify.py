"""Fewer triangles for showing: vertices are merged into their neighbours.

Each vertex that is left is one of the body and brings its own weights and shape directions.
Quadric error metrics (Garland & Heckbert 1997) with half-edge collapses; the error is the sum over
several bodies, so that one simplification serves all shapes.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

MIN_NORMAL_COSINE = 0.3
"""A collapse may turn no triangle further than this on any of the bodies."""

MIN_SHAPE = 0.05
"""No triangle thinner: 4√3·area / Σ edge², 1 for an equilateral one."""


class HalfEdgeCollapse:
    """A triangle mesh in several shapes that loses one vertex at a time."""

    def __init__(self, shapes: np.ndarray, faces: np.ndarray, importance: np.ndarray) -> None:
        """Prepare.

        Args:
            shapes: (S, V, 3) the bodies to stay close to.
            faces: (F, 3).
            importance: (V,) factor on the error of moving the surface there.
        """
        self.shapes = shapes
        self.faces = [list(face) for face in faces.tolist()]
        self.alive = [True] * len(faces)
        self.faces_of: list[set[int]] = [set() for _ in range(shapes.shape[1])]
        for index, face in enumerate(self.faces):
            for vertex in face:
                self.faces_of[vertex].add(index)
        self.importance = importance
        self.quadrics = self._quadrics(faces)
        self.fixed = self._boundary()
        self.heap: list[tuple[float, int, int, int]] = []
        self.age = [0] * shapes.shape[1]

    def _quadrics(self, faces: np.ndarray) -> np.ndarray:
        """Sum, at each vertex, the area-weighted planes of its triangles: (S, V, 4, 4)."""
        a, b, c = (self.shapes[:, faces[:, k]] for k in range(3))
        cross = np.cross(b - a, c - a)
        double_area = np.linalg.norm(cross, axis=2, keepdims=True)
        normal = cross / np.maximum(double_area, 1e-12)
        plane = np.concatenate([normal, -(normal * a).sum(axis=2, keepdims=True)], axis=2)
        quadric = np.einsum("sfi,sfj->sfij", plane * double_area, plane)
        sums = np.zeros((*self.shapes.shape[:2], 4, 4))
        for corner in range(3):
            for shape in range(len(self.shapes)):
                np.add.at(sums[shape], faces[:, corner], quadric[shape])
        return sums

    def _boundary(self) -> np.ndarray:
        """Mark vertices on an open edge: they stay, so that openings keep their outline."""
        count: dict[tuple[int, int], int] = {}
        for a, b, c in self.faces:
            for edge in ((a, b), (b, c), (c, a)):
                key = (min(edge), max(edge))
                count[key] = count.get(key, 0) + 1
        fixed = np.zeros(self.shapes.shape[1], dtype=bool)
        for (a, b), uses in count.items():
            if uses != 2:
                fixed[[a, b]] = True
        return fixed

    def neighbours(self, vertex: int) -> set[int]:
        """Give the vertices that share an edge with `vertex`."""
        return {v for f in self.faces_of[vertex] for v in self.faces[f]} - {vertex}

    def _costs(self, gone: int, kept: list[int]) -> np.ndarray:
        """Give the error (n,) of merging `gone` into each of `kept`, over all shapes."""
        quadric = self.quadrics[:, gone, None] + self.quadrics[:, kept]
        place = self.shapes[:, kept]
        point = np.append(place, np.ones((*place.shape[:2], 1)), axis=2)
        error = (point[..., None, :] @ quadric @ point[..., None])[..., 0, 0].sum(axis=0)
        # A little for length keeps flat regions evenly meshed.
        length = ((self.shapes[:, gone, None] - place) ** 2).sum(axis=(0, 2))
        area = np.trace(quadric[..., :3, :3], axis1=2, axis2=3).mean(axis=0)
        cost: np.ndarray = (error + 1e-3 * length * area) * self.importance[gone]
        return cost

    def _allowed(self, gone: int, kept: int, around: set[int]) -> bool:
        shared = self.faces_of[gone] & self.faces_of[kept]
        opposite = {v for f in shared for v in self.faces[f]} - {gone, kept}
        # The link condition: otherwise the surface would touch itself.
        if len(shared) != 2 or len(opposite) != 2 or around & self.neighbours(kept) != opposite:
            return False
        corners = np.array([self.faces[face] for face in self.faces_of[gone] - shared])
        before, after = (
            _triangles(self.shapes, corners),
            _triangles(self.shapes, np.where(corners == gone, kept, corners)),
        )
        turned = (before.normal * after.normal).sum(axis=-1)
        if (turned < MIN_NORMAL_COSINE * before.double_area * after.double_area).any():
            return False
        return bool((after.quality >= np.minimum(MIN_SHAPE, before.quality)).all())

    def run(self, target_faces: int) -> tuple[np.ndarray, np.ndarray]:
        """Collapse the cheapest half-edges until `target_faces` triangles are left.

        Returns:
            Which vertices are kept (Vd,), ascending, and the triangles (Fd, 3) among them.
        """
        for vertex in range(self.shapes.shape[1]):
            self._push(vertex)
        left = sum(self.alive)
        while left > target_faces and self.heap:
            _, gone, kept, stamp = heapq.heappop(self.heap)
            if stamp != self.age[gone]:
                continue
            around = self.neighbours(gone)
            if not self._allowed(gone, kept, around):
                # The surface about `kept` has changed since this entry was made.
                self._push(gone)
                continue
            left -= self._collapse(gone, kept)
            self.age[gone] += 1
            for vertex in around | self.neighbours(kept):
                self.age[vertex] += 1
                self._push(vertex)
        kept_faces = np.array([f for f, alive in zip(self.faces, self.alive, strict=True) if alive])
        index, flat = np.unique(kept_faces, return_inverse=True)
        return index, flat.reshape(-1, 3)

    def _push(self, vertex: int) -> None:
        """Queue the cheapest allowed collapse of `vertex`, if there is one."""
        around = self.neighbours(vertex)
        if self.fixed[vertex] or not around:
            return
        options = sorted(around)
        costs = self._costs(vertex, options)
        for choice in np.argsort(costs, kind="stable"):
            if self._allowed(vertex, options[choice], around):
                entry = (float(costs[choice]), vertex, options[choice], self.age[vertex])
                heapq.heappush(self.heap, entry)
                return

    def _collapse(self, gone: int, kept: int) -> int:
        shared = self.faces_of[gone] & self.faces_of[kept]
        for face in shared:
            self.alive[face] = False
            for vertex in self.faces[face]:
                self.faces_of[vertex].discard(face)
        for face in self.faces_of[gone]:
            self.faces[face] = [kept if v == gone else v for v in self.faces[face]]
            self.faces_of[kept].add(face)
        self.faces_of[gone] = set()
        self.quadrics[:, kept] += self.quadrics[:, gone]
        return len(shared)


@dataclass(frozen=True)
class _Triangles:
    """F triangles in S shapes."""

    normal: np.ndarray
    """(S, F, 3), as long as twice the area."""
    double_area: np.ndarray
    """(S, F)."""
    quality: np.ndarray
    """(S, F) 1 for equilateral, 0 for degenerate ones."""


def _triangles(shapes: np.ndarray, corners: np.ndarray) -> _Triangles:
    a, b, c = (shapes[:, corners[:, k]] for k in range(3))
    u, v, w = b - a, c - a, c - b
    normal = np.stack(
        [
            u[..., 1] * v[..., 2] - u[..., 2] * v[..., 1],
            u[..., 2] * v[..., 0] - u[..., 0] * v[..., 2],
            u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0],
        ],
        axis=-1,
    )
    double_area = np.sqrt((normal**2).sum(axis=-1))
    edges = (u**2 + v**2 + w**2).sum(axis=-1)
    return _Triangles(normal, double_area, 2 * np.sqrt(3) * double_area / np.maximum(edges, 1e-18))
