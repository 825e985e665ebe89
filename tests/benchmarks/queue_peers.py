"""The two workers that are compared, each in a process of its own, on one server."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any, Final, Literal

from worker.consumer.worker import LOCK_MS
from worker.demo.stack import EmbeddedStack

HERE: Final = Path(__file__).resolve().parent
NODE_FOLDER: Final = HERE.parents[0] / "node"
PREFIX: Final = "bull"
Who = Literal["worker", "node"]
PEERS: Final[tuple[Who, Who]] = ("worker", "node")
NODE_FLAVOURS: Final = ("bullmq5", "bullmq5min", "bullmq6")


class Peer:
    """One of the two, told what to do a line at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._turn = asyncio.Lock()

    @classmethod
    async def start(cls, who: Who, stack: EmbeddedStack, *, flavour: str) -> Peer:
        """Start the process.

        Raises:
            SystemExit: Node or its packages are not installed.
        """
        if who == "node":
            if shutil.which("node") is None or not (NODE_FOLDER / "node_modules").is_dir():
                raise SystemExit("Node's worker is not installed: cd tests/node && npm ci")
            command = ["node", str(HERE / "node_worker.mjs"), flavour, stack.redis_url, PREFIX]
        else:
            command = [sys.executable, str(HERE / "queue_worker.py")]
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=NODE_FOLDER if who == "node" else None,
            env=os.environ | {"REDIS_URL": stack.redis_url, "BULLMQ_PREFIX": PREFIX},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1024 * 1024,
        )
        return cls(process)

    async def open(self, queue: str, *, concurrency: int = 1) -> None:
        """Connect to a queue and take nothing yet."""
        await self._ask("open", queue, concurrency=concurrency, lockMs=LOCK_MS,
                        stalledIntervalMs=15_000)  # fmt: skip

    async def run(self, queue: str) -> None:
        """Take the jobs of a queue."""
        await self._ask("run", queue)

    async def close(self, queue: str) -> list[float]:
        """Leave a queue; return each job's time from its adding to its handler, in ms."""
        pickup_ms: list[float] = await self._ask("close", queue)
        return pickup_ms

    async def end(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 5)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def _ask(self, operation: str, queue: str, **args: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        async with self._turn:
            request = {"operation": operation, "queue": queue, **args}
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            await self._process.stdin.drain()
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"The peer ended: {await self._process.wait()}")
        return json.loads(line)["value"]
