"""`python -m tests.image IMAGE`: run the image as an operator does, and print what came of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tests.image.container import program
from tests.image.trial import prepared


def main(
    image: Annotated[str, typer.Argument(help="The image.")] = "localhost/avatar-worker:main",
    starts: Annotated[int, typer.Option(min=1, help="How often the start is timed.")] = 3,
    commit: Annotated[
        str | None, typer.Option(help="What it was built from. Default: this checkout's.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Start the image with a read-only root and no rights, do one job, stop it, and break it."""
    with tempfile.TemporaryDirectory(prefix="image-test-") as folder:
        # The image's user, a stranger here, reaches the volume through it.
        Path(folder).chmod(0o755)
        with prepared(image, Path(folder), commit=commit or _checkout(), starts=starts) as trial:
            trial.run()
    load = os.getloadavg()[0]
    if as_json:
        rows = [
            {"what": row.what, "seen": row.seen, "wanted": row.wanted, "good": row.good}
            for row in trial.rows
        ]
        found = {
            "image": image,
            "load": load,
            "program": " ".join(program()),
            "rows": rows,
            "job": trial.job,
        }
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        title = f"{image}, by {' '.join(program())}; {os.cpu_count()} cores, load {load:.1f}"
        table = Table("", "what", "seen", "wanted", title=title)
        for row in trial.rows:
            table.add_row("✓" if row.good else "✗", row.what, row.seen, row.wanted)
        Console(width=150).print(table)
    bad = [row.what for row in trial.rows if not row.good]
    if bad:
        sys.stderr.write(f"Not as it should be: {', '.join(bad)}\n")
    raise typer.Exit(1 if bad else 0)


def _checkout() -> str:
    asked = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude", "*"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


typer.run(main)
