"""Photos and a height in, a measured avatar out: the stages, in order.

photo    decode, orient, refuse what is no usable photo
observe  the one person: keypoints, outline, camera; refuse what cannot be fitted
fit      what an estimator proposes, if one is there; then the body whose posed outline explains
         all photos, at the declared height
measure  ISO 8559-1 girths and lengths on that body
export   GLB, pictures, documents
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from worker.avatar.body.choice import FittedBody, load_bodies
from worker.avatar.body.free import people_digest
from worker.avatar.body.jacobian import ArticulatedShape
from worker.avatar.body.mhr import mhr_digest
from worker.avatar.body.model import BodyModel
from worker.avatar.checkpoint import Checkpoints, request_key
from worker.avatar.estimate.chain import EstimatorChain, Proposed
from worker.avatar.estimate.guess import initial_guess
from worker.avatar.estimate.load import EstimatorConfig, load_estimators
from worker.avatar.estimate.memory import DeviceMemory
from worker.avatar.estimate.protocol import Topology
from worker.avatar.export.writer import ExportInputs, ExportOptions, write_outputs
from worker.avatar.fingerprint import fingerprint
from worker.avatar.fit import FitOptions, fit_body
from worker.avatar.measure.anthropometry import SmplAnthropometry
from worker.avatar.measure.intervals import measurement_intervals_cm
from worker.avatar.observe import Observer
from worker.avatar.observe.assets import ASSETS, default_models_dir
from worker.avatar.observe.sam2 import LARGE, Sam2Masks, checkpoint_path
from worker.avatar.photo import read_photo
from worker.avatar.photo.read import WORKING_SIDE_PX
from worker.avatar.quality import assess
from worker.avatar.raster import coverage
from worker.avatar.types import (
    AvatarRequest,
    AvatarResult,
    BodyFit,
    BoolArray,
    DisplayPose,
    FittedView,
    Float64Array,
    Gender,
    InitialGuess,
    Observation,
    Photo,
    Progress,
    Stage,
    ViewName,
)
from worker.errors import EngineError

SHARE_OF_TIME = {
    Stage.PHOTO: 0.05,
    Stage.OBSERVE: 0.20,
    Stage.FIT: 0.55,
    Stage.MEASURE: 0.05,
    Stage.EXPORT: 0.15,
}
"""Roughly how the time divides, so that a bar moves evenly."""

ECONOMY_SIDE_PX = WORKING_SIDE_PX // 2
"""Longest side of the photos after a job ran out of memory: a quarter of the pixels."""

CERTAIN = 0.002
"""A pixel that shows the person with less probability does not, with more than 1 - this it does.
What was found may have to travel to another machine; this noise is four fifths of its size.  It
moves no measurement of the sample person and of two photographs by more than 2e-5 cm."""

KeepCheckpoint = Callable[[Stage, tuple[str, ...]], None]
"""Called with a stage and the names of the files that hold its outcome."""


def overall_progress(stage: Stage, fraction: float) -> float:
    """Turn a stage and how much of it is done into 0..1 of the whole."""
    before = 0.0
    for other, share in SHARE_OF_TIME.items():
        if other is stage:
            return before + share * min(max(fraction, 0.0), 1.0)
        before += share
    raise AssertionError(stage)


@dataclass(frozen=True, slots=True)
class PipelineConfig:
    """What the operator decides about the pipeline; the worker's settings, by their names."""

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


class Pipeline:
    """The loaded models; runs one request at a time."""

    def __init__(
        self,
        config: PipelineConfig,
        device: torch.device,
        observer: Observer,
        bodies: Mapping[Gender, FittedBody],
        *,
        masks: Sam2Masks | None = None,
        chain: EstimatorChain | None = None,
    ) -> None:
        self.config = config
        self.device = device
        self._observer = observer
        self._bodies = bodies
        self._masks = masks
        self._chain = chain or EstimatorChain()
        self._second: SmplAnthropometry | None = None
        if config.anthropometry_dir is not None and bodies[Gender.NEUTRAL].is_smplx:
            self._second = SmplAnthropometry.load(Path(config.anthropometry_dir))
        self.fingerprint = self._fingerprint()
        """Of code, weights and choices: keys what was computed."""

    @classmethod
    def load(cls, config: PipelineConfig) -> Self:
        """Verify and load everything that a request needs.

        Raises:
            ModelMissing: a model file is not there; the advice says how to get it.
            ModelInvalid: a model file is not what it should be.
            LicensedEstimatorMissing: an estimator is required and none is enabled.
            OutOfMemory: the GPU has too little free memory for what is enabled.
            EngineError: CUDA was asked for and is not there.
        """
        # The fit's matrices are small: on a free machine a second thread saves a tenth of a
        # second, on a busy one its spinning costs twenty (docs/reference/performance.md).
        torch.set_num_threads(1)
        models_dir = config.observer_models_dir or default_models_dir()
        device = _pick_device(config.device)
        memory = DeviceMemory(device)
        memory.require(_weights_of(config))
        smplx_dir = Path(config.smplx_dir) if config.smplx_dir else None
        with memory.of("bodies"):
            bodies = load_bodies(smplx_dir, device)
        masks = None
        if (sam2_dir := _sam2_dir(config)) is not None:
            with memory.of("masks"):
                masks = Sam2Masks.load(sam2_dir, device, model=config.sam2_model)
        with memory.of("estimators"):
            chain = load_estimators(config.estimators, device)
        return cls(config, device, Observer.load(models_dir), bodies, masks=masks, chain=chain)

    @property
    def device_name(self) -> str:
        """The GPU's name, or `cpu`."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return "cpu"

    @property
    def cuda_version(self) -> str | None:
        """CUDA's version, when it computes there."""
        return torch.version.cuda if self.device.type == "cuda" else None

    @property
    def models(self) -> list[str]:
        """What is loaded, with digests."""
        neutral = self._bodies[Gender.NEUTRAL]  # one file holds all three free ones
        free = [] if neutral.is_smplx else [neutral.model.data.source]
        return [self._observer.source, *self._brought(), *free]

    @property
    def licensed(self) -> list[str]:
        """Names of what the operator brought and was loaded: `pixie`, `smplx-neutral` and so on."""
        return [source.partition("@")[0] for source in self._brought()]

    def _brought(self) -> list[str]:
        outlines = [self._masks.source] if self._masks else []
        estimators = [estimator.source for estimator in self._chain.estimators]
        bodies = [body.model.data.source for body in self._bodies.values() if body.is_smplx]
        return [*outlines, *estimators, *dict.fromkeys(bodies)]

    def cuda_reserved_bytes(self) -> int:
        """How much CUDA memory torch's allocator holds; 0 on the CPU."""
        return torch.cuda.memory_reserved(self.device) if self.device.type == "cuda" else 0

    def release_memory(self) -> None:
        """Give CUDA memory that is held but not used back to the device."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def run(
        self,
        request: AvatarRequest,
        folder: Path,
        progress: Progress,
        *,
        checkpoint: KeepCheckpoint | None = None,
        resume: Sequence[str] = (),
        economy: bool = False,
    ) -> AvatarResult:
        """Build the avatar of one person.

        Args:
            request: the photos and what the shopper declared.
            folder: an existing folder for the files.
            progress: called with each stage and how much of it is done.
            checkpoint: when given, what `observe` and `fit` found is written into the folder too,
                and this is called.
            resume: stages whose files from an earlier run lie in the folder; they are loaded
                instead of computed if they belong to this very request.
            economy: work on smaller photos, because memory ran out.

        Raises:
            InputError: the photos cannot be used; `advice` tells the shopper what to do.
            EngineError: the computation broke.
        """
        clock = _StageClock(progress)
        side_px = ECONOMY_SIDE_PX if economy else WORKING_SIDE_PX
        kept = Checkpoints(folder, request_key(request, self.fingerprint, side_px), resume)
        with clock.stage(Stage.PHOTO):
            photos = [read_photo(request.front, ViewName.FRONT, side_px=side_px)]
            if request.side is not None:
                photos.append(read_photo(request.side, ViewName.SIDE, side_px=side_px))
        with clock.stage(Stage.OBSERVE):
            observations = kept.load_observations(photos)
            if observations is None:
                observations = [_certain(self._observe(photo)) for photo in photos]
                if checkpoint is not None and (files := kept.save_observations(observations)):
                    checkpoint(Stage.OBSERVE, files)
        chosen = self._bodies[request.gender]
        body, measurer = chosen.model, chosen.measurer
        with clock.stage(Stage.FIT):
            fit = kept.load_fit(observations, body.data.gender, body.num_betas)
            if fit is None:
                proposed = self._chain.propose(photos, observations)
                fit = self._fit(chosen, observations, request, proposed, progress)
                fit = replace(fit, proposal=proposed.told())
                if checkpoint is not None and (files := kept.save_fit(fit)):
                    checkpoint(Stage.FIT, files)
        with clock.stage(Stage.MEASURE):
            vertices, scale = _rest_body(body, fit, request.height_m)
            measurements_cm = dict(measurer.measure(vertices))
            intervals_cm = measurement_intervals_cm(body, measurer, fit, height_m=request.height_m)
        quality = assess(fit, observations, intervals_cm)
        sources = self._sources(chosen, observations, fit)
        if self._second is not None:
            sources["secondMeasurer"] = self._second.report(body.data, vertices)
        if economy:
            sources["economy"] = f"photos at {side_px} px, for lack of memory"
        with clock.stage(Stage.EXPORT):
            exported = write_outputs(
                folder,
                ExportInputs(
                    body=body.data,
                    display=chosen.display,
                    fit=fit,
                    scale=scale,
                    photos=photos,
                    observations=observations,
                    coverage={view.view: _covered(body, fit, view) for view in fit.views},
                    measurements_cm=measurements_cm,
                    quality=quality,
                    facts={"sources": sources},
                ),
                self._export_options(),
                progress=lambda fraction: progress(Stage.EXPORT, fraction),
            )
        if exported.optimisation.tool or exported.optimisation.note:
            sources["gltfpack"] = exported.optimisation.note or exported.optimisation.tool
        return AvatarResult(
            folder=folder,
            files=exported.files,
            inspection_files=exported.inspection_files,
            measurements_cm=measurements_cm,
            measurement_intervals_cm=intervals_cm,
            quality=quality,
            view_iou={view.view.value: round(view.iou, 4) for view in fit.views},
            stage_seconds=clock.seconds,
            sources=sources,
        )

    def _observe(self, photo: Photo) -> Observation:
        seen = self._observer.observe(photo)
        return self._masks.refine(photo, seen) if self._masks else seen

    def _fit(
        self,
        chosen: FittedBody,
        observations: Sequence[Observation],
        request: AvatarRequest,
        proposed: Proposed,
        progress: Progress,
    ) -> BodyFit:
        return fit_body(
            chosen.model,
            observations,
            height_m=request.height_m,
            weight_kg=request.weight_kg,
            options=FitOptions(
                self.config.silhouette_refine, self.config.silhouette_torso_erode_px
            ),
            progress=lambda fraction: progress(Stage.FIT, fraction),
            initial=_initial(chosen, proposed, request.height_m),
        )

    def _fingerprint(self) -> str:
        config = self.config
        return fingerprint(
            [asset.sha256 for asset in ASSETS]
            + [body.model.data.digest for body in self._bodies.values()]
            + [people_digest(), mhr_digest()]
            + ([self._masks.digest] if self._masks else [])
            + [digest for each in self._chain.estimators for digest in each.digests],
            {
                "estimators": [estimator.source for estimator in self._chain.estimators],
                "required": self._chain.required,
                "sam3d_use_mask": config.estimators.sam3d_use_mask,
                "display_pose": config.display_pose,
                "apose_arm_down_deg": config.apose_arm_down_deg,
                "silhouette_refine": config.silhouette_refine,
                "silhouette_torso_erode_px": config.silhouette_torso_erode_px,
                "gltfpack": bool(config.gltfpack_path),
                "require_gltfpack": config.require_gltfpack,
            },
            self._vendors_code(),
        )

    def _vendors_code(self) -> list[Path]:
        folders = self.config.estimators.code()
        if self._masks and self.config.sam2_dir:
            folders.append(Path(self.config.sam2_dir) / "sam2")
        if self._second and self.config.anthropometry_dir:
            folders.append(Path(self.config.anthropometry_dir))
        return folders

    def _export_options(self) -> ExportOptions:
        path = self.config.gltfpack_path
        return ExportOptions(
            display_pose=DisplayPose(self.config.display_pose),
            arm_down_deg=self.config.apose_arm_down_deg,
            gltfpack_path=Path(path) if path else None,
            require_gltfpack=self.config.require_gltfpack,
        )

    def _sources(
        self,
        chosen: FittedBody,
        observations: Sequence[Observation],
        fit: BodyFit,
    ) -> dict[str, Any]:
        seen_by = sorted({seen.source for seen in observations})
        sources: dict[str, Any] = {
            "observer": seen_by,
            "masks": [source.partition("+")[2] or "free" for source in seen_by],
            "estimator": fit.proposal.source,
            "body": chosen.model.data.source,
            "measurer": "iso8559-1",
            "device": self.device_name,
            "views": [view.view.value for view in fit.views],
        }
        if fit.proposal.confidence:
            sources["estimatorConfidence"] = dict(fit.proposal.confidence)
        if fit.proposal.failures:
            sources["estimatorFailures"] = list(fit.proposal.failures)
        return sources


class _StageClock:
    """Times the stages and says when each begins and ends."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        self._progress(stage, 0.0)
        started = time.perf_counter()
        yield
        self.seconds[stage.value] = round(time.perf_counter() - started, 3)
        self._progress(stage, 1.0)


def _initial(chosen: FittedBody, proposed: Proposed, height_m: float) -> InitialGuess | None:
    """Bring what was proposed to the body that is fitted."""
    if not proposed.estimates:
        return None
    body = chosen.model
    maps = {Topology.MHR: chosen.from_mhr}
    return initial_guess(
        ArticulatedShape(body.data, body.num_betas).to(body.device),
        body.data.gender,
        proposed.estimates,
        maps | {Topology.SMPLX: None} if chosen.is_smplx else maps,
        height_m,
    )


def _sam2_dir(config: PipelineConfig) -> Path | None:
    """Where SAM 2 lies, when it is to be used."""
    if config.sam2_dir is None:
        return None
    folder = Path(config.sam2_dir)
    there = checkpoint_path(folder, config.sam2_model).is_file()
    return folder if there or config.sam2_required else None


def _weights_of(config: PipelineConfig) -> list[Path]:
    """The files whose weights go to the device."""
    files = config.estimators.weights()
    if (folder := _sam2_dir(config)) is not None:
        files.append(checkpoint_path(folder, config.sam2_model))
    return files


def _certain(seen: Observation) -> Observation:
    """Free the mask of its noise far from the outline."""
    mask = np.where(seen.mask < CERTAIN, np.float32(0), seen.mask)
    return replace(seen, mask=np.where(mask > 1 - CERTAIN, np.float32(1), mask))


def _pick_device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise EngineError(
            "WORKER_DEVICE is cuda, but torch sees no CUDA device.",
            advice="Check the GPU, its driver and the torch build, or set WORKER_DEVICE=auto.",
        )
    use_cuda = wanted == "cuda" or (wanted == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if use_cuda else "cpu")


@torch.inference_mode()
def _rest_body(body: BodyModel, fit: BodyFit, height_m: float) -> tuple[Float64Array, float]:
    """Give the fitted body in its T-pose at the declared height, and the factor to get there."""
    betas = torch.as_tensor(fit.betas, device=body.device, dtype=body.v_template.dtype)
    vertices: Float64Array = body.shaped(betas[None])[0].double().cpu().numpy()
    scale = height_m / float(vertices[:, 1].max() - vertices[:, 1].min())
    return vertices * scale, scale


@torch.inference_mode()
def _covered(body: BodyModel, fit: BodyFit, view: FittedView) -> BoolArray:
    """Mark the pixels (H, W) of a photo that the fitted body covers."""
    like = body.v_template

    def one(array: Float64Array) -> torch.Tensor:
        return torch.as_tensor(array, device=body.device, dtype=like.dtype)[None]

    points = body(one(fit.betas), one(view.pose), one(view.transl)).vertices[0]
    camera = view.intrinsics
    centre = points.new_tensor((camera.width / 2, camera.height / 2))
    uv = camera.focal_px * points[:, :2] / points[:, 2:] + centre
    covered: BoolArray = coverage(uv, body.faces, camera.height, camera.width).cpu().numpy()
    return covered
