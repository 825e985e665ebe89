"""Which pixels a mesh covers, and what is nearest in each: exact, in plain torch, CPU or CUDA.

Not differentiable and not meant to be: the solver takes its derivatives from contour points.
It serves the choice of outer contours, the IoU, overlays and previews, without a compiled
rasteriser or a graphics driver.

`coverage` counts, along each row of pixels, the edges that triangles begin and end at; inside a
surface these cancel, so that `layers` needs no more of it than its border.  Either is several times
faster than testing boxes of pixels.

`rasterise` needs coordinates in every pixel: it groups triangles by the size of their bounding
box, so that each group is one dense evaluation of the edge functions (Pineda, "A parallel
algorithm for polygon rasterization", 1988).

Pixel (row i, column j) is sampled at its centre (j + 0.5, i + 0.5).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

_EVALUATIONS_AT_ONCE = 1 << 21
"""Edge evaluations in one go: bounds the memory at a few dozen MB."""
_CROSSINGS_AT_ONCE = 1 << 20
"""The same for crossings of rows: a wild step of a fit can ask for 10⁸ of them."""

_EMPTY = torch.iinfo(torch.int64).max


@dataclass(frozen=True, slots=True)
class Raster:
    """What is seen in each pixel."""

    face_index: Tensor
    """(H, W) int64: the nearest face, -1 where there is none."""
    depth: Tensor
    """(H, W): depth of that face, infinite where there is none."""
    bary: Tensor
    """(H, W, 3): perspective-correct barycentric coordinates on that face, 0 where none."""


def coverage(uv: Tensor, faces: Tensor, height: int, width: int) -> Tensor:
    """Mark the pixels whose centre lies inside any triangle.

    A centre on an edge belongs to the triangle below or to the right of it.

    Args:
        uv: (V, 2) pixel coordinates; a vertex behind the camera must be NaN.
        faces: (F, 3) int64 vertex indices, either winding.
        height: rows of the result.
        width: columns of the result.

    Returns:
        (height, width) bool.
    """
    corners = uv[faces]
    area = _cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    kept = torch.isfinite(area) & (area != 0)
    corners = torch.where((area < 0)[:, None, None], corners.flip(1), corners)[kept]
    start, end = corners.flatten(0, 1), corners.roll(-1, dims=1).flatten(0, 1)
    return layers(start, end, height, width) > 0


def layers(start: Tensor, end: Tensor, height: int, width: int) -> Tensor:
    """Count how many layers of a surface lie on each pixel's centre, from its border alone.

    A surface whose triangles all wind one way lies on a point as often as its border runs around
    the point: the edges between its triangles are run along once in each direction and cancel.

    Args:
        start: (E, 2) pixel coordinates where each edge of the border begins,
        end: (E, 2) and where it ends, as triangles that wind clockwise on the image have them.
        height: rows of the result.
        width: columns of the result.

    Returns:
        (height, width) int32; negative where triangles wind the other way.
    """
    # One column more than the image: where what reaches its right edge ends.
    changes = torch.zeros(height * (width + 1), dtype=torch.int32, device=start.device)
    for row, column, rises in _crossings(start, end, height, width):
        changes.index_add_(0, row * (width + 1) + column, rises)
    counted = changes.view(height, width + 1).cumsum(dim=1, dtype=torch.int32)
    return counted[:, :width]


def rasterise(uv: Tensor, depth: Tensor, faces: Tensor, height: int, width: int) -> Raster:
    """Find the nearest face in each pixel.

    Args:
        uv: (V, 2) pixel coordinates.
        depth: (V,) distance along the optical axis; triangles that reach 0 are left out.
        faces: (F, 3) int64 vertex indices, either winding.
        height: rows of the result.
        width: columns of the result.
    """
    device = uv.device
    kept = torch.nonzero((depth[faces] > 0).all(dim=1)).squeeze(1)
    near_faces = faces[kept]
    # Depth and face travel in one integer, so that one scatter finds the nearest of both: the
    # bits of a positive float32 order as integers do.
    nearest = torch.full((height * width,), _EMPTY, dtype=torch.int64, device=device)
    inverse_depth = 1.0 / depth
    for triangle, pixels, bary in _hits(uv, near_faces, height, width):
        z = 1.0 / (bary * inverse_depth[near_faces[triangle]]).sum(dim=1)
        bits = z.to(torch.float32).view(torch.int32).to(torch.int64)
        nearest.scatter_reduce_(0, pixels, (bits << 32) | triangle, reduce="amin")
    hit = nearest != _EMPTY
    triangle = nearest[hit] & 0xFFFFFFFF
    pixel = torch.nonzero(hit).squeeze(1)
    centre = torch.stack((pixel % width, pixel // width), dim=1).to(uv.dtype) + 0.5
    corners = uv[near_faces[triangle]]
    screen = _barycentric(corners, centre[:, None, :])[:, 0, :]
    perspective = screen * inverse_depth[near_faces[triangle]]
    total = perspective.sum(dim=1, keepdim=True)

    face_index = torch.full((height * width,), -1, dtype=torch.int64, device=device)
    face_index[hit] = kept[triangle]
    depths = torch.full((height * width,), torch.inf, dtype=depth.dtype, device=device)
    depths[hit] = (1.0 / total.squeeze(1)).to(depth.dtype)
    barys = torch.zeros((height * width, 3), dtype=uv.dtype, device=device)
    barys[hit] = (perspective / total).to(uv.dtype)
    return Raster(
        face_index.view(height, width), depths.view(height, width), barys.view(height, width, 3)
    )


def _crossings(
    start: Tensor, end: Tensor, height: int, width: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield where edges cross rows: row, first column to the right (N,) int64, ±1 int32."""
    # From top to bottom, so that both directions of an edge cross at the very same place.
    falls = start[:, 1] < end[:, 1]
    top, bottom = (
        torch.where(falls[:, None], one, other).T.contiguous()
        for one, other in ((start, end), (end, start))
    )
    first = (top[1] - 0.5).ceil().clamp(0, height)
    rows = (bottom[1] - 0.5).ceil().clamp(0, height) - first
    crossing = torch.nonzero(rows > 0).squeeze(1)
    top, bottom, falls = top[:, crossing], bottom[:, crossing], falls[crossing]
    first, rows = first[crossing].to(torch.int64), rows[crossing].to(torch.int64)
    slope = (bottom[0] - top[0]) / (bottom[1] - top[1])
    # An edge that climbs has its surface on the right.
    rises = 1 - 2 * falls.to(torch.int32)
    for part in _parts(rows, _CROSSINGS_AT_ONCE):
        edge = torch.repeat_interleave(rows[part])
        before = first[part] - (rows[part].cumsum(dim=0) - rows[part])
        row = torch.arange(len(edge), device=start.device) + before[edge]
        below = row.to(start.dtype) + 0.5 - top[1, part][edge]
        at = torch.addcmul(top[0, part][edge], below, slope[part][edge])
        yield row, (at - 0.5).ceil().clamp(0, width).to(torch.int64), rises[part][edge]


def _parts(sizes: Tensor, at_once: int) -> list[slice]:
    """Cut a list of things into parts of about `at_once` in the sum of their sizes."""
    done = sizes.cumsum(dim=0)
    bounds = range(at_once, int(done[-1]) if len(done) else 0, at_once)
    cuts = torch.searchsorted(done, torch.tensor(bounds, dtype=done.dtype, device=done.device))
    return [slice(*cut) for cut in pairwise([0, *cuts.tolist(), len(done)])]


def _barycentric(corners: Tensor, points: Tensor) -> Tensor:
    """Barycentric coordinates of `points` (N, S, 2) in the triangles `corners` (N, 3, 2)."""
    a, b, c = corners[:, None, 0], corners[:, None, 1], corners[:, None, 2]
    area = _cross(b - a, c - a)
    return torch.stack(
        (_cross(c - b, points - b), _cross(a - c, points - c), _cross(b - a, points - a)), dim=-1
    ) / area.unsqueeze(-1)


def _cross(u: Tensor, v: Tensor) -> Tensor:
    return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]


def _hits(
    uv: Tensor, faces: Tensor, height: int, width: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield (triangle (N,), flat pixel (N,), bary (N, 3)) of each covered pixel centre."""
    corners = uv[faces]
    low, high = corners.amin(dim=1), corners.amax(dim=1)
    # The first and one past the last pixel whose centre can be inside, clipped to the image.
    size = torch.tensor((width, height), device=uv.device)
    limit = size.to(uv.dtype)
    first = torch.minimum((low - 0.5).ceil().clamp(min=0), limit)
    last = torch.minimum((high - 0.5).floor().clamp(min=-1) + 1, limit)
    extent = last - first
    area = _cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    seen = torch.isfinite(area) & (area != 0) & (extent > 0).all(dim=1)
    seen_index = torch.nonzero(seen).squeeze(1)
    if seen_index.numel() == 0:
        return
    longest = extent[seen_index].amax(dim=1)
    largest = float(longest.max())
    side = 1
    while side < 2 * largest:
        group = seen_index[(longest > side // 2) & (longest <= side)]
        steps = torch.arange(side, device=uv.device)
        offset = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1).view(-1, 2)
        # Rows x, y, 1 of each pixel against the first: an edge function is one product with it.
        basis = torch.cat((offset.to(uv.dtype).T, torch.ones_like(offset[:, :1].T, dtype=uv.dtype)))
        for part in torch.split(group, max(1, _EVALUATIONS_AT_ONCE // (side * side))):
            edges = _edge_functions(corners[part], first[part] + 0.5, area[part])
            bary = [edge @ basis for edge in edges]
            inside = (bary[0] >= 0) & (bary[1] >= 0) & (bary[2] >= 0)
            row, column = torch.nonzero(inside, as_tuple=True)
            hit = first[part][row].to(torch.int64) + offset[column]
            kept = (hit < size).all(dim=1)
            row, column, hit = row[kept], column[kept], hit[kept]
            coordinates = torch.stack([one[row, column] for one in bary], dim=1)
            yield part[row], hit[:, 1] * width + hit[:, 0], coordinates
        side *= 2


def _edge_functions(corners: Tensor, origin: Tensor, area: Tensor) -> list[Tensor]:
    """Give the barycentric coordinates of triangles (N, 3, 2) as linear functions of the pixel.

    Args:
        corners: the triangles.
        origin: (N, 2) centre of each one's first pixel.
        area: (N,) twice the signed area of each.

    Returns:
        Three of (N, 3): slope in x, slope in y, value at the origin.
    """
    edges = []
    for corner in range(3):
        start, end = corners[:, (corner + 1) % 3], corners[:, (corner + 2) % 3]
        along = (end - start) / area[:, None]
        value = _cross(along, origin - start)
        edges.append(torch.stack((-along[:, 1], along[:, 0], value), dim=1))
    return edges
