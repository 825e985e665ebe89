"""A body in the SMPL-X format: what its file holds, and how betas and a pose become vertices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from worker.avatar.types import Float32Array, Gender, Int64Array


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
    """

    v_template: Tensor
    shapedirs: Tensor
    J_regressor: Tensor
    lbs_weights: Tensor
    faces: Tensor
    posedirs: Tensor | None

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

        def buffer(name: str, array: Float32Array) -> None:
            contiguous = np.ascontiguousarray(array)
            self.register_buffer(name, torch.tensor(contiguous, dtype=dtype))

        buffer("v_template", data.v_template)
        buffer("shapedirs", data.shapedirs[:, :, : self.num_betas])
        buffer("J_regressor", data.J_regressor)
        buffer("lbs_weights", data.lbs_weights)
        self.register_buffer("faces", torch.tensor(data.faces))
        if data.posedirs is None:
            self.posedirs = None
        else:
            buffer("posedirs", data.posedirs)

    @property
    def device(self) -> torch.device:
        """Where the buffers are."""
        return self.v_template.device

    def shaped(self, betas: Tensor) -> Tensor:
        """Give the T-posed bodies.

        Args:
            betas: (B, K).

        Returns:
            (B, V, 3) metres.
        """
        return self.v_template + torch.einsum("bk,vck->bvc", betas, self.shapedirs)

    def forward(self, betas: Tensor, pose: Tensor, transl: Tensor) -> BodyOutput:
        """Shape, pose and place bodies.

        Args:
            betas: (B, K) in standard deviations.
            pose: (B, 55, 3) axis-angle of each joint against its parent; row 0 turns the whole.
            transl: (B, 3) metres, added last.
        """
        v_shaped = self.shaped(betas)
        joints = torch.einsum("jv,bvc->bjc", self.J_regressor, v_shaped)
        rotations = rotation_matrices(pose)
        v_posed = v_shaped
        if self.posedirs is not None:
            identity = torch.eye(3, dtype=pose.dtype, device=pose.device)
            feature = (rotations[:, 1:] - identity).flatten(1)
            v_posed = v_shaped + torch.einsum("bp,vcp->bvc", feature, self.posedirs)
        carried, turned = self._chain(rotations, joints)
        offset = carried - (turned @ joints.unsqueeze(-1)).squeeze(-1)
        skin_rotation = torch.einsum("vj,bjcd->bvcd", self.lbs_weights, turned)
        skin_offset = torch.einsum("vj,bjc->bvc", self.lbs_weights, offset)
        vertices = (skin_rotation @ v_posed.unsqueeze(-1)).squeeze(-1) + skin_offset
        transforms = pose.new_zeros((*pose.shape[:2], 4, 4))
        transforms[..., :3, :3] = turned
        transforms[..., :3, 3] = offset + transl[:, None]
        transforms[..., 3, 3] = 1.0
        return BodyOutput(vertices + transl[:, None], carried + transl[:, None], transforms)

    def _chain(self, rotations: Tensor, joints: Tensor) -> tuple[Tensor, Tensor]:
        """Carry joints (B, 55, 3) and rotations (B, 55, 3, 3) from the root outwards."""
        turned, carried = [rotations[:, 0]], [joints[:, 0]]
        for joint, parent in enumerate(self.parents[1:], start=1):
            bone = (joints[:, joint] - joints[:, parent]).unsqueeze(-1)
            carried.append(carried[parent] + (turned[parent] @ bone).squeeze(-1))
            turned.append(turned[parent] @ rotations[:, joint])
        return torch.stack(carried, dim=1), torch.stack(turned, dim=1)
