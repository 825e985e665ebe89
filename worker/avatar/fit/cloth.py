"""What lies between skin and outline: how far cloth, hair and soles stand off, as unknowns.

A silhouette shows the outside of what is worn.  So each view has, for each region of the body,
the logarithm of how far cloth stands off there; the body's outline, moved out by that, is what
belongs on the photo's.  Logarithms, because cloth is never inside the body, and because one
spread then means the same for leggings and for a coat.

What is expected of them, and how it is found out what is worn, is in `wardrobe`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from worker.avatar.body.jacobian import ArticulatedShape
from worker.avatar.fit.drape import drape

REGION_JOINTS: Mapping[str, tuple[int, ...]] = {
    "hair": (15,),
    "neck": (12,),
    "chest": (9, 13, 14),
    "waist": (3, 6),
    "hip": (0,),
    "thigh": (1, 2),
    "shin": (4, 5),
    "shoe": (7, 8, 10, 11),
    "upper arm": (16, 17),
    "forearm": (18, 19),
    "hand": (20, 21),
    "sole": (),
    "crotch": (),
}
"""The joints whose skin makes a region; sole and crotch are what looks down on foot and thigh."""

REGIONS: tuple[str, ...] = tuple(REGION_JOINTS)
TOP: tuple[str, ...] = ("chest", "waist", "hip", "upper arm", "forearm")
BOTTOM: tuple[str, ...] = ("thigh", "shin", "crotch")
_FARTHEST_M = 0.1
NO_CLOTH = math.log(1e-5)
"""Logarithm of a thickness in metres that is none."""
_MAY_BE_BARE = ("hair", "neck", "upper arm", "forearm", "hand")
"""Not legs: in one of eight photos trousers have the colour of skin, and legs that are bare are
known by their form as tight ones (docs/decisions/0022)."""
_SMOOTH = ("shoe", "hand", "sole", "crotch")
"""What is stiff has no folds; a crotch is no longer than a fold, and its unknown says it all."""
_SHOE_WEIGHTS = (0.6, 0.9)
"""Between these weights of the foot's joints lies the rim of a low shoe: 3 cm above the ankle joint
there is none of it, at the joint all."""
_LOOKING_DOWN = {"sole": ("shoe",), "crotch": ("thigh", "hip")}
"""Where the outline looks down, these regions take over from those."""


def skin_regions(shape: ArticulatedShape) -> Tensor:
    """(V, R) how much of each region's cloth stands off at each vertex of a body."""
    table = shape.template.new_zeros((shape.weights.shape[1], len(REGIONS)))
    for index, joints in enumerate(REGION_JOINTS.values()):
        table[list(joints), index] = 1.0
    regions = shape.weights @ table
    # Skin bends from shin to foot over 15 cm, and a shoe ends at the ankle: shared out like the
    # skin, a shoe of 12 mm took 1 cm off the girth of ankles.
    shoe, shin = REGIONS.index("shoe"), REGIONS.index("shin")
    ends, begins = _SHOE_WEIGHTS
    shod = ((regions[:, shoe] - ends) / (begins - ends)).clamp(0.0, 1.0)
    regions[:, shin] += regions[:, shoe] - shod
    regions[:, shoe] = shod
    return regions * drape(shape).unsqueeze(-1)


def region_shares(skin: Tensor, edges: Tensor, normal: Tensor) -> Tensor:
    """(B, M, R) how much of each region's cloth stands off at each point of the outline.

    Args:
        skin: (V, R) `skin_regions` of the body.
        edges: (B, M, n) vertices, each point in the middle of n.
        normal: (B, M, 2) outward on the image: what looks down on a foot is sole.
    """
    shares = skin[edges].mean(dim=2)
    down = ((normal[..., 1] - 0.3) / 0.5).clamp(0.0, 1.0)
    for name, sources in _LOOKING_DOWN.items():
        for source in (REGIONS.index(source) for source in sources):
            shares[..., REGIONS.index(name)] += shares[..., source] * down
            shares[..., source] *= 1.0 - down
    return shares


def cloth_folds(like: Tensor) -> Tensor:
    """(R,) 1 where what is worn falls in folds, 0 where one thickness says all."""
    return like.new_tensor([float(name not in _SMOOTH) for name in REGIONS])


def undressed(shares: Tensor, bare: Tensor) -> Tensor:
    """Take cloth off where the photo shows skin: shares (B, M, R) by probabilities (B, M).

    Not off trunk, legs and feet: beige shirts and trousers and brown shoes look like skin.
    """
    may_be = shares.new_tensor([float(name in _MAY_BE_BARE) for name in REGIONS])
    return shares * (1.0 - bare.unsqueeze(-1) * may_be)


def dressed_vertices(
    shape: ArticulatedShape, skin: Tensor, vertices: Tensor, cloth: Tensor
) -> Tensor:
    """Move the skin out to what is worn.

    Args:
        shape: the body.
        skin: (V, R) `skin_regions` of it.
        vertices: (B, V, 3) posed, in camera frames: y down.
        cloth: (B, R) logarithm of how many metres cloth stands off.
    """
    a, b, c = vertices[:, shape.faces].unbind(dim=2)
    across = torch.linalg.cross(b - a, c - a)
    normal = torch.zeros_like(vertices)
    for corner in range(3):
        normal.index_add_(1, shape.faces[:, corner], across)
    normal = torch.nn.functional.normalize(normal, dim=-1)
    itself = torch.arange(vertices.shape[1], device=vertices.device)[:, None]
    regions = region_shares(skin, itself.expand(len(vertices), -1, 1), normal[..., :2])
    away = (regions @ cloth.exp().unsqueeze(-1)).clamp(max=_FARTHEST_M)
    return vertices + normal * away
