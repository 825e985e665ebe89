"""Where points of the skinned body are, and how they move with shape and pose: in closed form.

Linear blend skinning puts vertex i at ``p_i = Σ_j w_ij (G_j (v_i − J_j) + T_j)``, with the shaped
vertex v and joint J linear in betas, G_j the global rotation of joint j, and T_j its place.  Then

* by betas: ``Σ_j w_ij (G_j (∂v_i − ∂J_j) + ∂T_j)``, where ∂T_j sums ``G_parent(k) (∂J_k −
  ∂J_parent(k))`` along the chain of j;
* by a turn ω of joint a and of all that hangs on it, about axes of the world: ``ω × Q_a``, where
  ``Q_a = Σ_{j below a} w_ij (p_ij − T_a)`` and p_ij is where joint j alone would carry the vertex;
* by translation: the identity.

All of this is linear in two things a point has for each of its joints: its share of the place at
rest, and of the weight.  A residual on the image asks only for what a point does along a direction
or two, so that derivatives are pulled back along these (`PlacedPoints.rows`), not taken along all
three axes first.

Pose correctives (the operator's SMPL-X has them, the free body has not) can enter as offsets whose
own derivative by pose, a few millimetres a radian, is left out; the fitter, which so far has the
free body alone, passes none.  Tests hold these formulas against autograd.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from worker.avatar.body.articulated import ArticulatedShape, PosedSkeleton


@dataclass(frozen=True, slots=True)
class PointJacobian:
    """Points of the body and their derivatives; by translation it is the identity."""

    points: Tensor
    """(B, M, 3)."""
    by_betas: Tensor
    """(B, M, 3, K)."""
    by_turns: Tensor
    """(B, M, 3, A, 3): by a turn about each world axis of each of A joints."""


@dataclass(frozen=True, slots=True)
class PointRows:
    """What points do along given directions; by translation it is those directions."""

    by_betas: Tensor
    """(B, M, n, K)."""
    by_turns: Tensor
    """(B, M, n, A, 3)."""


@lru_cache(maxsize=4)
def body_keypoints(shape: ArticulatedShape) -> RegressedPoints:
    """Give the body's 23 keypoints; they are prepared once and shared."""
    with torch.inference_mode(mode=False):  # as for `articulated_shape`
        return RegressedPoints(shape, shape.keypoint_regressor)


class SkinnedPoints(ABC):
    """M points of the body, each a fixed mixture of its vertices.

    A point is linear in its features: for each joint the mixture of what that joint carries at
    rest, and how much of the point that is.  So one product with what the joints do gives all
    points, and another all their levers.
    """

    def __init__(self, shape: ArticulatedShape, weights: Tensor) -> None:
        self._shape = shape
        self._weights = weights
        """(B or 1, M, 22): how much of each point each joint carries."""

    @abstractmethod
    def _rest(self, posed: PosedSkeleton) -> Tensor:
        """(B, M, 3, 22): the mixture at rest, weighted by what each joint carries of it."""

    @abstractmethod
    def _pulled_shapedirs(self, rotations: Tensor, along: Tensor) -> Tensor:
        """(B, M, n, K): by betas along (B, M, n, 3), the joints held where they are."""

    def at(self, posed: PosedSkeleton) -> PlacedPoints:
        """The points of a posed body."""
        weights = self._weights.expand(len(posed.rotations), -1, -1).unsqueeze(2)
        features = torch.cat((self._rest(posed), weights), dim=2).flatten(2)
        return PlacedPoints(self, posed, features)

    def points(self, posed: PosedSkeleton) -> Tensor:
        """(B, M, 3) where the points are."""
        return self.at(posed).points()

    def jacobian(self, posed: PosedSkeleton, turned: Tensor) -> PointJacobian:
        """Where the points are and how they move along all three axes.

        Args:
            posed: the joints.
            turned: (A,) int64 joints whose turns are asked for.
        """
        placed = self.at(posed)
        points = placed.points()
        axes = torch.eye(3, dtype=points.dtype, device=points.device)
        rows = placed.rows(turned, axes.expand(*points.shape[:2], 3, 3))
        return PointJacobian(points, rows.by_betas, rows.by_turns)

    def by_betas(self, posed: PosedSkeleton, along: Tensor) -> Tensor:
        """(B, M, n, K) by betas along (B, M, n, 3)."""
        views, points, directions = along.shape[:3]
        joint_part = posed.joints_by_betas - torch.einsum(
            "bjac,jck->bjak", posed.rotations, self._shape.joint_shapedirs
        )
        weights = self._weights.expand(views, -1, -1)
        on_joints = along.unsqueeze(4) * weights[:, :, None, None]
        by_joints = on_joints.view(views, -1, 66) @ joint_part.transpose(1, 2).flatten(1, 2)
        by_joints = by_joints.view(views, points, directions, -1)
        return by_joints.add_(self._pulled_shapedirs(posed.rotations, along))

    def carried_by(self, turned: Tensor) -> Tensor:
        """(22, A): 1 where a joint hangs on one of those that turn, itself included."""
        return self._shape.carries[turned].T


@dataclass(frozen=True, slots=True)
class PlacedPoints:
    """Points of a body in B poses."""

    kind: SkinnedPoints
    posed: PosedSkeleton
    features: Tensor
    """(B, M, 88) in which places and levers are linear: see `SkinnedPoints`; four a joint."""

    def points(self) -> Tensor:
        """(B, M, 3) where they are."""
        return self.features @ self.posed.motions().flatten(1, 2)

    def rows(self, turned: Tensor, along: Tensor) -> PointRows:
        """How they move along directions that the caller chooses.

        A residual on the image asks for one or two directions of a point and not for three: to
        pull these back through the joints costs a third of the whole Jacobian.

        Args:
            turned: (A,) int64 joints whose turns are asked for.
            along: (B, M, n, 3) in the world.
        """
        views, points = along.shape[:2]
        # What a turn of joint a moves: what hangs on it, seen from where it is.
        motions = self.posed.motions().unsqueeze(4).repeat(1, 1, 1, 1, len(turned))
        motions[:, 3] -= self.posed.joints[:, None, turned].mT
        motions *= self.kind.carried_by(turned).unsqueeze(1)
        levers = (self.features @ motions.view(views, 88, -1)).view(views, points, 1, 3, -1)
        return PointRows(
            by_betas=self.kind.by_betas(self.posed, along),
            by_turns=_turned(levers, along.unsqueeze(4)),
        )


class VertexMixtures(SkinnedPoints):
    """Points of few vertices each, such as middles of edges.

    Args:
        shape: the body.
        vertex_index: (B, M, n) int64 the vertices of each point, for each of B poses.
        coefficients: (B, M, n) their shares, which sum to 1.
    """

    def __init__(self, shape: ArticulatedShape, vertex_index: Tensor, coefficients: Tensor) -> None:
        self._index = vertex_index.flatten(1)
        self._template = shape.template[vertex_index]
        # (B, M, n * 3, K): the vertices of a point side by side, so that products sum over them.
        self._by_betas = shape.shapedirs[vertex_index].flatten(2, 3)
        # (B, M, n, 22): skinning weight times share.
        self._shares = shape.weights[vertex_index] * coefficients.unsqueeze(-1)
        super().__init__(shape, self._shares.sum(dim=2))

    def _rest(self, posed: PosedSkeleton) -> Tensor:
        rest = self._template + (self._by_betas @ posed.betas).view(self._template.shape)
        if posed.offsets is not None:
            moved = posed.offsets.gather(1, self._index.unsqueeze(-1).expand(-1, -1, 3))
            rest = rest + moved.view(rest.shape)
        # Σ share ⊗ place, written out: products of so small matrices take three times as long.
        rest, shares = rest.unsqueeze(4), self._shares.unsqueeze(3)
        mixed = rest[:, :, 0] * shares[:, :, 0]
        for vertex in range(1, rest.shape[2]):
            mixed.addcmul_(rest[:, :, vertex], shares[:, :, vertex])
        return mixed

    def _pulled_shapedirs(self, rotations: Tensor, along: Tensor) -> Tensor:
        views, points, vertices = self._shares.shape[:3]
        blended = self._shares.flatten(1, 2) @ rotations.flatten(2)
        blended = blended.view(views, points, vertices, 3, 3).transpose(2, 3).flatten(3)
        pulled = (along @ blended).unsqueeze(4)
        by_betas = self._by_betas.unsqueeze(2)
        # As above.
        summed = pulled[:, :, :, 0] * by_betas[:, :, :, 0]
        for column in range(1, 3 * vertices):
            summed.addcmul_(pulled[:, :, :, column], by_betas[:, :, :, column])
        return summed


class RegressedPoints(SkinnedPoints):
    """Points that mix many vertices, such as keypoints: the mixture is taken once, by joint.

    Pose correctives are left out: they move the skin of a bent joint, hardly its middle.

    Args:
        shape: the body.
        regressor: (M, V), rows sum to 1.
    """

    def __init__(self, shape: ArticulatedShape, regressor: Tensor) -> None:
        super().__init__(shape, (regressor @ shape.weights).unsqueeze(0))
        carried = (shape.template.unsqueeze(-1) * shape.weights.unsqueeze(1)).flatten(1)
        self._template = (regressor @ carried).view(1, len(regressor), 3, -1)
        by_point = []
        for row in regressor:
            used = row.nonzero().squeeze(1)
            shares = row[used].unsqueeze(1) * shape.weights[used]
            by_point.append(torch.einsum("vj,vck->cjk", shares, shape.shapedirs[used]))
        # (M, 66, K).
        self._by_betas = torch.stack(by_point).flatten(1, 2)

    def _rest(self, posed: PosedSkeleton) -> Tensor:
        moved = (self._by_betas @ posed.betas).view(self._template.shape)
        return (self._template + moved).expand(len(posed.rotations), -1, -1, -1)

    def _pulled_shapedirs(self, rotations: Tensor, along: Tensor) -> Tensor:
        by_joint = rotations.permute(0, 2, 3, 1).flatten(2)
        return (along @ by_joint.unsqueeze(1)) @ self._by_betas


def _turned(levers: Tensor, along: Tensor) -> Tensor:
    """(…, A, 3) along · (axis × lever), for each axis, of (…, 3, A) levers: lever × along."""
    x, y, z = levers.unbind(dim=-2)
    along_x, along_y, along_z = along.unbind(dim=-2)
    return torch.stack(
        (
            (y * along_z).addcmul_(z, along_y, value=-1),
            (z * along_x).addcmul_(x, along_z, value=-1),
            (x * along_y).addcmul_(y, along_x, value=-1),
        ),
        dim=-1,
    )
