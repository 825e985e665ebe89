"""`avatar-worker bench consistency`: how much the measurements change when they should not.

Each pair of photos is seen and fitted as it is, and again mirrored, as a JPEG of quality 60, with
a twentieth cut off or added on each side, and at half the resolution; with `--again DIR`, other
photos of the same people (the case of the same name there) are fitted, too.  Front and side with
declared gender and height, no weight; the observers and the fit are the worker's own.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests.benchmarks.cases import Case, load_cases
from worker.avatar.body.free import free_body
from worker.avatar.body.model import BodyModel
from worker.avatar.fit import fit_body
from worker.avatar.measure import Measurer
from worker.avatar.observe import assets
from worker.avatar.observe.observer import Observer
from worker.avatar.photo import read_photo
from worker.avatar.types import ByteArray, Gender, Observation, Photo, ViewName
from worker.errors import AvatarError

ROOT: Final = Path(__file__).resolve().parents[2]
CASES: Final = ROOT / "build/cases/dev-photos-everyday"
QUALITY: Final = 60
CROP: Final = 0.05
"""Of the width and of the height, on each side: a tenth of the picture."""
GIRTHS: Final = ("chestCm", "waistCm", "hipCm")
SHOWN: Final = (*GIRTHS, "insideLegCm")

Change = Callable[[ByteArray], ByteArray]


@dataclass(frozen=True, slots=True)
class Check:
    """One way to change a photo that should change nothing."""

    name: str
    bound_cm: float
    """How far girths may move."""
    change: Change | None = None
    """What is done to the pixels; None: not to the photo, but to what was observed."""


def mirrored(pixels: ByteArray) -> ByteArray:
    """Swap left and right."""
    return np.ascontiguousarray(pixels[:, ::-1])


def recompressed(pixels: ByteArray) -> ByteArray:
    """Write and read a JPEG of low quality."""
    packed = BytesIO()
    Image.fromarray(pixels).save(packed, "JPEG", quality=QUALITY)
    return np.asarray(Image.open(packed).convert("RGB"))


def cropped(pixels: ByteArray) -> ByteArray:
    """Cut a twentieth off each side."""
    down, across = (round(CROP * size) for size in pixels.shape[:2])
    return np.ascontiguousarray(pixels[down:-down, across:-across])


def widened(pixels: ByteArray) -> ByteArray:
    """Add a twentieth on each side, of the colours at the edge."""
    down, across = (round(CROP * size) for size in pixels.shape[:2])
    return np.pad(pixels, ((down, down), (across, across), (0, 0)), mode="edge")


def halved(pixels: ByteArray) -> ByteArray:
    """Halve the resolution, as a careful app would before an upload."""
    height, width = pixels.shape[:2]
    size = (width // 2, height // 2)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


AGAIN: Final = Check("other photos", 1.0)
CHECKS: Final = (
    Check("mirrored", 0.3, mirrored),
    Check("JPEG 60", 0.7, recompressed),
    Check("cropped", 0.7, cropped),
    Check("widened", 0.7, widened),
    Check("half", 0.7, halved),
)


class Subject:
    """Photos of one case, read once."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.photos: list[Photo] = []
        for view in ViewName:
            path = case.folder / f"{view.value}.jpg"
            if path.exists():
                self.photos.append(read_photo(path, view))


class Worker:
    """The worker's own observers, bodies and measurers, loaded once."""

    def __init__(self) -> None:
        self._observer = Observer.load(assets.default_models_dir(), threads=1)
        self._bodies = {
            gender: BodyModel(free_body(gender), dtype=torch.float64) for gender in Gender
        }
        self._measurers = {gender: Measurer(body.data) for gender, body in self._bodies.items()}

    def observe(self, photos: Sequence[Photo], change: Change | None = None) -> list[Observation]:
        """See photos, changed or as they are."""
        return [
            self._observer.observe(
                photo if change is None else replace(photo, pixels=change(photo.pixels))
            )
            for photo in photos
        ]

    def measure(self, case: Case, seen: Sequence[Observation]) -> Mapping[str, float]:
        """Fit and measure, in centimetres."""
        gender, height_m = case.gender, case.request["heightCm"] / 100
        body = self._bodies[gender]
        fit = fit_body(body, seen, height_m=height_m)
        vertices = body.shaped(torch.as_tensor(fit.betas)[None])[0].numpy()
        vertices *= height_m / np.ptp(vertices[:, 1])
        return self._measurers[gender].measure(vertices)


@dataclass(frozen=True, slots=True)
class Difference:
    """What a change did to one person."""

    case: str
    check: str
    by_cm: Mapping[str, float]
    """Measured after less measured before; empty when it was refused."""
    refused: str = ""


def compare(worker: Worker, case: Case, again: Path | None) -> list[Difference]:
    """Try every change on one case; nothing where its own photos are refused."""
    subject = Subject(case)
    try:
        seen = worker.observe(subject.photos)
        before = worker.measure(case, seen)
    except AvatarError as refusal:
        return [Difference(case.name, "as it is", {}, refusal.code)]

    def tried(check: Check, see: Callable[[], Sequence[Observation]]) -> Difference:
        try:
            after = worker.measure(case, see())
        except AvatarError as refusal:
            return Difference(case.name, check.name, {}, refusal.code)
        return Difference(
            case.name, check.name, {key: after[key] - value for key, value in before.items()}
        )

    found = [
        tried(check, lambda check=check: worker.observe(subject.photos, check.change))
        for check in CHECKS
    ]
    if again is not None and (again / case.name).is_dir():
        others = Subject(Case(again / case.name))
        found.append(tried(AGAIN, lambda: worker.observe(others.photos)))
    return found


def document(differences: Sequence[Difference], cases: Path) -> dict[str, Any]:
    """What `--json` prints: by check the spread of each measurement's change."""
    checks = {}
    for check in (*CHECKS, AGAIN):
        mine = [each for each in differences if each.check == check.name]
        if not mine:
            continue
        fitted = [each.by_cm for each in mine if each.by_cm]
        checks[check.name] = {
            "boundCm": check.bound_cm,
            "n": len(fitted),
            "refused": [each.refused for each in mine if each.refused],
            "within": sum(_worst(by_cm) <= check.bound_cm for by_cm in fitted),
            "changeCm": {
                key: _spread([by_cm[key] for by_cm in fitted])
                for key in (fitted[0] if fitted else ())
            },
        }
    return {
        "set": cases.name,
        "refusedAsTheyAre": [each.case for each in differences if each.check == "as it is"],
        "checks": checks,
        "cases": [
            {
                "case": each.case,
                "check": each.check,
                **{key: round(value, 2) for key, value in each.by_cm.items()},
            }
            for each in differences
            if each.by_cm
        ],
    }


def _worst(by_cm: Mapping[str, float]) -> float:
    """How far the girth that moved farthest did, centimetres."""
    return max(abs(by_cm[key]) for key in GIRTHS)


def _spread(values: Sequence[float]) -> dict[str, float]:
    sizes = np.abs(values)
    return {
        "median": round(float(np.median(sizes)), 2),
        "p90": round(float(np.quantile(sizes, 0.9)), 2),
        "max": round(float(sizes.max()), 2),
        "mean": round(float(np.mean(values)), 2),
    }


def table(report: dict[str, Any]) -> Table:
    """The same for people."""
    shown = Table(
        *("changed", "bound", "within", *(key.removesuffix("Cm") for key in SHOWN), "refused"),
        title=f"{report['set']}: change in cm, median / nine tenths / worst",
    )
    for name, check in report["checks"].items():
        cells = []
        for key in SHOWN:
            spread = check["changeCm"].get(key)
            cells.append(
                f"{spread['median']:.1f} / {spread['p90']:.1f} / {spread['max']:.1f}"
                if spread
                else "–"
            )
        within = f"{check['within']} of {check['n']}"
        shown.add_row(name, str(check["boundCm"]), within, *cells, str(len(check["refused"])))
    return shown


def main() -> None:
    """Read the command line and print a table or JSON."""
    parser = argparse.ArgumentParser(prog="avatar-worker bench consistency", description=__doc__)
    parser.add_argument("--cases", type=Path, default=CASES, help="photos (default: %(default)s)")
    parser.add_argument("--again", type=Path, help="other photos of the same people")
    parser.add_argument("--count", type=int, default=10, help="cases, evenly (default: 10)")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    given = parser.parse_args()
    torch.set_num_threads(1)
    cases = [case for case in load_cases(given.cases) if (case.folder / "front.jpg").exists()]
    if not cases:
        raise SystemExit(f"no photos in {given.cases}; bench-cases.md says how to make some")
    if given.again is not None:
        cases = [case for case in cases if (given.again / case.name).is_dir()] or cases
    cases = cases[:: max(1, len(cases) // given.count)][: given.count]
    worker = Worker()
    differences = []
    for case in track(cases, console=Console(stderr=True), disable=given.json):
        differences += compare(worker, case, given.again)
    report = document(differences, given.cases)
    if given.json:
        print(json.dumps(report))  # noqa: T201 - this is what --json is for
        return
    Console(width=None if sys.stdout.isatty() else 130).print(table(report))


if __name__ == "__main__":
    main()
