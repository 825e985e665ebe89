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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from worker.avatar.body.articulated import ArticulatedShape
from worker.avatar.body.choice import FittedBody
from worker.avatar.body.model import BodyModel
from worker.avatar.checkpoint import Checkpoints, request_key
from worker.avatar.config import PipelineConfig
from worker.avatar.estimate.chain import Proposed
from worker.avatar.estimate.guess import initial_guess
from worker.avatar.estimate.protocol import Topology
from worker.avatar.export.writer import ExportInputs, ExportOptions, write_outputs
from worker.avatar.fit import FitOptions, fit_body
from worker.avatar.loaded import LoadedModels
from worker.avatar.measure.intervals import measurement_intervals_cm
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
    InitialGuess,
    Observation,
    Photo,
    Progress,
    Stage,
    ViewName,
)

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


class Pipeline:
    """The loaded models; runs one request at a time."""

    def __init__(self, config: PipelineConfig, models: LoadedModels) -> None:
        self.config = config
        self.device = models.device
        self._models = models
        self.fingerprint = models.fingerprint(config)
        """Of code, weights and choices: keys what was computed."""

    @classmethod
    def load(cls, config: PipelineConfig) -> Self:
        """Verify and load everything that a request needs; raises what `LoadedModels.load` does."""
        # The fit's matrices are small: on a free machine a second thread saves a tenth of a
        # second, on a busy one its spinning costs twenty (docs/reference/performance.md).
        torch.set_num_threads(1)
        return cls(config, LoadedModels.load(config))

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
        return self._models.sources()

    @property
    def licensed(self) -> list[str]:
        """Names of what the operator brought and was loaded: `pixie`, `smplx-neutral` and so on."""
        return self._models.licensed()

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
        chosen = self._models.bodies[request.gender]
        body, measurer = chosen.model, chosen.measurer
        with clock.stage(Stage.FIT):
            fit = kept.load_fit(observations, body.data.gender, body.num_betas)
            if fit is None:
                proposed = self._models.chain.propose(photos, observations)
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
        if (second := self._models.second_measurer) is not None:
            sources["secondMeasurer"] = second.report(body.data, vertices)
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
        seen = self._models.observer.observe(photo)
        masks = self._models.masks
        return masks.refine(photo, seen) if masks else seen

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


def _certain(seen: Observation) -> Observation:
    """Free the mask of its noise far from the outline."""
    mask = np.where(seen.mask < CERTAIN, np.float32(0), seen.mask)
    return replace(seen, mask=np.where(mask > 1 - CERTAIN, np.float32(1), mask))


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
