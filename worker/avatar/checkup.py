"""What `avatar-worker doctor` asks of the pipeline: are models and device as they should be?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from worker.avatar.body.free import free_body
from worker.avatar.observe.assets import default_models_dir, verify
from worker.avatar.types import Gender


def pose_models(models_dir: Path | None) -> str:
    """Verify the digests of the pose models.

    Raises:
        ModelMissing, ModelInvalid: naming the file.
    """
    where = models_dir or default_models_dir()
    verify(where)
    return f"complete in {where}"


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


def checks(models_dir: Path | None) -> list[tuple[str, Callable[[], str]]]:
    """Name what to look at, and how; `models_dir` None is the user's cache."""
    return [
        ("pose models", lambda: pose_models(models_dir)),
        ("body", body),
        ("device", device),
    ]
