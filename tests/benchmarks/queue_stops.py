"""How fast a worker lets go of a job, and how fast another has it: by SIGTERM and by SIGKILL.

The whole worker, on real servers, in a process of its own; only the engine is the tests' fake.
Times are those of the queue's own events, which Redis stamps in milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import bullmq

from tests.benchmarks.queue_peers import PREFIX
from tests.fakes.api import serve_api
from tests.producer import Producer
from worker.consumer.worker import LOCK_MS
from worker.demo.stack import EmbeddedStack

ROOT: Final = Path(__file__).resolve().parents[2]
FAKE_ENGINE: Final = (sys.executable, str(ROOT / "tests" / "fakes" / "engine.py"))
RUN: Final = f"""
import asyncio, sys
from worker.lifecycle import run_worker
from worker.settings import Settings
sys.exit(asyncio.run(run_worker(Settings.load(), engine_command={FAKE_ENGINE!r})))
"""
TAKEN_TIMEOUT_S: Final = 30.0
INTO_THE_JOB_S: Final = 0.3
"""When the signal comes, after the job was taken: its engine computes by then."""


async def sigterm_to_wait_ms(
    stack: EmbeddedStack, *, rounds: int, tell: Callable[[], None]
) -> list[float]:
    """Measure milliseconds from SIGTERM to the running job's being back in wait."""
    figures: list[float] = []
    for number in range(rounds):
        async with _site(stack, f"sigterm-{number}") as (producer, environment):
            async with _worker(environment) as process:
                job = await producer.add(producer.payload("slow"))
                taken_ms = await _event(producer, job.id, "active", after_ms=0.0)
                await asyncio.sleep(INTO_THE_JOB_S)
                signalled_ms = time.time() * 1000
                process.send_signal(signal.SIGTERM)
                back_ms = await _event(producer, job.id, "waiting", after_ms=taken_ms)
                await asyncio.wait_for(process.wait(), TAKEN_TIMEOUT_S)
            figures.append(back_ms - signalled_ms)
            tell()
    return figures


async def sigkill_to_elsewhere_s(
    stack: EmbeddedStack, *, rounds: int, tell: Callable[[], None]
) -> list[float]:
    """Measure seconds from a worker's SIGKILL to its job's running in another."""
    figures: list[float] = []
    for number in range(rounds):
        async with (
            _site(stack, f"sigkill-{number}") as (producer, environment),
            _worker(environment) as first,
        ):
            job = await producer.add(producer.payload("slow"))
            taken_ms = await _event(producer, job.id, "active", after_ms=0.0)
            async with _worker(environment):
                await asyncio.sleep(INTO_THE_JOB_S)
                killed_ms = time.time() * 1000
                first.kill()
                again_ms = await _event(producer, job.id, "active", after_ms=taken_ms)
                figures.append((again_ms - killed_ms) / 1000)
                tell()
                await producer.settled(job)
    return figures


@asynccontextmanager
async def _site(stack: EmbeddedStack, queue: str) -> AsyncIterator[tuple[Producer, dict[str, str]]]:
    """A queue, an API, and the environment of a worker for both."""
    async with serve_api() as api, Producer(stack, queue, api) as producer:
        yield (
            producer,
            stack.worker_environment()
            | {
                "API_BASE_URL": api.url,
                "AVATAR_QUEUE": queue,
                "BULLMQ_PREFIX": PREFIX,
                "WORKER_PORT": "0",
            },
        )


@asynccontextmanager
async def _worker(environment: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker that takes jobs, for as long as the block lasts."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", RUN),
        cwd=ROOT,
        env=os.environ | environment,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        async with asyncio.timeout(TAKEN_TIMEOUT_S):
            while json.loads(await process.stderr.readline())["event"] != "engine.ready":
                pass
        # Whatever it says from now on: a full pipe must not stop it.
        draining = asyncio.create_task(process.stderr.read())
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await draining


async def _event(producer: Producer, queue_job_id: str, name: str, *, after_ms: float) -> float:
    """Wait for an event of a job; return its time in milliseconds since 1970, by Redis's clock."""
    queue: bullmq.Queue = producer.queue
    key, last = f"{PREFIX}:{producer.name}:events", f"{after_ms:.0f}-9999"
    async with asyncio.timeout(TAKEN_TIMEOUT_S + 2 * LOCK_MS / 1000):
        while True:
            for _stream, entries in await queue.client.xread({key: last}, block=500) or []:
                for entry, fields in entries:
                    if fields["event"] == name and fields.get("jobId") == queue_job_id:
                        return float(entry.partition("-")[0])
                    last = entry
