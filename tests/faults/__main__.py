"""`python -m tests.faults`: the fault matrix, the figures and the soak; `--help` tells the rest."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import deque
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tests.faults import cells, figures, matrix, page
from tests.faults import soak as soaking
from tests.faults.matrix import Cell, Outcome
from tests.faults.site import Site

app = typer.Typer(help="One fault at one stage, and what must be true afterwards.")
console = Console(stderr=True, highlight=False, soft_wrap=True)

WHOLE_SOAK = 2000

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Write = Annotated[
    bool, typer.Option(help=f"Write the result of a whole run into {page.PAGE.name}.")
]


@app.command("matrix")
def run_matrix(  # noqa: PLR0917 - typer calls by keyword
    words: Annotated[
        list[str] | None, typer.Argument(help="Only cells whose names hold all these words.")
    ] = None,
    quick: Annotated[bool, typer.Option(help="Only those that `make test` runs.")] = False,
    sites: Annotated[int, typer.Option(min=1, help="Run so many cells side by side.")] = 2,
    logs: Annotated[bool, typer.Option(help="Show the workers' logs of cells that fail.")] = False,
    write: Write = True,
    as_json: AsJson = False,
) -> None:
    """Run the matrix, or a part of it; exit code 1 when an invariant does not hold."""
    chosen = [
        cell
        for cell in cells.ALL
        if all(word.lower() in cell.name.lower() for word in words or ())
        and (cell.quick or not quick)
    ]
    began = time.monotonic()
    outcomes = asyncio.run(_run(chosen, logs=logs, sites=sites))
    took_s = time.monotonic() - began
    if write and len(chosen) == len(cells.ALL):
        page.write("matrix", page.matrix_table(outcomes, took_s))
    if as_json:
        typer.echo(json.dumps({"tookS": round(took_s, 1), "cells": [*map(_json, outcomes)]}))
    else:
        Console().print(_table(outcomes))
    raise typer.Exit(0 if outcomes and all(outcome.good for outcome in outcomes) else 1)


async def _run(chosen: list[Cell], *, logs: bool, sites: int) -> list[Outcome]:
    """Run cells on several sites side by side; the outcomes come in the cells' order."""
    left = deque(enumerate(chosen))
    outcomes: dict[int, Outcome] = {}

    async def work() -> None:
        mine: dict[int, Outcome] = {}
        async with Site() as site:
            while left:
                number, cell = left.popleft()
                began = time.monotonic()
                mine[number] = await matrix.run(site, cell)
                _tell(mine[number], time.monotonic() - began, logs=logs)
            late = await matrix.look_again(site, [*mine.values()])
            outcomes.update(zip(mine, late, strict=True))

    await asyncio.gather(*(work() for _ in range(min(sites, len(chosen)))))
    for outcome in outcomes.values():
        for one in outcome.wrong:
            console.print(f"{outcome.cell.name}: {one}", markup=False)
    return [outcomes[number] for number in range(len(chosen))]


def _tell(outcome: Outcome, took_s: float, *, logs: bool) -> None:
    verdict = "ok " if outcome.good else "BAD"
    seconds = "   –  " if outcome.seconds is None else f"{outcome.seconds:4.1f} s"
    console.print(f"{verdict} {seconds} ({took_s:5.1f} s) {outcome.cell.name}", markup=False)
    for one in outcome.wrong:
        console.print(f"        {one}", markup=False)
    if outcome.wrong and logs:
        console.print(outcome.logs, markup=False)


def _json(outcome: Outcome) -> dict[str, object]:
    cell = outcome.cell
    return {
        "family": cell.family,
        "fault": cell.fault,
        "stage": cell.stage,
        "holds": outcome.good,
        "secondsToRecovery": None if outcome.seconds is None else round(outcome.seconds, 2),
        "wrong": [*outcome.wrong],
    }


def _table(outcomes: list[Outcome]) -> Table:
    table = Table("family", "fault", "stage", "recovered after", "holds")
    for outcome in outcomes:
        cell = outcome.cell
        seconds = "–" if outcome.seconds is None else f"{outcome.seconds:.1f} s"
        table.add_row(
            cell.family, cell.fault, cell.stage, seconds, "yes" if outcome.good else "[red]NO[/]"
        )
    return table


@app.command("figures")
def run_figures(write: Write = True, as_json: AsJson = False) -> None:
    """Measure SIGTERM to back in wait, and SIGKILL to running elsewhere, at production's times."""
    found = asyncio.run(figures.measure())
    if write:
        page.write("figures", found.to_markdown())
    typer.echo(json.dumps(found.to_json()) if as_json else found.to_markdown())


@app.command("soak")
def run_soak(
    jobs: Annotated[int, typer.Option(min=10, help="How many.")] = WHOLE_SOAK,
    seed: Annotated[int | None, typer.Option(help="Of the dice; a new one when not given.")] = None,
    write: Write = True,
    as_json: AsJson = False,
) -> None:
    """Run many mixed jobs under random faults; exit code 1 when something is wrong or has grown."""
    report = asyncio.run(soaking.soak(jobs, seed or random.randrange(1, 100_000), console))
    if write and jobs >= WHOLE_SOAK:
        page.write("soak", report.to_markdown())
    typer.echo(json.dumps(report.to_json()) if as_json else report.to_markdown())
    for one in report.wrong:
        console.print(f"wrong: {one}", markup=False)
    raise typer.Exit(1 if report.wrong else 0)


if __name__ == "__main__":
    app()
