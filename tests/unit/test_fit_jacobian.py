"""The closed-form derivatives that the solver lives on, against autograd and the body itself."""

import numpy as np
import pytest
import torch
from torch import Tensor

from worker.avatar.body.articulated import BODY_JOINTS, ArticulatedShape, articulated_shape
from worker.avatar.body.free import free_body
from worker.avatar.body.jacobian import (
    RegressedPoints,
    SkinnedPoints,
    VertexMixtures,
    body_keypoints,
)
from worker.avatar.body.model import BodyModel, rotation_matrices
from worker.avatar.fit import rotation
from worker.avatar.fit.camera import project
from worker.avatar.types import Gender

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
NUM_BETAS = 6
TURNED = torch.tensor([0, 3, 16, 19])


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU here")
    return torch.device(request.param)


@pytest.fixture
def shape(device: torch.device) -> ArticulatedShape:
    return ArticulatedShape(free_body(Gender.FEMALE), NUM_BETAS).to(device)


def randoms(device: torch.device, *size: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(sum(size))
    return (torch.randn(*size, generator=generator, dtype=torch.float64) * scale).to(device)


def kinds_of_points(shape: ArticulatedShape) -> list[SkinnedPoints]:
    device = shape.template.device
    vertices = torch.arange(0, 12000, 500, device=device)
    edges = torch.stack((vertices, vertices + 7), dim=1).expand(2, -1, -1)
    halves = torch.full(edges.shape, 0.5, dtype=torch.float64, device=device)
    return [VertexMixtures(shape, edges, halves), RegressedPoints(shape, shape.keypoint_regressor)]


def test_the_fitted_body_is_the_body_with_stiff_hands(shape: ArticulatedShape) -> None:
    device = shape.template.device
    betas, transl = randoms(device, NUM_BETAS), randoms(device, 2, 3)
    pose = torch.zeros(2, 55, 3, dtype=torch.float64, device=device)
    pose[:, :BODY_JOINTS] = randoms(device, 2, BODY_JOINTS, 3, scale=0.4)
    body = BodyModel(free_body(Gender.FEMALE), NUM_BETAS, dtype=torch.float64).to(device)
    expected = body(betas.expand(2, -1), pose, transl)

    local = rotation_matrices(pose[:, :BODY_JOINTS])
    posed = shape.posed(betas, shape.global_rotations(local), transl)
    # The weights are float32: rows sum to one within 1e-7.
    torch.testing.assert_close(shape.vertices(posed), expected.vertices, rtol=0, atol=1e-6)
    torch.testing.assert_close(posed.joints, expected.joints[:, :BODY_JOINTS], rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", [0, 1], ids=["edges", "keypoints"])
def test_points_move_with_shape_and_turns_as_autograd_says(
    shape: ArticulatedShape, kind: int
) -> None:
    device = shape.template.device
    points = kinds_of_points(shape)[kind]
    turned = TURNED.to(device)
    betas, transl = randoms(device, NUM_BETAS), randoms(device, 2, 3)
    local = rotation_matrices(randoms(device, 2, BODY_JOINTS, 3, scale=0.4))
    rotations = shape.global_rotations(local)
    carries = shape.carries[turned]

    def moved(betas: Tensor, turns: Tensor, transl: Tensor) -> Tensor:
        """Turn joints, and what hangs on them, about axes of the world, one after another."""
        turning = rotations
        for row, turn in enumerate(turns):
            spun = rotation_matrices(turn) @ turning
            turning = torch.where(carries[row].bool()[None, :, None, None], spun, turning)
        return points.points(shape.posed(betas, turning, transl))

    found = points.jacobian(shape.posed(betas, rotations, transl), turned)
    still = torch.zeros(len(turned), 3, dtype=torch.float64, device=device)
    by_betas, by_turns, by_transl = torch.autograd.functional.jacobian(
        moved, (betas, still, transl)
    )
    torch.testing.assert_close(found.points, moved(betas, still, transl), rtol=0, atol=1e-12)
    torch.testing.assert_close(found.by_betas, by_betas, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.by_turns, by_turns, rtol=0, atol=1e-10)
    own = torch.stack([by_transl[view, :, :, view] for view in range(2)])
    torch.testing.assert_close(own, torch.eye(3, dtype=own.dtype, device=device).expand_as(own))


@pytest.mark.parametrize("kind", [0, 1], ids=["edges", "keypoints"])
@pytest.mark.parametrize("directions", [1, 2])
def test_rows_are_the_jacobian_along_their_directions(
    shape: ArticulatedShape, kind: int, directions: int
) -> None:
    device = shape.template.device
    points = kinds_of_points(shape)[kind]
    local = rotation_matrices(randoms(device, 2, BODY_JOINTS, 3, scale=0.4))
    betas, transl = randoms(device, NUM_BETAS), randoms(device, 2, 3)
    posed = shape.posed(betas, shape.global_rotations(local), transl)
    whole = points.jacobian(posed, TURNED.to(device))
    along = randoms(device, *whole.points.shape[:2], directions, 3)
    rows = points.at(posed).rows(TURNED.to(device), along)
    torch.testing.assert_close(rows.by_betas, along @ whole.by_betas)
    expected = (along @ whole.by_turns.flatten(3)).view(rows.by_turns.shape)
    torch.testing.assert_close(rows.by_turns, expected)


def test_pose_correctives_move_the_skin_but_not_the_keypoints(shape: ArticulatedShape) -> None:
    device = shape.template.device
    local = rotation_matrices(randoms(device, 2, BODY_JOINTS, 3, scale=0.4))
    betas, transl = randoms(device, NUM_BETAS), randoms(device, 2, 3)
    rotations = shape.global_rotations(local)
    offsets = randoms(device, 2, len(shape.template), 3, scale=0.01)
    plain = shape.posed(betas, rotations, transl)
    corrected = shape.posed(betas, rotations, transl, offsets)
    edges, keypoints = kinds_of_points(shape)
    torch.testing.assert_close(keypoints.points(corrected), keypoints.points(plain))
    vertices = torch.arange(0, 12000, 500, device=device)
    skin = shape.vertices(corrected)
    middles = 0.5 * (skin[:, vertices] + skin[:, vertices + 7])
    torch.testing.assert_close(edges.points(corrected), middles)
    assert (edges.points(corrected) - edges.points(plain)).abs().max() > 1e-3


@pytest.mark.parametrize("corrected", [False, True], ids=["plain", "pose correctives"])
def test_autograd_follows_all_vertices(shape: ArticulatedShape, corrected: bool) -> None:
    device = shape.template.device
    betas, transl = randoms(device, NUM_BETAS), randoms(device, 2, 3)
    local = rotation_matrices(randoms(device, 2, BODY_JOINTS, 3, scale=0.4))
    rotations, offsets = shape.global_rotations(local), None
    if corrected:
        offsets = randoms(device, 2, len(shape.template), 3, scale=0.01)

    def vertices(*moved: Tensor) -> Tensor:
        return shape.vertices(shape.posed(*moved, offsets))

    inputs = (betas, rotations, transl)
    for tensor in inputs:
        tensor.requires_grad_(True)
    along = randoms(device, 2, len(shape.template), 3)
    gradients = torch.autograd.grad((vertices(*inputs) * along).sum(), inputs)
    with torch.no_grad():
        for row, gradient in enumerate(gradients):
            step = 1e-6 * randoms(device, *gradient.shape)
            there, back = (
                vertices(*(x + sign * step if i == row else x for i, x in enumerate(inputs)))
                for sign in (1, -1)
            )
            found = (there - back).mul(along).sum() / 2.0
            torch.testing.assert_close((gradient * step).sum(), found, rtol=1e-6, atol=0)


@pytest.mark.parametrize("seed", range(4))
def test_stature_is_the_height_of_the_whole_body(shape: ArticulatedShape, seed: int) -> None:
    betas = 2.0 * randoms(shape.template.device, NUM_BETAS + seed)[:NUM_BETAS]
    heights = shape.shaped(betas)[:, 1]
    stature, top, floor = shape.stature(betas)
    torch.testing.assert_close(stature, heights.max() - heights.min())
    assert (top, floor) == (int(heights.argmax()), int(heights.argmin()))


def test_what_is_prepared_once_serves_autograd_whoever_asked_first() -> None:
    data, cpu = free_body(Gender.FEMALE), torch.device("cpu")
    with torch.inference_mode():
        keypoints = body_keypoints(articulated_shape(data, NUM_BETAS, cpu))
    shape = articulated_shape(data, NUM_BETAS, cpu)
    assert body_keypoints(shape) is keypoints
    betas = torch.zeros(NUM_BETAS, dtype=torch.float64, requires_grad=True)
    still = torch.eye(3, dtype=torch.float64).expand(1, BODY_JOINTS, 3, 3)
    points = keypoints.points(shape.posed(betas, still, still.new_zeros((1, 3))))
    (gradient,) = torch.autograd.grad(points.square().sum(), betas)
    assert gradient.abs().max() > 0


def test_pixels_move_with_points_and_focal_length_as_autograd_says(device: torch.device) -> None:
    points = randoms(device, 2, 5, 3) + torch.tensor([0.0, 0.0, 4.0], device=device)
    log_focal = torch.tensor([6.9, 7.1], dtype=torch.float64, device=device)
    centre = torch.tensor([[300.0, 400.0], [310.0, 390.0]], dtype=torch.float64, device=device)
    seen = project(points, log_focal, centre)
    by_point, by_focal = torch.autograd.functional.jacobian(
        lambda p, f: project(p, f, centre).uv, (points, log_focal)
    )
    for view in range(2):
        for index in range(5):
            torch.testing.assert_close(
                seen.by_point[view, index], by_point[view, index, :, view, index]
            )
        torch.testing.assert_close(seen.by_log_focal[view], by_focal[view, :, :, view])


@pytest.mark.parametrize("angle", [0.0, 1e-7, 1e-3, 1.0, 3.1, np.pi - 1e-9])
def test_the_logarithm_undoes_the_exponential(angle: float) -> None:
    axis = torch.nn.functional.normalize(torch.tensor([[0.3, -0.5, 0.8]]).double(), dim=1)
    turn = axis * angle
    again = rotation.exp(rotation.log(rotation.exp(turn)))
    torch.testing.assert_close(again, rotation.exp(turn), rtol=0, atol=1e-9)


def test_the_inverse_left_jacobian_is_the_derivative_of_the_logarithm() -> None:
    turn = torch.tensor([0.4, -1.1, 0.7], dtype=torch.float64)
    expected = torch.autograd.functional.jacobian(
        lambda step: rotation.log(rotation.exp(step) @ rotation.exp(turn)),
        torch.full((3,), 1e-9, dtype=torch.float64),
    )
    torch.testing.assert_close(rotation.left_jacobian_inverse(turn), expected, rtol=0, atol=1e-6)
