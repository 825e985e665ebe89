"""Posing: what betas, a pose and a place do to a body."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from worker.avatar.body.free import free_body
from worker.avatar.body.layout import JOINT_INDEX
from worker.avatar.body.model import BodyModel, rotation_matrices
from worker.avatar.body.poses import a_pose, t_pose
from worker.avatar.types import Gender


@pytest.fixture(scope="module")
def model() -> BodyModel:
    return BodyModel(free_body(Gender.NEUTRAL), num_betas=10, dtype=torch.float64)


def zeros(*shape: int) -> torch.Tensor:
    return torch.zeros(*shape, dtype=torch.float64)


def test_rotations_agree_with_the_matrix_exponential() -> None:
    vectors = torch.randn(50, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    vectors = torch.cat([2 * vectors, 1e-3 * vectors, 1e-5 * vectors, zeros(1, 3)])
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).view(-1, 3, 3)
    assert (rotation_matrices(vectors) - torch.matrix_exp(skew)).abs().max() < 1e-12


def test_rotations_have_a_finite_right_gradient_at_zero() -> None:
    vector = zeros(3).requires_grad_()
    jacobian = torch.autograd.functional.jacobian(rotation_matrices, vector)
    # dR/dx at zero is the generator of rotations about x.
    generator = torch.tensor([[0, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=torch.float64)
    torch.testing.assert_close(jacobian[..., 0], generator)


def test_the_t_pose_is_the_shaped_body(model: BodyModel) -> None:
    betas = torch.randn(3, 10, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    pose = torch.tensor(t_pose()).expand(3, -1, -1)
    out = model(betas, pose, zeros(3, 3))
    torch.testing.assert_close(out.vertices, model.shaped(betas), atol=1e-6, rtol=0)


def test_the_a_pose_lowers_the_arms_by_the_angle_asked_for(model: BodyModel) -> None:
    pose = torch.tensor(a_pose(25.0))[None]
    flat = model(zeros(1, 10), zeros(1, 55, 3), zeros(1, 3)).joints[0]
    lowered = model(zeros(1, 10), pose, zeros(1, 3)).joints[0]
    for side in ("left", "right"):
        shoulder, wrist = JOINT_INDEX[f"{side}_shoulder"], JOINT_INDEX[f"{side}_wrist"]
        angles = []
        for joints in (flat, lowered):
            across, up, _ = joints[wrist] - joints[shoulder]
            angles.append(math.degrees(math.atan2(-up, abs(across))))
        assert angles[1] - angles[0] == pytest.approx(25.0, abs=1e-6)
    np.testing.assert_array_equal(np.flatnonzero(a_pose(25.0).any(axis=1)), [16, 17])


def test_transforms_carry_each_joint_to_its_place(model: BodyModel) -> None:
    generator = torch.Generator().manual_seed(3)
    betas = torch.randn(2, 10, generator=generator, dtype=torch.float64)
    pose = torch.randn(2, 55, 3, generator=generator, dtype=torch.float64)
    out = model(betas, pose, torch.randn(2, 3, generator=generator, dtype=torch.float64))
    at_rest = model.J_regressor @ model.shaped(betas)
    carried = (out.transforms[..., :3, :3] @ at_rest[..., None])[..., 0]
    torch.testing.assert_close(carried + out.transforms[..., :3, 3], out.joints)


def test_a_turn_of_the_whole_body_moves_it_rigidly_about_the_pelvis(model: BodyModel) -> None:
    turn = torch.tensor([0.3, -2.0, 0.5], dtype=torch.float64)
    pose = zeros(1, 55, 3)
    still = model(zeros(1, 10), pose, zeros(1, 3))
    pose[0, 0] = turn
    moved = model(zeros(1, 10), pose, zeros(1, 3))
    pelvis = still.joints[:, :1]
    expected = (still.vertices - pelvis) @ rotation_matrices(turn).T + pelvis
    torch.testing.assert_close(moved.vertices, expected, atol=1e-6, rtol=0)


def test_a_batch_gives_what_single_bodies_give(model: BodyModel) -> None:
    generator = torch.Generator().manual_seed(4)
    betas = torch.randn(3, 10, generator=generator, dtype=torch.float64)
    pose = torch.randn(3, 55, 3, generator=generator, dtype=torch.float64)
    transl = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    together = model(betas, pose, transl).vertices
    for row in range(3):
        one = slice(row, row + 1)
        torch.testing.assert_close(
            together[one], model(betas[one], pose[one], transl[one]).vertices
        )


def test_a_batch_that_is_skinned_in_blocks_gives_what_single_bodies_give(model: BodyModel) -> None:
    generator = torch.Generator().manual_seed(6)
    count = 9
    betas = torch.randn(count, 10, generator=generator, dtype=torch.float64)
    pose = torch.randn(count, 55, 3, generator=generator, dtype=torch.float64)
    transl = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    together = model(betas, pose, transl).vertices
    singly = [model(*(part[row : row + 1] for part in (betas, pose, transl))) for row in range(9)]
    torch.testing.assert_close(together, torch.cat([one.vertices for one in singly]))
    betas.requires_grad_()
    whole = torch.autograd.grad(model(betas, pose, transl).vertices.square().sum(), betas)[0]
    alone = model(betas[:1], pose[:1], transl[:1]).vertices.square().sum()
    torch.testing.assert_close(whole[:1], torch.autograd.grad(alone, betas)[0][:1])


def test_shape_directions_keep_their_meaning(model: BodyModel) -> None:
    assert np.array_equal(model.shapedirs.float().numpy(), model.data.shapedirs[:, :, :10])


def test_gradients_reach_betas_pose_and_place(model: BodyModel) -> None:
    inputs = [zeros(1, 10), zeros(1, 55, 3), zeros(1, 3)]
    for tensor in inputs:
        tensor.requires_grad_()
    model(*inputs).vertices.square().sum().backward()
    for tensor in inputs:
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()
        assert tensor.grad.abs().max() > 0


def test_more_betas_than_the_body_has_are_refused() -> None:
    with pytest.raises(ValueError, match="num_betas"):
        BodyModel(free_body(Gender.MALE), num_betas=51)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_gives_what_the_cpu_gives(model: BodyModel) -> None:
    generator = torch.Generator().manual_seed(5)
    betas = torch.randn(8, 10, generator=generator, dtype=torch.float64)
    pose = torch.randn(8, 55, 3, generator=generator, dtype=torch.float64)
    on_cpu = model(betas, pose, zeros(8, 3)).vertices
    on_gpu = BodyModel(model.data, 10, torch.float64).cuda()(
        betas.cuda(), pose.cuda(), zeros(8, 3).cuda()
    )
    torch.testing.assert_close(on_gpu.vertices.cpu(), on_cpu, atol=1e-8, rtol=0)
