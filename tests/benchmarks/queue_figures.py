"""What is measured of a queue's two workers: throughput, and pickup after idleness.

Both are measured from outside and alike: throughput by the times that the workers note in Redis,
pickup by the monotonic clock, which all processes of one machine share.
"""

from __future__ import annotations

import asyncio
import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import bullmq
import redis.asyncio as redis

from tests.benchmarks.queue_peers import PEERS, PREFIX, Peer, Who

PAYLOAD: Final = {
    "frontPhotoUrl": "https://cdn.shop.example/tryfitted/uploads/0f9c-front.jpg",
    "heightCm": 178,
}
ADDED_AT_ONCE: Final = 500
DRAIN_TIMEOUT_S: Final = 120.0
Peers = Mapping[Who, Peer]


# ---------------------------------------------------------------- throughput
async def throughput(
    peers: Peers,
    redis_url: str,
    *,
    concurrency: int,
    jobs: int,
    rounds: int,
    tell: Callable[[], None],
) -> dict[Who, list[float]]:
    """Measure jobs per second, by peer, in rounds that alternate between the two.

    Args:
        peers: both.
        redis_url: the server.
        concurrency: how many jobs at a time.
        jobs: how many jobs lie in the queue when a round begins.
        rounds: how many rounds each peer has; who begins changes.
        tell: called after every measurement.
    """
    figures: dict[Who, list[float]] = {"worker": [], "node": []}
    for number in range(rounds):
        for who in PEERS if number % 2 == 0 else PEERS[::-1]:
            name = f"bench-{concurrency}-{number}-{who}"
            figures[who].append(
                await _one_round(peers[who], redis_url, name, concurrency=concurrency, jobs=jobs)
            )
            tell()
    return figures


async def _one_round(
    peer: Peer, redis_url: str, name: str, *, concurrency: int, jobs: int
) -> float:
    """Let a peer empty a full queue; return jobs per second, by the jobs' own times."""
    client = redis.from_url(redis_url, decode_responses=True)
    queue = bullmq.Queue(name, {"connection": client, "prefix": PREFIX})
    try:
        for start in range(0, jobs, ADDED_AT_ONCE):
            await queue.addBulk(
                [
                    {"name": "avatar_build", "data": {"jobId": f"bench-{number}", **PAYLOAD}}
                    for number in range(start, min(start + ADDED_AT_ONCE, jobs))
                ]
            )
        await peer.open(name, concurrency=concurrency)
        await peer.run(name)
        await _until_done(client, name, jobs)
        await peer.close(name)
        done = f"{PREFIX}:{name}:completed"
        [[first_id, _]] = await client.zrange(done, 0, 0, withscores=True)
        [[_, ended_ms]] = await client.zrange(done, -1, -1, withscores=True)
        began_ms = float(await client.hget(f"{PREFIX}:{name}:{first_id}", "processedOn"))
        return jobs * 1000.0 / (ended_ms - began_ms)
    finally:
        await queue.obliterate(force=True)
        await queue.close()


async def _until_done(client: redis.Redis, name: str, jobs: int) -> None:
    """Look from outside; listening for every job's event would cost more than looking."""
    async with asyncio.timeout(DRAIN_TIMEOUT_S):
        while await client.zcard(f"{PREFIX}:{name}:completed") < jobs:  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.02)


def ratio(figures: Mapping[Who, Sequence[float]]) -> float:
    """Our throughput over Node's: the median of the rounds, each with its neighbour in time."""
    pairs = zip(figures["worker"], figures["node"], strict=True)
    return statistics.median(ours / theirs for ours, theirs in pairs)


# ---------------------------------------------------------------- pickup
async def pickup(
    peers: Peers,
    redis_url: str,
    *,
    queues: int,
    jobs_per_queue: int,
    idle_s: tuple[float, float],
    tell: Callable[[], None],
) -> dict[Who, list[float]]:
    """Measure milliseconds from adding a job to its handler, by peer.

    Every queue is idle for a random while before each of its jobs.  Both peers serve their own
    queues in the same minutes, side by side.
    """
    figures: dict[Who, list[float]] = {"worker": [], "node": []}
    client = redis.from_url(redis_url, decode_responses=True)

    async def one_queue(who: Who, number: int) -> None:
        name = f"pickup-{number}-{who}"
        idle = random.Random(number)  # the same for both
        queue = bullmq.Queue(name, {"connection": client, "prefix": PREFIX})
        await peers[who].open(name)
        await peers[who].run(name)
        for _ in range(jobs_per_queue):
            await asyncio.sleep(idle.uniform(*idle_s))
            data: dict[str, Any] = {"jobId": f"bench-{number}", **PAYLOAD}
            await queue.add("avatar_build", data | {"sentNs": str(time.monotonic_ns())}, {})
            tell()
        await _until_done(client, name, jobs_per_queue)
        figures[who] += await peers[who].close(name)
        await queue.obliterate(force=True)

    try:
        await asyncio.gather(*(one_queue(who, n) for who in PEERS for n in range(queues)))
    finally:
        await client.aclose()
    return figures


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]
