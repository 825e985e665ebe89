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
    by_log_focal: Tensor
    """(B, M, 2)."""
    per_metre: Tensor
    """(B, M) pixels that a metre across is."""
    across: Tensor
    down: Tensor
    """(B, M) slopes of the ray."""

    @property
    def by_point(self) -> Tensor:
        """(B, M, 2, 3)."""
        zero = torch.zeros_like(self.per_metre)
        towards_x, towards_y = -self.per_metre * self.across, -self.per_metre * self.down
        rows = torch.stack((self.per_metre, zero, towards_x, zero, self.per_metre, towards_y), -1)
        return rows.view(*self.per_metre.shape, 2, 3)


def project(points: Tensor, log_focal: Tensor, centre: Tensor) -> Projection:
    """Project points (B, M, 3) in camera frames by focal lengths (B,) and centres (B, 2)."""
    focal = log_focal.exp()[:, None]
    depth = points[..., 2].clamp(min=_NEAREST_M)
    across, down = points[..., 0] / depth, points[..., 1] / depth
    from_centre = torch.stack((focal * across, focal * down), dim=-1)
    return Projection(from_centre + centre[:, None], from_centre, focal / depth, across, down)
