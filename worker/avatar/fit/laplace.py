"""Which of several priors the photos speak for: the evidence of each, by Laplace's method."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_NOTHING = 1e-9
"""Beside curvatures of 1 and more; the solver's own steps have it, too."""


def log_evidence(
    matrix: Tensor, gradient: Tensor, at: Tensor, precision: Tensor, away: Tensor
) -> float:
    """Logarithm of how likely a Gaussian prior makes what was seen, but for a common constant.

    With residuals that are linear around where they were taken, the integral over all unknowns
    is that of a Gaussian: ``-2 log Z = min loss + log det(H + P) - log det P`` (MacKay, "Bayesian
    interpolation", Neural Computation, 1992).

    Args:
        matrix: (N, N) H = JᵀJ of all residuals but those of this prior.
        gradient: (N,) Jᵀr of the same.
        at: (n,) which unknowns the prior is about.
        precision: (n, n) P.
        away: (n,) from the prior's mean to where the residuals were taken.
    """
    whole = matrix.clone()
    whole[at[:, None], at] += precision
    # What nothing speaks of, as cloth that nobody wears, is the same for every prior.
    whole.diagonal().add_(_NOTHING)
    slope = gradient.clone()
    slope[at] += precision @ away
    factored = torch.linalg.cholesky(whole)
    solved = torch.cholesky_solve(slope.unsqueeze(1), factored).squeeze(1)
    loss = away @ precision @ away - slope @ solved
    log_det = 2.0 * factored.diagonal().log().sum() - torch.logdet(precision)
    return float(-0.5 * (loss + log_det))


def shares(scores: Sequence[float]) -> list[float]:
    """Probabilities from logarithms that lack a common constant."""
    highest = max(scores)
    weights = [math.exp(score - highest) for score in scores]
    return [weight / sum(weights) for weight in weights]
