"""Pinhole cameras of all views at once, with the derivatives of their projection."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_NEAREST_M = 0.05
"""Points that a wild step puts nearer than this, or behind the camera, are held there."""


@dataclass(frozen=True, slots=True)
class Projection:
    """Pixels of points and how they move."""

    uv: Tensor
    """(B, M, 2) pixels."""
    by_point: Tensor
    """(B, M, 2, 3)."""
    by_log_focal: Tensor
    """(B, M, 2)."""


def project(points: Tensor, log_focal: Tensor, centre: Tensor) -> Projection:
    """Project points (B, M, 3) in camera frames by focal lengths (B,) and centres (B, 2)."""
    focal = log_focal.exp()[:, None]
    depth = points[..., 2].clamp(min=_NEAREST_M)
    across, down = points[..., 0] / depth, points[..., 1] / depth
    from_centre = torch.stack((focal * across, focal * down), dim=-1)
    per_metre = focal / depth
    zero = torch.zeros_like(per_metre)
    rows = torch.stack(
        (per_metre, zero, -per_metre * across, zero, per_metre, -per_metre * down), dim=-1
    )
    by_point = rows.view(*per_metre.shape, 2, 3)
    return Projection(from_centre + centre[:, None], by_point, from_centre)
