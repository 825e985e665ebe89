"""`avatar-worker queue`, `cancel` and `enqueue`: what an operator does with the queue.

Only the variables of the queue are needed.  Looking changes nothing; whatever throws away a
result or moves many jobs asks first, unless `--yes` is given.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from worker.consumer.admin import QueueAdmin, Repair
    from worker.consumer.keyspace import Advance
    from worker.consumer.search import Found

T = TypeVar("T")
queue = typer.Typer(
    help="Look at the queue and repair it: counts, stuck and parked things, what to do.",
    invoke_without_command=True,
    no_args_is_help=False,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
ScanKeys = Annotated[
    int, typer.Option(min=1, help="How many keys of Redis to look through for orphans, at most.")
]
SCAN_KEYS = 200_000
"""About two hundred round trips: a second nearby, ten over the internet."""
Ids = Annotated[list[str] | None, typer.Argument(metavar="ID…", help="BullMQ's id, or data.jobId.")]
JobId = Annotated[str, typer.Argument(metavar="JOBID", help="data.jobId, the API's id.")]


@queue.callback()
def status(
    context: typer.Context, scan_keys: ScanKeys = SCAN_KEYS, as_json: AsJson = False
) -> None:
    """Look at the queue and repair it; without a command, only look."""
    if context.invoked_subcommand is not None:
        return
    with _progress("looking for orphans", as_json=as_json) as advance:
        seen = _with_queue(lambda admin: admin.overview(scan_keys=scan_keys, advance=advance))
    if as_json:
        typer.echo(json.dumps(seen.to_json()))
    else:
        from worker.queue_tables import show_overview

        show_overview(seen)


@queue.command()
def retry(
    ids: Ids = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="Every failed job that another attempt can help.")
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Let failed jobs wait again, with all their attempts before them."""
    if bool(ids) == failed:
        raise typer.BadParameter("give ids, or --failed")

    async def run(admin: QueueAdmin) -> list[Repair]:
        if failed:
            jobs, left_out = await admin.find_retryable()
            if left_out:
                typer.echo(
                    f"Left out, because no attempt can help (wrong photos or data, or "
                    f"cancelled): {left_out}.",
                    err=True,
                )
            if jobs:
                _ask(f"Retry these failed jobs: {len(jobs)}?", yes=yes)
            repairs: list[Repair] = []
            with _progress("retrying", as_json=as_json) as advance:
                for job in jobs:
                    repairs.append(await admin.retry(job))
                    advance(len(repairs), len(jobs))
            return repairs
        return await _each(ids or [], admin.find, admin.retry, as_json=as_json)

    _report(_with_queue(run), as_json=as_json)


@queue.command()
def requeue(
    ids: Annotated[list[str], typer.Argument(metavar="ID…", help="BullMQ's id, or data.jobId.")],
    scan_keys: ScanKeys = SCAN_KEYS,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Put jobs that nobody has, in no list or active without a lock, at the head of the queue."""

    async def run(admin: QueueAdmin) -> list[Repair]:
        async def find(name: str, *, advance: Advance) -> list[Found]:
            return await admin.find_unheld(name, scan_keys=scan_keys, advance=advance)

        _ask(f"Requeue {', '.join(ids)}?", yes=yes)
        return await _each(ids, find, admin.requeue, as_json=as_json)

    _report(_with_queue(run), as_json=as_json)


@queue.command()
def rerun(
    job_id: JobId,
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Required: overwrite what is published."),
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Compute a finished job anew, passing its completion marker by."""
    if not fresh:
        raise typer.BadParameter(
            "a rerun without --fresh would find the published results and only report them"
        )

    async def run(admin: QueueAdmin) -> list[Repair]:
        _ask(f"Compute {job_id} anew and overwrite its published files?", yes=yes)
        with _progress("looking for the job", as_json=as_json) as advance:
            return [await admin.rerun_fresh(job_id, advance=advance)]

    _report(_with_queue(run), as_json=as_json)


@queue.command()
def report(job_id: JobId, as_json: AsJson = False) -> None:
    """Have a final report that the API never took delivered again."""

    async def run(admin: QueueAdmin) -> list[Repair]:
        return [await admin.report(job_id)]

    _report(_with_queue(run), as_json=as_json)


def cancel(
    job_id: JobId,
    reason: Annotated[str, typer.Option(help="Kept with the failed job and told to the API.")] = "",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Stop a job where it runs, within 2 s, or have it refused where it is taken."""

    async def run(admin: QueueAdmin) -> list[Repair]:
        _ask(f"Cancel {job_id}? It fails with the code CANCELLED.", yes=yes)
        with _progress("looking for the job", as_json=as_json) as advance:
            return [await admin.cancel(job_id, reason, advance=advance)]

    _report(_with_queue(run), as_json=as_json)


def enqueue(
    job_id: Annotated[str, typer.Option(help="data.jobId: the API must know it.")],
    front: Annotated[str, typer.Option(metavar="URL", help="URL of the uploaded front photo.")],
    height: Annotated[float, typer.Option(help="Height of the person in cm.")],
    side: Annotated[
        str | None, typer.Option(metavar="URL", help="URL of the uploaded side photo.")
    ] = None,
    weight: Annotated[float | None, typer.Option(help="Weight in kg, if known.")] = None,
    gender: Annotated[str, typer.Option(help="female, male or neutral.")] = "neutral",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Compute anew even if results are published.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Add a job to the queue, as the API does."""
    payload: dict[str, Any] = {"jobId": job_id, "frontPhotoUrl": front, "heightCm": height}
    payload |= {"sidePhotoUrl": side} if side else {}
    payload |= {"weightKg": weight} if weight else {}
    payload |= {"gender": gender}

    async def run(admin: QueueAdmin) -> list[Repair]:
        return [await admin.enqueue(payload, fresh=fresh)]

    _report(_with_queue(run), as_json=as_json)


# ---------------------------------------------------------------- how a verb runs
def _with_queue(work: Callable[[QueueAdmin], Awaitable[T]]) -> T:
    """Run `work` on the queue of the environment."""
    from worker.consumer.admin import open_queue
    from worker.observability.logs import configure_logging
    from worker.settings import QueueSettings

    settings = QueueSettings.load()
    configure_logging({settings.url.get_secret_value()}, level=logging.WARNING)

    async def run() -> T:
        async with open_queue(settings) as admin:
            return await work(admin)

    return asyncio.run(run())


async def _each(
    ids: Sequence[str],
    find: Callable[..., Awaitable[list[Found]]],
    mend: Callable[[Found], Awaitable[Repair]],
    *,
    as_json: bool,
) -> list[Repair]:
    """Mend every job that an id names."""
    from worker.consumer.admin import Repair
    from worker.consumer.search import SEARCHED_JOBS

    repairs: list[Repair] = []
    for name in ids:
        with _progress(f"looking for {name}", as_json=as_json) as advance:
            found = await find(name, advance=advance)
        repairs += [await mend(job) for job in found]
        if not found:
            what = f"was not found in {SEARCHED_JOBS:,} jobs; BullMQ's id finds any"
            repairs.append(Repair(name, False, what))
    return repairs


def _ask(question: str, *, yes: bool) -> None:
    """Go on only when the operator says so."""
    if not yes:
        typer.confirm(question, abort=True, err=True)


@contextmanager
def _progress(what: str, *, as_json: bool) -> Iterator[Advance]:
    """A bar on stderr while a person watches; silence otherwise."""
    if as_json or not sys.stderr.isatty():
        yield lambda _done, _of: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)


def _report(repairs: Sequence[Repair], *, as_json: bool) -> None:
    """Print what became of the requests; exit code 1 when one of them was not done."""
    if as_json:
        typer.echo(json.dumps({"repairs": [repair.to_json() for repair in repairs]}))
    else:
        from worker.queue_tables import show_repairs

        show_repairs(repairs)
    if not all(repair.done for repair in repairs):
        raise typer.Exit(1)
