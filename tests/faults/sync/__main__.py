"""`python -m tests.faults.sync [WORDS…]`: the whole table, on both servers, as a page."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from minio import Minio
from rich.console import Console

from tests.faults.sync.cells import TABLE, Cell, run
from tests.faults.sync.plays import PLAYS, SLOW_PLAYS
from tests.faults.sync.proxy import FaultProxy
from tests.faults.sync.scene import Scene
from tests.seaweed import ROOT_USER, SeaweedFS
from worker.demo.stack import EmbeddedStack
from worker.demo.users import Credentials

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "reference" / "models-sync-faults.md"
BUCKET = "sync-faults"
Row = tuple[str, str, Callable[[Scene], list[str]]]
console = Console(highlight=False, width=120)


def rows() -> list[Row]:
    """Name, what must come of it, and how it is played."""

    def of(cell: Cell) -> Row:
        end = f"`{cell.ends.__name__}`, exit {cell.ends.exit_code}" if cell.ends else "success"
        return cell.name, end, lambda scene: run(cell, scene)

    return [of(cell) for cell in TABLE] + [
        (name, (play.__doc__ or "").strip(), play) for name, play in (PLAYS | SLOW_PLAYS).items()
    ]


@contextlib.contextmanager
def servers(names: list[str]) -> Iterator[dict[str, tuple[str, Minio, Credentials]]]:
    """Endpoint, a client and its user, by the name of the server."""
    with contextlib.ExitStack() as stack:
        running = {}
        if "MinIO gateway" in names:
            juicefs = stack.enter_context(EmbeddedStack())
            running["MinIO gateway"] = (
                juicefs.s3_endpoint,
                juicefs.minio(juicefs.root),
                juicefs.root,
            )
        if "SeaweedFS" in names:
            weed = stack.enter_context(SeaweedFS())
            running["SeaweedFS"] = (weed.endpoint, weed.minio(), ROOT_USER)
        for _, client, _ in running.values():
            client.make_bucket(bucket_name=BUCKET)
        yield running


def main() -> None:
    """Run the rows whose names have all the words; end with 1 when one is not as it must be."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.sync")
    parser.add_argument("words", nargs="*", help="run only rows whose name has all these words")
    parser.add_argument("--server", action="append", choices=["MinIO gateway", "SeaweedFS"])
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    arguments = parser.parse_args()
    chosen = [row for row in rows() if all(word in row[0] for word in arguments.words)]
    names = arguments.server or ["MinIO gateway", "SeaweedFS"]
    verdicts: dict[tuple[str, str], list[str]] = {}
    with servers(names) as running, tempfile.TemporaryDirectory() as folder:
        for number, (name, _, play) in enumerate(chosen):
            for server, (endpoint, client, user) in running.items():
                began = time.monotonic()
                root = Path(folder, str(number), server.split()[0])
                with FaultProxy(endpoint) as proxy:
                    scene = Scene(client, user, proxy, BUCKET, f"run-{number}", root)
                    try:
                        wrong = play(scene)
                    except Exception as error:  # noqa: BLE001  # a row that breaks is a bad row
                        wrong = [f"{type(error).__name__}: {error}"]
                verdicts[name, server] = wrong
                took = time.monotonic() - began
                console.print(f"{'BAD' if wrong else 'ok '} {took:5.1f} s  {server:14} {name}")
                for sentence in wrong:
                    console.print(f"              {sentence}", markup=False)
    if arguments.write:
        PAGE.write_text(page(chosen, names, verdicts))
    sys.exit(any(verdicts.values()))


def page(chosen: list[Row], names: list[str], verdicts: dict[tuple[str, str], list[str]]) -> str:
    """The table in Markdown."""
    bad = sum(map(bool, verdicts.values()))
    lines = [
        "# When the network, the bucket or the volume fails",
        "",
        "Written by `python -m tests.faults.sync --write`; part of `make faults`. Each row starts",
        "with an old version on the volume and a new one in the bucket. After each, whatever the",
        "end: every file under its real name is the old version or the new one, whole; and a pull",
        "without the fault ends with the new version and leaves nothing behind.",
        "",
        f"{_when()}; {len(chosen)} rows on each server, {bad or 'none'} not as it must be.",
        "",
        f"| fault | must end with | {' | '.join(names)} |",
        "|---|---|" + "---|" * len(names),
    ]
    for name, end, _ in chosen:
        marks = " | ".join("BAD" if verdicts[name, server] else "as it must" for server in names)
        lines.append(f"| {name} | {end} | {marks} |")
    return "\n".join(lines) + "\n"


def _when() -> str:
    """The day, the commit and how busy the machine was."""
    asked = ["git", "describe", "--always", "--abbrev=12", "--exclude", "*"]
    commit = subprocess.run(asked, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    day = dt.datetime.now(dt.UTC).date().isoformat()
    return f"{day}, on top of commit {commit.strip()}, load {os.getloadavg()[2]:.0f}"


if __name__ == "__main__":
    main()
