"""What lies between skin and outline: how far cloth, hair and soles stand off, as unknowns.

A silhouette shows the outside of what is worn.  So each view has, for each region of the body,
the logarithm of how far cloth stands off there; the body's outline, moved out by that, is what
belongs on the photo's.  Logarithms, because cloth is never inside the body, and because one
spread then means the same for leggings and for a coat.

Regions share a garment, and the views share the regions, so their logarithms are correlated.
What is worn is not known either: each garment is tight, everyday or loose, and how well the body
explains the outline under each decides (`weigh`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from worker.avatar.body.jacobian import ArticulatedShape
from worker.avatar.fit.drape import drape
from worker.avatar.fit.laplace import log_evidence, shares
from worker.avatar.types import ViewName

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
_MAY_BE_BARE = ("hair", "neck", "thigh", "shin", "upper arm", "forearm", "hand")
_SMOOTH = ("shoe", "hand", "sole", "crotch")
"""What is stiff has no folds; a crotch is no longer than a fold, and its unknown says it all."""
_SHOE_WEIGHTS = (0.6, 0.9)
"""Between these weights of the foot's joints lies the rim of a low shoe: 3 cm above the ankle joint
there is none of it, at the joint all."""
_LOOKING_DOWN = {"sole": ("shoe",), "crotch": ("thigh", "hip")}
"""Where the outline looks down, these regions take over from those."""


@dataclass(frozen=True, slots=True)
class Layer:
    """How far something worn stands off a region: a log-normal distribution."""

    median_mm: float
    spread: float
    """Standard deviation of the logarithm, beside what the garment's regions share."""
    side_mm: float | None = None
    """The median in profile, where it is another: the seat of trousers hangs, their sides lie."""

    def median_m(self, view: ViewName) -> float:
        """Metres, at the outline of a view."""
        other = self.side_mm if view is ViewName.SIDE else None
        return (self.median_mm if other is None else other) / 1000.0


_EITHER_WAY: Mapping[str, Layer] = {
    "hair": Layer(15.0, 0.5, 9.0),
    "neck": Layer(3.0, 0.7),
    "shoe": Layer(12.0, 0.3),
    "hand": Layer(0.5, 0.3),
    "sole": Layer(30.0, 0.25, 23.0),
}
"""What does not hang on the garments: soles are 1 to 4 cm, and the declared height knows none."""


@dataclass(frozen=True, slots=True)
class Wear:
    """One way a garment can sit."""

    name: str
    layers: Mapping[str, Layer]
    shared_spread: float
    """Of the logarithm, common to all of the garment's regions."""
    probability: float
    """How many people wear it, before looking."""


TOPS: tuple[Wear, ...] = (
    Wear(
        "tight",
        {
            "chest": Layer(3.0, 0.25, 2.5),
            "waist": Layer(2.5, 0.25),
            "hip": Layer(3.0, 0.25, 6.0),
            "upper arm": Layer(1.3, 0.3),
            "forearm": Layer(0.8, 0.5),
        },
        0.3,
        0.12,
    ),
    Wear(
        "everyday",
        {
            "chest": Layer(16.0, 0.25, 4.5),
            "waist": Layer(17.5, 0.2, 14.5),
            "hip": Layer(15.5, 0.2, 45.0),
            "upper arm": Layer(5.5, 0.3),
            "forearm": Layer(4.0, 0.8),
        },
        0.2,
        0.76,
    ),
    Wear(
        "loose",
        {
            "chest": Layer(20.0, 0.35, 10.0),
            "waist": Layer(35.0, 0.35),
            "hip": Layer(40.0, 0.35, 70.0),
            "upper arm": Layer(15.0, 0.35),
            "forearm": Layer(10.0, 0.6),
        },
        0.35,
        0.12,
    ),
)
BOTTOMS: tuple[Wear, ...] = (
    Wear(
        "tight",
        {"thigh": Layer(2.0, 0.2), "shin": Layer(2.0, 0.2), "crotch": Layer(5.0, 0.5)},
        0.25,
        0.12,
    ),
    Wear(
        "everyday",
        {
            "thigh": Layer(16.0, 0.2, 10.0),
            "shin": Layer(12.0, 0.3),
            "crotch": Layer(30.0, 0.3, 26.0),
        },
        0.2,
        0.76,
    ),
    Wear(
        "loose",
        {
            "thigh": Layer(40.0, 0.35, 30.0),
            "shin": Layer(45.0, 0.4),
            "crotch": Layer(60.0, 0.5),
        },
        0.4,
        0.12,
    ),
)
"""How tops and bottoms sit.  Tight and everyday medians are what the fit itself finds on the
development split of rendered photographs when it is told the true bodies, so that whatever
`drape` gets wrong of a seat or a bust is in them; loose ones are a guess, since none were looked
at."""

ACROSS_VIEWS_SPREAD = 0.25
"""Of the logarithm: how much a region's cloth differs from the front to the side."""

SAME_CUT = 2.0
"""Odds by which people wear two garments of one cut rather than two of different cuts."""

_CAUTION = 1.0
"""The evidence for what is worn counts this many times less than the model says: the outlines of
real cloth are not those of the model."""


@dataclass(frozen=True, slots=True)
class ClothPrior:
    """A Gaussian over the logarithms (B, R) of how many metres cloth stands off."""

    mean: Tensor
    """(B, R)."""
    covariance: Tensor
    """(B·R, B·R)."""
    precision: Tensor
    """Its inverse."""

    @classmethod
    def of(cls, mean: Tensor, covariance: Tensor) -> ClothPrior:
        """Make it from mean and covariance."""
        return cls(mean, covariance, torch.linalg.inv(covariance))

    def loss(self, cloth: Tensor) -> Tensor:
        """Squared distance (a scalar) of the logarithms (B, R), in standard deviations."""
        apart = (cloth - self.mean).flatten()
        return apart @ self.precision @ apart


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What might be worn."""

    top: str
    bottom: str
    probability: float
    prior: ClothPrior


def hypotheses(views: Sequence[ViewName], scale: float, like: Tensor) -> list[Hypothesis]:
    """Everything that might be worn, each with its prior.

    Args:
        views: B of them.
        scale: by which all garments are thicker (SILHOUETTE_TORSO_ERODE_PX over its default).
        like: gives dtype and device.
    """
    found = [
        Hypothesis(
            top.name,
            bottom.name,
            top.probability * bottom.probability * (SAME_CUT if top.name == bottom.name else 1.0),
            _prior_of(top, bottom, views, scale, like),
        )
        for top, bottom in itertools.product(TOPS, BOTTOMS)
    ]
    total = sum(each.probability for each in found)
    return [replace(each, probability=each.probability / total) for each in found]


def _prior_of(
    top: Wear, bottom: Wear, views: Sequence[ViewName], scale: float, like: Tensor
) -> ClothPrior:
    layers = {**_EITHER_WAY, **top.layers, **bottom.layers}
    worn = [name in TOP or name in BOTTOM for name in REGIONS]
    mean = like.new_tensor(
        [
            [
                math.log(layers[name].median_m(view) * (scale if cloth else 1.0))
                for name, cloth in zip(REGIONS, worn, strict=True)
            ]
            for view in views
        ]
    )
    between = torch.diag(like.new_tensor([layers[name].spread ** 2 for name in REGIONS]))
    for garment, parts in ((top, TOP), (bottom, BOTTOM)):
        at = [REGIONS.index(name) for name in parts]
        between[torch.tensor(at)[:, None], at] += garment.shared_spread**2
    own = torch.eye(mean.numel(), dtype=like.dtype, device=like.device)
    covariance = between.repeat(len(views), len(views)) + ACROSS_VIEWS_SPREAD**2 * own
    return ClothPrior.of(mean, covariance)


def mixed(weighed: Sequence[tuple[float, ClothPrior]]) -> ClothPrior:
    """One Gaussian in place of a mixture.

    Its middle is the mean in metres, not of the logarithms: girths go with metres, and a chance of
    one in ten that a top is tight would otherwise take a seventh off every thickness.

    Args:
        weighed: weights, which sum to 1, and Gaussians.
    """
    mean = torch.stack([weight * prior.mean.exp() for weight, prior in weighed]).sum(dim=0).log()
    covariance = weighed[0][1].covariance * 0.0
    for weight, prior in weighed:
        apart = (prior.mean - mean).flatten()
        covariance = covariance + weight * (prior.covariance + torch.outer(apart, apart))
    return ClothPrior.of(mean, covariance)


def posterior(
    possible: Sequence[Hypothesis], matrix: Tensor, gradient: Tensor, cloth: Tensor, at: Tensor
) -> list[float]:
    """Probability of each hypothesis, from what has been seen so far.

    The residuals are taken as linear around where the solver stands, in metres of cloth and not
    in logarithms, where they are not; then the integral over all unknowns is that of a Gaussian,
    ``-2 log Z = min loss + log det(H + P) - log det P`` (Laplace's method; MacKay, "Bayesian
    interpolation", 1992).

    Args:
        possible: the hypotheses.
        matrix: (N, N) JᵀJ of all residuals but those of cloth's prior.
        gradient: (N,) Jᵀr of the same.
        cloth: (B, R) logarithms where they were taken.
        at: (B·R,) where the cloth is among the unknowns.
    """
    metres = cloth.exp().flatten()
    factor = torch.ones_like(gradient)
    factor[at] = 1.0 / metres
    matrix = matrix * factor[:, None] * factor
    gradient = gradient * factor
    scores = []
    for each in possible:
        middle = each.prior.mean.exp().flatten()
        precision = each.prior.precision / middle[:, None] / middle
        found = log_evidence(matrix, gradient, at, precision, metres - middle)
        scores.append(found / _CAUTION + math.log(each.probability))
    return shares(scores)


def most_likely(possible: Sequence[Hypothesis], chances: Sequence[float]) -> tuple[str, str]:
    """How top and bottom most likely sit, each by itself."""
    tops: dict[str, float] = {}
    bottoms: dict[str, float] = {}
    for each, chance in zip(possible, chances, strict=True):
        tops[each.top] = tops.get(each.top, 0.0) + chance
        bottoms[each.bottom] = bottoms.get(each.bottom, 0.0) + chance
    return max(tops, key=lambda name: tops[name]), max(bottoms, key=lambda name: bottoms[name])


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

    Not off the trunk and the feet: a beige shirt and brown shoes look like skin.
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
