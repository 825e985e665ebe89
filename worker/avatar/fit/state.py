"""The unknowns of a fit: one shape and what is worn; for each view a pose, a place and a lens."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from worker.avatar.body.articulated import ArticulatedShape, PosedSkeleton
from worker.avatar.fit import priors, rotation
from worker.avatar.fit.cloth import REGIONS

TURNS = 3 * len(priors.FITTED_JOINTS)
"""Unknowns of a view's pose; then come its place, its focal length, and its cloth by region."""
FOCAL = TURNS + 3
"""Where that of the focal length is."""
CLOTH = FOCAL + 1
"""Where those of the cloth begin."""
VIEW_UNKNOWNS = CLOTH + len(REGIONS)

_LARGEST_TURN = 0.6
"""Radians that one step may turn a joint: beyond, the linearisation means nothing."""
_LARGEST_FOCAL_STEP = 0.2
_LARGEST_CLOTH_STEP = 0.7
"""Of a logarithm: to half or to double."""


@dataclass(frozen=True, slots=True)
class FitState:
    """Where the solver stands; B views."""

    betas: Tensor
    """(K,) shared by all views."""
    local: Tensor
    """(B, 22, 3, 3) rotation of each joint in its parent's frame; the root's in the camera's."""
    transl: Tensor
    """(B, 3) metres, camera frame."""
    log_focal: Tensor
    """(B,) of working pixels."""
    cloth: Tensor
    """(B, R) logarithm of how many metres hair, collar, hands and shoes stand off."""
    worn: Tensor
    """(W,) coefficients of the wardrobe's modes, metres, shared by all views; (0,): undressed."""

    @property
    def shared(self) -> Tensor:
        """(K + W,) what all views have in common: betas, and what is worn."""
        return torch.cat((self.betas, self.worn))

    @property
    def views(self) -> int:
        """B."""
        return int(self.local.shape[0])

    def only(self, view: int) -> FitState:
        """The same shape with one of the views."""
        at = slice(view, view + 1)
        return FitState(
            self.betas,
            self.local[at],
            self.transl[at],
            self.log_focal[at],
            self.cloth[at],
            self.worn,
        )

    def posed(self, shape: ArticulatedShape) -> PosedSkeleton:
        """Place the joints of all views."""
        return shape.posed(self.betas, shape.global_rotations(self.local), self.transl)

    def moved(self, step: Tensor, posed: PosedSkeleton) -> FitState:
        """Take a step (K + W + B * VIEW_UNKNOWNS,) of the unknowns from here, where `posed` is.

        A joint's turn ω is about axes of the camera and carries what hangs on it:
        ``local' = G_parentᵀ exp(ω) G_parent local``.
        """
        num_betas, num_shared = len(self.betas), len(self.shared)
        per_view = step[num_shared:].view(self.views, VIEW_UNKNOWNS)
        turns = per_view[:, :TURNS].reshape(self.views, -1, 3)
        size = turns.norm(dim=-1, keepdim=True)
        turns = turns * (_LARGEST_TURN / size.clamp(min=_LARGEST_TURN))
        joints = list(priors.FITTED_JOINTS)
        above = posed.carriers[:, joints]
        local = self.local.clone()
        local[:, joints] = above.mT @ rotation.exp(turns) @ above @ self.local[:, joints]
        focal_step = per_view[:, FOCAL].clamp(-_LARGEST_FOCAL_STEP, _LARGEST_FOCAL_STEP)
        return replace(
            self,
            betas=self.betas + step[:num_betas],
            worn=self.worn + step[num_betas:num_shared],
            local=local,
            transl=self.transl + per_view[:, TURNS : TURNS + 3],
            log_focal=self.log_focal + focal_step,
            cloth=self.cloth + per_view[:, CLOTH:].clamp(-_LARGEST_CLOTH_STEP, _LARGEST_CLOTH_STEP),
        )


def stack(states: list[FitState]) -> FitState:
    """Join undressed views that were solved one by one; the shape is the mean of theirs."""
    return FitState(
        betas=torch.stack([state.betas for state in states]).mean(dim=0),
        local=torch.cat([state.local for state in states]),
        transl=torch.cat([state.transl for state in states]),
        log_focal=torch.cat([state.log_focal for state in states]),
        cloth=torch.cat([state.cloth for state in states]),
        worn=states[0].worn,
    )
