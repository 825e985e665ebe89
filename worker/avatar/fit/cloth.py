"""What lies between skin and outline and is no garment: hair, collars, hands, shoes and soles.

Each view has, for each of these regions, the logarithm of how far it stands off among its unknowns;
the body's outline, moved out by that and by what is worn (`wardrobe`), is what belongs on the
photo's.  Logarithms, because none of it is inside the body.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.avatar.body.articulated import ArticulatedShape
from worker.avatar.types import ViewName

REGION_JOINTS: Mapping[str, tuple[int, ...]] = {
    "hair": (15,),
    "neck": (12,),
    "shoe": (7, 8, 10, 11),
    "hand": (20, 21),
    "sole": (),
}
"""The joints whose skin makes a region; sole is what looks down on the foot."""

REGIONS: tuple[str, ...] = tuple(REGION_JOINTS)
_FARTHEST_M = 0.1
NO_CLOTH = math.log(1e-5)
"""Logarithm of a thickness in metres that is none."""
_MAY_BE_BARE = ("hair", "neck", "hand")
_SMOOTH = ("shoe", "hand", "sole")
"""What is stiff has no folds."""
_SHOE_WEIGHTS = (0.6, 0.9)
"""Between these weights of the foot's joints lies the rim of a low shoe: 3 cm above the ankle joint
there is none of it, at the joint all."""
_STANDS_OFF: Mapping[str, tuple[float, float, float]] = {
    "hair": (15.0, 9.0, 0.5),
    "neck": (3.0, 3.0, 0.7),
    "shoe": (12.0, 12.0, 0.3),
    "hand": (0.5, 0.5, 0.3),
    "sole": (30.0, 23.0, 0.25),
}
"""Median in mm from the front and in profile, and the logarithm's standard deviation: what the fit
finds when it is told true bodies.  Soles are 1 to 4 cm, and the declared height knows none."""
_ACROSS_VIEWS = 0.25
"""Standard deviation of the logarithm by which each view has its own."""


def skin_regions(shape: ArticulatedShape) -> Tensor:
    """(V, R) how much of each region's cloth stands off at each vertex of a body."""
    table = shape.template.new_zeros((shape.weights.shape[1], len(REGIONS)))
    for index, joints in enumerate(REGION_JOINTS.values()):
        table[list(joints), index] = 1.0
    regions = shape.weights @ table
    # Skin bends from shin to foot over 15 cm, and a shoe ends at the ankle: shared out like the
    # skin, a shoe of 12 mm took 1 cm off the girth of ankles.
    shoe = REGIONS.index("shoe")
    ends, begins = _SHOE_WEIGHTS
    regions[:, shoe] = ((regions[:, shoe] - ends) / (begins - ends)).clamp(0.0, 1.0)
    return regions


def region_shares(skin: Tensor, edges: Tensor, normal: Tensor) -> Tensor:
    """(B, M, R) how much of each region's cloth stands off at each point of the outline.

    Args:
        skin: (V, R) `skin_regions` of the body.
        edges: (B, M, n) vertices, each point in the middle of n.
        normal: (B, M, 2) outward on the image: what looks down on a foot is sole.
    """
    shares = skin[edges].mean(dim=2)
    down = ((normal[..., 1] - 0.3) / 0.5).clamp(0.0, 1.0)
    shoe, sole = REGIONS.index("shoe"), REGIONS.index("sole")
    shares[..., sole] += shares[..., shoe] * down
    shares[..., shoe] *= 1.0 - down
    return shares


def cloth_folds(like: Tensor) -> Tensor:
    """(R,) 1 where what is worn falls in folds, 0 where one thickness says all."""
    return like.new_tensor([float(name not in _SMOOTH) for name in REGIONS])


def undressed(shares: Tensor, bare: Tensor) -> Tensor:
    """Take it off where the photo shows skin: shares (B, M, R) by probabilities (B, M).

    Not off feet: brown shoes look like skin.
    """
    may_be = shares.new_tensor([float(name in _MAY_BE_BARE) for name in REGIONS])
    return shares * (1.0 - bare.unsqueeze(-1) * may_be)


@dataclass(frozen=True, slots=True)
class ClothPrior:
    """A Gaussian over the logarithms (B, R) of how many metres each region's cloth stands off."""

    mean: Tensor
    """(B, R)."""
    precision: Tensor
    """(B·R, B·R)."""

    @classmethod
    def of(cls, views: Sequence[ViewName], like: Tensor) -> ClothPrior:
        """Make it for B views; `like` gives dtype and device."""
        rows = [_STANDS_OFF[name] for name in REGIONS]
        mean = like.new_tensor(
            [
                [math.log((side if view is ViewName.SIDE else front) / 1000.0)
                 for front, side, _ in rows]
                for view in views
            ]
        )  # fmt: skip
        common = torch.diag(like.new_tensor([spread**2 for _, _, spread in rows]))
        covariance = common.repeat(len(views), len(views))
        covariance.diagonal().add_(_ACROSS_VIEWS**2)
        return cls(mean, torch.linalg.inv(covariance))

    def loss(self, cloth: Tensor) -> Tensor:
        """Squared distance (a scalar) of the logarithms (B, R), in standard deviations."""
        apart = (cloth - self.mean).flatten()
        return apart @ self.precision @ apart


def dressed_vertices(
    shape: ArticulatedShape, skin: Tensor, vertices: Tensor, cloth: Tensor, worn_m: Tensor
) -> Tensor:
    """Move the skin out to what is worn.

    Args:
        shape: the body.
        skin: (V, R) `skin_regions` of it.
        vertices: (B, V, 3) posed, in camera frames: y down.
        cloth: (B, R) logarithm of how many metres cloth stands off.
        worn_m: (V,) how far garments stand off.
    """
    a, b, c = vertices[:, shape.faces].unbind(dim=2)
    across = torch.linalg.cross(b - a, c - a)
    normal = torch.zeros_like(vertices)
    for corner in range(3):
        normal.index_add_(1, shape.faces[:, corner], across)
    normal = torch.nn.functional.normalize(normal, dim=-1)
    itself = torch.arange(vertices.shape[1], device=vertices.device)[:, None]
    regions = region_shares(skin, itself.expand(len(vertices), -1, 1), normal[..., :2])
    away = (regions @ cloth.exp().unsqueeze(-1) + worn_m[:, None]).clamp(0.0, _FARTHEST_M)
    return vertices + normal * away
