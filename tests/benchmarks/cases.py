"""Cases of known truth, read from folders: the format of docs/reference/bench-cases.md."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from worker.avatar.fit.priors import DRESSED_CASE
from worker.avatar.types import (
    KEYPOINTS,
    Float64Array,
    Gender,
    Intrinsics,
    Observation,
    ViewName,
)


@dataclass(frozen=True)
class Case:
    """One synthetic person."""

    folder: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @cached_property
    def request(self) -> dict[str, Any]:
        """What the person declares: heightCm, weightKg, gender."""
        return self._json("request.json")

    @cached_property
    def truth(self) -> dict[str, Any]:
        """What is true: measurementsCm, heightCm, weightKg, gender."""
        return self._json("truth.json")

    @property
    def gender(self) -> Gender:
        """The true gender."""
        return Gender(self.truth["gender"])

    @property
    def dressed(self) -> bool:
        """Whether the masks hold clothes that vary over the body."""
        return bool(self.truth.get("clothes"))

    def vertices(self) -> Float64Array:
        """(V, 3) the true body in T-pose, metres."""
        with np.load(self.folder / str(self.truth["verticesFile"])) as arrays:
            return np.asarray(arrays["vertices"], dtype=np.float64)

    def observation(self, view: ViewName) -> Observation:
        """What an observer would have seen, with the case's own noise."""
        camera = self._json("camera.json")[view.value]
        with Image.open(self.folder / f"{view.value}_mask.png") as picture:
            mask = np.asarray(picture, dtype=np.float32) / 255.0
        keypoints = self._json(f"{view.value}_keypoints.json")
        if tuple(keypoints["names"]) != KEYPOINTS:
            raise ValueError(f"{self.folder}: keypoints are not named as KEYPOINTS are")
        rows, columns = np.nonzero(mask > 0.5)
        return Observation(
            view=view,
            intrinsics=Intrinsics(
                camera["focalPx"],
                camera["width"],
                camera["height"],
                known=camera.get("known", True),
            ),
            box=np.array(
                [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], dtype=np.float32
            ),
            keypoints=np.array(keypoints["xyc"], dtype=np.float32),
            mask=mask,
            source=DRESSED_CASE if self.dressed else "synthetic",
        )

    def _json(self, name: str) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.folder / name).read_text())
        return loaded


def load_cases(folder: Path) -> list[Case]:
    """Every case of a set, in order."""
    return [Case(path.parent) for path in sorted(folder.glob("*/request.json"))]
