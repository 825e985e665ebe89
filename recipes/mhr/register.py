"""Lay the free body's mesh on MHR's: pose and shape first, then vertex by vertex.

Non-rigid iterated closest points (Amberg et al., "Optimal step nonrigid ICP algorithms for surface
registration", CVPR 2007), with a Laplacian in the place of affine stiffness: the free body's
own shape space has already brought the surfaces within a centimetre.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, diags
from scipy.sparse.csgraph import laplacian
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from worker.avatar.body.free import free_body
from worker.avatar.body.layout import JOINT_INDEX, NUM_JOINTS
from worker.avatar.body.model import BodyModel
from worker.avatar.export.skinned import vertex_normals
from worker.avatar.types import BoolArray, Float64Array, Gender, Int64Array

POSE_STEPS = 400
STIFFNESS = (300.0, 100.0, 30.0, 10.0, 3.0, 1.0)
"""Of the Laplacian, from stiff to soft; two steps of each."""
FARTHEST_M = 0.03
MIN_COSINE = 0.5
"""A vertex follows a place of the other surface that is this near and faces the same way."""
TRUSTED_M = 0.002
"""What lies further from the surface in the end (mouth, eye sockets, nostrils) has no partner."""


@dataclass(frozen=True, slots=True)
class OnSurface:
    """Places on a mesh's surface."""

    face: Int64Array
    """(N,)."""
    barycentric: Float64Array
    """(N, 3), in 0..1."""
    points: Float64Array
    """(N, 3)."""


class Target:
    """A mesh that is registered to."""

    def __init__(self, vertices: Float64Array, faces: Int64Array) -> None:
        self.vertices, self.faces = vertices, faces
        self.corners = vertices[faces]
        self.normals = vertex_normals(vertices, faces)
        self._vertex_tree = cKDTree(vertices)
        self._centre_tree = cKDTree(self.corners.mean(axis=1))
        a, b, c = (self.corners[:, corner] for corner in range(3))
        normal = np.cross(b - a, c - a)
        size = np.linalg.norm(normal, axis=1, keepdims=True)
        self.face_normals = normal / np.maximum(size, 1e-18)

    def nearest_vertex(self, points: Float64Array) -> Int64Array:
        """The nearest of the mesh's vertices to each of (N, 3)."""
        return np.asarray(self._vertex_tree.query(points)[1], dtype=np.int64)

    def nearest(self, points: Float64Array, normals: Float64Array) -> OnSurface:
        """The nearest place that faces the same way, among the 24 nearest triangles."""
        _, candidates = self._centre_tree.query(points, k=24)
        barycentric, places = closest_on_triangles(points[:, None], self.corners[candidates])
        gap = np.linalg.norm(places - points[:, None], axis=2)
        facing = (self.face_normals[candidates] * normals[:, None]).sum(axis=2) > MIN_COSINE
        best = np.argmin(np.where(facing, gap, gap + 1.0), axis=1)
        rows = np.arange(len(points))
        return OnSurface(candidates[rows, best], barycentric[rows, best], places[rows, best])


def closest_on_triangles(
    points: Float64Array, corners: Float64Array
) -> tuple[Float64Array, Float64Array]:
    """The closest points of triangles, by barycentric coordinates.

    C. Ericson, Real-Time Collision Detection, 2005, section 5.1.5, on all regions at once: of the
    plane's point, where it is inside, else of the closest point on each edge.

    Args:
        points: (N, 1, 3).
        corners: (N, K, 3, 3).

    Returns:
        (N, K, 3) coordinates and (N, K, 3) places.
    """
    a, b, c = (corners[:, :, corner] for corner in range(3))
    ab, ac, ap = b - a, c - a, points - a
    d00, d01, d11 = ((x * y).sum(-1) for x, y in ((ab, ab), (ab, ac), (ac, ac)))
    d20, d21 = (ap * ab).sum(-1), (ap * ac).sum(-1)
    scale = np.maximum(d00 * d11 - d01 * d01, 1e-18)
    v, w = (d11 * d20 - d01 * d21) / scale, (d00 * d21 - d01 * d20) / scale
    options = [np.stack((1 - v - w, v, w), axis=-1)]
    allowed = [(v >= 0) & (w >= 0) & (v + w <= 1)]
    for start, end in ((0, 1), (1, 2), (2, 0)):
        edge = corners[:, :, end] - corners[:, :, start]
        along = ((points - corners[:, :, start]) * edge).sum(-1) / np.maximum(
            (edge * edge).sum(-1), 1e-18
        )
        along = along.clip(0, 1)
        coordinates = np.zeros_like(options[0])
        coordinates[..., start], coordinates[..., end] = 1 - along, along
        options.append(coordinates)
        allowed.append(np.ones_like(allowed[0]))
    places = [np.einsum("nkc,nkcd->nkd", option, corners) for option in options]
    gaps = np.stack([np.linalg.norm(place - points, axis=-1) for place in places])
    best = np.argmin(np.where(np.stack(allowed), gaps, np.inf), axis=0)
    pick = best[None, ..., None]
    return (
        np.take_along_axis(np.stack(options), pick, axis=0)[0],
        np.take_along_axis(np.stack(places), pick, axis=0)[0],
    )


def pose_onto(target: Target) -> Float64Array:
    """Pose and shape the neutral free body so that it lies along the target: (V, 3)."""
    body = BodyModel(free_body(Gender.NEUTRAL), num_betas=40, dtype=torch.float64)
    pose = torch.zeros(1, NUM_JOINTS, 3, dtype=torch.float64)
    for side, sense in (("left", -1), ("right", 1)):
        pose[0, JOINT_INDEX[f"{side}_shoulder"], 2] = sense * np.deg2rad(45.0)
    betas = torch.zeros(1, body.num_betas, dtype=torch.float64)
    with torch.no_grad():
        start = body(betas, pose, torch.zeros(1, 3, dtype=torch.float64)).vertices[0].numpy()
    middle = (target.vertices.max(0) + target.vertices.min(0) - start.max(0) - start.min(0)) / 2
    transl = torch.tensor(middle)[None]
    unknowns = [tensor.requires_grad_() for tensor in (betas, pose, transl)]
    optimiser = torch.optim.Adam(unknowns, lr=0.02)
    goal = torch.tensor(target.vertices)
    faces = np.asarray(body.data.faces)
    for step in range(POSE_STEPS):
        vertices = body(betas, pose, transl).vertices[0]
        ours = vertices.detach().numpy()
        there = target.nearest_vertex(ours)
        normals = vertex_normals(ours, faces)
        alike = (normals * target.normals[there]).sum(axis=1) > MIN_COSINE
        back = np.asarray(cKDTree(ours).query(target.vertices[::3])[1])
        loss = _robust(vertices[alike] - goal[there][alike]).mean()
        loss = loss + _robust(vertices[back] - goal[::3]).mean()
        loss = loss + 2e-6 * (betas**2).sum() + 1e-4 * (pose[:, 25:] ** 2).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step == POSE_STEPS // 2:
            for group in optimiser.param_groups:
                group["lr"] = 0.005
    placed: Float64Array = body(betas, pose, transl).vertices[0].detach().numpy()
    return placed


def _robust(apart: torch.Tensor, scale_m: float = 0.03) -> torch.Tensor:
    square = (apart * apart).sum(dim=1)
    return square * scale_m**2 / (square + scale_m**2)


def drape(start: Float64Array, faces: Int64Array, target: Target) -> tuple[Float64Array, BoolArray]:
    """Move vertices (V, 3) onto the target, smoothly.

    Returns:
        (V, 3) where they are, and (V,) which of them lie on it.
    """
    places = start.copy()
    count = len(places)
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    links = coo_matrix((np.ones(len(edges)), edges.T), shape=(count, count)).tocsr()
    links = ((links + links.T) > 0).astype(np.float64)
    smooth = laplacian(links, normed=True)
    smooth = (smooth.T @ smooth).tocsc()
    for stiffness in STIFFNESS:
        for _ in range(2):
            normals = vertex_normals(places, faces)
            found = target.nearest(places, normals)
            gap = np.linalg.norm(found.points - places, axis=1)
            facing = (target.face_normals[found.face] * normals).sum(axis=1) > MIN_COSINE
            weight = (facing & (gap < FARTHEST_M)).astype(np.float64)
            system = (diags(weight) + stiffness * smooth + diags(np.full(count, 1e-6))).tocsc()
            solve = splu(system)
            moved = weight[:, None] * (found.points - places)
            # The whole displacement from the start is smooth, not each step's.
            pull = moved + weight[:, None] * (places - start)
            places = start + np.column_stack([solve.solve(column) for column in pull.T])
    found = target.nearest(places, vertex_normals(places, faces))
    return places, np.linalg.norm(found.points - places, axis=1) < TRUSTED_M


def vertices_of(arrays: NDArray[np.floating]) -> Float64Array:
    """As float64, in C order."""
    return np.ascontiguousarray(arrays, dtype=np.float64)
