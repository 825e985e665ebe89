"""What the environment says about the licensed path reaches the engine, and is refused by name."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from models_sync import verify
from worker.avatar.config import PipelineConfig
from worker.avatar.estimate.load import EstimatorConfig
from worker.engine.messages import EngineConfig, EstimatorsConfig
from worker.engine_config import engine_config, licensed_enabled
from worker.errors import SettingsError
from worker.settings import Settings
from worker.weights import refusal, weights_in_use

SERVICES = {
    "REDIS_URL": "redis://127.0.0.1:1",
    "API_BASE_URL": "http://127.0.0.1:1",
    "MINIO_ENDPOINT": "127.0.0.1:1",
    "MINIO_ACCESS_KEY": "worker",
    "MINIO_SECRET_KEY": "a-long-secret",
}


def settings(folder: Path, **variables: str) -> Settings:
    nowhere = {"PIXIE_MODEL_DIR": str(folder), "MODEL_SYNC_LOCAL_ROOT": str(folder)}
    return Settings.load(SERVICES | nowhere | variables)


def test_both_sides_of_the_pipe_have_the_same_fields() -> None:
    told = set(EngineConfig.model_fields) - {"kind"}
    assert told <= {field.name for field in fields(PipelineConfig)}
    estimators = {field.name for field in fields(EstimatorConfig)}
    assert set(EstimatorsConfig.model_fields) == estimators
    assert EstimatorConfig(**EstimatorsConfig().model_dump()) == EstimatorConfig()


def test_every_variable_of_the_licensed_path_reaches_the_engine(tmp_path: Path) -> None:
    read = settings(
        tmp_path,
        AVATAR_ESTIMATORS="pixie,sam3d_body",
        REQUIRE_REAL_AVATAR="true",
        SMPLX_MODEL_DIR="/m/smplx",
        SAM3DBODY_ENABLED="true",
        SAM3DBODY_REPO_DIR="/v/sam-3d-body",
        SAM3DBODY_CHECKPOINT_PATH="/m/model.ckpt",
        SAM3DBODY_MHR_PATH="/m/mhr.pt",
        SAM3DBODY_SEGMENTOR_PATH="/v/sam2",
        SAM3DBODY_USE_MASK="false",
    )
    told = engine_config(read.pipeline, read.models)
    assert (told.smplx_dir, told.sam2_dir, told.sam2_required) == ("/m/smplx", None, False)
    assert told.estimators == EstimatorsConfig(
        order=("pixie", "sam3d_body"),
        required=True,
        pixie_dir=str(tmp_path),
        sam3d_enabled=True,
        sam3d_repo_dir="/v/sam-3d-body",
        sam3d_checkpoint="/m/model.ckpt",
        sam3d_mhr="/m/mhr.pt",
        sam3d_use_mask=False,
    )


@pytest.mark.parametrize(
    ("device", "required", "comes_to"),
    [
        ("auto", "false", "auto"),
        ("auto", "true", "cuda"),
        ("cpu", "true", "cpu"),
        ("cuda", "false", "cuda"),
    ],
)
def test_auto_is_no_way_to_the_cpu_for_a_required_estimator(
    tmp_path: Path, device: str, required: str, comes_to: str
) -> None:
    read = settings(tmp_path, WORKER_DEVICE=device, REQUIRE_REAL_AVATAR=required)
    assert engine_config(read.pipeline, read.models).device == comes_to


def test_nothing_is_refused_once_a_licensed_estimator_is_enabled(tmp_path: Path) -> None:
    required = settings(tmp_path, REQUIRE_REAL_AVATAR="true")
    assert licensed_enabled(required) == ()
    why = refusal(required)
    assert why is not None
    assert "no licensed estimator is ready" in why.message
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "pixie_model.tar").touch()
    assert licensed_enabled(required) == ("pixie",)
    assert refusal(required) is None
    assert refusal(settings(tmp_path / "other", SAM3DBODY_ENABLED="true")) is None


def test_a_set_up_with_one_estimator_does_not_lack_what_the_other_needs(tmp_path: Path) -> None:
    required = {"REQUIRE_REAL_AVATAR": "true"}
    assert weights_in_use(settings(tmp_path, **required)) == ("smplx", "pixie", "sam3d", "sam2")
    free_of_mpi = settings(tmp_path, SAM3DBODY_ENABLED="true", **required)
    assert weights_in_use(free_of_mpi) == ("sam3d", "sam2")
    not_asked = settings(tmp_path, SAM3DBODY_ENABLED="true", AVATAR_ESTIMATORS="pixie")
    assert weights_in_use(not_asked) == ()


def test_the_reason_for_a_refusal_is_of_the_declared_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "verify_quick", lambda *_: [])
    switched_on_but_not_asked = settings(
        tmp_path, SAM3DBODY_ENABLED="true", AVATAR_ESTIMATORS="pixie"
    )
    why = refusal(switched_on_but_not_asked)
    assert why is not None
    assert "SAM3DBODY_ENABLED is false" not in why.message
    assert "pixie_model.tar is missing" in why.message
    assert any("sam3d_body" in said for said in switched_on_but_not_asked.limitations())


@pytest.mark.parametrize(
    ("order", "said"), [("pixie,smplify", "smplify"), ("pixie,pixie", "one of them twice")]
)
def test_an_order_that_cannot_be_is_refused(tmp_path: Path, order: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        settings(tmp_path, AVATAR_ESTIMATORS=order)
