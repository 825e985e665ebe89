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

Fingers, jaw and eyes are stiff here: their weights go to the joint that carries them, which
leaves the first 22 joints of SMPL-X.  Pose correctives (the operator's SMPL-X has them, the free
body has not) can enter as offsets whose own derivative by pose, a few millimetres a radian, is
left out; the fitter, which so far has the free body alone, passes none.  Tests hold these
formulas against autograd.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from worker.avatar.body.model import BodyData, joint_levels

BODY_JOINTS = 22
"""Joints that a body without fingers and face keeps: SMPL-X 0 … 21, pelvis to wrists."""

_END_JOINTS = (7, 8, 10, 11, 15)
"""Ankles, feet and head: between their skins a standing body is measured."""


@dataclass(frozen=True, slots=True)
class PosedSkeleton:
    """A body's joints in B poses, and their derivatives by betas."""

    betas: Tensor
    """(K,) shared by all poses."""
    rotations: Tensor
    """(B, 22, 3, 3) global rotations."""
    carriers: Tensor
    """(B, 22, 3, 3) those of each joint's parent; the identity for the root's."""
    rest_joints: Tensor
    """(22, 3) of the shaped body."""
    joints: Tensor
    """(B, 22, 3) as posed."""
    joints_by_betas: Tensor
    """(B, 22, 3, K)."""
    offsets: Tensor | None
    """(B, V, 3) pose correctives of the vertices at rest, or None."""


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


class ArticulatedShape(torch.nn.Module):
    """The fitted part of a body: K betas and 22 joints.

    Args:
        data: the body in the SMPL-X layout.
        num_betas: K, at most as many as `data.shapedirs` has.
        dtype: of all tensors; the solver wants float64.
    """

    def __init__(self, data: BodyData, num_betas: int, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        parents = [int(parent) for parent in data.parents[:BODY_JOINTS]]
        self.parents: tuple[int, ...] = (-1, *parents[1:])
        self._levels = joint_levels(self.parents)
        shapedirs = np.asarray(data.shapedirs[:, :, :num_betas], dtype=np.float64)
        template = np.asarray(data.v_template, dtype=np.float64)
        regressor = np.asarray(data.J_regressor[:BODY_JOINTS], dtype=np.float64)

        def register(name: str, array: np.ndarray) -> None:
            self.register_buffer(name, torch.tensor(array, dtype=dtype), persistent=False)

        register("template", template)
        register("shapedirs", shapedirs)
        register("weights", _stiff_weights(np.asarray(data.lbs_weights), np.asarray(data.parents)))
        register("joint_template", regressor @ template)
        register("joint_shapedirs", np.einsum("jv,vck->jck", regressor, shapedirs))
        self.register_buffer("_weights_by_joint", self.weights.mT.contiguous(), persistent=False)
        register("carries", _carries(self.parents))
        register("keypoint_regressor", np.asarray(data.keypoint_regressor, dtype=np.float64))
        ends = torch.nonzero(self.weights[:, list(_END_JOINTS)].sum(dim=1) > 0.5).squeeze(1)
        self.register_buffer("_ends", ends, persistent=False)
        register("_end_template", template[ends, 1])
        register("_end_shapedirs", shapedirs[ends, 1])
        self.register_buffer("faces", torch.tensor(data.faces), persistent=False)

    # Declared for the type checker: `register_buffer` sets them.
    template: Tensor
    """(V, 3)."""
    shapedirs: Tensor
    """(V, 3, K)."""
    weights: Tensor
    """(V, 22)."""
    joint_template: Tensor
    """(22, 3)."""
    joint_shapedirs: Tensor
    """(22, 3, K)."""
    _weights_by_joint: Tensor
    """(22, V)."""
    carries: Tensor
    """(22, 22): 1 where the row's joint carries the column's, itself included."""
    keypoint_regressor: Tensor
    """(23, V)."""
    faces: Tensor
    """(F, 3) int64."""
    _ends: Tensor
    _end_template: Tensor
    _end_shapedirs: Tensor
    """(E,) vertices of head and feet, their heights (E,), and (E, K)."""

    @property
    def num_betas(self) -> int:
        """K."""
        return int(self.shapedirs.shape[2])

    def shaped(self, betas: Tensor) -> Tensor:
        """(V, 3) vertices at rest of the betas (K,)."""
        return self.template + (self.shapedirs.flatten(0, 1) @ betas).view(-1, 3)

    def stature(self, betas: Tensor) -> tuple[Tensor, int, int]:
        """Give the height at rest (a scalar, metres), and the vertices of crown and sole.

        Only the skin of head and feet is moved, not all of it.

        Args:
            betas: (K,).
        """
        heights = self._end_template + self._end_shapedirs @ betas
        top, floor = int(heights.argmax()), int(heights.argmin())
        return heights[top] - heights[floor], int(self._ends[top]), int(self._ends[floor])

    def global_rotations(self, local: Tensor) -> Tensor:
        """Chain local rotations (B, 22, 3, 3) into global ones of the same shape."""
        level = local[:, :1]
        levels = [level]
        for joints, parents in self._levels.deeper:
            level = level[:, parents] @ local[:, joints]
            levels.append(level)
        return torch.cat(levels, dim=1)[:, self._levels.order]

    def parent_rotations(self, rotations: Tensor) -> Tensor:
        """(B, 22, 3, 3) global rotation of each joint's parent; the identity for the root's."""
        parents = list(self.parents)
        above = rotations[:, [max(parent, 0) for parent in parents]].clone()
        above[:, 0] = torch.eye(3, dtype=rotations.dtype, device=rotations.device)
        return above

    def posed(
        self, betas: Tensor, rotations: Tensor, transl: Tensor, offsets: Tensor | None = None
    ) -> PosedSkeleton:
        """Place the joints.

        Args:
            betas: (K,).
            rotations: (B, 22, 3, 3) global.
            transl: (B, 3) as in SMPL-X: the pelvis lies at its rest place plus this.
            offsets: (B, V, 3) pose correctives to add to the vertices at rest.
        """
        rest = self.joint_template + self.joint_shapedirs @ betas
        above = [max(parent, 0) for parent in self.parents]
        bones, bones_by_betas = (
            rest - rest[above],
            self.joint_shapedirs - (self.joint_shapedirs[above]),
        )
        carriers = self.parent_rotations(rotations)
        steps = torch.einsum("bjac,jc->bja", carriers, bones)
        steps[:, 0] = rest[0] + transl
        steps_by_betas = torch.einsum("bjac,jck->bjak", carriers, bones_by_betas)
        steps_by_betas[:, 0] = self.joint_shapedirs[0]
        return PosedSkeleton(
            betas=betas,
            rotations=rotations,
            carriers=carriers,
            rest_joints=rest,
            joints=torch.einsum("kj,bka->bja", self.carries, steps),
            joints_by_betas=torch.einsum("kj,bkan->bjan", self.carries, steps_by_betas),
            offsets=offsets,
        )

    def vertices(self, posed: PosedSkeleton) -> Tensor:
        """(B, V, 3) all vertices of the posed body."""
        rest = self.shaped(posed.betas).mT.contiguous()
        if posed.offsets is not None:
            rest = rest + posed.offsets.mT
        # Coordinate by coordinate, along all vertices: a product of small matrices for each vertex
        # takes four times as long.
        motions = _motions(posed).permute(0, 1, 3, 2)
        blended = motions.reshape(-1, motions.shape[3]) @ self._weights_by_joint
        *turned, columns = blended.view(*motions.shape[:3], -1).unbind(dim=1)
        for axis in range(3):
            columns.addcmul_(turned[axis], rest[..., axis, None, :])
        return columns.mT


@lru_cache(maxsize=4)
def articulated_shape(data: BodyData, num_betas: int, device: torch.device) -> ArticulatedShape:
    """Give the fitted part of a body on a device; it is prepared once and shared.

    Args:
        data: the body.
        num_betas: K.
        device: where the solver works.
    """
    # Whoever asks first may be in inference mode, whose tensors autograd cannot use later.
    with torch.inference_mode(mode=False):
        return ArticulatedShape(data, num_betas).to(device)


@lru_cache(maxsize=4)
def body_keypoints(shape: ArticulatedShape) -> RegressedPoints:
    """Give the body's 23 keypoints; they are prepared once and shared."""
    with torch.inference_mode(mode=False):  # as above
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
        return self.features @ _motions(self.posed).flatten(1, 2)

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
        motions = _motions(self.posed).unsqueeze(4).repeat(1, 1, 1, 1, len(turned))
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


def _motions(posed: PosedSkeleton) -> Tensor:
    """(B, 4, 22, 3) what each joint does: three rows turn a point at rest, one carries it."""
    turns = posed.rotations.permute(0, 3, 1, 2)
    return torch.cat((turns, _origins(posed).unsqueeze(1)), dim=1)


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


def _origins(posed: PosedSkeleton) -> Tensor:
    """(B, 22, 3) where each joint would carry the origin of the body at rest."""
    return posed.joints - torch.einsum("bjac,jc->bja", posed.rotations, posed.rest_joints)


def _stiff_weights(lbs_weights: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """(V, 22) weights with those of fingers, jaw and eyes given to the joint that carries them."""
    weights = np.asarray(lbs_weights, dtype=np.float64)
    stiff = weights[:, :BODY_JOINTS].copy()
    for joint in range(BODY_JOINTS, weights.shape[1]):
        carrier = joint
        while carrier >= BODY_JOINTS:
            carrier = int(parents[carrier])
        stiff[:, carrier] += weights[:, joint]
    return stiff


def _carries(parents: tuple[int, ...]) -> np.ndarray:
    table = np.zeros((BODY_JOINTS, BODY_JOINTS))
    for joint in range(BODY_JOINTS):
        carrier = joint
        while carrier >= 0:
            table[carrier, joint] = 1.0
            carrier = parents[carrier]
    return table
