"""What `avatar-worker doctor` asks of the pipeline: are models and device as they should be?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from worker.avatar.body.free import free_body
from worker.avatar.body.smplx import load_smplx, smplx_genders
from worker.avatar.config import PipelineConfig
from worker.avatar.estimate.load import PIXIE, PIXIE_WEIGHTS, SAM3D_BODY, EstimatorConfig
from worker.avatar.observe.assets import default_models_dir, verify
from worker.avatar.observe.sam2 import checkpoint_path
from worker.avatar.pipeline import Pipeline
from worker.avatar.types import Gender
from worker.avatar.weights import WeightsFile
from worker.errors import LicensedEstimatorMissing, ModelMissing

Check = tuple[str, Callable[[], str]]


def checks(config: PipelineConfig) -> Iterator[Check]:
    """Name what to look at, and how.  Files are looked at, not read whole: `load` does that."""
    yield "pose models", lambda: _pose_models(config.observer_models_dir)
    yield "body", lambda: _body(config.smplx_dir)
    yield "SAM 2", lambda: _sam2(config)
    estimators = config.estimators
    yield "SAM 3D Body", lambda: _sam3d(estimators)
    yield "PIXIE", lambda: _pixie(estimators)
    yield "estimators", lambda: _order(estimators)
    yield "device", _device


def load(config: PipelineConfig) -> str:
    """Load everything, as the worker does at its start.

    Raises:
        ModelMissing, ModelInvalid, EngineError: naming what is wrong.
    """
    return f"loaded: {', '.join(Pipeline.load(config).models)}"


def _pose_models(models_dir: Path | None) -> str:
    where = models_dir or default_models_dir()
    verify(where)
    return f"complete in {where}"


def _body(smplx_dir: str | None) -> str:
    free = free_body(Gender.NEUTRAL).source
    folder = Path(smplx_dir) if smplx_dir else None
    there = smplx_genders(folder)
    if folder is None or not there:
        where = f"; {folder} holds no SMPLX_NEUTRAL.npz" if folder else ""
        return f"{free}, CC0{where}"
    return f"{', '.join(load_smplx(folder, gender).source for gender in there)} in {folder}"


def _sam2(config: PipelineConfig) -> str:
    if config.sam2_dir is None:
        return "not asked for: the free outlines are used"
    folder = Path(config.sam2_dir)
    path = checkpoint_path(folder, config.sam2_model)
    if not path.is_file() and not config.sam2_required:
        return f"{path} is not there: the free outlines are used"
    _code(folder / "sam2", "SAM3DBODY_SEGMENTOR_PATH")
    return WeightsFile("SAM 2", path).look()


def _sam3d(config: EstimatorConfig) -> str:
    if SAM3D_BODY not in config.enabled():
        return "not enabled (SAM3DBODY_ENABLED, AVATAR_ESTIMATORS)"
    checkpoint, mhr = Path(config.sam3d_checkpoint or ""), Path(config.sam3d_mhr or "")
    found = WeightsFile("SAM 3D Body", checkpoint).look()
    WeightsFile("MHR", mhr).look()
    places = [folder / "model_config.yaml" for folder in list(checkpoint.parents)[:2]]
    if not any(place.is_file() for place in places):
        raise WeightsFile("SAM 3D Body's configuration", places[0]).missing()
    folder = Path(config.sam3d_repo_dir or "")
    _code(folder / "sam_3d_body", "SAM3DBODY_REPO_DIR")
    _code(folder.parent / "dinov3" / "dinov3", "SAM3DBODY_REPO_DIR")
    return found


def _pixie(config: EstimatorConfig) -> str:
    folder = Path(config.pixie_dir or "PIXIE_MODEL_DIR")
    if PIXIE not in config.enabled():
        why = "is not there" if PIXIE in config.order else "is not asked (AVATAR_ESTIMATORS)"
        return f"not enabled: {folder / PIXIE_WEIGHTS} {why}"
    found = WeightsFile("PIXIE", folder / PIXIE_WEIGHTS).look()
    for name in ("SMPLX_NEUTRAL_2020.npz", "smplx_extra_joints.yaml", "SMPLX_to_J14.pkl"):
        if not (folder / "data" / name).is_file():
            raise WeightsFile("PIXIE", folder / "data" / name).missing()
    _code(folder / "pixielib", "PIXIE_MODEL_DIR")
    return found


def _order(config: EstimatorConfig) -> str:
    names = config.enabled()
    if config.required and not names:
        raise LicensedEstimatorMissing(f"{LicensedEstimatorMissing().message} {config.why_none()}.")
    required = "; one is required (REQUIRE_REAL_AVATAR)" if config.required else ", prior"
    return f"asked in this order: {', '.join(names) or 'none'}{required}"


def _code(package: Path, variable: str) -> None:
    if not package.is_dir():
        raise ModelMissing(
            f"{package} is missing: the code of {package.name}.",
            advice=f"Run `make vendors`, or let {variable} name the checkout.",
        )


def _device() -> str:
    """Name what torch computes on."""
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name()
        return f"{name} (CUDA {torch.version.cuda}), {free / 1e9:.1f} of {total / 1e9:.1f} GB free"
    return f"CPU; torch {torch.__version__} sees no CUDA device"
