"""What the operator decides about the pipeline."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from worker.avatar.estimate.load import EstimatorConfig
from worker.avatar.observe.sam2 import LARGE, checkpoint_path
from worker.avatar.types import DisplayPose


@dataclass(frozen=True, slots=True)
class PipelineConfig:
    """The worker's settings, by their names."""

    device: str = "auto"
    """WORKER_DEVICE: auto, cuda or cpu."""
    observer_models_dir: Path | None = None
    """OBSERVER_MODEL_DIR; None: the user's cache."""
    display_pose: str = DisplayPose.APOSE.value
    apose_arm_down_deg: float = 25.0
    silhouette_refine: bool = True
    silhouette_torso_erode_px: int = 8
    gltfpack_path: str | None = None
    require_gltfpack: bool = False
    sam2_dir: str | None = None
    """Checkout of SAM 2 with its checkpoint, for outlines by SAM 2; None: the free ones."""
    sam2_model: str = LARGE
    """Which of its checkpoints."""
    sam2_required: bool = True
    """Whether it must be there; else the free outlines serve where its checkpoint is missing."""
    smplx_dir: str | None = None
    """SMPLX_MODEL_DIR; None, or a folder without SMPLX_NEUTRAL.npz: the free body."""
    estimators: EstimatorConfig = field(default_factory=EstimatorConfig)
    anthropometry_dir: str | None = None
    """Checkout of SMPL-Anthropometry, which measures SMPL-X bodies a second time; None: it does
    not."""

    def sam2_folder(self) -> Path | None:
        """Where SAM 2 lies, when it is to be used."""
        if self.sam2_dir is None:
            return None
        folder = Path(self.sam2_dir)
        there = checkpoint_path(folder, self.sam2_model).is_file()
        return folder if there or self.sam2_required else None

    def weights(self) -> list[Path]:
        """The files whose weights go to the device."""
        files = self.estimators.weights()
        if (folder := self.sam2_folder()) is not None:
            files.append(checkpoint_path(folder, self.sam2_model))
        return files
