"""What `avatar-worker doctor` asks of the pipeline: are models and device as they should be?"""

from __future__ import annotations

from collections.abc import Callable

import torch

from worker.avatar.body.free import free_body
from worker.avatar.observe.assets import default_models_dir, verify
from worker.avatar.types import Gender


def pose_models() -> str:
    """Verify the digests of the pose models.

    Raises:
        ModelMissing, ModelInvalid: naming the file.
    """
    verify(default_models_dir())
    return f"complete in {default_models_dir()}"


def body() -> str:
    """Verify the free body's digest.

    Raises:
        ModelMissing, ModelInvalid: the pack is not the one of its card.
    """
    return free_body(Gender.NEUTRAL).source


def device() -> str:
    """Name what torch computes on."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()} (CUDA {torch.version.cuda})"
    return f"CPU; torch {torch.__version__} sees no CUDA device"


CHECKS: dict[str, Callable[[], str]] = {
    "pose models": pose_models,
    "body": body,
    "device": device,
}
