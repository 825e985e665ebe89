"""A body in the SMPL-X format: what its file holds, and how betas and a pose become vertices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from worker.avatar.body.layout import NUM_JOINTS
from worker.avatar.types import Float32Array, Float64Array, Gender, Int64Array

_BLOCK_VERTICES = 1024
"""What is skinned at once: few joints of the 55 carry so small a part, and caches hold it."""
_FEW_BODIES = 8
"""Fewer are skinned faster in one go."""


@dataclass(frozen=True, slots=True, eq=False)
class People:
    """How the betas of adults are spread: equally likely Gaussians, one for each sex it may be."""

    means: Float64Array
    """(C, K)."""
    covariances: Float64Array
    """(C, K, K)."""


@dataclass(frozen=True, slots=True, eq=False)
class BodyData:
    """A body model as arrays: V vertices, F faces, 55 joints, K shape directions.

    Metres, y up, +z forward, the left side at +x, in the T-pose, the pelvis near the origin.
    """

    gender: Gender
    name: str
    digest: str
    """SHA-256 of the file that it came from."""
    v_template: Float32Array
    """(V, 3)."""
    shapedirs: Float32Array
    """(V, 3, K): displacement of each vertex by one standard deviation of each beta."""
    expressiondirs: Float32Array
    """(V, 3, 10): the same for expressions of the face."""
    posedirs: Float32Array | None
    """(V, 3, 486) pose correctives; None where the body has none, as the free one."""
    J_regressor: Float32Array
    """(55, V): joints from the vertices of the shaped T-pose; rows sum to one."""
    lbs_weights: Float32Array
    """(V, 55); rows sum to one."""
    parents: Int64Array
    """(55,), -1 for the root."""
    faces: Int64Array
    """(F, 3), counter-clockwise seen from outside."""
    keypoint_regressor: Float32Array
    """(23, V): `worker.avatar.types.KEYPOINTS` from posed vertices; rows sum to one."""
    people: People | None = None
    """Who is fitted; None: betas are standard normal, as those of SMPL-X are."""

    @property
    def source(self) -> str:
        """Name and digest, for `sources`."""
        return f"{self.name}-{self.gender.value}@{self.digest[:8]}"


@dataclass(frozen=True, slots=True, eq=False)
class DisplayMesh:
    """A simplification of a body's topology, made once per model: it only picks vertices."""

    vertex_index: Int64Array
    """(Vd,): which of the body's vertices are kept."""
    faces: Int64Array
    """(Fd, 3), indices into `vertex_index`."""


@dataclass(frozen=True, slots=True, eq=False)
class BodyOutput:
    """Posed bodies."""

    vertices: Tensor
    """(B, V, 3) metres."""
    joints: Tensor
    """(B, 55, 3) metres."""
    transforms: Tensor
    """(B, 55, 4, 4): takes a point of the shaped T-pose to where its joint carries it."""


def rotation_matrices(axis_angle: Tensor) -> Tensor:
    """Rodrigues' formula, smooth through zero.

    Args:
        axis_angle: (..., 3) radians.

    Returns:
        (..., 3, 3).
    """
    angle_sq = (axis_angle * axis_angle).sum(dim=-1)[..., None, None]
    tiny = angle_sq < 1e-8
    safe_sq = torch.where(tiny, torch.ones_like(angle_sq), angle_sq)
    angle = safe_sq.sqrt()
    # sin(t)/t and (1 - cos(t))/t², by their series where t is tiny.
    sinc = torch.where(tiny, 1.0 - angle_sq / 6.0, angle.sin() / angle)
    cosc = torch.where(tiny, 0.5 - angle_sq / 24.0, (1.0 - angle.cos()) / safe_sq)
    x, y, z = axis_angle.unbind(dim=-1)
    zero = torch.zeros_like(x)
    cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), dim=-1)
    cross = cross.view(*axis_angle.shape[:-1], 3, 3)
    identity = torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device)
    return identity + sinc * cross + cosc * (cross @ cross)


class BodyModel(nn.Module):
    """Betas, a pose and a place in; vertices and joints out.  Linear blend skinning.

    M. Loper et al., "SMPL: A skinned multi-person linear model", 2015; G. Pavlakos et al.,
    "Expressive body capture", 2019, for the 55 joints.

    Four things make it faster than `smplx`, with the same outcome (`avatar-worker bench body`):
    coordinates are kept apart, (B, 3, V), so that every step runs along the vertices; joints
    come from betas, in which they are linear, and not from vertices; joints of one depth of the
    skeleton are carried together; and parts of the mesh are skinned by the joints they hang on.
    """

    v_template: Tensor
    """(V, 3)."""
    J_regressor: Tensor
    """(55, V)."""
    lbs_weights: Tensor
    """(V, 55)."""
    faces: Tensor
    """(F, 3) int64."""
    _directions: Tensor
    """(K, 3 V) or, with pose correctives, (K + 486, 3 V): one product moves all vertices."""
    _joint_template: Tensor
    _joint_directions: Tensor
    """(55, 3) and (K, 165)."""

    def __init__(
        self, data: BodyData, num_betas: int | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        """Prepare `data` for computing.

        Args:
            data: the body.
            num_betas: how many of its shape directions to use; all by default.
            dtype: float32 or float64.
        """
        super().__init__()
        self.data = data
        available = data.shapedirs.shape[2]
        self.num_betas = available if num_betas is None else num_betas
        if not 0 < self.num_betas <= available:
            raise ValueError(f"num_betas must be 1..{available}, not {num_betas}")
        self.parents = [int(parent) for parent in data.parents]
        self._levels = joint_levels(self.parents)
        self._blocks = _blocks(data.lbs_weights)
        self._whole = _Block(slice(None), slice(None))

        def buffer(name: str, array: NDArray[Any]) -> None:
            self.register_buffer(name, torch.tensor(np.ascontiguousarray(array), dtype=dtype))

        shapedirs = data.shapedirs[:, :, : self.num_betas]
        directions = [shapedirs] if data.posedirs is None else [shapedirs, data.posedirs]
        regressor = data.J_regressor.astype(np.float64)
        buffer("v_template", data.v_template)
        buffer("J_regressor", data.J_regressor)
        buffer("lbs_weights", data.lbs_weights)
        buffer("_directions", np.concatenate([_by_coordinate(each) for each in directions]))
        buffer("_joint_template", regressor @ data.v_template)
        joints_by_beta = np.tensordot(regressor, shapedirs.astype(np.float64), axes=1)
        buffer("_joint_directions", joints_by_beta.reshape(-1, self.num_betas).T)
        self.register_buffer("faces", torch.tensor(data.faces))

    @property
    def device(self) -> torch.device:
        """Where the buffers are."""
        return self.v_template.device

    @property
    def shapedirs(self) -> Tensor:
        """(V, 3, K): displacement of each vertex by one standard deviation of each beta."""
        return self._directions[: self.num_betas].view(self.num_betas, 3, -1).permute(2, 1, 0)

    def shaped(self, betas: Tensor) -> Tensor:
        """Give the T-posed bodies.

        Args:
            betas: (B, K).

        Returns:
            (B, V, 3) metres.
        """
        return self._moved(betas).transpose(1, 2).contiguous()

    def forward(self, betas: Tensor, pose: Tensor, transl: Tensor) -> BodyOutput:
        """Shape, pose and place bodies.

        Args:
            betas: (B, K) in standard deviations.
            pose: (B, 55, 3) axis-angle of each joint against its parent; row 0 turns the whole.
            transl: (B, 3) metres, added last.
        """
        rotations = rotation_matrices(pose)
        moves = betas
        if len(self._directions) > self.num_betas:
            identity = torch.eye(3, dtype=pose.dtype, device=pose.device)
            moves = torch.cat((betas, (rotations[:, 1:] - identity).flatten(1)), dim=1)
        joints = self._joint_template + (betas @ self._joint_directions).view(-1, NUM_JOINTS, 3)
        carried = self._chain(rotations, joints)
        turned, places = carried[..., :3], carried[..., 3] + transl[:, None]
        offset = places - (turned @ joints.unsqueeze(-1)).squeeze(-1)
        skinning = torch.cat((turned, offset.unsqueeze(-1)), dim=-1)
        transforms = pose.new_zeros((*pose.shape[:2], 4, 4))
        transforms[..., :3, :] = skinning
        transforms[..., 3, 3] = 1.0
        return BodyOutput(self._skinned(self._moved(moves), skinning), places, transforms)

    def _moved(self, moves: Tensor) -> Tensor:
        """(B, 3, V) the template moved along directions by (B, K or K + 486)."""
        template = self.v_template.T.reshape(1, -1)
        moved = torch.addmm(template, moves, self._directions[: moves.shape[1]])
        return moved.view(len(moves), 3, -1)

    def _chain(self, rotations: Tensor, joints: Tensor) -> Tensor:
        """Carry joints (B, 55, 3) and rotations (B, 55, 3, 3) from the root outwards.

        Returns:
            (B, 55, 3, 4): global rotation and place of each joint.
        """
        above = [max(parent, 0) for parent in self.parents]
        bones = (joints - joints[:, above]).unsqueeze(-1)
        local = torch.cat((rotations, bones), dim=-1)
        level = torch.cat((rotations[:, :1], joints[:, :1].unsqueeze(-1)), dim=-1)
        levels = [level]
        for joints_here, parents in self._levels.deeper:
            parent = level[:, parents]
            step = parent[..., :3] @ local[:, joints_here]
            # The last column is a place: the parent's own is where it starts from.
            level = torch.cat((step[..., :3], step[..., 3:] + parent[..., 3:]), dim=-1)
            levels.append(level)
        return torch.cat(levels, dim=1)[:, self._levels.order]

    def _skinned(self, rest: Tensor, skinning: Tensor) -> Tensor:
        """(B, V, 3) vertices at rest (B, 3, V) carried by their joints' (B, 55, 3, 4)."""
        by_joint = skinning.permute(0, 2, 3, 1)
        blocks = self._blocks if len(rest) >= _FEW_BODIES and rest.device.type == "cpu" else []
        parts = []
        for block in blocks or [self._whole]:
            matrices = by_joint[..., block.joints].flatten(0, 2)
            weights = self.lbs_weights[block.vertices, block.joints]
            blended = (matrices @ weights.T).view(len(rest), 3, 4, -1)
            across, up, ahead = rest[:, None, :, block.vertices].unbind(dim=2)
            skinned = torch.addcmul(blended[:, :, 3], blended[:, :, 0], across)
            skinned.addcmul_(blended[:, :, 1], up).addcmul_(blended[:, :, 2], ahead)
            parts.append(skinned.transpose(1, 2))
        return torch.cat(parts, dim=1)


@dataclass(frozen=True, slots=True)
class _Block:
    """Vertices that follow each other in the mesh, and the joints that any of them hangs on."""

    vertices: slice
    joints: list[int] | slice


def _blocks(lbs_weights: Float32Array) -> list[_Block]:
    """Cut the mesh into blocks.  Neighbours hang on the same few of the 55 joints."""
    blocks = []
    for first in range(0, len(lbs_weights), _BLOCK_VERTICES):
        vertices = slice(first, first + _BLOCK_VERTICES)
        joints = np.flatnonzero(lbs_weights[vertices].any(axis=0)).tolist()
        blocks.append(_Block(vertices, joints))
    return blocks


class JointLevel(NamedTuple):
    """Joints that are equally far from the root."""

    joints: list[int]
    parents: list[int]
    """Where each one's parent stands among the joints of the level before."""


@dataclass(frozen=True, slots=True)
class JointLevels:
    """A skeleton in the order in which it is carried: a level at a time."""

    deeper: list[JointLevel]
    """From the root's children outwards."""
    order: list[int]
    """Where each joint stands when the root and these levels are put one after another."""


def joint_levels(parents: Sequence[int]) -> JointLevels:
    """Sort joints by how far they are from the root, joint 0.

    Args:
        parents: the joint that each joint hangs on.
    """
    deeper, level, sequence = [], [0], [0]
    while True:
        joints = [joint for joint, parent in enumerate(parents) if joint and parent in level]
        if not joints:
            break
        deeper.append(JointLevel(joints, [level.index(parents[joint]) for joint in joints]))
        sequence += joints
        level = joints
    return JointLevels(deeper, [sequence.index(joint) for joint in range(len(parents))])


def _by_coordinate(directions: Float32Array) -> Float32Array:
    """Turn (V, 3, K) into (K, 3 V), all x first."""
    return np.ascontiguousarray(directions.transpose(2, 1, 0)).reshape(directions.shape[2], -1)
