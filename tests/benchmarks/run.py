"""`avatar-worker bench`: how far the fit is off on people of known measurements, and how fast.

Printed beside what one would guess without a photo (regressions from height, and from height and
weight), beside the floor (the true body brought into the shape space and measured) and, with
`--peer`, beside the prototype of the method.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.benchmarks.cases import Case, load_cases  # noqa: E402 - the checkout's own package
from tests.benchmarks.peer_prototype import Prototype  # noqa: E402 - as above
from worker.avatar.body.free import FREE_BODY_DIGEST, free_body  # noqa: E402 - as above
from worker.avatar.body.model import BodyModel  # noqa: E402 - as above
from worker.avatar.fit import FitOptions, fit_body  # noqa: E402 - as above
from worker.avatar.measure import Measurer  # noqa: E402 - as above
from worker.avatar.types import Float64Array, Gender, ViewName  # noqa: E402 - as above

PEER = ROOT.parent / "shared/prototypes/fit"
"""Where the prototype lies beside a checkout, if it does."""
KEYS = ("chestCm", "waistCm", "hipCm", "insideLegCm")
SIGNED = ("male", "female")


@dataclass(frozen=True)
class Setup:
    """One way to be fitted."""

    name: str
    views: tuple[ViewName, ...]
    weight: bool = False
    neutral: bool = False
    outlines: bool = True
    erode_px: float | None = None
    """None: the default where something is worn, 0 where nothing is."""


FRONT, BOTH = (ViewName.FRONT,), (ViewName.FRONT, ViewName.SIDE)
SETUPS = (
    Setup("keypoints, front", FRONT, outlines=False),
    Setup("front", FRONT),
    Setup("front + weight", FRONT, weight=True),
    Setup("front + side", BOTH),
    Setup("front + side + weight", BOTH, weight=True),
    Setup("front, gender undeclared", FRONT, neutral=True),
    Setup("front + side, gender undeclared", BOTH, neutral=True),
    Setup("front + side, eroded 8", BOTH, erode_px=8.0),
)
PEER_SETUPS = ("front", "front + side", "front + side + weight")


@dataclass(frozen=True)
class Outcome:
    """How one case went."""

    off_cm: dict[str, float]
    vertex_mm: float
    seconds: float
    iou: float | None
    """The worst view's; the prototype reports none."""


class Bench:
    """The bodies, loaded once."""

    def __init__(self) -> None:
        self._bodies = {
            gender: BodyModel(free_body(gender), dtype=torch.float64) for gender in Gender
        }
        self._measurers = {gender: Measurer(body.data) for gender, body in self._bodies.items()}

    def fit(self, case: Case, setup: Setup) -> Outcome:
        """Fit one case and hold it against its truth."""
        gender = Gender.NEUTRAL if setup.neutral else case.gender
        body = self._bodies[gender]
        observations = [case.observation(view) for view in setup.views]
        erode_px = setup.erode_px
        if erode_px is None:
            erode_px = FitOptions().silhouette_torso_erode_px if case.dressed else 0.0
        started = time.perf_counter()
        fit = fit_body(
            body,
            observations,
            height_m=case.request["heightCm"] / 100,
            weight_kg=case.request["weightKg"] if setup.weight else None,
            options=FitOptions(setup.outlines, erode_px),
        )
        seconds = time.perf_counter() - started
        return self._judged(
            case, gender, fit.betas, seconds=seconds, iou=min(view.iou for view in fit.views)
        )

    def peer(self, case: Case, setup: Setup, prototype: Prototype) -> Outcome:
        """Let the prototype fit a case and hold it against the truth as ours is."""
        betas, seconds = prototype.fit(case, setup.views, weight=setup.weight)
        betas = np.pad(betas, (0, self._bodies[case.gender].num_betas - len(betas)))
        return self._judged(case, case.gender, betas, seconds=seconds, iou=None)

    def _judged(
        self, case: Case, gender: Gender, betas: Float64Array, *, seconds: float, iou: float | None
    ) -> Outcome:
        vertices = self._shaped(self._bodies[gender], betas)
        vertices *= case.request["heightCm"] / 100 / np.ptp(vertices[:, 1])
        return Outcome(
            off_cm=self._off(gender, vertices, case),
            vertex_mm=_vertex_mm(vertices, case.vertices()),
            seconds=seconds,
            iou=iou,
        )

    def floor(self, case: Case) -> Outcome:
        """Bring the true body into the shape space and measure it there."""
        body = self._bodies[case.gender]
        directions = body.shapedirs.flatten(0, 1).numpy()
        true = case.vertices()
        apart = (true - body.v_template.numpy()).reshape(-1)
        betas = np.linalg.lstsq(directions, apart, rcond=None)[0]
        vertices = self._shaped(body, betas)
        return Outcome(self._off(case.gender, vertices, case), _vertex_mm(vertices, true), 0.0, 1.0)

    def _off(self, gender: Gender, vertices: Float64Array, case: Case) -> dict[str, float]:
        measured = self._measurers[gender].measure(vertices)
        return {key: measured[key] - case.truth["measurementsCm"][key] for key in measured}

    @staticmethod
    def _shaped(body: BodyModel, betas: Float64Array) -> Float64Array:
        return np.asarray(body.shaped(torch.as_tensor(betas)[None])[0].numpy())


def _vertex_mm(vertices: Float64Array, true: Float64Array) -> float:
    """Mean distance of the vertices in T-pose, middle on middle."""
    apart = (vertices - vertices.mean(axis=0)) - (true - true.mean(axis=0))
    return float(np.linalg.norm(apart, axis=1).mean() * 1000)


def _summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    keys = outcomes[0].off_cm
    off = {key: np.array([outcome.off_cm[key] for outcome in outcomes]) for key in keys}
    ious = [outcome.iou for outcome in outcomes if outcome.iou is not None]
    return {
        "n": len(outcomes),
        "meanAbsoluteErrorCm": {key: round(float(np.abs(off[key]).mean()), 2) for key in keys},
        "standardErrorCm": {
            key: round(float(np.abs(off[key]).std() / len(outcomes) ** 0.5), 2) for key in keys
        },
        "biasCm": {key: round(float(off[key].mean()), 2) for key in keys},
        "vertexMm": round(float(np.mean([outcome.vertex_mm for outcome in outcomes])), 1),
        "medianSeconds": round(float(np.median([outcome.seconds for outcome in outcomes])), 2),
        **({"iou": round(float(np.mean(ious)), 3)} if ious else {}),
    }


def run(
    folder: Path,
    *,
    quiet: bool,
    only: Sequence[str] | None,
    prototype: Prototype | None = None,
) -> dict[str, Any]:
    """Fit every case in every setup; return the figures by setup and gender."""
    cases = load_cases(folder)
    if not cases:
        raise SystemExit(
            f"no cases in {folder}; docs/reference/bench-cases.md says how to make some"
        )
    bench = Bench()
    figures: dict[str, Any] = {}
    baselines = folder / "baselines.json"
    if baselines.exists():
        known = json.loads(baselines.read_text())
        for name in ("height", "height+weight"):
            figures[f"guess from {name}"] = {sex: known[sex][name] for sex in SIGNED}
    rows: list[tuple[str, Any]] = [("floor of the shape space", bench.floor)]
    rows += [
        (setup.name, lambda case, setup=setup: bench.fit(case, setup))
        for setup in SETUPS
        if not only or setup.name in only
    ]
    if prototype is not None:
        rows += [
            (
                f"prototype: {setup.name}",
                lambda case, setup=setup: bench.peer(case, setup, prototype),
            )
            for setup in SETUPS
            if setup.name in PEER_SETUPS and (not only or setup.name in only)
        ]
    for name, judge in rows:
        outcomes = {
            case.name: (case.gender.value, judge(case))
            for case in track(cases, description=name, console=Console(stderr=True), disable=quiet)
        }
        figures[name] = {
            sex: _summary([outcome for gender, outcome in outcomes.values() if gender == sex])
            for sex in sorted({gender for gender, _ in outcomes.values()}, reverse=True)
        }
    return {"set": folder.name, "body": FREE_BODY_DIGEST, "setups": figures}


def _table(report: dict[str, Any]) -> Table:
    table = Table(
        "setup",
        *(key.removesuffix("Cm") for key in KEYS),
        *("vertex mm", "IoU", "median s"),
        title=f"{report['set']}: mean absolute error in cm, men/women",
    )
    for name, by_sex in report["setups"].items():
        sexes = [by_sex[sex] for sex in SIGNED if sex in by_sex]
        cells = [
            "/".join(f"{sex['meanAbsoluteErrorCm'][key]:.1f}" for sex in sexes) for key in KEYS
        ]
        for key, digits in (("vertexMm", 1), ("iou", 3), ("medianSeconds", 2)):
            cells.append("/".join(f"{sex[key]:.{digits}f}" for sex in sexes if key in sex))
        table.add_row(name, *cells)
    return table


def main() -> None:
    """Read the command line and print a table or JSON."""
    parser = argparse.ArgumentParser(prog="avatar-worker bench", description=__doc__)
    parser.add_argument(
        "--cases",
        type=Path,
        action="append",
        help="a set of cases; may be given again (default: every set of build/cases)",
    )
    parser.add_argument(
        "--only",
        action="append",
        metavar="SETUP",
        choices=[setup.name for setup in SETUPS],
        help="run this setup only; may be given again: "
        + "; ".join(setup.name for setup in SETUPS),
    )
    parser.add_argument(
        "--peer",
        type=Path,
        nargs="?",
        const=PEER,
        help="also run the prototype, whose fitlib.py lies in this folder (default: %(const)s)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    given = parser.parse_args()
    torch.set_num_threads(1)
    sets = given.cases or sorted(path.parent for path in (ROOT / "build/cases").glob("*/male-00"))
    if not sets:
        raise SystemExit("there are no cases in build/cases; `make bench` makes some")
    prototype = None
    if given.peer is not None:
        try:
            prototype = Prototype(given.peer)
        except FileNotFoundError as missing:
            print(f"The peer is skipped: {missing}.", file=sys.stderr)  # noqa: T201 - for people
    reports = [
        run(folder, quiet=given.json, only=given.only, prototype=prototype) for folder in sets
    ]
    if given.json:
        print(json.dumps(reports))  # noqa: T201 - this is what --json is for
        return
    console = Console(width=None if sys.stdout.isatty() else 120)
    for report in reports:
        console.print(_table(report))


if __name__ == "__main__":
    main()
