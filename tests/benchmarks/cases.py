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

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".heic")


class MalformedCase(ValueError):
    """A case does not follow docs/reference/bench-cases.md."""

    def __init__(self, folder: Path, what: str) -> None:
        super().__init__(f"{folder}: {what}")


@dataclass(frozen=True)
class Case:
    """One person of whom the truth is known."""

    folder: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @cached_property
    def request(self) -> dict[str, Any]:
        """What the person declares: heightCm, and weightKg and gender if they do."""
        found = self._json("request.json")
        self._number(found, "heightCm", "request.json")
        if found.get("weightKg") is not None:
            self._number(found, "weightKg", "request.json")
        return found

    @cached_property
    def truth(self) -> dict[str, Any]:
        """What is true: measurementsCm at least."""
        found = self._json("truth.json")
        measured = found.get("measurementsCm")
        if not isinstance(measured, dict) or not measured:
            raise MalformedCase(self.folder, "truth.json holds no measurementsCm")
        for name in measured:
            self._number(measured, name, "truth.json, measurementsCm")
        return found

    @property
    def gender(self) -> Gender:
        """The true gender; neutral where it is not told."""
        told = self.truth.get("gender", self.request.get("gender", Gender.NEUTRAL))
        if told not in list(Gender):
            raise MalformedCase(self.folder, f"{told!r} is none of {', '.join(Gender)}")
        return Gender(told)

    @property
    def family(self) -> str:
        """What is worn, in a word: the set's name where the case does not say."""
        return str(self.truth.get("family") or self.folder.parent.name)

    @property
    def dressed(self) -> bool:
        """Whether the masks hold clothes that vary over the body."""
        return bool(self.truth.get("clothes"))

    def check(self) -> None:
        """Read what every case has, so that a bench of hours does not end at the last one.

        Raises:
            MalformedCase: something is missing or says what cannot be.
        """
        if not (self.request and self.truth and self.gender):
            raise MalformedCase(self.folder, "request.json or truth.json is empty")
        if not self.has(ViewName.FRONT):
            raise MalformedCase(self.folder, "neither a front photo nor front_mask.png")

    def photo(self, view: ViewName) -> Path | None:
        """The photo from one side, if the case has any."""
        for suffix in PHOTO_SUFFIXES:
            path = self.folder / f"{view.value}{suffix}"
            if path.exists():
                return path
        return None

    def has(self, view: ViewName) -> bool:
        """Whether the person was seen from there."""
        return self.photo(view) is not None or (self.folder / f"{view.value}_mask.png").exists()

    def vertices(self) -> Float64Array | None:
        """(V, 3) the true body in T-pose, metres; None: only a tape was there."""
        if "verticesFile" not in self.truth:
            return None
        path = self.folder / str(self.truth["verticesFile"])
        if not path.exists():
            raise MalformedCase(self.folder, f"{path.name} is missing, but truth.json names it")
        with np.load(path) as arrays:
            return np.asarray(arrays["vertices"], dtype=np.float64)

    def observation(self, view: ViewName) -> Observation:
        """What the case's own mask and keypoints say; photos are for `observing.SeenCases`.

        Raises:
            MalformedCase: a file is missing or says what cannot be.
        """
        camera = self._json("camera.json").get(view.value)
        if not isinstance(camera, dict):
            raise MalformedCase(self.folder, f"camera.json says nothing of {view.value}")
        mask = self._mask(view)
        width, height = (int(self._number(camera, k, "camera.json")) for k in ("width", "height"))
        if mask.shape != (height, width):
            raise MalformedCase(
                self.folder, f"the {view.value} mask is not {width} × {height} as camera.json says"
            )
        rows, columns = np.nonzero(mask > 0.5)
        if not len(rows):
            raise MalformedCase(self.folder, f"nobody is in the {view.value} mask")
        return Observation(
            view=view,
            intrinsics=Intrinsics(
                self._number(camera, "focalPx", "camera.json"),
                width,
                height,
                known=camera.get("known", True),
            ),
            box=np.array(
                [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], dtype=np.float32
            ),
            keypoints=self._keypoints(view),
            mask=mask,
            source=DRESSED_CASE if self.dressed else "synthetic",
        )

    def _mask(self, view: ViewName) -> np.ndarray[Any, np.dtype[np.float32]]:
        path = self.folder / f"{view.value}_mask.png"
        if not path.exists():
            raise MalformedCase(self.folder, f"neither a {view.value} photo nor {path.name}")
        with Image.open(path) as picture:
            return np.asarray(picture.convert("L"), dtype=np.float32) / 255.0

    def _keypoints(self, view: ViewName) -> np.ndarray[Any, np.dtype[np.float32]]:
        found = self._json(f"{view.value}_keypoints.json")
        if tuple(found.get("names", ())) != KEYPOINTS:
            raise MalformedCase(self.folder, f"{view.value} keypoints are not named as KEYPOINTS")
        points = np.array(found.get("xyc"), dtype=np.float32)
        if points.shape != (len(KEYPOINTS), 3):
            raise MalformedCase(self.folder, f"{view.value} keypoints are not rows of x, y, c")
        return points

    def _number(self, found: dict[str, Any], name: str, where: str) -> float:
        value = found.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
            raise MalformedCase(self.folder, f"{name} of {where} is no number above 0: {value!r}")
        return float(value)

    def _json(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        try:
            loaded = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            raise MalformedCase(self.folder, f"{name} is missing") from None
        except ValueError as error:
            raise MalformedCase(self.folder, f"{name} is no JSON: {error}") from None
        if not isinstance(loaded, dict):
            raise MalformedCase(self.folder, f"{name} is no JSON object")
        return loaded


def load_cases(folder: Path) -> list[Case]:
    """Every case of a set, in order.

    Raises:
        MalformedCase: there is none, or one cannot be read.
    """
    cases = [Case(path.parent) for path in sorted(folder.glob("*/request.json"))]
    if not cases:
        raise MalformedCase(folder, "no folder in it has a request.json")
    for case in cases:
        case.check()
    return cases
