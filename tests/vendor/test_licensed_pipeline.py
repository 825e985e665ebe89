"""The whole licensed path, from photos to files, on weights that we made, with the network cut.

What is shown is that code, loading, flow and sources work, not how good the estimators are.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.vendor import fabricate_body, fabricate_pixie, fabricate_sam3d
from tests.vendor.conftest import SAMPLE, checkout
from worker.avatar.config import PipelineConfig
from worker.avatar.estimate.chain import PRIOR
from worker.avatar.estimate.load import EstimatorConfig
from worker.avatar.pipeline import Pipeline
from worker.avatar.quality import IOU_LOW
from worker.avatar.types import AvatarRequest, AvatarResult, Gender
from worker.errors import EstimateFailed, LicensedEstimatorMissing, ModelInvalid, ModelMissing

pytestmark = [pytest.mark.vendor, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def sam3d_config(network_cut: None, tmp_path_factory: pytest.TempPathFactory) -> EstimatorConfig:
    code, dino = checkout("sam-3d-body", "torchvision", "roma", "yacs"), checkout("dinov3")
    folder = tmp_path_factory.mktemp("sam3d") / "files"
    fabricate_sam3d.write(folder, code, dino, checkout("MHR"))
    return EstimatorConfig(
        required=True,
        sam3d_enabled=True,
        sam3d_repo_dir=str(code),
        sam3d_checkpoint=str(folder / "model.ckpt"),
        sam3d_mhr=str(folder / "assets" / "mhr_model.pt"),
    )


@pytest.fixture(scope="module")
def smplx_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smplx")
    fabricate_body.write_smplx(folder)
    return folder


@pytest.fixture(scope="module")
def pixie_dir(network_cut: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    code = checkout("PIXIE", "torchvision", "kornia", "yacs")
    folder = tmp_path_factory.mktemp("pixie")
    (folder / "pixielib").symlink_to(code / "pixielib")
    fabricate_pixie.write_small_files(folder / "data")
    torch.save(fabricate_pixie.states(folder), folder / "data" / "pixie_model.tar")
    return folder


def run(pipeline: Pipeline, folder: Path, gender: Gender = Gender.NEUTRAL) -> AvatarResult:
    folder.mkdir(exist_ok=True)
    request = AvatarRequest(SAMPLE / "front.jpg", 1.7, SAMPLE / "side.jpg", gender=gender)
    return pipeline.run(request, folder, lambda _stage, _done: None)


@pytest.fixture(scope="module")
def free(tmp_path_factory: pytest.TempPathFactory) -> AvatarResult:
    return run(Pipeline.load(PipelineConfig(device="cpu")), tmp_path_factory.mktemp("free"))


def test_sam_3d_body_on_the_free_body_is_the_path_without_non_commercial_parts(
    sam3d_config: EstimatorConfig, free: AvatarResult, tmp_path: Path
) -> None:
    pipeline = Pipeline.load(PipelineConfig(device="cpu", estimators=sam3d_config))
    result = run(pipeline, tmp_path)
    assert str(result.sources["estimator"]).startswith("sam3d-body@")
    assert str(result.sources["body"]).startswith("free-body-neutral@")
    assert result.sources["estimatorConfidence"].keys() == {"front", "side"}
    assert any(model.startswith("sam3d-body@") for model in pipeline.models)
    # The estimator proposes, the solver disposes: where the fit ends is no further from the
    # photos, and the girths that they show are the same.
    assert min(result.view_iou.values()) > min(free.view_iou.values()) - 0.01
    for name in ("chestCm", "waistCm", "hipCm", "insideLegCm", "heightCm"):
        assert result.measurements_cm[name] == pytest.approx(free.measurements_cm[name], abs=2.0)


def test_pixie_on_the_operators_smplx_by_gender_with_a_second_measurer(
    pixie_dir: Path, smplx_dir: Path, free: AvatarResult, tmp_path: Path
) -> None:
    config = PipelineConfig(
        device="cpu",
        smplx_dir=str(smplx_dir),
        estimators=EstimatorConfig(required=True, pixie_dir=str(pixie_dir)),
        anthropometry_dir=str(checkout("SMPL-Anthropometry")),
    )
    pipeline = Pipeline.load(config)
    result = run(pipeline, tmp_path)
    assert str(result.sources["estimator"]).startswith("pixie@")
    assert str(result.sources["body"]).startswith("smplx_neutral") or str(
        result.sources["body"]
    ).startswith("smplx-neutral@")
    assert str(result.sources["secondMeasurer"]["name"]).startswith("smpl-anthropometry@")
    # Our SMPL-X is the free body in another mesh, a rough one, whose outline is a little off: the
    # same photos give the same person.
    assert min(result.view_iou.values()) > IOU_LOW
    for name in ("chestCm", "waistCm", "hipCm", "insideLegCm", "heightCm"):
        assert result.measurements_cm[name] == pytest.approx(free.measurements_cm[name], abs=2.0)
    female = run(pipeline, tmp_path / "female", Gender.FEMALE)
    assert str(female.sources["body"]).startswith("smplx-female@")
    glb = (tmp_path / "avatar.glb").stat().st_size
    assert 10_000 < glb < 2_000_000


class Failing:
    """An estimator whose network gives nothing."""

    source = "failing@0"
    digests = ("0",)

    def estimate(self, *_: object) -> object:
        raise EstimateFailed("it gave no finite body.")


@pytest.fixture
def both(sam3d_config: EstimatorConfig, pixie_dir: Path) -> tuple[Pipeline, EstimatorConfig]:
    config = replace(sam3d_config, required=False, pixie_dir=str(pixie_dir))
    return Pipeline.load(PipelineConfig(device="cpu", estimators=config)), config


def test_estimators_are_asked_in_the_declared_order_and_the_next_takes_over(
    both: tuple[Pipeline, EstimatorConfig], tmp_path: Path
) -> None:
    pipeline, config = both
    assert config.enabled() == ("sam3d_body", "pixie")
    assert replace(config, order=("pixie", "sam3d_body")).enabled() == ("pixie", "sam3d_body")
    chain = pipeline._models.chain
    assert [each.source.partition("@")[0] for each in chain.estimators] == ["sam3d-body", "pixie"]
    chain = replace(chain, estimators=(Failing(), chain.estimators[1]))
    pipeline._models = replace(pipeline._models, chain=chain)
    result = run(pipeline, tmp_path)
    assert str(result.sources["estimator"]).startswith("pixie@")
    assert "failing@0, front: it gave no finite body." in result.sources["estimatorFailures"]


def test_when_all_fail_the_prior_takes_over_or_the_job_fails_when_one_is_required(
    free: AvatarResult, tmp_path: Path
) -> None:
    pipeline = Pipeline.load(PipelineConfig(device="cpu"))
    chain = replace(pipeline._models.chain, estimators=(Failing(),))
    pipeline._models = replace(pipeline._models, chain=chain)
    result = run(pipeline, tmp_path)
    assert result.sources["estimator"] == PRIOR
    assert result.sources["estimatorFailures"]
    assert result.measurements_cm == free.measurements_cm
    chain = replace(chain, required=True)
    pipeline._models = replace(pipeline._models, chain=chain)
    with pytest.raises(EstimateFailed, match="no finite body") as failed:
        run(pipeline, tmp_path)
    assert failed.value.retryable


def test_a_required_estimator_that_nothing_enables_is_named_with_what_is_missing(
    tmp_path: Path,
) -> None:
    config = EstimatorConfig(required=True, pixie_dir=str(tmp_path))
    with pytest.raises(LicensedEstimatorMissing, match="no licensed estimator is ready") as refused:
        Pipeline.load(PipelineConfig(device="cpu", estimators=config))
    assert str(tmp_path / "data" / "pixie_model.tar") in refused.value.message
    assert "SAM3DBODY_ENABLED is false" in refused.value.message


def test_an_enabled_estimator_without_its_files_is_not_passed_over(tmp_path: Path) -> None:
    config = EstimatorConfig(
        sam3d_enabled=True,
        sam3d_repo_dir=str(tmp_path),
        sam3d_checkpoint=str(tmp_path / "model.ckpt"),
        sam3d_mhr=str(tmp_path / "mhr_model.pt"),
    )
    with pytest.raises(ModelMissing, match=r"mhr_model\.pt"):
        Pipeline.load(PipelineConfig(device="cpu", estimators=config))


def test_a_body_of_another_order_of_vertices_is_refused_by_name(
    smplx_dir: Path, tmp_path: Path
) -> None:
    with np.load(smplx_dir / "SMPLX_NEUTRAL.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    for name in ("v_template", "shapedirs", "posedirs", "weights"):
        arrays[name] = arrays[name][::-1]
    arrays["J_regressor"] = arrays["J_regressor"][:, ::-1]
    np.savez(tmp_path / "SMPLX_NEUTRAL.npz", **arrays)
    with pytest.raises(ModelInvalid, match=r"SMPLX_NEUTRAL\.npz.*not in SMPL-X's order"):
        Pipeline.load(PipelineConfig(device="cpu", smplx_dir=str(tmp_path)))
