"""What may be worn, and how far it stands off: the prior of cloth, and which part of it is kept.

Regions share a garment, and the views share the regions, so the logarithms of how far cloth stands
off are correlated, and less than one would think: a T-shirt that lies on the chest may hang off
the waist, and the seat of trousers says nothing of their sides.  What is worn is not known either:
each garment is tight, everyday or loose, and how well the body explains the outline under each
decides (`posterior`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from worker.avatar.fit.cloth import BOTTOM, REGIONS, TOP
from worker.avatar.fit.laplace import log_evidence, shares
from worker.avatar.types import ViewName


@dataclass(frozen=True, slots=True)
class Layer:
    """How far something worn stands off a region: a log-normal distribution."""

    mean_mm: float
    """Its middle: the mean of people's millimetres, because girths go with those; their median is
    less, and all bodies would come out too large by the difference."""
    spread: float
    """Standard deviation of the logarithm, beside what the garment's regions share."""
    side_mm: float | None = None
    """The mean in profile, where it is another: the seat of trousers hangs, their sides lie."""
    across_views: float = 0.25
    """Standard deviation of the logarithm by which each view has its own."""

    def mean_m(self, view: ViewName) -> float:
        """Metres, at the outline of a view."""
        other = self.side_mm if view is ViewName.SIDE else None
        return (self.mean_mm if other is None else other) / 1000.0


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
            "chest": Layer(7.0, 0.25, 3.5),
            "waist": Layer(3.5, 0.25, 3.0),
            "hip": Layer(3.1, 0.2, 7.0),
            "upper arm": Layer(1.9, 0.25, 1.4),
            "forearm": Layer(0.8, 0.5),
        },
        0.15,
        0.03,
    ),
    Wear(
        "everyday",
        {
            "chest": Layer(18.0, 0.15, 4.8, 0.33),
            "waist": Layer(20.0, 0.4, 17.0, 0.28),
            "hip": Layer(14.0, 0.1, 54.0, 0.33),
            "upper arm": Layer(6.0, 0.2, 6.8, 0.3),
            "forearm": Layer(7.0, 0.5, 5.7, 0.35),
        },
        0.2,
        0.87,
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
        0.1,
    ),
)
BOTTOMS: tuple[Wear, ...] = (
    Wear(
        "tight",
        {"thigh": Layer(2.1, 0.2), "shin": Layer(1.7, 0.3), "crotch": Layer(6.0, 0.3, 5.0)},
        0.15,
        0.03,
    ),
    Wear(
        "everyday",
        {
            "thigh": Layer(15.0, 0.1, 10.5, 0.33),
            "shin": Layer(13.5, 0.25, across_views=0.33),
            "crotch": Layer(30.0, 0.1, 25.5, 0.1),
        },
        0.2,
        0.87,
    ),
    Wear(
        "loose",
        {
            "thigh": Layer(40.0, 0.35, 30.0),
            "shin": Layer(45.0, 0.4),
            "crotch": Layer(60.0, 0.5),
        },
        0.4,
        0.1,
    ),
)
"""How tops and bottoms sit.  What everyday and tight ones have is what the fit itself finds when it
is told the true bodies (117 and 39 rendered people of development), so that whatever `drape` gets
wrong of a seat or a bust is in it: means of metres, and spreads and correlations in round numbers.
Tops of a street vary more than those of one generator, so that everyday ones have a wider spread
in common and at the waist than was found (0.2 for 0.1, 0.4 for 0.28): it costs the generator's own
people nothing.  Loose ones are a guess, since none were looked at.

Tight ones are expected less often than they may be worn: who wears everyday clothes and is taken
for tightly dressed comes out 7 cm too wide, the other way round 5 cm too slim, and a declared
weight tells the two apart nevertheless."""

SAME_CUT = 4.0
"""Odds by which people wear two garments of one cut rather than two of different cuts; a judgement
(2 and 10 were within 0.1 cm of it)."""

_DECIDED = 2.0
"""Power that the chances of what is worn are raised to before they are mixed.  Under tight and
under everyday clothes a body is 5 to 7 cm apart, so a chance of one in ten would move the mean by
half a centimetre that is wrong for nine people of ten.  The guess that is near most often is a
median, which stays by the likelier of two; a power comes close to that and, unlike a choice, does
not jump."""


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
                math.log(layers[name].mean_m(view) * (scale if cloth else 1.0))
                for name, cloth in zip(REGIONS, worn, strict=True)
            ]
            for view in views
        ]
    )
    between = torch.diag(like.new_tensor([layers[name].spread ** 2 for name in REGIONS]))
    for garment, parts in ((top, TOP), (bottom, BOTTOM)):
        at = [REGIONS.index(name) for name in parts]
        between[torch.tensor(at)[:, None], at] += garment.shared_spread**2
    own = like.new_tensor([layers[name].across_views ** 2 for name in REGIONS]).repeat(len(views))
    covariance = between.repeat(len(views), len(views)) + torch.diag(own)
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
        scores.append(_DECIDED * (found + math.log(each.probability)))
    return shares(scores)


def most_likely(possible: Sequence[Hypothesis], chances: Sequence[float]) -> tuple[str, str]:
    """How top and bottom most likely sit, each by itself."""
    tops: dict[str, float] = {}
    bottoms: dict[str, float] = {}
    for each, chance in zip(possible, chances, strict=True):
        tops[each.top] = tops.get(each.top, 0.0) + chance
        bottoms[each.bottom] = bottoms.get(each.bottom, 0.0) + chance
    return max(tops, key=lambda name: tops[name]), max(bottoms, key=lambda name: bottoms[name])
