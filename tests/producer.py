"""Uploads photos and adds jobs the way the API does, from Python."""

from __future__ import annotations

import asyncio
import io
import itertools
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import bullmq

from tests.fakes.api import FakeApi
from worker.demo.stack import EmbeddedStack

_numbers = itertools.count(1)


class Producer:
    def __init__(self, stack: EmbeddedStack, queue: str, api: FakeApi) -> None:
        self._stack = stack
        self._minio = stack.minio(stack.api)
        self._api = api
        self.name = queue

    async def __aenter__(self) -> Self:
        self.queue = bullmq.Queue(self.name, {"connection": self._stack.redis_url})
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.queue.close()

    def upload(self, content: bytes, name: str = "front.jpg") -> str:
        """Store a photo; return its URL as the API joins it: raw, on a host of the API's own."""
        key = f"uploads/{uuid.uuid4()}-{name}"
        self._minio.put_object(
            bucket_name=self._stack.bucket,
            object_name=key,
            data=io.BytesIO(content),
            length=len(content),
        )
        return f"https://cdn.shop.example/{self._stack.bucket}/{key}"

    def payload(self, behaviour: str = "ok", **more: Any) -> dict[str, Any]:
        """Register a job with the API and return its data; the fake engine obeys the photo."""
        job_id = f"cjob{next(_numbers):04d}{uuid.uuid4().hex[:8]}"
        self._api.add(job_id)
        url = self.upload(behaviour.encode())
        return {"jobId": job_id, "frontPhotoUrl": url, "heightCm": 178} | more

    async def add(self, payload: dict[str, Any], **options: Any) -> bullmq.Job:
        return await self.queue.add("avatar_build", payload, options)

    async def settled(self, job: bullmq.Job, timeout_s: float = 15.0) -> bullmq.Job:
        """Wait until a job is completed or failed."""
        return await self._until(job, lambda state, _: state in {"completed", "failed"}, timeout_s)

    async def attempted(self, job: bullmq.Job, timeout_s: float = 15.0) -> bullmq.Job:
        """Wait until a first attempt at a job is over."""
        return await self._until(job, lambda _, fresh: fresh.attemptsMade > 0, timeout_s)

    async def in_state(self, job: bullmq.Job, wanted: str, timeout_s: float = 15.0) -> bullmq.Job:
        """Wait until a job is in a state, such as `active`."""
        return await self._until(job, lambda state, _: state == wanted, timeout_s)

    async def _until(
        self, job: bullmq.Job, holds: Callable[[str, bullmq.Job], bool], timeout_s: float
    ) -> bullmq.Job:
        """Look after each event of the queue."""
        last = "0"
        async with asyncio.timeout(timeout_s):
            while True:
                state = await job.getState()  # first: the job may be settled in between
                fresh = await bullmq.Job.fromId(self.queue, job.id)
                if holds(state, fresh):
                    return fresh
                key = f"bull:{self.name}:events"
                found = await self.queue.client.xread({key: last}, block=500)
                for _stream, entries in found or []:
                    last = entries[-1][0]

    def objects(self, job_id: str) -> dict[str, int]:
        """What is stored under the job's folder, by name."""
        found = self._stack.minio(self._stack.api).list_objects(
            bucket_name=self._stack.bucket, prefix=f"avatars/{job_id}/", recursive=True
        )
        return {str(item.object_name).rpartition("/")[2]: item.size or 0 for item in found}

    def read(self, job_id: str, name: str) -> bytes:
        response = self._minio.get_object(
            bucket_name=self._stack.bucket, object_name=f"avatars/{job_id}/{name}"
        )
        try:
            return response.read()
        finally:
            response.close()
            response.release_conn()
