"""From the environment to what the engine's child loads, and whether it can be a licensed path."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from worker.engine.messages import EngineConfig, EstimatorsConfig
from worker.settings import ModelSettings, PipelineSettings, Settings

PIXIE_WEIGHTS: Final = Path("data") / "pixie_model.tar"


def engine_config(pipeline: PipelineSettings, models: ModelSettings) -> EngineConfig:
    """Return how the child loads the pipeline.  What lies on the volume, it looks at itself."""
    folder = pipeline.observer_model_dir
    anthropometry = beside(models.sam3d_repo_dir, "SMPL-Anthropometry")
    return EngineConfig(
        device=pipeline.wanted_device,
        observer_models_dir=str(folder) if folder else None,
        display_pose=pipeline.display_pose,
        apose_arm_down_deg=pipeline.apose_arm_down_deg,
        silhouette_refine=pipeline.silhouette_refine,
        silhouette_torso_erode_px=pipeline.silhouette_torso_erode_px,
        gltfpack_path=pipeline.gltfpack_path,
        require_gltfpack=pipeline.require_gltfpack,
        smplx_dir=str(models.smplx_dir),
        sam2_dir=str(models.sam3d_segmentor) if models.sam3d_use_mask else None,
        sam2_required=False,
        anthropometry_dir=str(anthropometry) if anthropometry.is_dir() else None,
        estimators=estimators_config(pipeline, models),
    )


def estimators_config(pipeline: PipelineSettings, models: ModelSettings) -> EstimatorsConfig:
    """Return which estimators the child loads, and in which order they are asked."""
    return EstimatorsConfig(
        order=models.estimators,
        required=pipeline.require_real_avatar,
        pixie_dir=str(models.pixie_dir),
        sam3d_enabled=models.sam3d_enabled,
        sam3d_repo_dir=str(models.sam3d_repo_dir),
        sam3d_checkpoint=str(models.sam3d_checkpoint),
        sam3d_mhr=str(models.sam3d_mhr),
        sam3d_use_mask=models.sam3d_use_mask,
    )


def licensed_enabled(settings: Settings) -> tuple[str, ...]:
    """Name the licensed estimators that are enabled, in the declared order."""
    on = {
        "sam3d_body": settings.models.sam3d_enabled,
        "pixie": (settings.models.pixie_dir / PIXIE_WEIGHTS).is_file(),
    }
    return tuple(name for name in settings.models.estimators if on[name])


def beside(folder: Path, name: str) -> Path:
    """Where a vendor's checkout lies, given another one's; as in the image."""
    return folder.parent / name
