"""Whom the fit expects: how betas and what is worn are spread, stature, and weight if declared."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from worker.avatar.body.articulated import ArticulatedShape
from worker.avatar.body.garments import Outfit
from worker.avatar.body.model import People
from worker.avatar.body.volume import rest_volume
from worker.avatar.fit import priors
from worker.avatar.fit.laplace import log_evidence, shares
from worker.avatar.fit.residuals import ShapeRows
from worker.avatar.fit.wardrobe import Possible, Wardrobe
from worker.errors import OutOfRange

_DECIDED = 2.0
"""Power that the chances of what is worn are raised to before they are mixed.  Under tight and
under everyday clothes a body is 5 to 7 cm apart, so a chance of one in ten would move the mean by
half a centimetre that is wrong for nine people of ten.  The guess that is near most often is a
median, which stays by the likelier of two; a power comes close to that and, unlike a choice, does
not jump."""


class ShapePrior:
    """Betas are spread as people's are; stature and, when declared, weight are what was declared.

    Args:
        shape: the body.
        people: how betas are spread; None: each is standard normal.
        height_m: declared stature.
        weight_kg: declared weight, if any.
    """

    def __init__(
        self,
        shape: ArticulatedShape,
        people: People | None,
        height_m: float,
        weight_kg: float | None,
    ) -> None:
        self._shape = shape
        self._height_m = height_m
        self._weight_kg = weight_kg
        self._volume = None if weight_kg is None else rest_volume(shape)
        like, count = shape.template, shape.num_betas
        if people is None:
            means = like.new_zeros((1, count))
            covariances = torch.eye(count, dtype=like.dtype, device=like.device)[None]
        else:
            means = like.new_tensor(people.means[:, :count])
            covariances = like.new_tensor(people.covariances[:, :count, :count])
        even = 1.0 / len(means)
        self._possible = [
            Possible(mean, spread, even) for mean, spread in zip(means, covariances, strict=True)
        ]
        self._expect([even] * len(means))

    def dress(self, wardrobe: Wardrobe) -> None:
        """Expect, from now on, that they wear something."""
        self._possible = wardrobe.dress(self._possible)
        self._expect([each.chance for each in self._possible])

    def _expect(self, chances: Sequence[float]) -> None:
        """Take the Gaussian with mean and covariance of the mixture."""
        self._chances = list(chances)
        means = torch.stack([each.mean for each in self._possible])
        covariances = torch.stack([each.covariance for each in self._possible])
        weights = means.new_tensor(self._chances)
        self.usual = weights @ means
        """(K + W,) the mean of all that the views share."""
        apart = means - self.usual
        spread = covariances + apart[:, :, None] * apart[:, None, :]
        covariance = (weights[:, None, None] * spread).sum(dim=0)
        self._whiten = torch.linalg.inv(torch.linalg.cholesky(covariance))

    @property
    def outfits(self) -> dict[Outfit, float]:
        """How likely each outfit is; nobody wears any before they are dressed."""
        found: dict[Outfit, float] = {}
        for each, chance in zip(self._possible, self._chances, strict=True):
            if each.outfit is not None:
                found[each.outfit] = found.get(each.outfit, 0.0) + chance
        return found

    def weigh(self, shared: Tensor, matrix: Tensor, gradient: Tensor) -> None:
        """Expect from now on whom, and what on them, the photos leave possible.

        Args:
            shared: (K + W,) where the solver stands.
            matrix: (N, N) JᵀJ of everything, this prior too; what is shared comes first.
            gradient: (N,) Jᵀr of the same.
        """
        if len(self._possible) == 1:
            return
        at = torch.arange(len(shared), device=shared.device)
        ours = self._whiten.mT @ self._whiten
        matrix, gradient = matrix.clone(), gradient.clone()
        matrix[at[:, None], at] -= ours
        gradient[at] -= ours @ (shared - self.usual)
        chances = shares(
            [
                math.log(each.chance)
                + log_evidence(
                    matrix, gradient, at, torch.linalg.inv(each.covariance), shared - each.mean
                )
                for each in self._possible
            ]
        )
        worn: dict[Outfit | None, float] = {}
        for each, chance in zip(self._possible, chances, strict=True):
            worn[each.outfit] = worn.get(each.outfit, 0.0) + chance
        total = sum(chance**_DECIDED for chance in worn.values())
        self._expect(
            [
                chance * worn[each.outfit] ** (_DECIDED - 1.0) / total
                for each, chance in zip(self._possible, chances, strict=True)
            ]
        )

    def check_height(self) -> None:
        """Refuse heights that hardly any body of the model has.

        Raises:
            OutOfRange: with the range.
        """
        stature, top, floor = self._stature(self._shape.template.new_zeros(self._shape.num_betas))
        usual_m = self._height_m + float(stature) * priors.HEIGHT_SIGMA_M
        directions = self._shape.shapedirs
        spread_m = float((directions[top, 1] - directions[floor, 1]).norm())
        if abs(self._height_m - usual_m) > priors.FARTHEST_HEIGHT_SIGMAS * spread_m:
            reach_m = priors.FARTHEST_HEIGHT_SIGMAS * spread_m
            raise OutOfRange(
                f"The body model reaches from {usual_m - reach_m:.2f} to {usual_m + reach_m:.2f} m;"
                f" {self._height_m:.2f} m is outside."
            )

    def residual(self, shared: Tensor) -> Tensor:
        """(R,) in standard deviations, of what is shared (K + W,)."""
        betas = shared[: self._shape.num_betas]
        parts = [self._whiten @ (shared - self.usual), self._stature(betas)[0]]
        if (weight := self._mass(betas)) is not None:
            parts.append(weight[0])
        return torch.cat(parts)

    def rows(self, shared: Tensor) -> ShapeRows:
        """Linearise."""
        betas = shared[: self._shape.num_betas]
        stature, top, floor = self._stature(betas)
        directions = self._shape.shapedirs
        residual = [self._whiten @ (shared - self.usual), stature]
        by_betas = [(directions[top, 1] - directions[floor, 1]) / priors.HEIGHT_SIGMA_M]
        if (weight := self._mass(betas)) is not None:
            residual.append(weight[0])
            by_betas.append(weight[1])
        declared = self._whiten.new_zeros((len(by_betas), len(shared)))
        declared[:, : len(betas)] = torch.stack(by_betas)
        return ShapeRows(torch.cat(residual), torch.cat((self._whiten, declared)))

    def weight_disagreement(self, betas: Tensor) -> float | None:
        """How many standard deviations a body is heavier than declared; None: nothing was."""
        weight = self._mass(betas)
        return None if weight is None else float(weight[0])

    def _stature(self, betas: Tensor) -> tuple[Tensor, int, int]:
        """Residual (1,) and the vertices of crown and soles that it hangs on."""
        stature, top, floor = self._shape.stature(betas)
        return ((stature - self._height_m) / priors.HEIGHT_SIGMA_M)[None], top, floor

    def _mass(self, betas: Tensor) -> tuple[Tensor, Tensor] | None:
        """Residual (1,) of the weight and its derivative (K,); None: none was declared."""
        if self._weight_kg is None or self._volume is None:
            return None
        volume, by_betas = self._volume.at(betas)
        residual = (volume * priors.BODY_DENSITY_KG_M3 - self._weight_kg) / priors.WEIGHT_SIGMA_KG
        return residual[None], by_betas * (priors.BODY_DENSITY_KG_M3 / priors.WEIGHT_SIGMA_KG)
