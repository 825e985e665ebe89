"""`avatar-worker bench speed`: how long a whole fit takes, where, and beside Adam.

The fits are those of `bench fit` on cases seen directly, front and side, height and gender
declared.  Adam has the same start, the same residuals, the same outlines matched as often, and
the gradient by autograd; only the steps against the outlines are its own (`--adam`).  With
`--processes`, whole fits a second in several processes, as a worker with several children has.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import multiprocessing
import pstats
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from tests.benchmarks.adam import Adam, Stopwatch, in_place_of_the_solver, timed_steps
from tests.benchmarks.cases import Case, load_cases
from tests.benchmarks.figures_of_time import load_average
from worker.avatar.body.free import free_body
from worker.avatar.body.model import BodyModel
from worker.avatar.fit import FitOptions, fit_body
from worker.avatar.measure import Measurer
from worker.avatar.types import BodyFit, Observation, ViewName
from worker.errors import AvatarError

ROOT: Final = Path(__file__).resolve().parents[2]
CASES: Final = ROOT / "build/cases/dev"
STAGES: Final = {
    "read the masks": ("evidence.py", "gather"),
    "find a start": ("start.py", "find_start"),
    "find the body's outline": ("outline.py", "find"),
    "pair it with the photo's": ("outline.py", "match"),
    "normal equations": ("solver.py", "linearise"),
    "loss of a step that is tried": ("solver.py", "loss"),
    "overlap and report": ("fitter.py", "_report"),
}
"""By what is done there.  The last two but one are part of the start, too, where it takes steps."""
GIRTHS: Final = ("chestCm", "waistCm", "hipCm")


class Fits:
    """Cases with what was observed, and their bodies, loaded once."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self.cases = list(cases)
        self._bodies = {
            gender: BodyModel(free_body(gender), dtype=torch.float64)
            for gender in {case.gender for case in cases}
        }
        self._measurers = {
            gender: Measurer(free_body(gender)) for gender in {case.gender for case in cases}
        }
        self._seen: dict[str, list[Observation]] = {
            case.name: [case.observation(view) for view in ViewName] for case in cases
        }

    def fit(self, case: Case) -> BodyFit:
        """Fit one case, undressed as its masks are."""
        return fit_body(
            self._bodies[case.gender],
            self._seen[case.name],
            height_m=case.request["heightCm"] / 100,
            options=FitOptions(silhouette_torso_erode_px=0.0),
        )

    def off_cm(self, case: Case, fit: BodyFit) -> float:
        """Mean absolute error over chest, waist and hip."""
        body = self._bodies[case.gender]
        vertices = body.shaped(torch.as_tensor(fit.betas)[None])[0].numpy()
        vertices *= case.request["heightCm"] / 100 / np.ptp(vertices[:, 1])
        measured, true = (
            self._measurers[case.gender].measure(vertices),
            case.truth["measurementsCm"],
        )
        return statistics.mean(abs(measured[key] - true[key]) for key in GIRTHS)


def whole_fits(fits: Fits, rounds: int) -> dict[str, float]:
    """Time whole fits: wall and CPU seconds."""
    fits.fit(fits.cases[0])
    wall, cpu = [], []
    for _ in range(rounds):
        for case in fits.cases:
            started, before = time.perf_counter(), time.process_time()
            fits.fit(case)
            wall.append(time.perf_counter() - started)
            cpu.append(time.process_time() - before)
    return {
        "fits": len(wall),
        "medianS": round(statistics.median(wall), 3),
        "leastS": round(min(wall), 3),
        "medianCpuS": round(statistics.median(cpu), 3),
        "leastCpuS": round(min(cpu), 3),
    }


def stages(fits: Fits) -> dict[str, float]:
    """Shares of a fit's time by stage, from a profile of one fit a case."""
    fits.fit(fits.cases[0])
    profiler = cProfile.Profile()
    profiler.enable()
    for case in fits.cases:
        fits.fit(case)
    profiler.disable()
    stats = pstats.Stats(profiler).stats  # type: ignore[attr-defined] # typeshed lacks it
    total = sum(each[2] for each in stats.values())
    return {
        stage: round(
            sum(
                each[3]
                for (file, _, function), each in stats.items()
                if function == name and file.endswith(f"fit/{module}")
            )
            / total,
            3,
        )
        for stage, (module, name) in STAGES.items()
    }


def beside_adam(fits: Fits, rates: Sequence[float], steps: Sequence[int]) -> list[dict[str, Any]]:
    """Fit with Adam in place of the solver's steps, at each rate and number of steps."""
    with timed_steps() as watch:
        ours = [_timed(fits, case, watch) for case in fits.cases]
    rows = [_row("ours", ours, ours)]
    for count in steps:
        for rate in rates:
            with in_place_of_the_solver(Adam(rate=rate, steps=count)) as watch:
                theirs = [_timed(fits, case, watch) for case in fits.cases]
            rows.append(_row(f"Adam, {count} steps, rate {rate:g}", theirs, ours))
    return rows


@dataclass(frozen=True, slots=True)
class Timed:
    """One fit; CPU seconds, which others on the machine change least."""

    whole_s: float
    steps_s: float
    """Of these, the steps against outlines; start and matching are the same for both."""
    off_cm: float
    iou: float
    """The worst view's."""


def _timed(fits: Fits, case: Case, watch: Stopwatch) -> Timed | None:
    """Fit a case; None where the outcome explains nothing, as after too long steps."""
    watch.seconds, started = 0.0, time.process_time()
    try:
        fit = fits.fit(case)
    except AvatarError:
        return None
    seconds = time.process_time() - started
    iou = min(view.iou for view in fit.views)
    return Timed(seconds, watch.seconds, fits.off_cm(case, fit), iou)


def _row(name: str, them: Sequence[Timed | None], us: Sequence[Timed | None]) -> dict[str, Any]:
    both = [(their, our) for their, our in zip(them, us, strict=True) if their and our]
    row: dict[str, Any] = {"solver": name, "failed": len(them) - len(both)}
    if not both:
        return row
    return row | {
        "wholeCpuS": round(statistics.median(their.whole_s for their, _ in both), 3),
        "wholeTimesOurs": _ratio([(their.whole_s, our.whole_s) for their, our in both]),
        "stepsCpuS": round(statistics.median(their.steps_s for their, _ in both), 3),
        "stepsTimesOurs": _ratio([(their.steps_s, our.steps_s) for their, our in both]),
        "girthsOffCm": round(statistics.mean(their.off_cm for their, _ in both), 2),
        "iou": round(statistics.mean(their.iou for their, _ in both), 4),
    }


def _ratio(pairs: Sequence[tuple[float, float]]) -> float:
    return round(statistics.median(theirs / ours for theirs, ours in pairs), 1)


def in_processes(folder: Path, counts: Sequence[int], each: int) -> list[dict[str, Any]]:
    """Whole fits a second in several processes at once, each with one thread."""
    context = multiprocessing.get_context("spawn")
    rows = []
    for count in counts:
        ready, go = context.Barrier(count + 1), context.Event()
        done = context.Queue()
        children = [
            context.Process(target=_fit_some, args=(folder, each, ready, go, done))
            for _ in range(count)
        ]
        for child in children:
            child.start()
        ready.wait()
        started = time.perf_counter()
        go.set()
        for _ in children:
            done.get()
        seconds = time.perf_counter() - started
        for child in children:
            child.join()
        rows.append({"processes": count, "fitsPerSecond": round(count * each / seconds, 2)})
    return rows


def _fit_some(folder: Path, count: int, ready: Any, go: Any, done: Any) -> None:
    torch.set_num_threads(1)
    fits = Fits(_some(load_cases(folder), 2))
    fits.fit(fits.cases[0])
    ready.wait()
    go.wait()
    for number in range(count):
        fits.fit(fits.cases[number % len(fits.cases)])
    done.put(count)


def _some(cases: Sequence[Case], count: int) -> list[Case]:
    """Pick `count` cases, evenly."""
    return list(cases[:: max(1, len(cases) // count)][:count])


def tables(report: dict[str, Any]) -> list[Table]:
    """What was measured, for people."""
    whole = Table("fits", "median s", "least s", "median CPU s", "least CPU s", title="whole fits")
    whole.add_row(*(str(value) for value in report["whole"].values()))
    parts = Table("stage", "share", title="where a fit's time goes")
    for stage, share in report["stages"].items():
        parts.add_row(stage, f"{share:.0%}")
    found = [whole, parts]
    if report["adam"]:
        adam = Table(
            *("solver", "failed", "whole CPU s", "× ours", "steps CPU s", "× ours"),
            *("girths off cm", "IoU"),
            title="beside Adam",
        )
        for row in report["adam"]:
            adam.add_row(*(str(value) for value in row.values()))
        found.append(adam)
    if report["processes"]:
        several = Table("processes", "fits a second", title="several at once")
        for row in report["processes"]:
            several.add_row(*(str(value) for value in row.values()))
        found.append(several)
    return found


def main() -> None:
    """Read the command line and print tables or JSON."""
    parser = argparse.ArgumentParser(prog="avatar-worker bench speed", description=__doc__)
    parser.add_argument("--cases", type=Path, default=CASES, help="a set (default: %(default)s)")
    parser.add_argument("--count", type=int, default=10, help="cases, evenly (default: 10)")
    parser.add_argument("--rounds", type=int, default=3, help="of each case (default: 3)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: %(default)s)")
    parser.add_argument("--adam", action="store_true", help="also fit by Adam (minutes)")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.003, 0.01, 0.03])
    parser.add_argument("--steps", type=int, nargs="+", default=[300])
    parser.add_argument("--processes", type=int, nargs="+", default=[], metavar="N")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    cases = load_cases(given.cases)
    if not cases:
        raise SystemExit(f"no cases in {given.cases}; bench-cases.md says how to make some")
    fits = Fits(_some(cases, given.count))
    report = {
        "set": given.cases.name,
        "threads": torch.get_num_threads(),
        "load": load_average(),
        "whole": whole_fits(fits, given.rounds),
        "stages": stages(fits),
        "adam": beside_adam(fits, given.rates, given.steps) if given.adam else [],
        "processes": in_processes(given.cases, given.processes, 10),
    }
    if given.json:
        print(json.dumps(report))  # noqa: T201 - this is what --json is for
        return
    console = Console(width=None if sys.stdout.isatty() else 120)
    for table in tables(report):
        console.print(table)


if __name__ == "__main__":
    main()
