"""Real servers, any number of workers, and the jobs that are given to them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import bullmq
import redis.asyncio as redis
from redis.exceptions import RedisError

from tests.fakes.api import serve_api
from tests.faults.ledger import Ledger
from tests.faults.pod import Pod, Spare
from tests.faults.times import CONSTANTS
from tests.producer import Producer
from worker.demo.stack import EmbeddedStack

SETTLED_S: Final = 120.0
_numbers = itertools.count(1)


@dataclass
class Job:
    """A job of the API, and the BullMQ jobs that carry it (usually one)."""

    payload: dict[str, Any]
    word: str
    gate: Path | None = None
    """The file that the engine waits for, when its word says so."""
    queue_ids: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        """`data.jobId`."""
        return str(self.payload["jobId"])


@dataclass(frozen=True, slots=True)
class Settled:
    """How a BullMQ job ended."""

    at: float
    """Seconds since 1970, by Redis' clock."""
    event: str
    reason: str
    """The return value or the failed reason."""


class Site:
    """Valkey (with its file, as production has it), MinIO's API, the API, and workers.

    Attributes:
        stack: the servers; tests kill, freeze and restart them.
        ledger: what the API stored.
        fault_over_at: when the fault of the running cell ended.
    """

    def __init__(self, *, constants: dict[str, Any] | None = None) -> None:
        self.constants = CONSTANTS if constants is None else constants
        self.queue = f"avatar_build-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self.pods: list[Pod] = []
        self.all_pods: list[Pod] = []
        self.fault_over_at = 0.0
        self.settled_by_id: dict[str, list[Settled]] = {}
        self.events: list[tuple[float, dict[str, str]]] = []
        self._news = asyncio.Event()
        self._spare: asyncio.Task[Spare] | None = None
        self._exits = AsyncExitStack()

    # ------------------------------------------------------------ life
    async def __aenter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="avatar-faults-"))
        self._exits.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.stack = EmbeddedStack(self.folder / "stack")
        self.stack.start()
        self._exits.callback(self._kill_servers)
        self.api = await self._exits.enter_async_context(serve_api())
        self.ledger = Ledger(self.api)
        self.producer = Producer(self.stack, self.queue, self.api)
        await self._exits.enter_async_context(self.producer)
        self.redis = redis.from_url(self.stack.redis_url, decode_responses=True, socket_timeout=5)
        self._exits.push_async_callback(self.redis.aclose)
        self._watching = asyncio.create_task(self._watch(), name="events")
        self._exits.push_async_callback(self._stop_tasks)
        self.root = self.stack.minio(self.stack.root)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.gather(*(pod.end() for pod in self.pods))
        await self._exits.aclose()

    def _kill_servers(self) -> None:
        self.stack.gateway.kill()
        self.stack.valkey.kill()
        self.stack.stop()

    async def _stop_tasks(self) -> None:
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        if self._spare is not None:
            await (await self._spare).kill()

    # ------------------------------------------------------------ workers
    async def pod(
        self,
        *,
        wait: bool = True,
        spare: Spare | None = None,
        folder: Path | None = None,
        **variables: str,
    ) -> Pod:
        """Start one more worker.

        Args:
            wait: until it takes jobs.
            spare: its process, when it is a special one.
            folder: its TMPDIR, when it is a special one.
            variables: of its environment, beside what every worker has.
        """
        number = next(_numbers)
        ports = (self.stack.redis_port, self.stack.s3_port, int(self.api.url.rpartition(":")[2]))
        process = spare or await self._take_spare()
        pod = Pod(f"w{number}", process, folder or self.folder / f"w{number}", ports)
        self.pods.append(pod)
        self.all_pods.append(pod)
        environment = self.stack.worker_environment() | {
            "AVATAR_QUEUE": self.queue,
            "API_BASE_URL": self.api.url,
            **variables,
        }
        await pod.start(environment | constants_variable(self.constants), wait=wait)
        return pod

    async def some_pods(self, count: int) -> list[Pod]:
        """Have exactly so many workers, and all of them taking jobs; those of before are kept."""
        alive = [pod for pod in self.pods if pod.alive]
        for pod in [pod for pod in self.pods if pod not in alive[:count]]:
            await pod.end()
            self.pods.remove(pod)
        while len(self.pods) < count:
            await self.pod()
        for pod in self.pods:
            await pod.until_ready()
        return [*self.pods]

    async def one_pod(self) -> Pod:
        """Have one worker."""
        return (await self.some_pods(1))[0]

    async def clear_pods(self, *, none: bool = False) -> None:
        """Take the faults off the workers that are in order; end the others, or all."""
        for pod in [pod for pod in self.pods if none or not pod.alive]:
            await pod.end()
            self.pods.remove(pod)
        for pod in self.pods:
            for proxy in pod.proxies:
                proxy.thaw()
                proxy.clear()
        self.all_pods = [*self.pods]

    async def _take_spare(self) -> Spare:
        spare = await (self._spare or asyncio.create_task(Spare.spawn()))
        self._spare = asyncio.create_task(Spare.spawn())
        return spare

    # ------------------------------------------------------------ jobs
    async def prepare(self, word: str = "ok", **more: Any) -> Job:
        """Upload a photo and have the API know a job, which is not in the queue yet.

        Args:
            word: what the fake engine does; `{gate}` in it becomes a file that is not there yet.
            more: of the payload.
        """
        gate = self.folder / f"gate-{next(_numbers)}" if "{gate}" in word else None
        text = word.format(gate=gate)
        payload = await asyncio.to_thread(self.producer.payload, text, **more)
        return Job(payload, text, gate)

    async def enqueue(self, job: Job, *, copies: int = 1, **options: Any) -> Job:
        """Put a job in the queue; `copies` BullMQ jobs with one `data.jobId`."""
        for _ in range(copies):
            job.queue_ids.append((await self.producer.add(job.payload, **options)).id)
        return job

    async def remove_photo(self, job: Job) -> None:
        """Delete a job's photo from the bucket."""
        key = job.payload["frontPhotoUrl"].partition(f"/{self.stack.bucket}/")[2]
        await asyncio.to_thread(
            self.root.remove_object, bucket_name=self.stack.bucket, object_name=key
        )

    async def submit(self, word: str = "ok", **options: Any) -> Job:
        """Prepare and enqueue a job, as the API does."""
        return await self.enqueue(await self.prepare(word), **options)

    async def settled(self, job: Job, timeout_s: float = SETTLED_S) -> None:
        """Wait until every BullMQ job of it is completed or failed."""
        await self.until(
            lambda: all(queue_id in self.settled_by_id for queue_id in job.queue_ids), timeout_s
        )

    async def until(self, holds: Any, timeout_s: float = SETTLED_S) -> None:
        """Wait until `holds()`, looked at after each event of the queue."""
        async with asyncio.timeout(timeout_s):
            while not holds():
                self._news.clear()
                await self._news.wait()

    def seen(self, queue_id: str, event: str) -> list[float]:
        """When an event of a BullMQ job happened."""
        return [
            at
            for at, entry in self.events
            if (entry["event"], entry.get("jobId")) == (event, queue_id)
        ]

    async def processed_by(self, job: Job) -> str:
        """The worker that took a job, `host:pid`."""
        return str(await self.redis.hget(f"bull:{self.queue}:{job.queue_ids[0]}", "pb"))

    async def told(self, job: Job, timeout_s: float = SETTLED_S) -> None:
        """Wait until the API has a final report of it."""
        await self.api.until(lambda: bool(self.ledger.finals(job.id)), timeout_s)

    def fault_over(self) -> None:
        """Note that from now on nothing is wrong any more."""
        self.fault_over_at = time.time()

    async def _watch(self) -> None:
        """Read the queue's events, as Node's QueueEvents does, across restarts of Redis."""
        key, last = f"bull:{self.queue}:events", "0"
        client = redis.from_url(self.stack.redis_url, decode_responses=True, socket_timeout=3)
        async with client:
            while True:
                found: Sequence[Any] | None = None
                with contextlib.suppress(RedisError, OSError):
                    found = await client.xread({key: last}, block=1000)
                if found is None:
                    await asyncio.sleep(0.05)
                    continue
                for last, entry in found[0][1] if found else ():
                    self._note(int(last.partition("-")[0]) / 1000.0, entry)
                self._news.set()

    def _note(self, at: float, entry: dict[str, str]) -> None:
        self.events.append((at, entry))
        if entry["event"] in {"completed", "failed"}:
            settled = Settled(
                at, entry["event"], entry.get("failedReason", entry.get("returnvalue", ""))
            )
            self.settled_by_id.setdefault(entry["jobId"], []).append(settled)

    # ------------------------------------------------------------ servers
    async def restart_redis(self, down_s: float) -> None:
        """SIGKILL Redis, and start it again on its file after a while."""
        self.stack.valkey.kill()
        await asyncio.sleep(down_s)
        self.stack.valkey.spawn()
        await asyncio.to_thread(self.stack.valkey.wait_ready)

    async def restart_storage(self, down_s: float) -> None:
        """SIGKILL MinIO's server, and start it again after a while."""
        self.stack.gateway.kill()
        await asyncio.sleep(down_s)
        self.stack.gateway.spawn()
        await asyncio.to_thread(self.stack.gateway.wait_ready)

    async def heal(self) -> None:
        """Have every server up again, whatever a cell left behind."""
        for server in (self.stack.valkey, self.stack.gateway):
            server.thaw()
            if not server.running:
                server.spawn()
            await asyncio.to_thread(server.wait_ready)
        self.api.faults.clear()


async def bullmq_job(site: Site, queue_id: str) -> bullmq.Job:
    """A BullMQ job as Redis has it now."""
    return await bullmq.Job.fromId(site.producer.queue, queue_id)


def constants_variable(values: dict[str, Any]) -> dict[str, str]:
    """What tells `launch.py` which constants to replace."""
    return {"FAULT_CONSTANTS": json.dumps(values)}
