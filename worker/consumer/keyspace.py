"""A queue's keys in Redis: which there are, what a name says, and a bounded walk over them."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from bullmq.queue_keys import QueueKeys
from bullmq.redis_connection import loadScript

from worker.consumer.keys import own_key
from worker.contract import claimed_job_id

PAGE: Final = 1_000
STATE_ORDER: Final = (
    "completed", "failed", "delayed", "active", "wait", "paused", "waiting-children", "prioritized",
)  # fmt: skip
"""KEYS of getStateV2-8.lua."""
LISTS: Final = frozenset({"active", "wait", "paused"})
"""These are lists; the other states are sorted sets, the latest last."""
_SCHEDULED: Final = re.compile(r"repeat:.+:\d+")
"""The id of a job that a scheduler made; every other id is free of colons."""

Advance = Callable[[int, int], None]
"""Told how much was looked at, and of how much."""


def quietly(_done: int, _of: int) -> None:
    """Tell nobody."""


class Keyspace:
    """The keys of one queue and of the workers beside it.

    Args:
        client: redis.asyncio client; not closed here.
        prefix: BullMQ's prefix.
        queue: the queue's name.
    """

    def __init__(self, client: Any, prefix: str, queue: str) -> None:
        self.client = client
        self.prefix, self.queue = prefix, queue
        self._keys: dict[str, str] = QueueKeys(prefix).getKeys(queue)
        self._get_state = client.register_script(loadScript("getStateV2-8.lua"))

    def __getitem__(self, name: str) -> str:
        """The key of one of BullMQ's own structures, such as `active`."""
        return self._keys[name]

    def job(self, queue_job_id: str) -> str:
        """The key of a job's hash."""
        return f"{self._keys['']}{queue_job_id}"

    def own(self, *parts: str) -> str:
        """A key of our own."""
        return own_key(self.prefix, self.queue, *parts)

    def job_id_of(self, key: str) -> str | None:
        """BullMQ's id when `key` can be a job's hash, else None."""
        rest = key.removeprefix(self._keys[""])
        if rest == key or rest in self._keys:
            return None
        return rest if ":" not in rest or _SCHEDULED.fullmatch(rest) else None

    def own_parts_of(self, key: str) -> tuple[str, str] | None:
        """What a key of our own is and of which job: ("lease", jobId); else None."""
        rest = key.removeprefix(self.own("")) if key.startswith(self.own("")) else ""
        kind, colon, job_id = rest.partition(":")
        return (kind, job_id) if colon else None

    async def walk(self, *, limit: int, advance: Advance) -> AsyncIterator[tuple[list[str], bool]]:
        """Walk over the keys of this queue; other keys of the database are passed over in Redis.

        Args:
            limit: how many keys of the whole database to look at, at most.
            advance: told after every page.

        Yields:
            A page of keys, and whether it is the last one there is.
        """
        total = min(int(await self.client.dbsize()), limit)
        pattern = _literally(f"{self.prefix}:{self.queue}") + "[-:]*"
        cursor, seen = 0, 0
        while seen < limit:
            cursor, keys = await self.client.scan(cursor=cursor, match=pattern, count=PAGE)
            seen += PAGE
            advance(min(seen, total), total)
            yield keys, cursor == 0
            if cursor == 0:
                return

    async def size(self, name: str) -> int:
        """How many jobs one of BullMQ's structures holds."""
        key = self._keys[name]
        return int(await (self.client.llen(key) if name in LISTS else self.client.zcard(key)))

    async def newest(self, name: str, start: int, count: int) -> list[str]:
        """Return up to `count` ids of one of BullMQ's structures, the latest first."""
        key, stop = self._keys[name], start + count - 1
        ids: list[str] = await (
            self.client.lrange(key, start, stop)
            if name in LISTS
            else self.client.zrange(key, start, stop, desc=True)
        )
        return ids

    async def states(self, queue_job_ids: list[str]) -> list[str]:
        """Return the state of each job, `unknown` for one that is in no list."""
        keys = [self._keys[name] for name in STATE_ORDER]
        async with self.client.pipeline(transaction=False) as pipe:
            for queue_job_id in queue_job_ids:
                await self._get_state(keys=keys, args=[queue_job_id], client=pipe)
            return [str(state) for state in await pipe.execute()]

    async def fields(self, queue_job_ids: list[str], *names: str) -> list[list[str | None] | None]:
        """Return fields of each job's hash; None for what is not there or no hash."""
        async with self.client.pipeline(transaction=False) as pipe:
            for queue_job_id in queue_job_ids:
                pipe.hmget(self.job(queue_job_id), *names)
            answers = await pipe.execute(raise_on_error=False)
        return [
            None if isinstance(answer, Exception) or not any(answer) else answer
            for answer in answers
        ]


def data_job_id(data: str | None) -> str | None:
    """`data.jobId` of a job's data as Redis has it."""
    try:
        return claimed_job_id(json.loads(data or "null"))
    except ValueError:
        return None


def _literally(text: str) -> str:
    """Escape what SCAN's patterns would read as more than itself."""
    return re.sub(r"([*?\[\]^\\])", r"\\\1", text)
