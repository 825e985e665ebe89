"""Looks at a queue without changing anything, for `avatar-worker queue`.

Every step is a read.  Lists and sets that BullMQ keeps are read whole or counted; orphans, which
by definition are in none of them, can only be found by walking over the keys, so that walk is
bounded and says whether it came to the end.
"""

from __future__ import annotations

import time
from typing import Any, Final

from redis.exceptions import NoPermissionError, ResponseError

from worker.consumer.connection import client_name
from worker.consumer.keyspace import Advance, Keyspace, data_job_id
from worker.consumer.overview import (
    OVERDUE_S,
    FailedView,
    LeaseView,
    MarkView,
    OrphanView,
    Overview,
    ReportView,
    RunningView,
    ScanView,
    WorkerView,
)

LATEST_FAILED: Final = 10
_DELAYED_STEP: Final = 0x1000
"""A delayed job's score is its time in ms times this, plus a counter (addDelayedJob)."""
_MARKS: Final = ("cancel", "fresh", "kills")


async def survey(
    keys: Keyspace, reports: tuple[ReportView, ...], *, scan_keys: int, advance: Advance
) -> Overview:
    """Look at the whole queue.

    Args:
        keys: the queue.
        reports: what the outbox holds.
        scan_keys: how many keys of the database to walk over, at most.
        advance: told how far that walk is.
    """
    now_s = time.time()
    counts, overdue, paused = await _counts(keys, now_s)
    running = await _running(keys, now_s)
    orphans, leases, marks, scan = await _walk(keys, now_s, scan_keys=scan_keys, advance=advance)
    return Overview(
        prefix=keys.prefix,
        queue=keys.queue,
        paused=paused,
        counts=counts,
        workers=await _workers(keys),
        running=running,
        failed=await _latest_failed(keys, now_s),
        overdue=overdue,
        orphans=orphans,
        leases=leases,
        marks=marks,
        reports=reports,
        scan=scan,
    )


async def _counts(keys: Keyspace, now_s: float) -> tuple[dict[str, int], int, bool]:
    """Count by state, by counting: the package's script for it can drop a marker from a list."""
    async with keys.client.pipeline(transaction=True) as pipe:
        pipe.llen(keys["wait"])
        pipe.llen(keys["paused"])
        pipe.llen(keys["active"])
        for name in ("prioritized", "delayed", "waiting-children", "completed", "failed"):
            pipe.zcard(keys[name])
        pipe.zcount(keys["delayed"], 0, (now_s - OVERDUE_S) * 1000 * _DELAYED_STEP)
        pipe.hexists(keys["meta"], "paused")
        wait, held, active, *others, overdue, paused = await pipe.execute()
    prioritized, delayed, waiting_children, completed, failed = others
    counts = {
        "waiting": wait + held,
        "prioritized": prioritized,
        "delayed": delayed,
        "active": active,
        "waiting-children": waiting_children,
        "completed": completed,
        "failed": failed,
    }
    return counts, int(overdue), bool(paused)


async def _workers(keys: Keyspace) -> tuple[WorkerView, ...] | None:
    """Tell workers by the names of their connections, as Node's getWorkers() does."""
    named = client_name(keys.prefix, keys.queue, "")
    unnamed = named.removesuffix(":w:")
    try:
        clients: list[dict[str, Any]] = await keys.client.client_list()
    except (NoPermissionError, ResponseError):
        return None
    return tuple(
        WorkerView(
            name=str(client["name"]).removeprefix(named).removeprefix(unnamed),
            address=str(client["addr"]),
            connected_s=float(client["age"]),
        )
        for client in clients
        if client["name"] == unnamed or str(client["name"]).startswith(named)
    )


async def _running(keys: Keyspace, now_s: float) -> tuple[RunningView, ...]:
    ids: list[str] = await keys.client.lrange(keys["active"], 0, -1)
    rows = await keys.fields(ids, "data", "processedOn", "pb", "atm", "ats", "stc")
    async with keys.client.pipeline(transaction=False) as pipe:
        for queue_job_id in ids:
            pipe.pttl(f"{keys.job(queue_job_id)}:lock")
        locks = await pipe.execute()
    return tuple(
        RunningView(
            queue_job_id=queue_job_id,
            job_id=data_job_id(row[0]),
            processed_by=row[2],
            running_s=_ago(row[1], now_s),
            attempts_made=int(row[3] or 0),
            starts=int(row[4] or 0),
            stalls=int(row[5] or 0),
            lock_s=lock_ms / 1000 if lock_ms > 0 else None,
        )
        for queue_job_id, row, lock_ms in zip(ids, rows, locks, strict=True)
        if row is not None
    )


async def _latest_failed(keys: Keyspace, now_s: float) -> tuple[FailedView, ...]:
    ids: list[str] = await keys.client.zrange(keys["failed"], 0, LATEST_FAILED - 1, desc=True)
    rows = await keys.fields(ids, "data", "failedReason", "finishedOn")
    return tuple(
        FailedView(
            queue_job_id=queue_job_id,
            job_id=data_job_id(row[0]),
            reason=row[1] or "",
            failed_s=_ago(row[2], now_s),
        )
        for queue_job_id, row in zip(ids, rows, strict=True)
        if row is not None
    )


async def _walk(
    keys: Keyspace, now_s: float, *, scan_keys: int, advance: Advance
) -> tuple[tuple[OrphanView, ...], tuple[LeaseView, ...], tuple[MarkView, ...], ScanView]:
    """Find what no list names."""
    # Asking the script for every waiting job would search a long list as often as it is long.
    listed = set(await keys.client.lrange(keys["wait"], 0, -1))
    listed.update(await keys.client.lrange(keys["paused"], 0, -1))
    orphans: dict[str, OrphanView] = {}
    own: dict[str, tuple[str, str]] = {}
    seen, complete = 0, False
    async for page, is_last in keys.walk(limit=scan_keys, advance=advance):
        seen, complete = seen + len(page), is_last
        jobs = {queue_job_id for key in page if (queue_job_id := keys.job_id_of(key))}
        for orphan in await _orphans(keys, sorted(jobs - listed), now_s):
            orphans[orphan.queue_job_id] = orphan
        own |= {key: parts for key in page if (parts := keys.own_parts_of(key))}
    leases, marks = await _own(keys, own)
    return tuple(orphans.values()), leases, marks, ScanView(keys=seen, complete=complete)


async def _orphans(keys: Keyspace, ids: list[str], now_s: float) -> list[OrphanView]:
    """Tell which of `ids` are jobs that are in no list."""
    states = await keys.states(ids)
    unlisted = [
        queue_job_id for queue_job_id, state in zip(ids, states, strict=True) if state == "unknown"
    ]
    # Read after the state: a job that was removed meanwhile has no fields any more.
    rows = await keys.fields(unlisted, "timestamp", "data")
    return [
        OrphanView(
            queue_job_id=queue_job_id, job_id=data_job_id(row[1]), added_s=_ago(row[0], now_s)
        )
        for queue_job_id, row in zip(unlisted, rows, strict=True)
        if row is not None and row[0] is not None and row[1] is not None
    ]


async def _own(
    keys: Keyspace, own: dict[str, tuple[str, str]]
) -> tuple[tuple[LeaseView, ...], tuple[MarkView, ...]]:
    wanted = {key: parts for key, parts in own.items() if parts[0] in {"lease", *_MARKS}}
    async with keys.client.pipeline(transaction=False) as pipe:
        for key in wanted:
            pipe.get(key)
            pipe.pttl(key)
        answers = await pipe.execute()
    leases: list[LeaseView] = []
    marks: list[MarkView] = []
    for (kind, job_id), value, ttl_ms in zip(
        wanted.values(), answers[::2], answers[1::2], strict=True
    ):
        if value is None:  # expired while we looked
            continue
        expires_s = max(ttl_ms, 0) / 1000
        if kind == "lease":
            leases.append(LeaseView(job_id=job_id, holder=value, expires_s=expires_s))
        else:
            marks.append(MarkView(kind=kind, job_id=job_id, expires_s=expires_s))
    return tuple(leases), tuple(marks)


def _ago(time_ms: str | None, now_s: float) -> float:
    """Seconds since a time that BullMQ noted in milliseconds."""
    return max(0.0, now_s - float(time_ms) / 1000) if time_ms else 0.0
