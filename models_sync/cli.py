"""`models-sync`: bring missing weights from the private bucket to the volume."""

from __future__ import annotations

import json
import signal
import sys
import time
from threading import Event
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import (
    Progress as Bar,
)
from rich.table import Table

from models_sync.errors import SyncError
from models_sync.progress import Progress
from models_sync.settings import SyncSettings
from models_sync.transfer import prepare
from models_sync.transfer import pull as transfer

app = typer.Typer(
    help=(
        "Bring model weights from a private S3 bucket to a volume.\n\n"
        "Configured by MODEL_SYNC_* variables. Exit codes: 0 done, 2 settings, 3 refused, "
        "4 unreachable, 5 unsafe name, 6 damaged, 7 volume, 8 nothing there."
    ),
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON object on stdout")]
LOG_EVERY_S = 10.0


@app.command()
def plan(as_json: AsJson = False) -> None:
    """Show what a pull would fetch, why and how much."""
    planned = prepare(SyncSettings.load())
    if as_json:
        typer.echo(json.dumps(planned.as_dict()))
        return
    table = Table("file", "size", "why", title=f"{_size(planned.total_bytes)} to fetch")
    for item in (*planned.fetch, *planned.check):
        table.add_row(item.remote.path, _size(item.remote.size), item.reason)
    Console().print(table)
    Console().print(f"{len(planned.present)} files are here already ({planned.trust}).")


@app.command()
def pull(as_json: AsJson = False) -> None:
    """Fetch what is missing; what is there already is left alone."""
    cancel = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: cancel.set())
    settings = SyncSettings.load()
    if sys.stderr.isatty():
        with Bar(
            TextColumn("models {task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        ) as bar:
            task = bar.add_task("", total=None)

            def show(progress: Progress) -> None:
                bar.update(
                    task,
                    description=str(progress.phase),
                    completed=progress.done_bytes,
                    total=progress.total_bytes,
                )

            report = transfer(settings, show, cancel)
    else:
        report = transfer(settings, _LogLines(), cancel)
    if as_json:
        typer.echo(json.dumps(report.as_dict()))
    else:
        typer.echo(
            f"{len(report.fetched)} files ({_size(report.fetched_bytes)}) fetched in "
            f"{report.seconds:.1f} s, {len(report.present) + len(report.adopted)} were here "
            f"already; {settings.local_root} is complete ({report.trust})."
        )


class _LogLines:
    """A line each ten seconds, where nobody watches a bar."""

    def __init__(self) -> None:
        self._next = time.monotonic() + LOG_EVERY_S

    def __call__(self, progress: Progress) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + LOG_EVERY_S
        typer.echo(
            f"models: {progress.phase} {_size(progress.done_bytes)} of "
            f"{_size(progress.total_bytes)} {progress.waiting_for}",
            err=True,
        )


def _size(count: int) -> str:
    amount = float(count)
    for unit in ("B", "kB", "MB"):
        if abs(amount) < 1000:
            return f"{amount:.0f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"


def main() -> None:
    """Run the command line; an error is a sentence and an exit code, never a traceback."""
    try:
        app()
    except SyncError as error:
        typer.echo(f"{type(error).__name__}: {error.message}\n{error.advice}", err=True)
        raise SystemExit(error.exit_code) from None
