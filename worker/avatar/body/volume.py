"""The volume inside a body at rest: a polynomial of its betas, tabulated once.

Vertices are linear in betas and the volume inside a mesh is a sum of products of three of their
coordinates, so it is a cubic polynomial.  Summing over the faces takes 4 ms, and a fit asks for it
and its derivative at fifty shapes; the table takes half a second or so once, and 0.05 ms each time.
"""

from __future__ import annotations

import itertools
from functools import lru_cache

import torch
from torch import Tensor

from worker.avatar.body.articulated import ArticulatedShape

_FACES_AT_ONCE = 2048
"""As many as the processor's cache holds products of."""


class RestVolume:
    """Volume of a body by its betas.

    By the divergence theorem it is the sum over faces of their mean x times their area as seen
    along x; the sum of a·(b×c)/6 (Zhang and Chen, "Efficient feature extraction for 2D/3D objects
    in mesh representation", 2001) is the same on closed meshes and half as much work again here.

    A hole counts as its x times its area as seen along x.  So holes that look along y or z, as
    SMPL-X's eyes nearly do, take nothing away, wherever the template stands: where eyes
    of 3 cm across are cut out of the free body 0.01 l are missing, and 0.35 l by the other sum
    when it stands a metre ahead.

    Args:
        shape: the body; closed, or with holes that look along y or z.
    """

    def __init__(self, shape: ArticulatedShape) -> None:
        # Each coordinate (V, 1 + K) as a linear form of (1, betas).
        x, y, z = torch.cat((shape.template.unsqueeze(2), shape.shapedirs), dim=2).unbind(1)
        count = x.shape[1]
        form = x.new_zeros((count, count, count))
        for faces in torch.split(shape.faces, _FACES_AT_ONCE):
            a, b, c = faces.unbind(1)
            # Twice the projected area is y₁z₂ − y₂z₁; a third for the mean, a half for the area.
            mean = ((x[a] + x[b] + x[c]) / 6.0).mT.repeat(1, 2)
            first = torch.cat((y[b] - y[a], y[a] - y[c])).mT.contiguous()
            second = torch.cat((z[c] - z[a], z[b] - z[a]))
            for index in range(count):
                form[index] += (first * mean[index]) @ second
        orders = [form.permute(order) for order in itertools.permutations(range(3))]
        self._form = torch.stack(orders).mean(dim=0)
        """(1 + K, 1 + K, 1 + K) symmetric: the volume is its value at (1, betas), three times."""

    def at(self, betas: Tensor) -> tuple[Tensor, Tensor]:
        """Volume (a scalar, m³) and its derivative (K,) by betas (K,)."""
        point = torch.cat((betas.new_ones(1), betas))
        slope = (self._form @ point) @ point
        return slope @ point, 3.0 * slope[1:]


@lru_cache(maxsize=4)
def rest_volume(shape: ArticulatedShape) -> RestVolume:
    """Give the volume of a body; it is tabulated once and shared."""
    with torch.inference_mode(mode=False):  # whoever asks first may be in it
        return RestVolume(shape)
