"""Which pixels a mesh covers, and what is nearest in each: exact, in plain torch, CPU or CUDA.

Not differentiable and not meant to be: the solver takes its derivatives from contour points.
It serves the choice of outer contours, the IoU, overlays and previews, without a compiled
rasteriser or a graphics driver.

`coverage` cuts each triangle into one span a row of pixels and counts where spans begin and end:
no pixel is looked at twice, which made it four times as fast as testing boxes of pixels.

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
_SPANS_AT_ONCE = 1 << 20
"""The same for spans: a wild step of a fit can ask for 10⁸ of them."""

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

    Args:
        uv: (V, 2) pixel coordinates; a vertex behind the camera must be NaN.
        faces: (F, 3) int64 vertex indices, either winding.
        height: rows of the result.
        width: columns of the result.

    Returns:
        (height, width) bool.
    """
    # One column more than the image: where spans that reach its right edge end.
    changes = torch.zeros(height * (width + 1), dtype=torch.int32, device=uv.device)
    for row, left, right in _spans(uv, faces, height, width):
        one = torch.ones_like(row, dtype=torch.int32)
        changes.index_add_(0, row * (width + 1) + left, one)
        changes.index_add_(0, row * (width + 1) + right, one, alpha=-1)
    layers = changes.view(height, width + 1).cumsum(dim=1, dtype=torch.int32)
    return layers[:, :width] > 0


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


def _spans(
    uv: Tensor, faces: Tensor, height: int, width: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield (row, first column, column after the last), (N,) int64 each, of triangles' pixels.

    A span may be empty; then it begins where it ends.
    """
    x, y = uv.T.contiguous()[:, faces.T]
    low, high = torch.aminmax(y, dim=0)
    first = (low - 0.5).ceil().clamp(0, height)
    rows = (high - 0.5).floor().clamp(-1, height - 1) - first + 1
    area = (x[1] - x[0]) * (y[2] - y[0]) - (y[1] - y[0]) * (x[2] - x[0])
    seen = torch.nonzero(torch.isfinite(area) & (area != 0) & (rows > 0)).squeeze(1)
    # From top to bottom, so that one edge goes all the way and two share the other side.
    y, order = y[:, seen].sort(dim=0)
    x = x[:, seen].gather(0, order)
    first, rows = first[seen].to(torch.int64), rows[seen].to(torch.int64)
    done = rows.cumsum(dim=0)
    total = int(done[-1]) if len(done) else 0
    bounds = torch.arange(_SPANS_AT_ONCE, max(total, _SPANS_AT_ONCE + 1), _SPANS_AT_ONCE)
    cuts = [0, *torch.searchsorted(done, bounds.to(uv.device)).tolist(), len(done)]
    for start, end in pairwise(cuts):
        part = slice(start, end)
        yield _cut(x[:, part], y[:, part], first[part], rows[part], width)


def _cut(
    x: Tensor, y: Tensor, first: Tensor, rows: Tensor, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Cut triangles (3, F), their corners from top to bottom, into spans; see `_spans`."""
    triangle = torch.repeat_interleave(rows)
    begin = rows.cumsum(dim=0) - rows
    row = torch.arange(len(triangle), device=x.device) - (begin - first)[triangle]
    centre = row.to(x.dtype) + 0.5
    slope = (x[[1, 2, 2]] - x[[0, 1, 0]]) / (y[[1, 2, 2]] - y[[0, 1, 0]])
    # An edge that runs along a row has no slope, and is never the one that is asked.
    below = (centre > y[1][triangle]) | (y[0] == y[1])[triangle]
    edge = triangle + x.shape[1] * below
    ends = []
    for corner_x, corner_y, along, at in (
        (x[0], y[0], slope[2], triangle),
        (x[:2].flatten(), y[:2].flatten(), slope[:2].flatten(), edge),
    ):
        ends.append(torch.addcmul(corner_x[at], centre - corner_y[at], along[at]))
    left = (torch.minimum(*ends) - 0.5).ceil().clamp(0, width)
    right = (torch.maximum(*ends) + 0.5).floor().clamp(0, width)
    return row, left.to(torch.int64), torch.maximum(left, right).to(torch.int64)


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
