"""The matrix: cells, each one fault at one stage, and what running one of them gives."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tests.faults.invariants import Expected, late_violations, violations
from tests.faults.site import Site

Inject = Callable[[Site], Awaitable[Expected | list[Expected]]]
"""Starts workers and a job, does the fault, and says how the job should end."""

CELL_S: Final = 240.0


@dataclass(frozen=True)
class Cell:
    """One fault at one stage.

    Attributes:
        quick: whether `make test` runs it too.
        alone: whether its workers are of no use to the next cell.
    """

    family: str
    fault: str
    stage: str
    inject: Inject
    quick: bool = False
    alone: bool = False

    @property
    def name(self) -> str:
        """For the command line: `family / fault / stage`."""
        return f"{self.family} / {self.fault} / {self.stage}"


@dataclass(frozen=True)
class Outcome:
    """What one run of a cell gave.

    Attributes:
        seconds: from the end of the fault until BullMQ and the API both had the result.
        wrong: the invariants that did not hold; empty when all did.
        logs: of the workers, when something is wrong.
    """

    cell: Cell
    seconds: float | None
    wrong: tuple[str, ...]
    logs: str = ""
    expected: tuple[Expected, ...] = ()

    @property
    def good(self) -> bool:
        """Whether everything held."""
        return not self.wrong


async def run(site: Site, cell: Cell) -> Outcome:
    """Run one cell and check all invariants; what it raises is an outcome too."""
    site.fault_over_at = 0.0
    wrong: list[str] = []
    expected: list[Expected] = []
    seconds = None
    try:
        async with asyncio.timeout(CELL_S):
            result = await cell.inject(site)
            expected = result if isinstance(result, list) else [result]
            if not site.fault_over_at:
                site.fault_over()
            for one in expected:
                await site.settled(one.job)
                if one.known:
                    await site.told(one.job)
            for one in expected:
                wrong += await violations(site, one)
            seconds = _seconds(site, expected)
    except Exception as error:  # noqa: BLE001 - whatever it is, the next cell should run
        where = traceback.extract_tb(error.__traceback__)
        ours = next((f for f in reversed(where) if "/tests/faults/" in f.filename), where[-1])
        wrong.append(f"{type(error).__name__} {error} at {ours.filename}:{ours.lineno} {ours.line}")
    logs = ""
    if wrong:
        logs = "\n".join(f"--- {pod.name}\n{pod.tail()}" for pod in site.all_pods)
    await site.heal()
    await site.clear_pods(none=bool(wrong) or cell.alone)
    return Outcome(cell, seconds, tuple(wrong), logs, tuple(expected))


async def look_again(site: Site, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """When all cells are over: whether anything has happened to their jobs since."""
    seen = []
    for outcome in outcomes:
        late = [one for job in outcome.expected for one in await late_violations(site, job)]
        wrong = (*outcome.wrong, *(f"later: {one}" for one in late if one not in outcome.wrong))
        seen.append(replace(outcome, wrong=wrong))
    return seen


def _seconds(site: Site, expected: Iterable[Expected]) -> float:
    ends = [end.at for one in expected for i in one.job.queue_ids for end in site.settled_by_id[i]]
    told = [final.at for one in expected for final in site.ledger.finals(one.job.id)]
    return max(0.0, max([*ends, *told]) - site.fault_over_at)
