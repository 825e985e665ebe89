"""A case on disk; docs/reference/bench-cases.md describes it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from recipes.cases.draping import Worn
from recipes.cases.subject import Subject
from recipes.cases.views import View
from worker.avatar.types import KEYPOINTS


@dataclass(frozen=True, slots=True)
class Declared:
    """What the shopper says: rounded and a little wrong."""

    height_cm: float
    weight_kg: float


def write_case(
    folder: Path,
    subject: Subject,
    declared: Declared,
    views: Sequence[View],
    *,
    worn: Worn | None = None,
    half: bool = False,
) -> None:
    """Write one case.

    Args:
        folder: made when it is missing.
        subject: the truth.
        declared: the request.
        views: front and side.
        worn: clothes, if any.
        half: store the true vertices as float16 (0.3 mm), for cases that are committed.
    """
    write_person(folder, subject, declared, worn=worn, half=half)
    cameras = {}
    for view in views:
        Image.fromarray(view.mask.astype(np.uint8) * 255).save(
            folder / f"{view.name}_mask.png", optimize=True
        )
        _write_json(
            folder / f"{view.name}_keypoints.json",
            {"names": KEYPOINTS, "xyc": np.round(view.keypoints, 2).tolist()},
        )
        cameras[str(view.name)] = {
            "focalPx": view.intrinsics.focal_px,
            "width": view.intrinsics.width,
            "height": view.intrinsics.height,
            **({} if view.intrinsics.known else {"known": False}),
        }
    _write_json(folder / "camera.json", cameras)


def write_person(
    folder: Path, subject: Subject, declared: Declared, *, worn: Worn | None, half: bool = False
) -> None:
    """Write what does not depend on a view: the request and the truth."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(
        folder / "request.json",
        {
            "heightCm": declared.height_cm,
            "weightKg": declared.weight_kg,
            "gender": str(subject.gender),
        },
    )
    _write_json(
        folder / "truth.json",
        {
            "heightCm": round(subject.height_cm, 2),
            "weightKg": round(subject.weight_kg, 2),
            "gender": str(subject.gender),
            "measurementsCm": {k: round(v, 2) for k, v in subject.measurements_cm.items()},
            "verticesFile": "truth.npz",
            **({} if worn is None else {"family": worn.family, "clothes": worn.names}),
        },
    )
    np.savez_compressed(
        folder / "truth.npz", vertices=subject.vertices.astype(np.float16 if half else np.float32)
    )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
