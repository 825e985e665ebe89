"""What may be worn: kinds of tops and bottoms, and how they go with who wears them.

How far clothes stand off is a field over the body, the same for every view: a sum of modes that
were learnt from many dressed people (`worker.avatar.body.garments`).  Their coefficients and betas
are one Gaussian for each outfit, a kind of top over a kind of bottom, so that the outline, the form
of the person and what hangs on it are found together.  Coefficients are metres, not logarithms:
girths go with those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from worker.avatar.body.articulated import ArticulatedShape
from worker.avatar.body.free import free_body, free_garments
from worker.avatar.body.garments import KINDS, OUTFITS, Cut, Outfit, sexes_of
from worker.avatar.types import Float64Array, Gender, Int64Array, ViewName

PROBABILITY: Mapping[str, float] = {"tight": 0.1, "slim": 0.1, "everyday": 0.77, "loose": 0.03}
"""How many people wear a kind of top, and independently of it of bottom, before looking.

Slim ones are expected as often as tight ones, a judgement.  Loose ones are expected less often than
they may be worn: one of forty who was taken for loosely dressed, where tops were loose at 3.9 % and
not at 0.9, came out 18 cm too slim with the fit of that time (docs/decisions/0023); with today's at
3 % nobody of some 240 is more than 10.4 cm too slim (docs/decisions/0027, which also says how the
shares of 0023 and 0025 differ from these)."""

CROTCH_MM: Mapping[str, tuple[float, float, float]] = {
    "tight": (6.0, 5.0, 2.5),
    "slim": (15.0, 12.5, 6.0),  # a judgement: half of everyday ones'
    "everyday": (30.0, 25.5, 7.0),
    "loose": (60.0, 60.0, 30.0),
}
"""How far below the crotch trouser legs part, from the front and in profile, and its spread: what
looks down on a thigh is no field over the skin."""

_CROTCHES = len(CROTCH_MM[KINDS[0]]) - 1
_LEAST_M = 1e-4
"""Spread that every coefficient has at least."""
_TRUNK_AND_LEGS = (0, 1, 2)
_ARMS = (16, 17, 18, 19)


@dataclass(frozen=True, slots=True, eq=False)
class Possible:
    """One sex in one kind of top and one of bottom: a Gaussian over all that the views share."""

    mean: Tensor
    """(N,) betas and, once people are dressed, coefficients of what they wear."""
    covariance: Tensor
    """(N, N)."""
    chance: float
    """Before looking."""
    outfit: Outfit | None = None
    """What they wear; None: nothing."""


class Wardrobe:
    """What the people of one body may wear.

    Args:
        shape: the body that is fitted; the free body's garments are carried over to any other.
        gender: whose betas are meant.
        scale: by which all garments are thicker (SILHOUETTE_TORSO_ERODE_PX over its default).
    """

    def __init__(self, shape: ArticulatedShape, gender: Gender, scale: float) -> None:
        like, self._garments = shape.template, free_garments()
        self._scale, self._like, self._gender = scale, like, gender
        nearest = _on_the_free_body(shape)
        self._knows_betas = nearest is None
        here = slice(None) if nearest is None else nearest
        modes = like.new_tensor(self._garments.modes[here])
        self.modes = torch.cat((modes, like.new_zeros((len(like), _CROTCHES))), dim=1)
        """(V, W) how far each mode stands off at each vertex; at the crotch, see `shown`."""
        self._folds_sq = {
            outfit: like.new_tensor(folds_m[here]) ** 2
            for outfit, folds_m in self._garments.folds_m.items()
        }
        self._crotch = shape.weights[:, list(_TRUNK_AND_LEGS)].sum(dim=1).clamp(max=1.0)
        self.may_be_bare = shape.weights[:, list(_ARMS)].sum(dim=1).clamp(max=1.0)
        """(V,) 1 on arms.  Not on legs: in one of eight photos trousers have the colour of skin,
        and legs that are bare are known by their form as tight ones (docs/decisions/0022)."""

    def shown(self, edges: Tensor, normal: Tensor, views: Sequence[ViewName]) -> Tensor:
        """(B, M, W) how far each mode stands off at each point of the outlines of B views.

        Args:
            edges: (B, M, n) vertices, each point in the middle of n.
            normal: (B, M, 2) outward on the image: what looks down on a thigh is the crotch.
            views: of each.
        """
        shown = self.modes[edges].mean(dim=2)
        down = ((normal[..., 1] - 0.3) / 0.5).clamp(0.0, 1.0) * self._crotch[edges].mean(dim=2)
        shown = shown * (1.0 - down).unsqueeze(-1)
        for index, view in enumerate(views):
            shown[index, :, -1 if view is ViewName.SIDE else -2] = down[index]
        return shown

    def folds_m(self, outfits: Mapping[Outfit, float]) -> Tensor:
        """(V,) root mean square of what the modes leave out.

        Args:
            outfits: how likely each is.
        """
        square = self._like.new_zeros(len(self._like))
        for outfit, chance in outfits.items():
            square = square + chance * self._folds_sq[outfit]
        return square.sqrt() * max(self._scale, 1.0)

    def dress(self, people: Sequence[Possible]) -> list[Possible]:
        """Everything that each of the people, in the order of `sexes_of`, might wear.

        Where the body is not the free one, what is worn is the same on everybody, and its betas
        have no sex: both sexes' clothes are then expected of a body without a gender.
        """
        sexes = sexes_of(self._gender)
        if len(people) < len(sexes):
            people = [people[0]] * len(sexes)
        odds = {(top, bottom): PROBABILITY[top] * PROBABILITY[bottom] for top, bottom in OUTFITS}
        total = sum(odds.values()) * len(sexes)
        return [
            self._dressed(who, sex, outfit, chance / total)
            for who, sex in zip(people, sexes, strict=True)
            for outfit, chance in odds.items()
        ]

    def _dressed(self, who: Possible, sex: Gender, outfit: Outfit, chance: float) -> Possible:
        cut = self._garments.cuts[outfit, self._gender, sex]
        if not self._knows_betas:
            cut = _of_anybody(cut, self._gender, sex, len(who.mean))
        _, bottom = outfit
        *crotch_mm, spread_mm = CROTCH_MM[bottom]
        like, count, modes = who.mean, len(who.mean), len(cut.middle)
        middle = torch.cat((like.new_tensor(cut.middle), like.new_tensor(crotch_mm) / 1000.0))
        by_betas = torch.cat(
            (like.new_tensor(cut.by_betas)[:, :count], like.new_zeros((_CROTCHES, count)))
        )
        own = _LEAST_M**2 * torch.eye(len(middle)).to(like)
        own[:modes, :modes] += like.new_tensor(cut.covariance)
        own.diagonal()[modes:] += (spread_mm / 1000.0) ** 2
        middle, by_betas = self._scale * middle, self._scale * by_betas
        # Thicker clothes vary more, thinner ones no less: where a tight top is expected to be a
        # hair, what is seen of it would otherwise speak for another kind.
        own = max(self._scale, 1.0) ** 2 * own
        shared = by_betas @ who.covariance
        covariance = torch.cat(
            (
                torch.cat((who.covariance, shared.mT), dim=1),
                torch.cat((shared, shared @ by_betas.mT + own), dim=1),
            )
        )
        mean = torch.cat((who.mean, middle + by_betas @ who.mean))
        return Possible(mean, covariance, chance, outfit)


@lru_cache(maxsize=8)
def wardrobe(shape: ArticulatedShape, gender: Gender, scale: float) -> Wardrobe:
    """Give the wardrobe of a body, made once."""
    with torch.inference_mode(mode=False):  # whoever asks first may be in it
        return Wardrobe(shape, gender, scale)


def _of_anybody(cut: Cut, gender: Gender, sex: Gender, count: int) -> Cut:
    """What an outfit does on all people of a sex together, whatever their betas."""
    people = free_body(gender).people
    if people is None:
        raise AssertionError("the free body knows its people")
    at = sexes_of(gender).index(sex)
    spread = cut.by_betas @ people.covariances[at] @ cut.by_betas.T
    none: Float64Array = cut.by_betas[:, :count] * 0.0
    return Cut(cut.middle + cut.by_betas @ people.means[at], none, cut.covariance + spread)


def _on_the_free_body(shape: ArticulatedShape) -> Int64Array | None:
    """(V,) the free body's vertex nearest to each of another's; None: it is the free body.

    Both in the T-pose, each vertex seen from the joint that carries most of it.
    """
    free = free_body(Gender.NEUTRAL)
    if len(shape.template) == len(free.v_template):
        return None
    weights = free.lbs_weights[:, : shape.weights.shape[1]]
    joints = free.J_regressor @ free.v_template
    theirs, ours = shape.weights.argmax(dim=1).cpu().numpy(), weights.argmax(axis=1)
    found: Int64Array = theirs * 0
    for joint in set(theirs.tolist()):
        where, among = (theirs == joint).nonzero()[0], (ours == joint).nonzero()[0]
        tree = cKDTree(free.v_template[among] - joints[joint])
        seen = (shape.template[where] - shape.joint_template[joint]).cpu().numpy()
        found[where] = among[tree.query(seen)[1]]
    return found
