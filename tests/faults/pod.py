"""A worker as a real process, behind proxies of its own: what a fault is done to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any, Final

import httpx

from tests.faults.proxy import HOST, HttpProxy, TcpProxy
from worker.demo import tether
from worker.demo.servers import free_port

LAUNCH: Final = Path(__file__).with_name("launch.py")
READY_S: Final = 90.0
LOG_LINES: Final = 400


class Spare:
    """A worker's process that has imported everything and waits for its environment."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def spawn(cls, *, tmpfs_kb: int | None = None, at: Path | None = None) -> Spare:
        """Start the process.

        Args:
            tmpfs_kb: give it a disk of this size, mounted at `at`, that nobody else sees.
            at: an empty folder.
        """
        command = [sys.executable, str(LAUNCH)]
        if tmpfs_kb is not None:
            mount = f'mount -t tmpfs -o size={tmpfs_kb}k none "{at}" && exec "$@"'
            command = ["/usr/bin/unshare", "-rm", "/bin/sh", "-c", mount, "-", *command]
        process = await asyncio.create_subprocess_exec(
            # Ends with us, even when we are killed.
            *(sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), *command),
            stdin=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=1024 * 1024,
        )
        return cls(process)

    async def kill(self) -> None:
        """End it unused."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


class Pod:
    """A worker's process, its three proxies and its log.

    Attributes:
        lines: the last lines of its log.
        folder: its TMPDIR.
    """

    def __init__(self, name: str, spare: Spare, folder: Path, ports: tuple[int, int, int]) -> None:
        self.name = name
        self.process = spare.process
        self.folder = folder
        self.redis = TcpProxy(ports[0])
        self.storage = HttpProxy(ports[1])
        self.api = HttpProxy(ports[2])
        self.port = free_port()
        self.lines: deque[dict[str, Any]] = deque(maxlen=LOG_LINES)
        self._reading = asyncio.create_task(self._read())
        self._news = asyncio.Event()

    @property
    def proxies(self) -> tuple[TcpProxy, HttpProxy, HttpProxy]:
        """Redis, MinIO, the API."""
        return self.redis, self.storage, self.api

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.returncode is None

    @property
    def children(self) -> list[int]:
        """Its engine processes (Linux)."""
        pid = self.process.pid
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    async def start(self, environment: dict[str, str], *, wait: bool = True) -> None:
        """Give the process its environment, and wait until it takes jobs."""
        for proxy in self.proxies:
            await proxy.start()
        self.folder.mkdir(exist_ok=True)
        mine = {
            "REDIS_URL": environment["REDIS_URL"].replace(
                f":{self.redis.target_port}/", f":{self.redis.port}/"
            ),
            "MINIO_ENDPOINT": f"{HOST}:{self.storage.port}",
            "API_BASE_URL": f"http://{HOST}:{self.api.port}",
            "WORKER_PORT": str(self.port),
            "TMPDIR": str(self.folder),
        }
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(environment | mine).encode() + b"\n")
        await self.process.stdin.drain()
        if wait:
            await self.until_ready()

    async def until_ready(self) -> None:
        """Ask as an orchestrator does."""
        async with asyncio.timeout(READY_S), httpx.AsyncClient() as client:
            while True:
                with contextlib.suppress(httpx.TransportError):
                    answer = await client.get(f"http://{HOST}:{self.port}/ready")
                    if answer.is_success:
                        return
                assert self.alive, f"worker {self.name} ended: {self.tail()}"
                await asyncio.sleep(0.02)

    async def until_idle(self) -> None:
        """Wait until it is doing no job any more."""
        async with asyncio.timeout(READY_S), httpx.AsyncClient() as client:
            while True:
                with contextlib.suppress(httpx.TransportError):
                    answer = await client.get(f"http://{HOST}:{self.port}/ready")
                    if answer.json()["activeJobs"] == 0:
                        return
                await asyncio.sleep(0.02)

    async def logged(self, event: str, timeout_s: float = 20.0) -> dict[str, Any]:
        """Wait for a line of its log."""
        async with asyncio.timeout(timeout_s):
            while True:
                for line in [*self.lines]:
                    if line["event"] == event:
                        return line
                self._news.clear()
                await self._news.wait()

    async def _read(self) -> None:
        assert self.process.stderr is not None
        while raw := await self.process.stderr.readline():
            try:
                line = json.loads(raw)
            except ValueError:
                line = {"event": "(not a log line)", "text": raw.decode(errors="replace").rstrip()}
            self.lines.append(line)
            self._news.set()

    # ------------------------------------------------------------ what is done to it
    async def kill(self) -> None:
        """SIGKILL; the engine process ends with it."""
        self.signal(signal.SIGKILL)
        await self._ended()

    async def _ended(self) -> int:
        """Wait for its end, and until its proxies have seen it, so that no request lives on."""
        code = await self.process.wait()
        await asyncio.gather(*(proxy.deserted() for proxy in self.proxies))
        return code

    async def terminate(self, timeout_s: float = 20.0) -> tuple[int, float]:
        """SIGTERM; the exit code and the seconds until the process had ended."""
        began = time.monotonic()
        self.signal(signal.SIGTERM)
        await asyncio.wait_for(self.process.wait(), timeout_s)
        seconds = time.monotonic() - began
        return await self._ended(), seconds

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the worker's parent process alone."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def kill_engine(self) -> None:
        """SIGKILL to its engine process."""
        for pid in self.children:
            os.kill(pid, signal.SIGKILL)

    async def end(self) -> None:
        """Kill it, whatever it does, and take its proxies down."""
        for proxy in self.proxies:
            proxy.thaw()
        if self.alive:
            self.signal(signal.SIGCONT)
            await self.kill()
        await asyncio.gather(*(proxy.stop() for proxy in self.proxies))
        await self._reading

    def tail(self, count: int = 25) -> str:
        """Its last log lines, for a report of what went wrong."""
        return "\n".join(json.dumps(line)[:400] for line in [*self.lines][-count:])
