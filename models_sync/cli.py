"""`models-sync`: bring missing weights from the private bucket to the volume."""

from __future__ import annotations

import json
import sys
import time
from threading import Lock
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from models_sync.bucket import Bucket
from models_sync.errors import SyncError
from models_sync.plan import Plan, State, make_plan
from models_sync.settings import SyncSettings
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
    planned, _, _, _ = _prepare()
    if as_json:
        typer.echo(json.dumps(planned.as_dict()))
        return
    table = Table("file", "size", "why", title=f"{_size(planned.total_bytes)} to fetch")
    for item in planned.fetch:
        table.add_row(item.remote.path, _size(item.remote.size), item.reason)
    Console().print(table)
    Console().print(f"{len(planned.present)} files are here already (checked by size and ETag).")


@app.command()
def pull(as_json: AsJson = False) -> None:
    """Fetch what is missing; what is there already is left alone."""
    planned, bucket, settings, state = _prepare()
    started = time.monotonic()
    if sys.stderr.isatty():
        with Progress(
            TextColumn("models"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        ) as bar:
            task = bar.add_task("models", total=planned.total_bytes)
            transfer(bucket, planned, settings.local_root, state, lambda n: bar.advance(task, n))
    else:
        advance = _LogLines(planned.total_bytes)
        transfer(bucket, planned, settings.local_root, state, advance)
    seconds = time.monotonic() - started
    if as_json:
        typer.echo(json.dumps(planned.as_dict() | {"seconds": round(seconds, 3)}))
    else:
        typer.echo(
            f"{len(planned.fetch)} files ({_size(planned.total_bytes)}) fetched in "
            f"{seconds:.1f} s, {len(planned.present)} were here already; "
            f"{settings.local_root} is complete."
        )


class _LogLines:
    """A line each ten seconds, where nobody watches a bar."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._lock = total, 0, Lock()
        self._next = time.monotonic() + LOG_EVERY_S

    def __call__(self, count: int) -> None:
        with self._lock:
            self._done += count
            if time.monotonic() < self._next:
                return
            self._next = time.monotonic() + LOG_EVERY_S
            typer.echo(f"models: {_size(self._done)} of {_size(self._total)}", err=True)


def _prepare() -> tuple[Plan, Bucket, SyncSettings, State]:
    settings = SyncSettings.load()
    bucket = Bucket(settings)
    state = State(settings.local_root)
    planned = make_plan(bucket.list(settings.wanted_prefixes()), settings.local_root, state)
    return planned, bucket, settings, state


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
