"""The models that a pipeline works with: loaded once, named, and known by one digest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import torch

from worker.avatar.body.choice import FittedBody, load_bodies
from worker.avatar.body.free import free_garments, garments_digest, people_digest
from worker.avatar.body.mhr import mhr_digest
from worker.avatar.config import PipelineConfig
from worker.avatar.estimate.chain import EstimatorChain
from worker.avatar.estimate.load import load_estimators
from worker.avatar.estimate.memory import DeviceMemory
from worker.avatar.fingerprint import fingerprint
from worker.avatar.fit.definitions import blazepose_noise, noise_digest
from worker.avatar.measure.anthropometry import SmplAnthropometry
from worker.avatar.observe import Observer
from worker.avatar.observe.assets import ASSETS, default_models_dir
from worker.avatar.observe.sam2 import Sam2Masks
from worker.avatar.types import Gender
from worker.errors import EngineError


@dataclass(frozen=True, slots=True)
class LoadedModels:
    """Everything that a request needs, on its device."""

    device: torch.device
    observer: Observer
    bodies: Mapping[Gender, FittedBody]
    masks: Sam2Masks | None = None
    """SAM 2, where it refines outlines."""
    chain: EstimatorChain = field(default_factory=EstimatorChain)
    second_measurer: SmplAnthropometry | None = None

    @classmethod
    def load(cls, config: PipelineConfig) -> Self:
        """Verify and load them.

        Raises:
            ModelMissing: a model file is not there; the advice says how to get it.
            ModelInvalid: a model file is not what it should be.
            LicensedEstimatorMissing: an estimator is required and none is enabled.
            OutOfMemory: the GPU has too little free memory for what is enabled.
            EngineError: CUDA was asked for and is not there.
        """
        models_dir = config.observer_models_dir or default_models_dir()
        device = _pick_device(config.device)
        memory = DeviceMemory(device)
        memory.require(config.weights())
        smplx_dir = Path(config.smplx_dir) if config.smplx_dir else None
        with memory.of("bodies"):
            bodies = load_bodies(smplx_dir, device)
        # What the fit reads at its first job: a broken one is said at the start.
        free_garments()
        blazepose_noise()
        masks = None
        if (sam2_dir := config.sam2_folder()) is not None:
            with memory.of("masks"):
                masks = Sam2Masks.load(sam2_dir, device, model=config.sam2_model)
        with memory.of("estimators"):
            chain = load_estimators(config.estimators, device)
        second = None
        if config.anthropometry_dir is not None and bodies[Gender.NEUTRAL].is_smplx:
            second = SmplAnthropometry.load(Path(config.anthropometry_dir))
        return cls(device, Observer.load(models_dir), bodies, masks, chain, second)

    def sources(self) -> list[str]:
        """Their names, with digests."""
        neutral = self.bodies[Gender.NEUTRAL]  # one file holds all three free ones
        free = [] if neutral.is_smplx else [neutral.model.data.source]
        return [self.observer.source, *self._brought(), *free]

    def licensed(self) -> list[str]:
        """Names of what the operator brought and was loaded: `pixie`, `smplx-neutral` and so on."""
        return [source.partition("@")[0] for source in self._brought()]

    def _brought(self) -> list[str]:
        outlines = [self.masks.source] if self.masks else []
        estimators = [estimator.source for estimator in self.chain.estimators]
        bodies = [body.model.data.source for body in self.bodies.values() if body.is_smplx]
        return [*outlines, *estimators, *dict.fromkeys(bodies)]

    def fingerprint(self, config: PipelineConfig) -> str:
        """The digest of code, weights and choices: keys what was computed."""
        return fingerprint(
            [asset.sha256 for asset in ASSETS]
            + [body.model.data.digest for body in self.bodies.values()]
            + [people_digest(), garments_digest(), noise_digest(), mhr_digest()]
            + ([self.masks.digest] if self.masks else [])
            + [digest for each in self.chain.estimators for digest in each.digests],
            {
                "estimators": [estimator.source for estimator in self.chain.estimators],
                "required": self.chain.required,
                "sam3d_use_mask": config.estimators.sam3d_use_mask,
                "display_pose": config.display_pose,
                "apose_arm_down_deg": config.apose_arm_down_deg,
                "silhouette_refine": config.silhouette_refine,
                "silhouette_torso_erode_px": config.silhouette_torso_erode_px,
                "gltfpack": bool(config.gltfpack_path),
                "require_gltfpack": config.require_gltfpack,
            },
            self._vendors_code(config),
        )

    def _vendors_code(self, config: PipelineConfig) -> list[Path]:
        folders = config.estimators.code()
        if self.masks and config.sam2_dir:
            folders.append(Path(config.sam2_dir) / "sam2")
        if self.second_measurer and config.anthropometry_dir:
            folders.append(Path(config.anthropometry_dir))
        return folders


def _pick_device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise EngineError(
            "WORKER_DEVICE is cuda, but torch sees no CUDA device.",
            advice="Check the GPU, its driver and the torch build, or set WORKER_DEVICE=cpu.",
        )
    use_cuda = wanted == "cuda" or (wanted == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if use_cuda else "cpu")
