"""Weights that our tests make: of the vendors' own modules, in the vendors' own formats."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worker.avatar.observe import sam2
from worker.avatar.observe.sam2 import Sam2Masks
from worker.avatar.types import Observation, Photo
from worker.avatar.vendor_code import import_torchvision, import_vendor, quiet

TINY = "sam2.1_hiera_tiny"
LARGE = sam2.LARGE
STEPS = 60


def sam2_network(folder: Path, model: str = TINY) -> torch.nn.Module:
    """Build a network of SAM 2 with random weights, always the same."""
    import_torchvision()
    building = import_vendor(folder, "sam2.build_sam", variable=sam2.VARIABLE)
    torch.manual_seed(0)
    with quiet():
        return building.build_sam2(sam2.CONFIGS[model], None, device="cpu")


class _Asked(Exception):
    """Raised in place of an answer."""


class _Listener:
    """Stands where the predictor is, and keeps what it is asked."""

    def set_image(self, pixels: Any) -> None:
        self.pixels = pixels

    def predict(self, **prompts: Any) -> None:
        self.prompts = prompts
        raise _Asked


def taught_about(masks: Sam2Masks, photo: Photo, seen: Observation) -> dict[str, torch.Tensor]:
    """Teach a random network's mask decoder one photo's outline, and return all its tensors.

    The image encoder stays random, so that its features have to be computed only once.
    """
    listener = _Listener()
    with suppress(_Asked):
        replace(masks, predictor=listener).refine(photo, seen)
    predictor = masks.predictor
    predictor.set_image(listener.pixels)
    with torch.no_grad():
        _, points, labels, box = predictor._prep_prompts(
            listener.prompts["point_coords"],
            listener.prompts["point_labels"],
            listener.prompts["box"],
            None,
            normalize_coords=True,
        )
        # Corners of a box are points with the labels 2 and 3, as in the vendor's `_predict`.
        corners = torch.tensor([[2, 3]], dtype=torch.int32)
        coordinates = torch.cat([box.reshape(1, 2, 2), points], dim=1)
        sparse, dense = predictor.model.sam_prompt_encoder(
            points=(coordinates, torch.cat([corners, labels], dim=1)), boxes=None, masks=None
        )
    near = sam2._near(seen)
    shown = torch.from_numpy(np.ascontiguousarray(seen.mask[near[1] : near[3], near[0] : near[2]]))
    target = torch.nn.functional.interpolate(shown[None, None], (256, 256), mode="area")
    decoder = predictor.model.sam_mask_decoder
    optimiser = torch.optim.Adam(decoder.parameters(), lr=1e-3)
    features = predictor._features
    for _ in range(STEPS):
        logits, _, _, _ = decoder.predict_masks(
            image_embeddings=features["image_embed"],
            image_pe=predictor.model.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            repeat_image=False,
            high_res_features=features["high_res_feats"],
        )
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, target.expand_as(logits)
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    state: dict[str, torch.Tensor] = predictor.model.state_dict()
    return state
