"""The queue as tables for people; `--json` has the same and more."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from worker.consumer.admin import Repair
from worker.consumer.overview import STATES, Overview

_PIPE_COLUMNS = 120


def show_overview(seen: Overview) -> None:
    """Print a queue and what is wrong with it."""
    console = _console()
    console.print(_counts(seen))
    for table in _tables(seen):
        if table.row_count:
            console.print(table)
    if not seen.scan.complete:
        console.print("Not all keys were looked through for orphans; raise --scan-keys.")
    troubles = seen.troubles()
    if not troubles:
        console.print("[green]Nothing is stuck.[/]")
    for trouble in troubles:
        console.print(f"[yellow]{trouble.kind}[/] {escape(trouble.text)}")
        console.print(f"    {escape(trouble.advice)}")


def show_repairs(repairs: Sequence[Repair]) -> None:
    """Print what became of each request."""
    console = _console()
    for repair in repairs:
        mark = "[green]done[/]" if repair.done else "[red]not [/]"
        name = repair.asked
        if repair.queue_job_id not in {None, repair.asked}:
            name += f" (BullMQ's {repair.queue_job_id})"
        console.print(f"{mark} {escape(name)} {escape(repair.what)}")
    if not repairs:
        console.print("There is nothing to do.")


def _console() -> Console:
    """A console that does not cut lines short in a pipe."""
    return Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS, highlight=False)


def _counts(seen: Overview) -> Table:
    paused = ", paused" if seen.paused else ""
    table = Table(*STATES, title=f"{seen.prefix}:{seen.queue}{paused}", title_justify="left")
    table.add_row(*(str(seen.counts[state]) for state in STATES))
    return table


def _tables(seen: Overview) -> Iterable[Table]:
    table = Table("worker", "address", "connected", title="Workers", title_justify="left")
    for worker in seen.workers or ():
        table.add_row(escape(worker.name), worker.address, duration(worker.connected_s))
    yield table

    table = Table(
        *("BullMQ's id", "jobId", "worker", "running", "attempt", "starts", "stalls", "lock"),
        title="Running",
        title_justify="left",
    )
    for job in seen.running:
        lock = "[red]none[/]" if job.lock_s is None else duration(job.lock_s)
        numbers = (str(job.attempts_made + 1), str(job.starts), str(job.stalls))
        table.add_row(
            *(escape(job.queue_job_id), escape(job.job_id or ""), escape(job.processed_by or "")),
            *(duration(job.running_s), *numbers, lock),
        )
    yield table

    table = Table(
        *("BullMQ's id", "jobId", "failed ago", "reason"),
        title="Latest failures",
        title_justify="left",
    )
    for failed in seen.failed:
        table.add_row(
            *(escape(failed.queue_job_id), escape(failed.job_id or "")),
            *(duration(failed.failed_s), escape(failed.reason)),
        )
    yield table

    table = Table(
        *("jobId", "report", "state", "age", "tries", "last error"),
        title="Final reports that the API does not have",
        title_justify="left",
    )
    for report in seen.reports:
        state = "[red]parked[/]" if report.parked else "waiting"
        table.add_row(
            *(escape(report.job_id), report.status, state, duration(report.age_s)),
            *(str(report.tries), escape(report.last_error or "")),
        )
    yield table

    table = Table(
        *("kind", "jobId", "holder", "for"), title="Leases and marks", title_justify="left"
    )
    for lease in seen.leases:
        table.add_row(
            *("lease", escape(lease.job_id), escape(lease.holder), duration(lease.expires_s))
        )
    for mark in seen.marks:
        table.add_row(mark.kind, escape(mark.job_id), "", duration(mark.expires_s))
    yield table


def duration(seconds: float) -> str:
    """`12 s`, `3 min`, `5 h`, `2 d`: the unit that says enough."""
    for unit, length_s in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.0f} s"
