"""How much surer the fit believes itself than it is: the two tables of `measure/intervals.py`.

    python -m tests.benchmarks.calibrate --cases DIR --cases DIR …

Every case is fitted in the setups that are agreed for its family.  For each measurement the
likeliest pair of the two numbers is printed that holds `HELD` of the errors, each group of set and
setup counting alike (docs/decisions/0021).  Never give it the test split's sets.  What is further
allowed under loose clothes and where nobody wears anything is not among the two: see `bench fit`.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests.benchmarks.cases import Case, load_cases
from tests.benchmarks.judge import Judge
from tests.benchmarks.setups import SETUPS, TARGETS_CM, Setup
from worker.avatar.measure.intervals import INFLATION, MODEL_ERROR_CM, NINETY_PERCENT
from worker.avatar.types import Float64Array

HELD = 0.92
"""Share of the errors that intervals hold here, so that they hold nine tenths elsewhere."""
LEAST_HELD = 0.87
"""Of a group; fewer are counted against a pair."""
_PENALTY = 4.0
"""Nats of likelihood that all groups falling short by one cost."""
AS_DECLARED = "heightCm"
"""Known by what people say of it, not from photos."""
_INFLATIONS = np.arange(0.3, 3.5, 0.03)
"""Those that are tried: what the fit believes always counts for something."""
_MODEL_ERRORS_CM = np.arange(0.0, 2.5, 0.03)


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """One measurement of the people of one set in one setup."""

    off_cm: Float64Array
    """(n,)."""
    believed_cm: Float64Array
    """(n,) standard errors as the fit alone sees them."""


def likeliest(groups: Sequence[Group]) -> tuple[float, float]:
    """Inflation of what the fit believes, and model error in cm, for one measurement.

    Raises:
        ValueError: there is no group, or no pair of those tried holds enough.
    """
    if not groups:
        raise ValueError("no fits to learn from")
    best, most = None, -np.inf
    for pair in itertools.product(_INFLATIONS.tolist(), _MODEL_ERRORS_CM.tolist()):
        inside = [held(group, pair) for group in groups]
        if sum(inside) < HELD * len(groups):
            continue
        short = sum(max(LEAST_HELD - share, 0.0) for share in inside)
        worth = sum(_log_likelihood(group, pair) for group in groups) - _PENALTY * short
        if worth > most:
            best, most = pair, worth
    if best is None:
        raise ValueError(f"no interval that was tried holds {HELD:.0%}")
    return best


def held(group: Group, pair: tuple[float, float]) -> float:
    """Share of the errors of a group inside of the intervals that a pair gives."""
    return float((np.abs(group.off_cm) <= NINETY_PERCENT * _sigma_cm(group, pair)).mean())


def _log_likelihood(group: Group, pair: tuple[float, float]) -> float:
    """Of an error of the group, on average."""
    sigma = _sigma_cm(group, pair)
    return float((-np.log(sigma) - (group.off_cm / sigma) ** 2 / 2).mean())


def _sigma_cm(group: Group, pair: tuple[float, float]) -> Float64Array:
    inflation, model_error_cm = pair
    return np.asarray(np.hypot(inflation * group.believed_cm, model_error_cm))


def _groups(sets: Sequence[Path], workers: int) -> dict[str, dict[str, Group]]:
    """By set and setup, then by measurement."""
    tasks = [
        (f"{folder.parent.name}/{folder.name} {setup.name}", case, setup)
        for folder in sets
        for case in load_cases(folder)
        for setup in SETUPS
        if f"{setup.name}/{case.family}" in TARGETS_CM
        or (setup.name, case.family) == ("front+side+weight", "underwear")
    ]
    found: dict[str, list[tuple[dict[str, float], dict[str, float]]]] = {}
    with ProcessPoolExecutor(workers) as pool:
        outcomes = pool.map(_outcome, tasks, chunksize=4)
        shown = track(outcomes, "fitting", len(tasks), console=Console(stderr=True))
        for (name, _, _), outcome in zip(tasks, shown, strict=True):
            if outcome is not None:
                found.setdefault(name, []).append(outcome)
    return {
        name: {
            key: Group(*(np.array([one[part][key] for one in people]) for part in (0, 1)))
            for key in people[0][0]
        }
        for name, people in found.items()
    }


def _outcome(
    task: tuple[str, Case, Setup],
) -> tuple[dict[str, float], dict[str, float]] | None:
    _, case, setup = task
    return _judge().off_and_believed_cm(case, setup)


@cache
def _judge() -> Judge:
    torch.set_num_threads(1)
    return Judge()


def _table(
    groups: Mapping[str, Mapping[str, Group]], pairs: Mapping[str, tuple[float, float]]
) -> Table:
    table = Table("set and setup", "n", "girths cm", "held", "least", "most", "before")
    before = {key: (INFLATION[key], MODEL_ERROR_CM[key]) for key in pairs}
    for name, group in groups.items():
        now = {key: held(group[key], pairs[key]) for key in pairs}
        then = np.mean([held(group[key], before[key]) for key in pairs])
        girths = [np.abs(group[key].off_cm).mean() for key in ("chestCm", "waistCm", "hipCm")]
        least, most = min(now, key=now.__getitem__), max(now, key=now.__getitem__)
        table.add_row(
            name,
            str(len(group["chestCm"].off_cm)),
            f"{np.mean(girths):.2f}",
            f"{np.mean(list(now.values())):.0%}",
            f"{now[least]:.0%} {least}",
            f"{now[most]:.0%} {most}",
            f"{then:.0%}",
        )
    return table


def main() -> None:
    """Fit, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=Path, action="append", required=True, help="a set of cases")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    given = parser.parse_args()
    groups = _groups(given.cases, given.workers)
    if not groups:
        parser.error("nobody of these sets was fitted: see TARGETS_CM for the families it knows")
    pairs = {
        key: (INFLATION[key], MODEL_ERROR_CM[key])
        if key == AS_DECLARED
        else likeliest([group[key] for group in groups.values()])
        for key in INFLATION
    }
    Console(width=150).print(_table(groups, pairs))
    for name, index in (("INFLATION", 0), ("MODEL_ERROR_CM", 1)):
        rows = "".join(f'    "{key}": {round(pair[index], 2)},\n' for key, pair in pairs.items())
        print(f"{name} = {{\n{rows}}}")  # noqa: T201 - what this is for


if __name__ == "__main__":
    main()
