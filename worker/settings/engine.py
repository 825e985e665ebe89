"""What the engine is told: how bodies are fitted, and where licensed models lie."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator as validates_model

from worker.settings.base import Group, var
from worker.settings.values import CommaList, GpuList


class PipelineSettings(Group):
    """How bodies are fitted and written."""

    title = "Pipeline"
    require_real_avatar: bool = var(
        "REQUIRE_REAL_AVATAR",
        "Take jobs only when the licensed estimators are loaded and verified. When false, the "
        "free body is fitted, for real, and `sources` says so.",
        example="false",
        default=False,
    )
    device: Literal["auto", "cuda", "cpu"] = var(
        "WORKER_DEVICE",
        "Where to compute; auto takes CUDA when it is there, and with REQUIRE_REAL_AVATAR nothing "
        "else.",
        example="cpu",
        default="auto",
    )
    gpus: GpuList = var(
        "WORKER_GPUS", "GPUs to use: all, or their numbers.", example="0,1", default="all"
    )
    observer_model_dir: Path | None = var(
        "OBSERVER_MODEL_DIR",
        "Where the free pose models lie; the user's cache folder when unset.",
        example="/app/models/observers",
        default=None,
    )
    display_pose: Literal["apose", "tpose", "pixie"] = var(
        "AVATAR_DISPLAY_POSE",
        "Pose of avatar.glb: apose, tpose, or pixie for the pose in the front photo.",
        example="tpose",
        default="apose",
    )
    apose_arm_down_deg: float = var(
        "AVATAR_APOSE_ARM_DOWN_DEG",
        "How far the A-pose lowers the arms from the horizontal, in degrees.",
        example="25",
        default=25.0,
        ge=0,
        le=90,
        allow_inf_nan=False,
    )
    silhouette_refine: bool = var(
        "SILHOUETTE_REFINE_ENABLED",
        "Fit the body to the person's outline too, not to the keypoints alone.",
        example="true",
        default=True,
    )
    silhouette_torso_erode_px: int = var(
        "SILHOUETTE_TORSO_ERODE_PX",
        "How thick clothes are expected to be, beside the usual 8: at 16 all garments are expected "
        "to stand off twice as far, at 0 nobody wears anything. How far they do is solved.",
        example="8",
        default=8,
        ge=0,
        le=200,
    )
    gltfpack_path: str | None = var(
        "GLTFPACK_PATH",
        "gltfpack program that optimises avatar.glb.",
        example="/usr/local/bin/gltfpack",
        default=None,
    )
    require_gltfpack: bool = var(
        "REQUIRE_GLTFPACK",
        "Fail a job when gltfpack is missing, instead of publishing the GLB without it.",
        example="false",
        default=False,
    )

    @property
    def wanted_device(self) -> Literal["auto", "cuda", "cpu"]:
        """What WORKER_DEVICE comes to.

        REQUIRE_REAL_AVATAR leaves auto no way to the CPU: there the licensed estimators take
        minutes, or nothing at all, on a machine that is paid for its GPU.  Who wants that says cpu.
        """
        return "cuda" if self.device == "auto" and self.require_real_avatar else self.device


class ModelSettings(Group):
    """Licensed models on the operator's volume."""

    title = "Models"
    estimators: CommaList = var(
        "AVATAR_ESTIMATORS",
        "In which order estimators propose the first body: the first one that is enabled is asked, "
        "the next one where it fails on a job. sam3d_body is enabled by SAM3DBODY_ENABLED, pixie "
        "by its weights in PIXIE_MODEL_DIR.",
        example="pixie,sam3d_body",
        default=("sam3d_body", "pixie"),
    )
    smplx_dir: Path = var(
        "SMPLX_MODEL_DIR",
        "Folder of the operator's SMPLX_{NEUTRAL,FEMALE,MALE}.npz. Where it holds "
        "SMPLX_NEUTRAL.npz, SMPL-X is fitted, by the declared gender; else the free body.",
        example="/app/models/smplx",
        default=Path("/app/models/smplx"),
    )
    pixie_dir: Path = var(
        "PIXIE_MODEL_DIR",
        "Folder of PIXIE's code, with its files in data/. PIXIE is enabled where "
        "data/pixie_model.tar lies.",
        example="/app/src/pipeline/PIXIE",
        default=Path("/app/src/pipeline/PIXIE"),
    )
    pixie_use_tex: bool = var(
        "PIXIE_USE_TEX",
        "Asks for PIXIE's texture model, which is not used: skin comes from the photo.",
        example="false",
        default=False,
    )
    smpl_anthro_model_ext: str | None = var(
        "SMPL_ANTHRO_MODEL_EXT",
        "File ending of the body models; npz alone is read (`models-sync place` converts pkl).",
        example="npz",
        default=None,
    )
    sam3d_enabled: bool = var(
        "SAM3DBODY_ENABLED", "Estimate with SAM 3D Body.", example="false", default=False
    )
    sam3d_repo_dir: Path = var(
        "SAM3DBODY_REPO_DIR",
        "Folder of SAM 3D Body's code; dinov3 and SMPL-Anthropometry are looked for beside it.",
        example="/app/vendors/sam-3d-body",
        default=Path("/app/vendors/sam-3d-body"),
    )
    sam3d_checkpoint: Path = var(
        "SAM3DBODY_CHECKPOINT_PATH",
        "SAM 3D Body's weights; model_config.yaml lies beside them or one folder up.",
        example="/app/models/sam3d/model.ckpt",
        default=Path("/app/models/sam3d/model.ckpt"),
    )
    sam3d_mhr: Path = var(
        "SAM3DBODY_MHR_PATH",
        "The MHR body model of SAM 3D Body.",
        example="/app/models/sam3d/assets/mhr_model.pt",
        default=Path("/app/models/sam3d/assets/mhr_model.pt"),
    )
    sam3d_segmentor: Path = var(
        "SAM3DBODY_SEGMENTOR_PATH",
        "Folder of SAM 2, with its checkpoints in checkpoints/.",
        example="/app/vendors/sam2",
        default=Path("/app/vendors/sam2"),
    )
    sam3d_use_mask: bool = var(
        "SAM3DBODY_USE_MASK",
        "Give SAM 3D Body the person's mask, and take SAM 2's outline where its checkpoint lies; "
        "the free outline serves where it does not.",
        example="true",
        default=True,
    )
    sam3d_detector: Path | None = var(
        "SAM3DBODY_DETECTOR_PATH",
        "Person detector of SAM 3D Body; not used: it is given our box.",
        example="/app/models/sam3d/detector",
        default=None,
    )
    sam3d_fov: Path | None = var(
        "SAM3DBODY_FOV_PATH",
        "Field-of-view estimator of SAM 3D Body; not used: it is given our camera.",
        example="/app/models/sam3d/fov",
        default=None,
    )

    @validates_model(mode="after")
    def _known_estimators(self) -> Self:
        wanted = self.estimators
        if unknown := set(wanted) - {"sam3d_body", "pixie"}:
            raise ValueError(
                f"AVATAR_ESTIMATORS names {', '.join(sorted(unknown))}; "
                "known are sam3d_body and pixie"
            )
        if len(set(wanted)) != len(wanted):
            raise ValueError("AVATAR_ESTIMATORS names one of them twice")
        return self
