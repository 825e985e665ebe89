"""docs/reference/reliability.md: its tables are written by the runs themselves, between markers."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.faults.matrix import Outcome
from tests.faults.times import LOCK_S, STALLED_INTERVAL_S

PAGE: Final = Path(__file__).absolute().parents[2] / "docs" / "reference" / "reliability.md"


def machine() -> str:
    """The day and the machine, and how busy it has been for a quarter of an hour."""
    day = dt.datetime.now(dt.UTC).date().isoformat()
    versions = f"bullmq {importlib.metadata.version('bullmq')}, Python {platform.python_version()}"
    cores = f"{os.cpu_count()} {platform.machine()} cores"
    load = f"load {os.getloadavg()[2]:.0f}"
    return f"{day}, {cores} ({load}), {platform.system()}, {versions}."


def write(name: str, text: str, page: Path = PAGE) -> None:
    """Replace what stands between `<!-- name -->` and `<!-- /name -->`.

    Raises:
        LookupError: the page has no such markers.
    """
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    old = page.read_text()
    new, count = re.subn(
        re.escape(begin) + ".*?" + re.escape(end),
        lambda _: f"{begin}\n{text.strip()}\n{end}",
        old,
        flags=re.DOTALL,
    )
    if count != 1:
        raise LookupError(f"{page.name} has no markers {begin} … {end}")
    page.write_text(new)


def matrix_table(outcomes: Sequence[Outcome], took_s: float) -> str:
    """The matrix: a line a fault, its stages with the seconds to recovery."""
    good = sum(outcome.good for outcome in outcomes)
    times = f"Lock {LOCK_S:g} s, stalled interval {STALLED_INTERVAL_S:g} s."
    lines = [
        f"{machine()} {times} {good} of {len(outcomes)} cells hold; {took_s / 60:.0f} min in all.",
        "",
        "| family | fault | stages, with seconds from the end of the fault to the result | holds |",
        "|---|---|---|---|",
    ]
    by_fault: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        by_fault.setdefault((outcome.cell.family, outcome.cell.fault), []).append(outcome)
    for (family, fault), group in by_fault.items():
        stages = " · ".join(f"{one.cell.stage} {_seconds(one)}" for one in group)
        bad = ", ".join(one.cell.stage for one in group if not one.good)
        lines.append(f"| {family} | {fault} | {stages} | {f'**no: {bad}**' if bad else 'all'} |")
    return "\n".join(lines)


def _seconds(outcome: Outcome) -> str:
    if outcome.seconds is None:
        return "–"
    return "<0.1" if outcome.seconds < 0.05 else f"{outcome.seconds:.1f}"


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of all do not exceed."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, max(0, -int(-share * len(ranked)) - 1))]


def spread(values: Sequence[float]) -> dict[str, float]:
    """How values lie, rounded to milliseconds."""
    found: dict[str, Any] = {
        "runs": len(values),
        "min": min(values),
        "p50": statistics.median(values),
        "p95": percentile(values, 0.95),
        "max": max(values),
    }
    return {name: round(value, 3) for name, value in found.items()}
