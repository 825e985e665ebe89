"""`avatar-worker bench fit`: how far the fit is off on people of known measurements, and how fast.

Cases with photos go through the worker's own observers; the others bring masks and keypoints.
Printed beside what one would guess without a photo (regressions from height, and from height and
weight), beside the floor (the true body brought into the shape space and measured) and, where it
lies beside the checkout, beside the prototype of the method.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.benchmarks.cases import Case, MalformedCase, load_cases  # noqa: E402 - the checkout's own package
from tests.benchmarks.figures import Row, mean_girths_cm, setup_figures  # noqa: E402 - as above
from tests.benchmarks.judge import Judge, Outcome  # noqa: E402 - as above
from tests.benchmarks.peer_prototype import Prototype  # noqa: E402 - as above
from tests.benchmarks.setups import GIRTHS, INSEAM, SETUPS, Setup  # noqa: E402 - as above
from worker.avatar.body.free import FREE_BODY_DIGEST  # noqa: E402 - as above

PEER = ROOT.parent / "shared/prototypes/fit"
"""Where the prototype lies beside a checkout, if it does."""
CASES = ROOT / "build/cases"
DEFAULT = ("front+side+weight", "front+side", "front+weight", "front+side/neutral", "front/neutral")
"""Setups that are run when none is named."""

Means = Callable[[Case, Setup], Outcome]


def run(
    sets: Sequence[Path],
    setups: Sequence[Setup],
    judge: Judge,
    prototype: Prototype | None,
    *,
    quiet: bool,
    direct: bool = False,
) -> dict[str, Any]:
    """Fit every case of every set in every setup.

    Raises:
        MalformedCase: a case cannot be read.
    """
    figures: dict[str, Any] = {}
    rows: dict[str, list[dict[str, Any]]] = {}
    for folder in sets:
        by_family: dict[str, list[Case]] = {}
        for case in load_cases(folder):
            by_family.setdefault(_family(case, folder, direct=direct), []).append(case)
        for family, cases in by_family.items():
            for setup in setups:
                name = f"{setup.name}/{family}"
                if name in figures:
                    raise MalformedCase(folder, f"another set is of the family {family}, too")
                fit, others = _judged(cases, setup, name, judge, prototype, quiet=quiet)
                figures[name] = {"set": folder.name, **setup_figures(name, fit, others)}
                rows[name] = [row.document() for row in fit]
    return {
        "body": FREE_BODY_DIGEST,
        "setups": figures,
        "cases": rows,
        "notes": _notes(prototype),
    }


def _family(case: Case, folder: Path, *, direct: bool) -> str:
    """What is worn; sets that are seen directly, not through photos, say so."""
    photos = list(folder.glob(f"{case.name}/front.*"))
    return case.family if photos and not direct else f"{case.family} (direct)"


def _judged(
    cases: Sequence[Case],
    setup: Setup,
    name: str,
    judge: Judge,
    prototype: Prototype | None,
    *,
    quiet: bool,
) -> tuple[list[Row], dict[str, list[Row]]]:
    """How every case went, and how it goes by other means."""
    means: dict[str, Means] = {
        "height": lambda case, how: judge.guess(case, how, with_weight=False),
        "height+weight": lambda case, how: judge.guess(case, how, with_weight=True),
        "floor": judge.floor,
    }
    if prototype is not None and not setup.neutral and setup.outlines:
        means["prototype"] = lambda case, how: judge.peer(case, how, prototype)
    usable = [case for case in cases if all(case.has(view) for view in setup.views)]
    usable = [case for case in usable if not setup.weight or case.request.get("weightKg")]
    rows: list[Row] = []
    others: dict[str, list[Row]] = {mean: [] for mean in means}
    for case in track(usable, description=name, console=Console(stderr=True), disable=quiet):

        def row(outcome: Outcome, case: Case = case) -> Row:
            return Row(case.folder.parent.name, case.name, case.gender.value, outcome)

        rows.append(row(judge.fit(case, setup)))
        for mean, one in means.items():
            others[mean].append(row(one(case, setup)))
    return rows, others


def _notes(prototype: Prototype | None) -> list[str]:
    notes = []
    if prototype is None:
        notes.append("the prototype is skipped: its fitlib.py does not lie beside the checkout")
    return notes


def _table(report: dict[str, Any]) -> Table:
    keys = (*GIRTHS, INSEAM)
    table = Table(
        "setup / family",
        "n",
        *keys,
        "girths",
        "reach",
        "in 90 %",
        "s",
        title="mean absolute error in cm (mean signed error)",
    )
    for name, one in report["setups"].items():
        if "mae_cm" not in one:
            table.add_row(name, "0", *["–"] * 8)
            continue
        cells = [
            f"{one['mae_cm'][key]:.1f} ({one['bias_cm'][key]:+.1f})"
            if key in one["mae_cm"]
            else "–"
            for key in keys
        ]
        mean, target = mean_girths_cm(one), one["target"]
        refused = sum(one["refused"].values())
        table.add_row(
            name,
            f"{one['n']}" + (f" +{refused} refused" if refused else ""),
            *cells,
            "–" if mean is None else f"{mean:.2f}",
            f"≤ {target['girths_cm']}" if target else "",
            "–" if one["coverage90"] is None else f"{one['coverage90']:.0%}",
            f"{one['seconds_median']:.2f}",
            style="bold",
        )
        for other, same in one["baselines"].items():
            if same is None:
                continue
            plain = [f"{same['mae_cm'][k]:.1f}" if k in same["mae_cm"] else "–" for k in keys]
            mean = mean_girths_cm(same)
            table.add_row(
                f"  {other}", str(same["n"]), *plain, "–" if mean is None else f"{mean:.2f}"
            )
    return table


def _cell(figures: dict[str, Any], key: str) -> str:
    if key not in figures["mae_cm"]:
        return "–"
    return f"{figures['mae_cm'][key]:.1f} ({figures['bias_cm'][key]:+.1f})"


def main() -> None:
    """Read the command line and print a table or JSON."""
    given = _arguments()
    torch.set_num_threads(1)
    sets = given.cases or _default_sets()
    if not sets:
        raise SystemExit("there are no cases in build/cases; `make bench` makes some")
    prototype = None
    if not given.no_peer:
        try:
            prototype = Prototype(given.peer)
        except FileNotFoundError as missing:
            print(f"The prototype is skipped: {missing}.", file=sys.stderr)  # noqa: T201 - for people
    chosen = given.only or DEFAULT
    try:
        report = run(
            sets,
            [setup for setup in SETUPS if setup.name in chosen],
            Judge(direct=given.direct),
            prototype,
            quiet=given.json,
            direct=given.direct,
        )
    except MalformedCase as error:
        raise SystemExit(f"MALFORMED_CASE: {error}; see docs/reference/bench-cases.md") from None
    if given.json:
        print(json.dumps(report))  # noqa: T201 - this is what --json is for
        return
    console = Console(width=None if sys.stdout.isatty() else 130)
    console.print(_table(report))
    for note in report["notes"]:
        console.print(note)


def _default_sets() -> list[Path]:
    """The sets that nothing was tuned on, or, where none was made, all."""
    sets = sorted({path.parents[1] for path in CASES.glob("*/*/request.json")})
    return [folder for folder in sets if folder.name.startswith("test-photos")] or sets


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="avatar-worker bench fit", description=__doc__)
    parser.add_argument(
        "--cases",
        type=Path,
        action="append",
        help="a set of cases; may be given again (default: the test photos of build/cases)",
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
        "--direct",
        action="store_true",
        help="take the masks and keypoints of cases that have photos, too",
    )
    parser.add_argument(
        "--peer", type=Path, default=PEER, help="where the prototype's fitlib.py lies"
    )
    parser.add_argument("--no-peer", action="store_true", help="leave the prototype out")
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    return parser.parse_args()


if __name__ == "__main__":
    main()
