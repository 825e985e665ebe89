"""`avatar-worker bench queue`: the consumer beside Node's Worker, on one server in one run.

Throughput of jobs that do nothing, pickup on idle queues, and how fast a stopped worker lets go
of its job.  The two workers take turns, or run side by side, so that a busy machine is unfair to
both; the ratios are worth more than the numbers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tests.benchmarks.queue_figures import Peers, percentile, pickup, ratio, throughput
from tests.benchmarks.queue_peers import NODE_FLAVOURS, PEERS, Peer, Who
from tests.benchmarks.queue_stops import sigkill_to_elsewhere_s, sigterm_to_wait_ms
from worker.demo.stack import EmbeddedStack

CONCURRENCIES: Final = (1, 10, 50)
PARTS: Final = ("throughput", "pickup", "stops")
QUEUES: Final = 20


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    jobs: int
    rounds: int
    jobs_per_queue: int
    idle_s: tuple[float, float]
    sigterms: int
    sigkills: int


SHORT: Final = Size(
    jobs=3_000, rounds=3, jobs_per_queue=5, idle_s=(1.0, 4.0), sigterms=10, sigkills=0
)
FULL: Final = Size(
    jobs=5_000, rounds=7, jobs_per_queue=10, idle_s=(1.0, 60.0), sigterms=40, sigkills=3
)
"""200 pickups by each worker, each after 1 to 60 s of idleness: about ten minutes of waiting."""


@dataclass
class Measured:
    """What was measured; a part that was not asked for is empty."""

    rates: dict[int, dict[Who, list[float]]] = field(default_factory=dict)
    """Jobs per second, by how many at a time and by worker."""
    pickups_ms: dict[Who, list[float]] = field(default_factory=dict)
    sigterms_ms: list[float] = field(default_factory=list)
    sigkills_s: list[float] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        figures: dict[str, Any] = {}
        if self.rates:
            figures["throughput_ratio_vs_node"] = {
                str(concurrency): round(ratio(by_peer), 2)
                for concurrency, by_peer in self.rates.items()
            }
            figures["jobs_per_s"] = {
                who: {str(c): round(statistics.median(self.rates[c][who])) for c in self.rates}
                for who in PEERS
            }
        if self.pickups_ms:
            figures["pickup_ms"] = {who: _spread(self.pickups_ms[who]) for who in PEERS}
        if self.sigterms_ms:
            figures["sigterm_to_wait_ms"] = _spread(self.sigterms_ms)
        if self.sigkills_s:
            figures["sigkill_to_elsewhere_s"] = {
                "max": round(max(self.sigkills_s), 1),
                "n": len(self.sigkills_s),
            }
        return figures


def _spread(values: Sequence[float]) -> dict[str, float]:
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    spread = {name: round(percentile(values, share), 2) for name, share in shares.items()}
    return spread | {"max": round(max(values), 2), "n": len(values)}


async def measure(size: Size, flavour: str, parts: Sequence[str], bar: Progress) -> Measured:
    """Start servers and peers, and measure what is asked for."""
    measured = Measured()
    async with EmbeddedStack() as stack:
        peers = {who: await Peer.start(who, stack, flavour=flavour) for who in PEERS}
        try:
            if "throughput" in parts:
                measured.rates = await _throughputs(size, peers, stack, bar)
            if "pickup" in parts:
                task = bar.add_task("pickup", total=2 * QUEUES * size.jobs_per_queue)
                measured.pickups_ms = await pickup(
                    peers,
                    stack.redis_url,
                    queues=QUEUES,
                    jobs_per_queue=size.jobs_per_queue,
                    idle_s=size.idle_s,
                    tell=lambda: bar.advance(task),
                )
        finally:
            await asyncio.gather(*(peer.end() for peer in peers.values()))
        if "stops" in parts:
            terms = bar.add_task("SIGTERM", total=size.sigterms)
            measured.sigterms_ms = await sigterm_to_wait_ms(
                stack, rounds=size.sigterms, tell=lambda: bar.advance(terms)
            )
            kills = bar.add_task("SIGKILL", total=size.sigkills, visible=size.sigkills > 0)
            measured.sigkills_s = await sigkill_to_elsewhere_s(
                stack, rounds=size.sigkills, tell=lambda: bar.advance(kills)
            )
    return measured


async def _throughputs(
    size: Size, peers: Peers, stack: EmbeddedStack, bar: Progress
) -> dict[int, dict[Who, list[float]]]:
    # Not counted: both warm up.
    await throughput(peers, stack.redis_url, concurrency=10, jobs=500, rounds=1, tell=_nothing)
    task = bar.add_task("throughput", total=2 * size.rounds * len(CONCURRENCIES))
    return {
        concurrency: await throughput(
            peers,
            stack.redis_url,
            concurrency=concurrency,
            jobs=size.jobs,
            rounds=size.rounds,
            tell=lambda: bar.advance(task),
        )
        for concurrency in CONCURRENCIES
    }


def _nothing() -> None:
    """Tell nobody."""


def tables(figures: Mapping[str, Any], flavour: str) -> list[Table]:
    """The figures for people."""
    shown = []
    if "jobs_per_s" in figures:
        columns = ("at a time", "worker", f"Node ({flavour})", "ratio")
        table = Table(*columns, title="No-op jobs per second")
        for concurrency, times in figures["throughput_ratio_vs_node"].items():
            rates = [str(figures["jobs_per_s"][who][concurrency]) for who in PEERS]
            table.add_row(concurrency, *rates, f"{times:.2f}")
        shown.append(table)
    spreads = {f"pickup, {who}": spread for who, spread in figures.get("pickup_ms", {}).items()}
    if "sigterm_to_wait_ms" in figures:
        spreads["SIGTERM to job back in wait"] = figures["sigterm_to_wait_ms"]
    if spreads:
        table = Table("ms", *next(iter(spreads.values())), title="Latency")
        for name, spread in spreads.items():
            table.add_row(name, *(f"{value:g}" for value in spread.values()))
        shown.append(table)
    if killed := figures.get("sigkill_to_elsewhere_s"):
        table = Table("s", "max", "n", title="SIGKILL to job running elsewhere")
        table.add_row("", f"{killed['max']:g}", str(killed["n"]))
        shown.append(table)
    return shown


def main() -> None:
    """Read the command line and print tables or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--full", action="store_true", help="idleness up to 60 s, more rounds, SIGKILL: 20 minutes"
    )
    parser.add_argument("--only", choices=PARTS, action="append", help="may be given again")
    parser.add_argument("--node", choices=NODE_FLAVOURS, default=NODE_FLAVOURS[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    given = parser.parse_args()
    size = FULL if given.full else SHORT
    err = Console(stderr=True)
    with Progress(console=err, disable=given.json or not err.is_terminal, transient=True) as bar:
        measured = asyncio.run(measure(size, given.node, given.only or PARTS, bar))
    figures = {"node": given.node, "idle_s": size.idle_s} | measured.to_json()
    if given.json:
        print(json.dumps(figures))  # noqa: T201 - this is what --json is for
        return
    console = Console(width=None if sys.stdout.isatty() else 120)
    for table in tables(figures, given.node):
        console.print(table)


if __name__ == "__main__":
    main()
