"""Finds BullMQ's jobs by `data.jobId`, the only id that the API and the shopper know.

BullMQ has no index over data, so the jobs of each state are looked through, the latest first and
up to a bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from worker.consumer.keyspace import Advance, Keyspace, data_job_id, quietly

SEARCHED_JOBS: Final = 20_000
_PAGE: Final = 500
_STATE: Final = {
    "active": "active", "wait": "waiting", "paused": "waiting", "prioritized": "prioritized",
    "delayed": "delayed", "waiting-children": "waiting-children", "failed": "failed",
    "completed": "completed",
}  # fmt: skip
"""State by structure, the fewest jobs and the likeliest first."""
EVERYWHERE: Final = tuple(_STATE)


@dataclass(frozen=True, slots=True)
class Found:
    """A job that was looked for."""

    queue_job_id: str
    job_id: str | None
    """`data.jobId`; None when the data does not hold a usable one."""
    state: str
    """As BullMQ names it; `unknown` for an orphan."""


async def find(
    keys: Keyspace,
    name: str,
    *,
    structures: tuple[str, ...] = EVERYWHERE,
    limit: int = SEARCHED_JOBS,
    advance: Advance = quietly,
) -> list[Found]:
    """Find jobs by BullMQ's id or, failing that, by `data.jobId`.

    Args:
        keys: the queue.
        name: the id.
        structures: where to look for a `data.jobId`; BullMQ's id is found anywhere.
        limit: how many jobs to look through, at most.
        advance: told how far the search is.

    Returns:
        No job, or one; several when several carry this `data.jobId`.
    """
    if by_id := await _by_queue_job_id(keys, name):
        return [by_id]
    sizes = {structure: await keys.size(structure) for structure in structures}
    total = min(sum(sizes.values()), limit)
    found: list[Found] = []
    looked = 0
    for structure, size in sizes.items():
        for start in range(0, size, _PAGE):
            if looked >= limit:
                return found
            ids = await keys.newest(structure, start, _PAGE)
            rows = await keys.fields(ids, "data")
            found += [
                Found(queue_job_id, name, _STATE[structure])
                for queue_job_id, row in zip(ids, rows, strict=True)
                if row is not None and name in (row[0] or "") and data_job_id(row[0]) == name
            ]
            looked += len(ids)
            advance(min(looked, total), total)
    return found


async def _by_queue_job_id(keys: Keyspace, name: str) -> Found | None:
    [row] = await keys.fields([name], "timestamp", "data")
    if row is None or row[0] is None:
        return None
    [state] = await keys.states([name])
    return Found(name, data_job_id(row[1]), state)
