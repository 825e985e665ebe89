"""The person's outline by SAM 2, prompted with the box and the keypoints that were seen.

Ravi et al.: SAM 2: Segment Anything in Images and Videos, arXiv 2408.00714; the code is the
operator's checkout of facebookresearch/sam2 (Apache-2.0), pinned in vendors/vendors.toml.  Its
own loader is not used: tensors come through `worker.avatar.weights`.

SAM 2 proposes.  It does not know what a person is: a prompt can give it the shirt or the wall
behind.  Its outline replaces the free one only where both agree on who is meant.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from worker.avatar.observe.mask import box_of
from worker.avatar.types import KEYPOINTS, ByteArray, Float32Array, Observation, Photo
from worker.avatar.vendor_code import import_torchvision, import_vendor, quiet
from worker.avatar.weights import WeightsFile, load_into, read_state

VARIABLE: Final = "SAM3DBODY_SEGMENTOR_PATH"
"""Names the folder of the checkout; the checkpoints lie in it."""

LARGE: Final = "sam2.1_hiera_large"
CONFIGS: Final = {
    "sam2.1_hiera_tiny": "configs/sam2.1/sam2.1_hiera_t.yaml",
    "sam2.1_hiera_small": "configs/sam2.1/sam2.1_hiera_s.yaml",
    "sam2.1_hiera_base_plus": "configs/sam2.1/sam2.1_hiera_b+.yaml",
    LARGE: "configs/sam2.1/sam2.1_hiera_l.yaml",
}
"""By the name of the checkpoint, as the vendor's build_sam.py pairs them."""

PROMPTS: Final = (
    "nose", "left_shoulder", "right_shoulder", "left_hip", "right_hip", "left_knee", "right_knee",
    "left_ankle", "right_ankle",
)  # fmt: skip
"""Keypoints well inside the outline; toes, wrists and ears lie on it."""

_SEEN = 0.5
_MARGIN = 0.1
"""Of the person's height, kept around the box: SAM 2 wants to see what is not the person."""
_BOX_MARGIN = 0.01
"""Of the person's height: the prompt must not cut what the free outline missed."""
_MIN_AGREEMENT = 0.75
"""IoU with the free outline, which is itself 0.94 and more of the truth (`observe.mask`)."""
_MIN_INSIDE = 0.75
"""Share of the prompted keypoints that the outline must hold."""

DISAGREES: Final = (
    "The fine outline did not agree with where the person was seen; the plain one was used."
)


def checkpoint_path(folder: Path, model: str = LARGE) -> Path:
    """Where a checkout of SAM 2 holds a checkpoint."""
    return folder / "checkpoints" / f"{model}.pt"


@dataclass(frozen=True, slots=True, eq=False)
class Sam2Masks:
    """SAM 2's image predictor, loaded."""

    predictor: Any
    """`sam2.sam2_image_predictor.SAM2ImagePredictor`, which has no types."""
    device: torch.device
    source: str
    """Model and digest, for `sources`."""
    digest: str
    """SHA-256 of the checkpoint."""

    @classmethod
    def load(
        cls,
        folder: Path,
        device: torch.device,
        *,
        model: str = LARGE,
        checkpoint: Path | None = None,
        sha256: str | None = None,
    ) -> Sam2Masks:
        """Load the network and its checkpoint, and run it once.

        Args:
            folder: checkout of facebookresearch/sam2.
            device: where it computes: in bfloat16 on CUDA, in float32 elsewhere.
            model: a key of `CONFIGS`.
            checkpoint: None: `checkpoints/<model>.pt` in the folder.
            sha256: the digest that the checkpoint must have, where one is known.

        Raises:
            ModelMissing: code, checkpoint or a package is not there.
            ModelInvalid: the checkpoint is not one of this model, or the network gives no numbers.
        """
        path = checkpoint or checkpoint_path(folder, model)
        file = WeightsFile(f"SAM 2, {model}", path, sha256)
        # The file first: it is what is wrong most often, and reading it needs no vendor's code.
        state = read_state(file, at=("model",))
        import_torchvision()
        building = import_vendor(folder, "sam2.build_sam", variable=VARIABLE)
        predicting = import_vendor(folder, "sam2.sam2_image_predictor", variable=VARIABLE)
        with quiet():
            network: nn.Module = building.build_sam2(CONFIGS[model], None, device="cpu")
            load_into(network, state, file)
            predictor = predicting.SAM2ImagePredictor(network.to(device))
        masks = cls(predictor, device, f"{model}@{state.sha256[:8]}", state.sha256)
        blank: ByteArray = np.full((64, 64, 3), 127, dtype=np.uint8)
        box = np.array([8, 8, 56, 56], dtype=np.float32)
        if not np.isfinite(masks.logits(blank, box, box.reshape(2, 2))).all():
            raise file.wrong("makes the network give no finite numbers")
        return masks

    def refine(self, photo: Photo, seen: Observation) -> Observation:
        """Replace the outline of an observation by SAM 2's, when that shows the same person."""
        near = _near(seen)
        x0, y0, x1, y1 = near
        crop = np.ascontiguousarray(photo.pixels[y0:y1, x0:x1])
        origin = np.array([x0, y0], dtype=np.float32)
        points = _prompts(seen)
        grown = _grown(seen.box, _BOX_MARGIN)
        box = np.clip(grown - np.tile(origin, 2), 0, np.array([x1 - x0, y1 - y0] * 2))
        logits = self.logits(crop, box.astype(np.float32), points - origin)
        mask = np.zeros_like(seen.mask)
        # exp overflows to infinity far outside, where the probability is 0 all the same.
        mask[y0:y1, x0:x1] = torch.from_numpy(logits).sigmoid().numpy()
        new_box = box_of(mask > 0.5)
        if new_box is None or not _same_person(mask, seen.mask, points):
            return replace(seen, warnings=(*seen.warnings, DISAGREES))
        return replace(seen, mask=mask, box=new_box, source=f"{seen.source}+{self.source}")

    def logits(self, pixels: ByteArray, box: Float32Array, points: Float32Array) -> Float32Array:
        """Segment what a box and points in it mean.

        Args:
            pixels: (H, W, 3) sRGB.
            box: (4,) x0, y0, x1, y1 in pixels.
            points: (N, 2) pixels that belong to it.

        Returns:
            (H, W) logits, above 0 inside.
        """
        half = torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda")
        with torch.inference_mode(), half:
            self.predictor.set_image(pixels)
            masks, _, _ = self.predictor.predict(
                point_coords=points if len(points) else None,
                point_labels=np.ones(len(points), dtype=np.int32) if len(points) else None,
                box=box,
                # Several prompts leave no doubt about what is meant (the vendor's docstring).
                multimask_output=False,
                return_logits=True,
            )
            self.predictor.reset_predictor()
        return np.asarray(masks[0], dtype=np.float32)


def _near(seen: Observation) -> tuple[int, int, int, int]:
    """Return the part of the photo that SAM 2 looks at, as whole pixels inside it."""
    height, width = seen.mask.shape
    x0, y0, x1, y1 = _grown(seen.box, _MARGIN)
    return (
        max(0, int(np.floor(x0))),
        max(0, int(np.floor(y0))),
        min(width, int(np.ceil(x1))),
        min(height, int(np.ceil(y1))),
    )


def _grown(box: Float32Array, share: float) -> Float32Array:
    margin = share * float(box[3] - box[1])
    return box + np.array([-margin, -margin, margin, margin], dtype=np.float32)


def _prompts(seen: Observation) -> Float32Array:
    """Return the (N, 2) keypoints that are surely seen and lie in the free outline."""
    rows = [KEYPOINTS.index(name) for name in PROMPTS]
    points = seen.keypoints[rows]
    sure = points[points[:, 2] >= _SEEN][:, :2]
    return np.asarray(sure[_held(seen.mask, sure)], dtype=np.float32)


def _held(mask: Float32Array, points: Float32Array) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Tell for each of (N, 2) points whether a mask holds it."""
    height, width = mask.shape
    columns = np.clip(points[:, 0].astype(int), 0, width - 1)
    rows = np.clip(points[:, 1].astype(int), 0, height - 1)
    return np.asarray(mask[rows, columns] > 0.5, dtype=np.bool_)


def _same_person(mask: Float32Array, free: Float32Array, points: Float32Array) -> bool:
    fine, plain = mask > 0.5, free > 0.5
    agreement = (fine & plain).sum() / max(1, (fine | plain).sum())
    inside = _held(mask, points).mean() if len(points) else 1.0
    return bool(agreement >= _MIN_AGREEMENT and inside >= _MIN_INSIDE)
