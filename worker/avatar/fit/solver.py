"""Damped Gauss-Newton over all unknowns of a fit: assemble, step, accept or damp more.

Shape and clothes are shared and the views are not, so the normal matrix is a bordered block
diagonal one: assembling it by blocks saves the time, solving it densely costs a fraction of a
millisecond.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.avatar.body.articulated import ArticulatedShape, PosedSkeleton
from worker.avatar.body.jacobian import SkinnedPoints
from worker.avatar.fit import priors
from worker.avatar.fit.cloth import ClothPrior
from worker.avatar.fit.evidence import Evidence
from worker.avatar.fit.people import ShapePrior
from worker.avatar.fit.residuals import (
    ImageTargets,
    PosePrior,
    ShapeRows,
    ViewRows,
    keypoint_targets,
)
from worker.avatar.fit.state import CLOTH, VIEW_UNKNOWNS, FitState
from worker.errors import FitFailed

_FIRST_DAMPING = 1e-3
_LEAST_DAMPING = 1e-6
_MOST_DAMPING = 1e3
_ATTEMPTS = 5
"""Steps tried at one linearisation before it is given up."""


class NormalEquations:
    """JᵀJ and Jᵀr, summed block by block."""

    def __init__(self, num_shared: int, views: int, like: Tensor) -> None:
        size = num_shared + views * VIEW_UNKNOWNS
        self._num_shared = num_shared
        self.matrix = like.new_zeros((size, size))
        self.gradient = like.new_zeros(size)
        self.loss = like.new_zeros(())
        """What is minimised, where it was linearised: the same as `Solver.loss`."""

    def copy(self) -> NormalEquations:
        """The same equations, to go on with."""
        other = copy(self)
        other.matrix, other.gradient = self.matrix.clone(), self.gradient.clone()
        other.loss = self.loss.clone()
        return other

    def add_views(self, rows: ViewRows) -> None:
        """Add residuals that hang on what is shared and on their own view."""
        self.loss += rows.loss
        shared = slice(0, self._num_shared)
        by_shared = rows.by_shared.flatten(0, 1)
        self.matrix[shared, shared] += by_shared.mT @ by_shared
        self.gradient[shared] += by_shared.mT @ rows.residual.flatten()
        view_view = rows.by_view.mT @ rows.by_view
        shared_view = rows.by_shared.mT @ rows.by_view
        view_gradient = (rows.by_view.mT @ rows.residual.unsqueeze(-1)).squeeze(-1)
        for view in range(rows.residual.shape[0]):
            start = self._num_shared + view * VIEW_UNKNOWNS
            own = slice(start, start + VIEW_UNKNOWNS)
            self.matrix[own, own] += view_view[view]
            self.matrix[shared, own] += shared_view[view]
            self.matrix[own, shared] += shared_view[view].mT
            self.gradient[own] += view_gradient[view]

    def add_cloth(self, prior: ClothPrior, cloth: Tensor) -> None:
        """Add what is known of cloth before looking."""
        self.loss += prior.loss(cloth)
        views, regions = cloth.shape
        first = self._num_shared + CLOTH + VIEW_UNKNOWNS * torch.arange(views, device=cloth.device)
        at = (first[:, None] + torch.arange(regions, device=cloth.device)).flatten()
        self.matrix[at[:, None], at] += prior.precision
        self.gradient[at] += prior.precision @ (cloth - prior.mean).flatten()

    def add_shared(self, rows: ShapeRows) -> None:
        """Add residuals that hang on what is shared alone."""
        self.loss += rows.loss
        shared = slice(0, self._num_shared)
        self.matrix[shared, shared] += rows.by_shared.mT @ rows.by_shared
        self.gradient[shared] += rows.by_shared.mT @ rows.residual

    def step(self, damping: float) -> Tensor:
        """Solve for the step, damped along each unknown by its own curvature (Marquardt 1963)."""
        diagonal = torch.diagonal(self.matrix)
        damped = self.matrix + torch.diag(damping * diagonal + 1e-9)
        return -torch.cholesky_solve(
            self.gradient.unsqueeze(1), torch.linalg.cholesky(damped)
        ).squeeze(1)

    def covariance_of(self, count: int) -> Tensor:
        """(count, count) covariance of the first unknowns, betas, with all others unknown."""
        jitter = 1e-9 * torch.diagonal(self.matrix).clamp(min=1.0)
        inverse: Tensor = torch.linalg.inv(self.matrix + torch.diag(jitter))
        return inverse[:count, :count]


@dataclass(slots=True)
class Solver:
    """All that is known about one person, ready to be made small."""

    shape: ArticulatedShape
    keypoints: ImageTargets
    pose_prior: PosePrior
    shape_prior: ShapePrior
    centre: Tensor
    """(B, 2) principal points."""
    damping: float = _FIRST_DAMPING
    cloth_prior: ClothPrior | None = None
    """Of hair, collars, hands and shoes; None: there are none."""
    _last_posed: tuple[FitState, PosedSkeleton] | None = None
    _last_seen: tuple[FitState, ImageTargets | None, NormalEquations] | None = None

    @classmethod
    def of(
        cls,
        shape: ArticulatedShape,
        keypoints: SkinnedPoints,
        views: Sequence[Evidence],
        mean_pose: Tensor,
        shape_prior: ShapePrior,
    ) -> Solver:
        """Gather the terms that do not change from step to step.

        Args:
            shape: the body.
            keypoints: its 23 keypoints.
            views: the evidence of B views.
            mean_pose: (B, 22, 3, 3) local rotations around which poses are spread.
            shape_prior: of betas, height and weight.
        """
        like = shape.template
        return cls(
            shape=shape,
            keypoints=keypoint_targets(keypoints, views, like),
            pose_prior=PosePrior(shape, views, mean_pose),
            shape_prior=shape_prior,
            centre=like.new_tensor([view.centre_px for view in views]),
        )

    def posed(self, state: FitState) -> PosedSkeleton:
        """The joints at a state; it is asked for several times before the solver moves on."""
        if self._last_posed is None or self._last_posed[0] is not state:
            self._last_posed = (state, state.posed(self.shape))
        return self._last_posed[1]

    def loss(self, state: FitState, outline: ImageTargets | None) -> float:
        """Half of what is minimised is not taken: the plain sum of (robust) squares."""
        posed = self.posed(state)
        total = self.keypoints.loss(state, posed, self.centre)
        if outline is not None:
            total = total + outline.loss(state, posed, self.centre)
        total = total + (self.pose_prior.residual(state) ** 2).sum()
        total = total + (self.shape_prior.residual(state.shared) ** 2).sum()
        if self.cloth_prior is not None:
            total = total + self.cloth_prior.loss(state.cloth)
        return float(total)

    def linearise(self, state: FitState, outline: ImageTargets | None) -> NormalEquations:
        """Assemble the normal equations at a state."""
        equations = self._seen(state, outline).copy()
        equations.add_shared(self.shape_prior.rows(state.shared))
        return equations

    def _seen(self, state: FitState, outline: ImageTargets | None) -> NormalEquations:
        """Assemble all but the prior of the shape, which may change where the solver stands.

        The prior of cloth may not: it is set before anything is linearised against an outline.
        """
        last = self._last_seen
        if last is not None and last[0] is state and last[1] is outline:
            return last[2]
        posed = self.posed(state)
        turned = torch.tensor(priors.FITTED_JOINTS, device=state.betas.device)
        equations = NormalEquations(len(state.shared), state.views, state.betas)
        equations.add_views(self.keypoints.rows(state, posed, self.centre, turned))
        if outline is not None:
            equations.add_views(outline.rows(state, posed, self.centre, turned))
        equations.add_views(self.pose_prior.rows(state, posed))
        if self.cloth_prior is not None:
            equations.add_cloth(self.cloth_prior, state.cloth)
        self._last_seen = (state, outline, equations)
        return equations

    def find_people(self, state: FitState, outline: ImageTargets) -> None:
        """Find out who it may be and what is worn, and expect that from now on."""
        equations = self.linearise(state, outline)
        self.shape_prior.weigh(state.shared, equations.matrix, equations.gradient)

    def settle(
        self, state: FitState, outline: ImageTargets | None, share: float
    ) -> tuple[FitState, float]:
        """Go a share of the way to where these targets lead, whatever that does to the loss.

        Returns:
            The new state, and how far betas would have moved on the whole way.
        """
        step = self.linearise(state, outline).step(self.damping)
        return state.moved(share * step, self.posed(state)), float(step[: len(state.betas)].norm())

    def improve(self, state: FitState, outline: ImageTargets | None) -> tuple[FitState, float]:
        """Take one accepted step; return the new state and the share of the loss it saved.

        Raises:
            FitFailed: the loss is not a number any more.
        """
        equations = self.linearise(state, outline)
        before = float(equations.loss)
        if not before < float("inf"):
            raise FitFailed(f"the loss of the fit is {before}")
        posed = self.posed(state)
        for _ in range(_ATTEMPTS):
            tried = state.moved(equations.step(self.damping), posed)
            after = self.loss(tried, outline)
            if after < before:
                self.damping = max(self.damping / 5.0, _LEAST_DAMPING)
                return tried, (before - after) / before
            self.damping = min(self.damping * 10.0, _MOST_DAMPING)
        return state, 0.0
