"""From an estimator's vertices to the betas and the pose of the body that is fitted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from worker.avatar.body.articulated import ArticulatedShape
from worker.avatar.body.free import free_body
from worker.avatar.body.mhr import MHR_VERTICES, mhr_to_free, mhr_to_smplx, smplx_display
from worker.avatar.body.smplx import smplx_landmarks
from worker.avatar.estimate.chain import PRIOR, EstimatorChain
from worker.avatar.estimate.guess import initial_guess, to_body
from worker.avatar.estimate.load import EstimatorConfig
from worker.avatar.estimate.memory import HEADROOM_BYTES, DeviceMemory
from worker.avatar.estimate.protocol import BodyEstimate, Topology, agreement
from worker.avatar.types import KEYPOINTS, Gender, Intrinsics, Observation, ViewName
from worker.errors import EstimateFailed, OutOfMemory


@pytest.fixture(scope="module")
def shape() -> ArticulatedShape:
    torch.set_num_threads(1)
    return ArticulatedShape(free_body(Gender.NEUTRAL), 20)


def posed(shape: ArticulatedShape, betas: np.ndarray, pose: np.ndarray) -> np.ndarray:
    from worker.avatar.fit import rotation

    local = rotation.exp(torch.tensor(pose))[None]
    state = shape.posed(
        torch.tensor(betas), shape.global_rotations(local), torch.tensor([[0.2, 0.3, 3.0]]).double()
    )
    return shape.vertices(state)[0].numpy()


def test_a_body_of_our_own_is_found_again(shape: ArticulatedShape) -> None:
    rng = np.random.default_rng(0)
    betas = rng.standard_normal(20)
    pose = 0.15 * rng.standard_normal((22, 3))
    pose[0] = (np.pi - 0.1, 0.05, 0.02)
    found = to_body(shape, posed(shape, betas, pose))
    assert found.rms_mm < 6
    # The prior pulls towards the mean, and what is moved by a centimetre counts as noise.
    np.testing.assert_allclose(found.betas[:5], betas[:5], atol=0.25)
    again = to_body(shape, posed(shape, betas, pose), betas=betas)
    np.testing.assert_array_equal(again.betas, betas)
    limbs = [1, 2, 4, 5, 16, 17, 18, 19]
    assert np.abs(again.pose[limbs] - pose[limbs]).max() < 0.1


def test_vertices_without_a_partner_do_not_count(shape: ArticulatedShape) -> None:
    target = posed(shape, np.zeros(20), np.zeros((22, 3)))
    trusted = np.ones(len(target), dtype=np.bool_)
    trusted[::7] = False
    spoilt = target.copy()
    spoilt[::7] += 5.0
    found = to_body(shape, spoilt, trusted)
    assert found.rms_mm < 1
    assert np.abs(found.betas).max() < 0.05


def estimate(topology: Topology, count: int, **more: object) -> BodyEstimate:
    rng = np.random.default_rng(1)
    vertices = rng.random((count, 3))
    ahead = vertices + np.array([0.0, 0.0, 3.0])
    return BodyEstimate(topology, vertices, ahead, 1000.0, 0.5, "it@1", **more)  # type: ignore[arg-type]


def test_a_topology_that_cannot_come_over_lends_its_pose_alone(shape: ArticulatedShape) -> None:
    pose = np.full((55, 3), 0.1)
    seen = {ViewName.FRONT: estimate(Topology.SMPLX, 10_475, pose=pose, betas=np.ones(200))}
    guess = initial_guess(shape, Gender.NEUTRAL, seen, {}, 1.7)
    assert guess.betas is None
    np.testing.assert_array_equal(guess.poses[ViewName.FRONT], pose[:22])


def test_pixies_betas_are_taken_on_the_neutral_model_only_and_views_are_weighed(
    shape: ArticulatedShape,
) -> None:
    def seen(betas: float, confidence: float) -> BodyEstimate:
        made = estimate(Topology.SMPLX, 10_475, pose=np.zeros((55, 3)), betas=np.full(200, betas))
        return BodyEstimate(
            made.topology,
            made.rest_vertices,
            made.posed_vertices,
            made.focal_px,
            confidence,
            made.source,
            made.betas,
            made.pose,
        )

    views = {ViewName.FRONT: seen(1.0, 0.9), ViewName.SIDE: seen(-1.0, 0.1)}
    guess = initial_guess(shape, Gender.NEUTRAL, views, {Topology.SMPLX: None}, 1.7)
    assert guess.betas is not None
    np.testing.assert_allclose(guess.betas, 0.8)
    far = {ViewName.FRONT: seen(40.0, 0.9)}
    held = initial_guess(shape, Gender.NEUTRAL, far, {Topology.SMPLX: None}, 1.7)
    assert held.betas is not None
    assert held.betas.max() == 4.0


def test_mhr_comes_over_as_mixtures_of_its_vertices() -> None:
    rng = np.random.default_rng(2)
    cloud = rng.random((MHR_VERTICES, 3))
    for over, count in ((mhr_to_free(), 13_492), (mhr_to_smplx(), 10_475)):
        carried = over.carry(cloud)
        assert carried.shape == (count, 3)
        np.testing.assert_allclose(over.weights.sum(axis=1), 1)
        assert (over.weights >= 0).all()
        # Turning and moving the cloud turns and moves what is carried.
        np.testing.assert_allclose(over.carry(2 * cloud + 1), 2 * carried + 1, atol=1e-12)
    assert mhr_to_free().trusted.mean() > 0.96
    with pytest.raises(ValueError, match="18439"):
        mhr_to_free().carry(cloud[:5])


def test_smplxs_landmarks_and_display_mesh_name_its_vertices() -> None:
    marks = smplx_landmarks()
    assert 0 <= marks.vertex < 10_475
    mesh = smplx_display()
    assert len(mesh.faces) < 10_000
    assert mesh.vertex_index.max() < 10_475
    assert mesh.faces.max() == len(mesh.vertex_index) - 1


def test_an_estimate_of_another_shape_or_with_nan_is_none() -> None:
    with pytest.raises(ValueError, match="rest_vertices"):
        estimate(Topology.MHR, 10_475)
    with pytest.raises(ValueError, match="pose is not finite"):
        estimate(Topology.SMPLX, 10_475, pose=np.full((55, 3), np.nan))


def observation() -> Observation:
    keypoints = np.zeros((len(KEYPOINTS), 3), dtype=np.float32)
    keypoints[:, 0], keypoints[:, 1], keypoints[:, 2] = 50, np.linspace(10, 190, 23), 0.9
    return Observation(
        ViewName.FRONT,
        Intrinsics(300.0, 100, 200, known=False),
        np.array([20, 0, 80, 200], dtype=np.float32),
        keypoints,
        np.zeros((200, 100), dtype=np.float32),
    )


def test_confidence_falls_with_the_distance_of_the_keypoints() -> None:
    seen, known = observation(), np.ones(23, dtype=np.float32)
    exact = agreement(seen.keypoints[:, :2], known, seen)
    off = agreement(seen.keypoints[:, :2] + np.float32(10), known, seen)
    assert exact == pytest.approx(1)
    assert off == pytest.approx(np.exp(-np.hypot(10, 10) / 200 / 0.05), rel=1e-4)
    assert agreement(seen.keypoints[:, :2], 0 * known, seen) == 0
    assert agreement(np.full((23, 2), np.nan, dtype=np.float32), known, seen) == 0


class Estimates:
    """An estimator that answers, or fails as it is told."""

    digests = ("d",)

    def __init__(self, source: str, failure: Exception | None = None) -> None:
        self.source, self.failure = source, failure

    def estimate(self, *_: object) -> BodyEstimate:
        if self.failure:
            raise self.failure
        return estimate(Topology.MHR, MHR_VERTICES)


def photos() -> tuple[list[object], list[Observation]]:
    from worker.avatar.types import Photo

    return [Photo(ViewName.FRONT, np.zeros((2, 2, 3), np.uint8), None)], [observation()]


def test_the_next_takes_over_from_one_that_fails_in_its_own_way() -> None:
    chain = EstimatorChain((Estimates("a", IndexError("no such row")), Estimates("b")))
    proposed = chain.propose(*photos())  # type: ignore[arg-type]
    assert proposed.source == "b"
    assert proposed.failures == ("a, front: IndexError: no such row",)
    assert proposed.estimates.keys() == {ViewName.FRONT}


def test_an_error_that_may_be_cudas_is_not_hidden() -> None:
    chain = EstimatorChain((Estimates("a", RuntimeError("CUDA error: x")), Estimates("b")))
    with pytest.raises(RuntimeError, match="CUDA"):
        chain.propose(*photos())  # type: ignore[arg-type]


class OfOpenCv(Exception):
    """As `cv2.error`: of no kind that Python has."""


@pytest.mark.parametrize(
    "failure",
    [
        OfOpenCv("(-215:Assertion failed) !_src.empty()"),
        AttributeError("no attribute"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        torch.linalg.LinAlgError("singular"),  # type: ignore[attr-defined] # for its stub
    ],
)
def test_whatever_vendors_code_raises_the_next_takes_over(failure: Exception) -> None:
    proposed = EstimatorChain((Estimates("a", failure), Estimates("b"))).propose(*photos())  # type: ignore[arg-type]
    assert proposed.source == "b"
    assert str(failure) in proposed.failures[0]


@pytest.mark.parametrize(
    "failure",
    [
        torch.OutOfMemoryError("no more"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("device-side assert triggered"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        OutOfMemory(),
    ],
)
def test_a_full_or_lost_device_is_the_engines_to_judge(failure: Exception) -> None:
    chain = EstimatorChain((Estimates("a", failure), Estimates("b")))
    with pytest.raises(type(failure)):
        chain.propose(*photos())  # type: ignore[arg-type]


def test_a_flat_body_is_none() -> None:
    with pytest.raises(ValueError, match="no height"):
        BodyEstimate(
            Topology.SMPLX, np.zeros((10_475, 3)), np.ones((10_475, 3)), 300.0, 0.5, "flat"
        )


def test_an_empty_order_is_named_as_the_reason() -> None:
    assert EstimatorConfig(order=()).why_none() == "AVATAR_ESTIMATORS names none"


def test_when_all_fail_the_prior_starts_or_the_job_fails() -> None:
    failing = Estimates("a", EstimateFailed("nothing"))
    assert EstimatorChain((failing,)).propose(*photos()).source == PRIOR  # type: ignore[arg-type]
    assert EstimatorChain().propose(*photos()).failures == ()  # type: ignore[arg-type]
    with pytest.raises(EstimateFailed, match="nothing"):
        EstimatorChain((failing,), required=True).propose(*photos())  # type: ignore[arg-type]


def test_what_is_enabled_follows_switches_files_and_the_declared_order(tmp_path: object) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path))
    config = EstimatorConfig(pixie_dir=str(folder), sam3d_enabled=True)
    assert config.enabled() == ("sam3d_body",)
    (folder / "data").mkdir()
    (folder / "data" / "pixie_model.tar").touch()
    assert config.enabled() == ("sam3d_body", "pixie")
    assert EstimatorConfig(order=("pixie",), pixie_dir=str(folder)).enabled() == ("pixie",)
    assert EstimatorConfig(order=(), pixie_dir=str(folder), sam3d_enabled=True).enabled() == ()


def test_too_little_free_memory_of_the_gpu_is_refused_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    from pathlib import Path

    weights = Path(str(tmp_path)) / "model.ckpt"
    weights.write_bytes(b"0" * 1000)
    memory = DeviceMemory(torch.device("cuda:0"))
    monkeypatch.setattr(DeviceMemory, "_free_bytes", lambda _: HEADROOM_BYTES + 999)
    with pytest.raises(OutOfMemory, match="2,147 MB of the GPU"):
        memory.require([weights])
    monkeypatch.setattr(DeviceMemory, "_free_bytes", lambda _: HEADROOM_BYTES + 1000)
    memory.require([weights])
    DeviceMemory(torch.device("cpu")).require([weights])
