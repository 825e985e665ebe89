"""Write the figures of docs/reference/accuracy.md from what `bench fit --json` printed.

    python -m tests.benchmarks.accuracy --report build/accuracy.json

Everything between the page's markers is replaced; the prose around them is written by hand.  The
pictures of single people need the cases too, and fit those people again.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks import accuracy_plots
from tests.benchmarks.accuracy_pictures import contact_sheet
from tests.benchmarks.cases import Case
from tests.benchmarks.figures import mean_girths_cm
from tests.benchmarks.setups import GIRTHS, INSEAM, SETUPS, Setup

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/reference/accuracy.md"
IMAGES = ROOT / "docs/images"
SHOWN = "front+side/neutral/everyday"
"""What the API sends today: whose best, median and worst people are shown."""
PLOTTED = {
    "front+side+weight, tight": "front+side+weight/tight",
    "front+side+weight, everyday": "front+side+weight/everyday",
    "front+side, gender unknown, everyday": SHOWN,
}
_TILE_HEIGHT_PX = 420


def main() -> None:
    """Replace the generated parts of the page and its pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--report", type=Path, action="append", required=True, help="may be given again"
    )
    parser.add_argument("--cases", type=Path, default=ROOT / "build/cases")
    args = parser.parse_args()
    torch.set_num_threads(1)
    report = merged([json.loads(path.read_text("utf-8")) for path in args.report])
    page = PAGE.read_text("utf-8")
    for name, text in (
        ("girths", girths_table(report)),
        ("all", all_table(report)),
        ("intervals", intervals_table(report)),
    ):
        page = replaced(page, name, text)
    PAGE.write_text(page, "utf-8")
    series = {
        label: report["cases"][name] for label, name in PLOTTED.items() if name in report["cases"]
    }
    measurements = list(next(iter(report["setups"].values()))["mae_cm"])
    (IMAGES / "accuracy-errors.svg").write_text(accuracy_plots.errors(series, measurements))
    (IMAGES / "accuracy-calibration.svg").write_text(accuracy_plots.calibration(series))
    sheet = contact_sheet(*picked(report, args.cases), height_px=_TILE_HEIGHT_PX)
    sheet.save(IMAGES / "accuracy-people.jpg", quality=86, optimize=True)


def merged(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Reports of several runs as one.

    Raises:
        ValueError: they are of different bodies.
    """
    if len({report["body"] for report in reports}) > 1:
        raise ValueError("the reports are of different bodies")
    whole: dict[str, Any] = {"setups": {}, "cases": {}}
    for report in reports:
        for part in whole:
            whole[part] |= report[part]
    return whole


def replaced(page: str, name: str, text: str) -> str:
    """The page with what stands between the markers of `name` replaced.

    Raises:
        ValueError: the page has no such markers.
    """
    start, end = f"<!-- {name}: written by tests.benchmarks.accuracy -->", f"<!-- end of {name} -->"
    pattern = re.compile(re.escape(start) + ".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(page):
        raise ValueError(f"{PAGE.name} has no part {name}")
    return pattern.sub(lambda _: f"{start}\n{text}\n{end}", page)


def girths_table(report: Mapping[str, Any]) -> str:
    """Chest, waist, hip and inside leg in every setup, beside what others reach."""
    lines = [
        "| setup / family | n | chest | waist | hip | girths | to reach | inside leg |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, one in report["setups"].items():
        if "mae_cm" not in one:
            lines.append(f"| {name} | 0 | | | | | | |")
            continue
        target = one["target"]
        refused = sum(one["refused"].values())
        cells = [
            f"{one['mae_cm'][k]:.1f} ({one['bias_cm'][k]:+.1f}) ±{one['standard_error_cm'][k]:.1f}"
            for k in (*GIRTHS, INSEAM)
        ]
        mean = mean_girths_cm(one) or 0.0
        lines.append(
            f"| **{name}** | {one['n']}{f', {refused} refused' if refused else ''} | "
            + " | ".join(cells[:3])
            + f" | **{mean:.2f}** | {'≤ ' + str(target['girths_cm']) if target else ''} "
            f"| {cells[3]} |"
        )
        for other, same in one["baselines"].items():
            if same is None:
                continue
            errors = [f"{same['mae_cm'][k]:.1f}" for k in (*GIRTHS, INSEAM)]
            lines.append(
                f"| {other} | {same['n']} | {' | '.join(errors[:3])} "
                f"| {mean_girths_cm(same) or 0.0:.2f} | | {errors[3]} |"
            )
    return "\n".join(lines)


def all_table(report: Mapping[str, Any]) -> str:
    """Every measurement: mean absolute error, and mean signed error, of each setup."""
    names = [name for name, one in report["setups"].items() if "mae_cm" in one]
    keys = list(report["setups"][names[0]]["mae_cm"])
    lines = ["| setup / family | " + " | ".join(keys) + " |", "|---" * (len(keys) + 1) + "|"]
    for name in names:
        one = report["setups"][name]
        cells = [f"{one['mae_cm'][k]:.1f} ({one['bias_cm'][k]:+.1f})" for k in keys]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def intervals_table(report: Mapping[str, Any]) -> str:
    """How often the truth lies in the 90 % interval, and half its width."""
    rows = {
        name: one for name, one in report["setups"].items() if one.get("coverage90") is not None
    }
    if not rows:
        return "The fit gave no intervals."
    keys = list(next(iter(rows.values()))["coverage90_by_measurement"])
    lines = ["| setup / family | all | " + " | ".join(keys) + " |", "|---" * (len(keys) + 2) + "|"]
    for name, one in rows.items():
        cells = [
            f"{one['coverage90_by_measurement'][k]:.0%} (±{one['half_width_cm'][k]:.1f})"
            for k in keys
        ]
        lines.append(f"| {name} | **{one['coverage90']:.0%}** | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def picked(report: Mapping[str, Any], cases: Path) -> tuple[Setup, dict[str, Case]]:
    """The best, the median and the worst person of the setup that is shown, by mean girth error."""
    done = [row for row in report["cases"][SHOWN] if row["refused"] is None]

    def off_cm(row: Mapping[str, Any]) -> float:
        return sum(abs(row["off_cm"][key]) for key in GIRTHS) / len(GIRTHS)

    done.sort(key=off_cm)
    chosen = {"best": done[0], "median": done[len(done) // 2], "worst": done[-1]}
    setup = next(one for one in SETUPS if SHOWN.startswith(one.name + "/"))
    return setup, {
        f"{which}: {off_cm(row):.1f} cm": Case(cases / row["set"] / row["case"])
        for which, row in chosen.items()
    }


if __name__ == "__main__":
    main()
