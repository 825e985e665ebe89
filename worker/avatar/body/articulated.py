"""The fitted part of a body: betas and 22 joints, posed by linear blend skinning.

Fingers, jaw and eyes are stiff here: their weights go to the joint that carries them, which
leaves the first 22 joints of SMPL-X.  How points of the body move with what is fitted:
`worker.avatar.body.jacobian`.
"""

from __future__ import annotations

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

    def motions(self) -> Tensor:
        """(B, 4, 22, 3) what each joint does: three rows turn a point at rest, one carries it."""
        carried = self.joints - torch.einsum("bjac,jc->bja", self.rotations, self.rest_joints)
        return torch.cat((self.rotations.permute(0, 3, 1, 2), carried.unsqueeze(1)), dim=1)


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
        bones = rest - rest[above]
        bones_by_betas = self.joint_shapedirs - self.joint_shapedirs[above]
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
        motions = posed.motions().permute(0, 1, 3, 2)
        blended = motions.reshape(-1, motions.shape[3]) @ self._weights_by_joint
        *turned, carried = blended.view(*motions.shape[:3], -1).unbind(dim=1)
        # Not in place into `blended`, whose other rows autograd keeps for the derivative by betas.
        columns = torch.addcmul(carried, turned[0], rest[..., 0, None, :])
        for axis in (1, 2):
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
