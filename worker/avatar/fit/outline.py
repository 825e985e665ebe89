"""The outline of the posed body, and which of its points belong to which of the photo's.

A body's outline runs along edges between a face that looks at the camera and one that looks
away.  Such edges also lie inside the silhouette, where an arm crosses the trunk; those are
told apart by looking whether the pixel just outside the edge is covered by the body.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from worker.avatar.fit.evidence import Contour, features
from worker.avatar.raster import layers
from worker.avatar.types import BoolArray, Float64Array, Int64Array

_RASTER_SCALE = 0.8
"""Pixels of the coverage test in a working pixel."""
_PROBE_PX = 2.5
"""How far outside an edge coverage is looked up, working pixels: over one pixel of the raster."""
_BEHIND_PX = (0.4, 4.0)
"""An edge with another this far outside of it, and no farther, is not the outline: in profile
one hip all but hides the other, nearer than coverage is probed."""
_BESIDE_PX = 2.0
"""How far along the outline that other edge may pass."""
_SAMPLES_AN_EDGE = 5
_SAME_DIRECTION = 0.6
"""Cosine below which two outline points cannot be the same."""
_SAME_DIRECTION_RAMP = 0.4
"""Over which cosines, around that one, a pair comes to count for nothing."""
_RADIUS_RAMP = 0.4
"""Over which distances, around the radius and in shares of it, it does so."""


@dataclass(frozen=True, slots=True)
class Outline:
    """Points on the body's outer edges in one view."""

    edges: Int64Array
    """(E, 2) vertices whose middle each point is."""
    points: Float64Array
    """(E, 2) working pixels."""
    normals: Float64Array
    """(E, 2) outwards."""
    length: Float64Array
    """(E,) of the edge on the image."""


@dataclass(frozen=True, slots=True)
class Matches:
    """Pairs of the body's edges and places on the photo's outline, one view."""

    edges: Int64Array
    """(M, 2) vertices."""
    points: Float64Array
    """(M, 2) where their middle should be."""
    normals: Float64Array
    """(M, 2) outward normals of the photo's outline there: distance counts along these."""
    bare: Float64Array
    """(M,) probability that the photo shows skin there."""
    weight: Float64Array
    """(M,) how much of the outlines each pair stands for: of the body's and of the photo's 1
    each, less what found no counterpart."""


class OutlineFinder:
    """Finds the outline of one mesh; holds its edges.

    Args:
        faces: (F, 3) int64 of a mesh whose faces wind counter-clockwise seen from outside.
    """

    def __init__(self, faces: Tensor) -> None:
        self._corners = tuple(faces.T.contiguous())
        edges, sides, self._forward = _edges(faces)
        self._ends, self._sides = tuple(edges.T.contiguous()), tuple(sides)

    def find(self, uv: Tensor) -> Outline:
        """Trace the outline of vertices that lie at `uv` (V, 2), working pixels."""
        columns = uv.T.contiguous()
        first, last, closed = self._border(columns)
        start, end = (
            torch.stack([column.index_select(0, ends) for column in columns], dim=1)
            for ends in (first, last)
        )
        middle, along = 0.5 * (start + end), end - start
        length = along.norm(dim=1)
        normal = torch.stack((-along[:, 1], along[:, 0]), dim=1) / length.clamp(min=1e-9)[:, None]
        covered = _covered(columns, start, end, middle + _PROBE_PX * normal)
        outer = ~covered & (length > 1e-6) & closed
        middles, normals, starts, ends = (
            part[outer].cpu().numpy() for part in (middle, normal, start, end)
        )
        kept = _outermost(middles, normals, starts, ends)
        return Outline(
            edges=torch.stack((first, last), dim=1)[outer].cpu().numpy()[kept],
            points=middles[kept],
            normals=normals[kept],
            length=length[outer].cpu().numpy()[kept],
        )

    def _border(self, columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Where the faces that look at the camera end.

        Args:
            columns: (2, V) x and y of all vertices.

        Returns:
            Vertices (E,) where each edge begins and where it ends, run along so that the face that
            looks at the camera is always on the same hand, and what is outside on the other; and
            whether the surface goes on there (E,).
        """
        # Picking from one column at a time is four times as fast as picking rows.
        x, y = ([column.index_select(0, corner) for corner in self._corners] for column in columns)
        # Rows grow downwards, so a face that looks at the camera winds the other way.
        facing = (x[1] - x[0]) * (y[2] - y[0]) - (y[1] - y[0]) * (x[2] - x[0]) < 0
        # Where a surface ends, nothing is on its other side, and that looks nowhere.
        looks = torch.cat((facing, facing.new_zeros(1)))
        here, there = (looks.index_select(0, side) for side in self._sides)
        turns = torch.nonzero(here != there).squeeze(1)
        one, other, beyond, forward, ours = (
            each.index_select(0, turns)
            for each in (*self._ends, self._sides[1], self._forward, here)
        )
        along_it = forward == ours
        first, last = torch.where(along_it, one, other), torch.where(along_it, other, one)
        return first, last, beyond < len(facing)


def _covered(columns: Tensor, start: Tensor, end: Tensor, probes: Tensor) -> Tensor:
    """(E,) whether the body covers the probed working pixels.

    Args:
        columns: (2, V) x and y of all vertices.
        start: (E, 2) where edges of the border of what looks at the camera begin,
        end: (E, 2) and where they end.
        probes: (E, 2).
    """
    low = torch.minimum(columns.amin(dim=1), probes.amin(dim=0))
    high = torch.maximum(columns.amax(dim=1), probes.amax(dim=0))
    # A wild step must not ask for a raster of gigabytes.
    width, height = (((high - low) * _RASTER_SCALE).clamp(max=4096).to(torch.int64) + 1).tolist()
    # Faces that look at the camera wind against the clock: their border is run along backwards.
    begins, ends = (((each - low) * _RASTER_SCALE).to(torch.float32) for each in (end, start))
    covered = layers(begins, ends, height, width) > 0
    at = ((probes - low) * _RASTER_SCALE).to(torch.int64)
    return covered[at[:, 1].clamp(0, height - 1), at[:, 0].clamp(0, width - 1)]


@lru_cache(maxsize=2)
def outline_finder(faces: Tensor) -> OutlineFinder:
    """Give the finder of a mesh (F, 3); it is prepared once and shared."""
    with torch.inference_mode(mode=False):
        return OutlineFinder(faces)


def match(outline: Outline, contour: Contour, radius_px: float) -> Matches:
    """Pair the body's outline with the photo's, both ways, by length.

    Nothing here jumps when the body moves a hair, or the fit would never come to rest: samples
    at even distances along the body's outline would all change when one edge more is in it, and
    a pair that is dropped whole at some distance is there in one step and not in the next.

    Args:
        outline: of the body as it stands now.
        contour: of the photo.
        radius_px: pairs farther apart do not count; shrinks as the fit closes in.
    """
    if len(outline.edges) == 0:
        nowhere = np.zeros((0, 2))
        return Matches(np.zeros((0, 2), np.int64), nowhere, nowhere, np.zeros(0), np.zeros(0))
    own = features(outline.points, outline.normals)
    _, there = contour.tree.query(own)
    _, here = cKDTree(own).query(features(contour.points, contour.normals))
    body = np.concatenate((np.arange(len(own), dtype=np.int64), np.asarray(here, dtype=np.int64)))
    photo = np.concatenate((np.asarray(there), np.arange(len(contour.points))))
    weight = np.concatenate(
        (
            outline.length / outline.length.sum(),
            np.full(len(contour.points), 1.0 / len(contour.points)),
        )
    )
    apart = np.linalg.norm(outline.points[body] - contour.points[photo], axis=1)
    agree = (outline.normals[body] * contour.normals[photo]).sum(axis=1)
    near = (1.0 - apart / radius_px) / _RADIUS_RAMP + 0.5
    along = (agree - _SAME_DIRECTION) / _SAME_DIRECTION_RAMP + 0.5
    weight *= near.clip(0.0, 1.0) * along.clip(0.0, 1.0)
    kept = weight > 0.0
    body, photo = body[kept], photo[kept]
    return _pooled(outline, contour, body, photo, weight[kept])


def _pooled(
    outline: Outline,
    contour: Contour,
    body: Int64Array,
    photo: Int64Array,
    weight: Float64Array,
) -> Matches:
    """Join the pairs (P,) of each edge to one, at the mean of their places: half the work.

    Args:
        outline: of the body,
        contour: and of the photo.
        body: (P,) points of the one,
        photo: (P,) and of the other.
        weight: (P,) how much of the outlines each pair stands for.
    """
    total = np.bincount(body, weight, minlength=len(outline.edges))
    edges = np.flatnonzero(total)
    weight_of = np.asarray(total[edges], dtype=np.float64)

    def mean(values: Float64Array) -> Float64Array:
        summed = np.bincount(body, weight * values[photo], minlength=len(total))
        return np.asarray(summed[edges] / weight_of, dtype=np.float64)

    points = np.stack([mean(column) for column in contour.points.T], axis=1)
    normals = np.stack([mean(column) for column in contour.normals.T], axis=1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return Matches(outline.edges[edges], points, normals, mean(contour.bare), weight_of)


def _outermost(
    points: Float64Array, normals: Float64Array, start: Float64Array, end: Float64Array
) -> BoolArray:
    """(E,) the edges that no other edge of the outline lies just outside of.

    Args:
        points: (E, 2) middles of the edges.
        normals: (E, 2) outwards.
        start: (E, 2) ends of the edges,
        end: (E, 2) and their other ends.
    """
    kept = np.ones(len(points), dtype=bool)
    share = np.linspace(0.0, 1.0, _SAMPLES_AN_EDGE)[:, None]
    samples = (start[:, None] * (1.0 - share) + end[:, None] * share).reshape(-1, 2)
    nearest, farthest = _BEHIND_PX
    # What is asked about is a box outside of each point: the circle around the box, not that
    # around the point, holds a third of the pairs.
    boxes = points + 0.5 * (nearest + farthest) * normals
    reach = math.hypot(0.5 * (farthest - nearest), _BESIDE_PX)
    # A tree that is asked once is not worth balancing.
    trees = [cKDTree(each, balanced_tree=False, compact_nodes=False) for each in (boxes, samples)]
    pairs = trees[0].sparse_distance_matrix(trees[1], reach, output_type="ndarray")
    own, other = (np.ascontiguousarray(pairs[end]) for end in ("i", "j"))
    # By columns: ten thousand short rows are what takes the time here.
    normal_x, normal_y = (np.ascontiguousarray(column) for column in normals.T)
    apart_x, apart_y = (
        np.ascontiguousarray(samples[:, axis])[other] - np.ascontiguousarray(points[:, axis])[own]
        for axis in (0, 1)
    )
    outside = apart_x * normal_x[own] + apart_y * normal_y[own]
    behind = np.flatnonzero((outside > nearest) & (outside < farthest))
    own, apart_x, apart_y = own[behind], apart_x[behind], apart_y[behind]
    beside = np.abs(apart_x * normal_y[own] - apart_y * normal_x[own])
    against = other[behind] // _SAMPLES_AN_EDGE
    agree = normal_x[own] * normal_x[against] + normal_y[own] * normal_y[against]
    kept[own[(beside < _BESIDE_PX) & (agree > _SAME_DIRECTION)]] = False
    return kept


def _edges(faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Edges (E, 2), the faces (2, E) beside them, and whether the first runs along them (E,).

    An edge of one face alone, where the surface ends, has the number of faces as its second.
    """
    directed = torch.cat((faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]))
    owner = torch.arange(len(faces), device=faces.device).repeat(3)
    forward = directed[:, 0] < directed[:, 1]
    ends = directed.sort(dim=1).values
    key, order = torch.sort(ends[:, 0] * (int(faces.max()) + 1) + ends[:, 1], stable=True)
    ends, owner, forward = ends[order], owner[order], forward[order]
    same = key[1:] == key[:-1]
    no = same.new_zeros(1)
    # The second face of an edge follows its first; who follows nobody is a first.
    first = torch.nonzero(~torch.cat((no, same))).squeeze(1)
    shared = torch.cat((same, no))[first]
    second = torch.where(shared, owner[(first + 1).clamp(max=len(owner) - 1)], len(faces))
    return ends[first], torch.stack((owner[first], second)), forward[first]
