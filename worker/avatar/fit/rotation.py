"""Rotations as the solver needs them: batched, smooth at the identity.

Formulas: Solà, Deray, Atchuthan, "A micro Lie theory for state estimation in robotics" (2018),
arXiv:1812.01537, equations (132) to (146).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from worker.avatar.body.model import rotation_matrices

exp = rotation_matrices
"""Rodrigues' formula: (…, 3) axis-angle to (…, 3, 3) rotation matrices."""

_SMALL = 1e-6
"""Below this angle the Taylor series is exact to float64."""


def hat(vector: Tensor) -> Tensor:
    """Turn (…, 3) vectors into (…, 3, 3) matrices whose product is the cross product."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    rows = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), dim=-1)
    return rows.view(*vector.shape[:-1], 3, 3)


def log(rotation: Tensor) -> Tensor:
    """Axis-angle (…, 3) of rotation matrices (…, 3, 3), angles in [0, π].

    Goes through the unit quaternion, which stays accurate at half a turn, where the
    antisymmetric part of the matrix vanishes.
    """
    quaternion = _quaternion(rotation)
    real, imaginary = quaternion[..., :1], quaternion[..., 1:]
    norm = imaginary.norm(dim=-1, keepdim=True)
    angle = 2.0 * torch.atan2(norm, real)
    return imaginary * torch.where(norm < _SMALL, 2.0 / real, angle / norm.clamp(min=_SMALL))


def left_jacobian_inverse(axis_angle: Tensor) -> Tensor:
    """(…, 3, 3) derivative of log(exp(ω) exp(θ)) by ω at ω = 0, for θ below a full turn."""
    angle = axis_angle.norm(dim=-1)[..., None, None]
    matrix = hat(axis_angle)
    safe = angle.clamp(min=1e-3)
    exact = 1 / safe**2 - (1 + safe.cos()) / (2 * safe * safe.sin().clamp(min=1e-9))
    factor = torch.where(angle < 1e-3, torch.full_like(angle, 1.0 / 12.0), exact)
    identity = torch.eye(3, dtype=matrix.dtype, device=matrix.device)
    return identity - 0.5 * matrix + factor * (matrix @ matrix)


def between(source: Tensor, target: Tensor) -> Tensor:
    """Smallest rotation (…, 3, 3) that turns directions `source` into `target`, both (…, 3)."""
    source = torch.nn.functional.normalize(source, dim=-1)
    target = torch.nn.functional.normalize(target, dim=-1)
    axis = torch.linalg.cross(source, target)
    sine = axis.norm(dim=-1, keepdim=True)
    cosine = (source * target).sum(dim=-1, keepdim=True)
    angle = torch.atan2(sine, cosine)
    # Opposite directions leave the axis free: any perpendicular one serves.
    other = torch.zeros_like(source)
    other.scatter_(-1, source.abs().argmin(dim=-1, keepdim=True), 1.0)
    spare = torch.nn.functional.normalize(torch.linalg.cross(source, other), dim=-1)
    direction = torch.where(sine > 1e-9, axis / sine.clamp(min=1e-9), spare)
    return exp(direction * angle)


def about(axis: int, degrees: float, *, like: Tensor) -> Tensor:
    """(3, 3) rotation about coordinate axis 0, 1 or 2, with the dtype and device of `like`."""
    vector = torch.zeros(3, dtype=like.dtype, device=like.device)
    vector[axis] = math.radians(degrees)
    return exp(vector)


def _quaternion(rotation: Tensor) -> Tensor:
    """Unit quaternions (…, 4), real part first and not negative.

    Of the four algebraically equal forms the one with the largest component is used (Shepperd,
    "Quaternion from rotation matrix", 1978).
    """
    m = rotation.flatten(-2)
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = m.unbind(-1)
    forms = torch.stack(
        (
            torch.stack((1 + m00 + m11 + m22, m21 - m12, m02 - m20, m10 - m01), dim=-1),
            torch.stack((m21 - m12, 1 + m00 - m11 - m22, m10 + m01, m02 + m20), dim=-1),
            torch.stack((m02 - m20, m10 + m01, 1 - m00 + m11 - m22, m21 + m12), dim=-1),
            torch.stack((m10 - m01, m02 + m20, m21 + m12, 1 - m00 - m11 + m22), dim=-1),
        ),
        dim=-2,
    )
    largest = torch.diagonal(forms, dim1=-2, dim2=-1).argmax(dim=-1)
    index = largest[..., None, None].expand(*largest.shape, 1, 4)
    chosen = torch.nn.functional.normalize(forms.gather(-2, index).squeeze(-2), dim=-1)
    return torch.where(chosen[..., :1] < 0, -chosen, chosen)
