"""`worker.consumer.Consumer` with a handler that does nothing, driven by lines on stdin.

The peer of `node_worker.mjs`: one JSON request a line, one JSON answer a line.  The queue's
variables are read from the environment, as the worker reads them.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the checkout's own package

from worker.consumer.worker import Consumer, Delivery
from worker.errors import AvatarError
from worker.observability.logs import configure_logging
from worker.settings import QueueSettings


class Peer:
    """Consumers by queue, and how long each job took to reach its handler."""

    def __init__(self) -> None:
        self._settings = QueueSettings.load()
        self._consumers: dict[str, tuple[Consumer, list[float]]] = {}

    async def open(self, queue: str, concurrency: int, **_both: int) -> None:
        """Connect, and take nothing yet.  (Lock and stalled interval are the worker's own.)"""
        pickup_ms: list[float] = []

        async def handle(delivery: Delivery) -> dict[str, Any]:
            if sent_ns := delivery.data.get("sentNs"):
                pickup_ms.append((time.monotonic_ns() - int(sent_ns)) / 1e6)
            return {}

        settings = self._settings.model_copy(update={"queue": queue})
        consumer = Consumer(settings, handle, _gave_up, concurrency=concurrency)
        await consumer.start()
        self._consumers[queue] = consumer, pickup_ms

    async def run(self, queue: str) -> None:
        """Take jobs."""
        self._consumers[queue][0].open()

    async def close(self, queue: str) -> list[float]:
        """Stop; return the times to pickup in milliseconds."""
        consumer, pickup_ms = self._consumers.pop(queue)
        await consumer.stop()
        return pickup_ms


async def _gave_up(delivery: Delivery, error: AvatarError) -> None:
    raise AssertionError(f"job {delivery.queue_job_id} was given up: {error}")


async def main() -> None:
    """Do what the lines say, one after the other."""
    configure_logging(level=30)
    peer = Peer()
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        request = json.loads(line)
        value = await getattr(peer, request.pop("operation"))(**request)
        sys.stdout.write(json.dumps({"value": value}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
