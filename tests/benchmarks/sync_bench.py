"""`avatar-worker bench sync`: models-sync beside s5cmd and rclone, on one server in one run.

All clients take turns, each as a process from its start to its end into an empty folder on the
same disk.  Ours verifies every byte and flushes every file; the others do less.  Ratios are of
median rates, ours over the faster peer's; on a busy machine they are worth more than the numbers.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from tests.benchmarks.sync_peers import (
    BUCKET,
    SOURCE,
    Server,
    Took,
    command,
    distant,
    environment,
    fetch,
    passed_bytes,
    publish,
    remove,
)
from worker.demo.stack import EmbeddedStack

MIB: Final = 1 << 20
OURS: Final = "models-sync"
PEERS: Final = ("s5cmd", "rclone")
LOOPBACK: Final = {
    "1x2GiB": [2048 * MIB],
    "8x256MiB": [256 * MIB] * 8,
    "2000x64KiB": [64 << 10] * 2000,
}
THROTTLED_MB_PER_S, THROTTLED_DELAY_MS = 60.0, 20.0
PARTS: Final = (*LOOPBACK, "throttled", "nothing", "killed")
UNLIMITED_MB_PER_S: Final = 1e6
LARGE_BYTES: Final = 200 * MIB
"""Work of less is removed when all runs are over, not between them: ext4 looks past each inode that
was removed a moment ago whenever it creates a file, for up to five minutes, and a volume that
weights are brought to has no such inodes.  2,000 files took everyone 0.5 to 1 s longer for it."""


@dataclass
class Measured:
    """Every run of every client, by kind of work."""

    took: dict[str, dict[str, list[Took]]] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)
    nothing_to_do_s: list[float] = field(default_factory=list)
    fetched_twice: float | None = None
    """Share of 2 GiB, after a SIGKILL at half of it."""

    def seconds(self, work: str, peer: str) -> float:
        """The median."""
        return statistics.median(took.seconds for took in self.took[work][peer])

    def ratio(self, work: str, peers: Sequence[str]) -> float:
        """Our rate over that of the fastest of `peers`."""
        return min(self.seconds(work, peer) for peer in peers) / self.seconds(work, OURS)

    def as_dict(self) -> dict[str, Any]:
        """For `--json`; what was not measured is left out."""
        found: dict[str, Any] = {
            "ratio": {
                work: round(self.ratio(work, PEERS), 3) for work in LOOPBACK if work in self.took
            }
        }
        if "throttled" in self.took:
            found["ratio"] |= {
                "throttled_vs_fget": round(self.ratio("throttled", ["fget_object"]), 3),
                "throttled_vs_s5cmd": round(self.ratio("throttled", ["s5cmd"]), 3),
            }
        found["rssMb"] = {
            work: round(max(took.rss_mb for took in peers[OURS]), 1)
            for work, peers in self.took.items()
        }
        if self.nothing_to_do_s:
            found["nothingToDoS"] = round(statistics.median(self.nothing_to_do_s), 3)
        if self.fetched_twice is not None:
            found["fetchedTwice"] = round(self.fetched_twice, 4)
        found["runs"] = {
            work: {peer: [asdict(took) for took in runs] for peer, runs in peers.items()}
            for work, peers in self.took.items()
        }
        return found


class Bench:
    """One server and one scratch folder, for as long as the bench runs."""

    def __init__(self, server: Server, scratch: Path, rounds: int, console: Console) -> None:
        self._server, self._scratch, self._rounds = server, scratch, rounds
        self._console = console
        self.measured = Measured()

    def loopback(self, work: str, sizes: Sequence[int]) -> None:
        """All clients in turn, the server next door."""
        with self._published(work, sizes) as prefix:
            self._take_turns(work, (OURS, *PEERS), self._server, prefix, sum(sizes))

    def throttled(self) -> None:
        """256 MiB over connections that bring 60 MB/s each and answer after 20 ms."""
        sizes = [256 * MIB]
        with (
            self._published("throttled", sizes) as prefix,
            distant(self._server, THROTTLED_MB_PER_S, THROTTLED_DELAY_MS) as (far, _),
        ):
            clients = (OURS, "s5cmd", "fget_object")
            self._take_turns("throttled", clients, far, prefix, sum(sizes))

    def nothing_to_do(self) -> None:
        """5,000 files that are all there."""
        with self._published("nothing", [1024] * 5000) as prefix:
            folder = self._scratch / "there"
            fetch(OURS, self._server, prefix, folder)
            for _ in range(self._rounds):
                took = fetch(OURS, self._server, prefix, folder, again=True)
                self.measured.nothing_to_do_s.append(took.seconds)
                self._say("nothing", OURS, took)
            shutil.rmtree(folder)

    def killed(self) -> None:
        """SIGKILL when half of 2 GiB has landed, then again: what went over the wire twice."""
        sizes = [2048 * MIB]
        with (
            self._published("killed", sizes) as prefix,
            distant(self._server, UNLIMITED_MB_PER_S, 0) as (near, proxy),
        ):
            folder = self._scratch / "killed"
            folder.mkdir()
            process = subprocess.Popen(
                command(OURS, near, prefix, folder),
                env=environment(near, prefix, folder),
                stdout=subprocess.DEVNULL,
            )
            while _landed(folder) < 0.5:
                if process.poll() is not None:
                    raise RuntimeError("it ended before it was killed")
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            process.wait()
            again = fetch(OURS, near, prefix, folder, again=True)
            self._say("killed, again", OURS, again)
            twice = passed_bytes(proxy) - sum(sizes)
            self.measured.fetched_twice = twice / sum(sizes)
            shutil.rmtree(folder)

    def _take_turns(
        self, work: str, clients: Sequence[str], server: Server, prefix: str, size: int
    ) -> None:
        self.measured.bytes[work] = size
        took: dict[str, list[Took]] = {client: [] for client in clients}
        self.measured.took[work] = took
        pulled = self._scratch / "pulled"
        for number in range(self._rounds):
            # Another one goes first each time: the first one warms what the others find warm.
            start = number % len(clients)
            for client in (*clients[start:], *clients[:start]):
                folder = pulled / f"{number}-{client}"
                one = fetch(client, server, prefix, folder)
                took[client].append(one)
                self._say(work, client, one, size)
                if size > LARGE_BYTES:
                    shutil.rmtree(folder)
        shutil.rmtree(pulled)

    def _say(self, work: str, client: str, took: Took, size: int = 0) -> None:
        rate = f"{size / took.seconds / 1e6:7.0f} MB/s" if size else ""
        self._console.print(
            f"{work:14} {client:12} {took.seconds:7.2f} s {rate}  "
            f"cpu {took.cpu_s:5.2f} s  {took.rss_mb:4.0f} MB"
        )

    def _published(self, work: str, sizes: Sequence[int]) -> Any:
        return _Published(self._server, work, sizes, self._scratch / "source")


class _Published:
    """Objects in the bucket for as long as the block lasts."""

    def __init__(self, server: Server, prefix: str, sizes: Sequence[int], scratch: Path) -> None:
        self._server, self._prefix, self._sizes, self._scratch = server, prefix, sizes, scratch

    def __enter__(self) -> str:
        publish(self._server, self._prefix, self._sizes, self._scratch)
        return self._prefix

    def __exit__(self, *_: object) -> None:
        remove(self._server, self._prefix)


def _landed(folder: Path) -> float:
    """The share of parts that have landed of the one file that is under way."""
    for path in (folder / SOURCE).glob(".models-sync-*.map"):
        data = path.read_bytes()
        parts = [any(data[at : at + 32]) for at in range(0, len(data), 32)]
        # The map is as long as its last part; the whole file has 512 of 4 MiB.
        return sum(parts) / 512
    return 0.0


def tables(measured: Measured) -> list[Table]:
    """What was measured, for people."""
    table = Table(title="models-sync beside its peers (medians)")
    for head in ("work", "client", "s", "MB/s", "cpu s", "MB RSS", "our rate over its"):
        table.add_column(head, justify="right" if head not in {"work", "client"} else "left")
    for work, clients in measured.took.items():
        for client, runs in clients.items():
            seconds = measured.seconds(work, client)
            table.add_row(
                work,
                client,
                f"{seconds:.2f}",
                f"{measured.bytes[work] / seconds / 1e6:.0f}",
                f"{statistics.median(run.cpu_s for run in runs):.2f}",
                f"{max(run.rss_mb for run in runs):.0f}",
                "" if client == OURS else f"{measured.ratio(work, [client]):.2f}",
            )
    return [table]


def main() -> None:
    """Measure what is asked for and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each client (default 5)")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this; repeatable")
    parser.add_argument("--scratch", type=Path, help="where to download to (needs 10 GB)")
    arguments = parser.parse_args()
    console = Console(stderr=True, highlight=False)
    parts = arguments.part or PARTS
    with (
        tempfile.TemporaryDirectory(prefix="bench-sync-", dir=arguments.scratch) as scratch,
        EmbeddedStack(Path(scratch, "server"), bucket=BUCKET) as stack,
    ):
        server = Server(stack.s3_endpoint, stack.root)
        bench = Bench(server, Path(scratch), arguments.rounds, console)
        for work, sizes in LOOPBACK.items():
            if work in parts:
                bench.loopback(work, sizes)
        if "throttled" in parts:
            bench.throttled()
        if "nothing" in parts:
            bench.nothing_to_do()
        if "killed" in parts:
            bench.killed()
    measured = bench.measured
    if arguments.json:
        json.dump(measured.as_dict(), sys.stdout, indent=1)
        sys.stdout.write("\n")
        return
    for table in tables(measured):
        console.print(table)
    if measured.nothing_to_do_s:
        console.print(
            f"nothing to do, 5,000 files: {statistics.median(measured.nothing_to_do_s):.2f} s"
        )
    if measured.fetched_twice is not None:
        console.print(f"SIGKILL at half of 2 GiB: {measured.fetched_twice:.1%} fetched twice")


if __name__ == "__main__":
    main()
