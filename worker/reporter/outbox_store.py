"""Final reports in Redis: what is waiting, who is delivering it, what was given up.

One hash an entry, and three sorted sets of job ids: `due` by when they are tried next, `parked`
by when they were given up, `checks` by when a delivered report is looked at once more; the hash
`failures` has what those reports said that were failures.  A claim is a due time that lies ahead:
an entry whose worker dies becomes due again by itself.  Each change
is one Lua script, and every time in it is Redis's own clock, so that workers whose clocks differ,
or jump, agree.

A job has at most one entry.  The first final report stays, but a completion replaces a failure,
never the other way round: when both were put, an avatar exists.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

from redis.exceptions import RedisError

from worker.consumer.keys import own_key
from worker.consumer.said import unavailable
from worker.contract import StatusUpdate
from worker.errors import JobHeldElsewhere

Verdict = Literal["delivered", "dropped", "retry", "parked", "released"]
T = TypeVar("T")

_NOW: Final = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
"""

# KEYS entry due parked checks lease failures
# ARGV job_id update status maybe_reported check keep_ms owner
_PUT: Final = f"""
if ARGV[7] ~= '' and redis.call('GET', KEYS[5]) ~= ARGV[7] then return 'held elsewhere' end
{_NOW}
local held = redis.call('HMGET', KEYS[1], 'status', 'claim')
local parked = redis.call('ZREM', KEYS[3], ARGV[1]) == 1
local outranked = held[1] == 'completed' or held[1] == ARGV[3]
if held[1] and outranked and not parked then
  if ARGV[5] == '1' then redis.call('HSET', KEYS[1], 'check', '1') end
  return 'kept'
end
if not (parked and held[1] == 'completed') then
  redis.call('HSET', KEYS[1], 'update', ARGV[2], 'status', ARGV[3])
end
local again = held[1] and '1'
redis.call('HSET', KEYS[1], 'maybe_reported', again or ARGV[4], 'check', again or ARGV[5],
  'park_ms', now + ARGV[6], 'error', '')
redis.call('HSETNX', KEYS[1], 'put_ms', now)
redis.call('HSETNX', KEYS[1], 'attempts', 0)
redis.call('HINCRBY', KEYS[1], 'version', 1)
redis.call('ZREM', KEYS[4], ARGV[1])
redis.call('HDEL', KEYS[6], ARGV[1])
-- What it replaces may be on its way to the API this moment; this one follows it.
local due = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[1]) or 0)
local under_way = held[2] and held[2] ~= '' and due > now
if not under_way then redis.call('ZADD', KEYS[2], now, ARGV[1]) end
return 'put'
"""

# KEYS due checks parked; ARGV entry_prefix token claim_ms entries_at_most checks_at_most
_CLAIM: Final = f"""
{_NOW}
local entries, checks = {{}}, {{}}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[4])) do
  local key = ARGV[1] .. id
  if redis.call('EXISTS', key) == 0 then
    redis.call('ZREM', KEYS[1], id)
  else
    redis.call('HINCRBY', key, 'attempts', 1)
    redis.call('HSET', key, 'claim', ARGV[2])
    redis.call('ZADD', KEYS[1], now + ARGV[3], id)
    entries[#entries + 1] = {{id, redis.call('HGETALL', key)}}
  end
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, ARGV[5])) do
  redis.call('ZADD', KEYS[2], now + ARGV[3], id)
  checks[#checks + 1] = id
end
local wait = -1
for index = 1, 2 do
  local first = redis.call('ZRANGE', KEYS[index], 0, 0, 'WITHSCORES')
  if first[2] and (wait < 0 or first[2] - now < wait) then wait = math.max(first[2] - now, 0) end
end
return {{wait, entries, checks, redis.call('ZCARD', KEYS[1]), redis.call('ZCARD', KEYS[3])}}
"""

# KEYS entry due parked checks failures
# ARGV job_id token version verdict wait_ms error check_after_ms
_SETTLE: Final = f"""
local held = redis.call('HMGET', KEYS[1], 'claim', 'version', 'park_ms', 'check', 'status')
if held[1] ~= ARGV[2] then return 'taken over' end
{_NOW}
redis.call('HSET', KEYS[1], 'claim', '')
if held[2] ~= ARGV[3] then
  redis.call('ZADD', KEYS[2], now, ARGV[1])
  return 'replaced'
end
local verdict = ARGV[4]
if verdict == 'delivered' or verdict == 'dropped' then
  if verdict == 'delivered' and held[4] == '1' then
    redis.call('ZADD', KEYS[4], now + ARGV[7], ARGV[1])
    if held[5] == 'failed' then
      local said = redis.call('HMGET', KEYS[1], 'put_ms', 'update')
      redis.call('HSET', KEYS[5], ARGV[1], said[1] .. '.' .. held[2] .. ' ' .. said[2])
    end
  end
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[2], ARGV[1])
  return verdict
end
if ARGV[6] ~= '' then redis.call('HSET', KEYS[1], 'error', ARGV[6]) end
if verdict == 'parked' or (verdict == 'retry' and now >= tonumber(held[3])) then
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('ZADD', KEYS[3], now, ARGV[1])
  return 'parked'
end
redis.call('ZADD', KEYS[2], now + ARGV[5], ARGV[1])
return verdict
"""

# KEYS entry due parked; ARGV job_id keep_ms
_RETRY: Final = f"""
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
{_NOW}
local claim = redis.call('HGET', KEYS[1], 'claim')
local due = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[1]) or 0)
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('HSET', KEYS[1], 'park_ms', now + ARGV[2], 'maybe_reported', '1')
local under_way = claim and claim ~= '' and due > now
if not under_way then redis.call('ZADD', KEYS[2], now, ARGV[1]) end
return 1
"""

# KEYS entry failures; ARGV job_id
_BEGIN: Final = """
redis.call('HDEL', KEYS[2], ARGV[1])
if redis.call('HGET', KEYS[1], 'status') == 'failed' then
  redis.call('HSET', KEYS[1], 'check', '0')
end
"""

# KEYS checks; ARGV job_id wait_ms
_CHECK_LATER: Final = f"""
{_NOW}
return redis.call('ZADD', KEYS[1], 'XX', now + ARGV[2], ARGV[1])
"""


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """A final report that the API does not have yet."""

    job_id: str
    update: str
    """The body of the PATCH, as JSON."""
    status: str
    first_put_ms: int
    """Milliseconds since 1970, by Redis's clock."""
    maybe_reported: bool
    """Whether the API may have a final report of this job from an earlier attempt at it."""
    attempts: int
    """How often its delivery was begun."""
    last_error: str
    parked: bool
    """Given up: only `retry` or another final report of the job brings it back."""
    version: int = 0
    """Grows with each report that takes this entry's place."""
    due_in_s: float = 0.0

    def parsed(self) -> StatusUpdate:
        """Return what is to be sent.

        Raises:
            pydantic.ValidationError: another version of the worker wrote what this one cannot read.
        """
        return StatusUpdate.model_validate_json(self.update)


@dataclass(frozen=True, slots=True)
class Claim:
    """What one worker is to do now; everybody else leaves it alone until the claim runs out."""

    token: str
    entries: tuple[OutboxEntry, ...]
    checks: tuple[str, ...]
    """Job ids of delivered reports to look at once more."""
    next_in_s: float | None
    """When the next of what is left is due; None when nothing is."""
    waiting: int
    """How many reports wait in all, these included."""
    parked: int
    """How many are given up."""


class OutboxStore:
    """The outbox's keys and scripts.

    Args:
        client: redis.asyncio client; not closed here.
        prefix: BULLMQ_PREFIX.
        queue: AVATAR_QUEUE.

    Every method raises QueueUnavailable when Redis does not answer.
    """

    def __init__(self, client: Any, *, prefix: str, queue: str) -> None:
        self._client = client
        self._entry_prefix = own_key(prefix, queue, "outbox", "entry", "")
        self._due = own_key(prefix, queue, "outbox", "due")
        self._parked = own_key(prefix, queue, "outbox", "parked")
        self._checks = own_key(prefix, queue, "outbox", "checks")
        self._failures = own_key(prefix, queue, "outbox", "failures")
        self._put, self._claim, self._settle, self._retry, self._begin, self._check_later = (
            client.register_script(text)
            for text in (_PUT, _CLAIM, _SETTLE, _RETRY, _BEGIN, _CHECK_LATER)
        )

    async def put(
        self,
        job_id: str,
        update: StatusUpdate,
        *,
        maybe_reported: bool,
        check: bool,
        keep_for_s: float,
        guard: tuple[str, str] | None,
    ) -> bool:
        """Add a final report; False when the one that is there already stays.

        Raises:
            JobHeldElsewhere: `guard` does not hold any more; nothing was written.
        """
        entry = self._entry_prefix + job_id
        lease_key, owner = guard or (entry, "")
        done = await _named(
            self._put(
                keys=[entry, self._due, self._parked, self._checks, lease_key, self._failures],
                args=[
                    *(job_id, json.dumps(update.to_wire(), allow_nan=False), update.status.value),
                    *(int(maybe_reported), int(check), int(keep_for_s * 1000), owner),
                ],
            )
        )
        if done == "held elsewhere":
            raise JobHeldElsewhere
        return bool(done == "put")

    async def claim(self, token: str, *, claim_s: float, entries: int, checks: int) -> Claim:
        """Take what is due, for `claim_s`."""
        wait_ms, found, job_ids, waiting, parked = await _named(
            self._claim(
                keys=[self._due, self._checks, self._parked],
                args=[self._entry_prefix, token, int(claim_s * 1000), entries, checks],
            )
        )
        return Claim(
            token=token,
            entries=tuple(
                _entry(job_id, dict(zip(flat[::2], flat[1::2], strict=True)), parked=False)
                for job_id, flat in found
            ),
            checks=tuple(job_ids),
            next_in_s=None if wait_ms < 0 else wait_ms / 1000.0,
            waiting=waiting,
            parked=parked,
        )

    async def settle(
        self,
        entry: OutboxEntry,
        token: str,
        verdict: Verdict,
        *,
        wait_s: float = 0.0,
        error: str = "",
        check_after_s: float = 0.0,
    ) -> str:
        """Say what became of a claimed entry; without effect when another has it by now.

        Returns:
            The verdict that was carried out, or `taken over`, or `replaced`: a completion took
            the entry's place meanwhile and is due.
        """
        done = await _named(
            self._settle(
                keys=[
                    self._entry_prefix + entry.job_id,
                    *(self._due, self._parked, self._checks, self._failures),
                ],
                args=[
                    *(entry.job_id, token, entry.version, verdict),
                    *(int(wait_s * 1000), error[:500], int(check_after_s * 1000)),
                ],
            )
        )
        return str(done)

    async def retry(self, job_id: str, *, keep_for_s: float) -> bool:
        """Make a report due now, parked or not; False when there is none."""
        keys = [self._entry_prefix + job_id, self._due, self._parked]
        args = [job_id, int(keep_for_s * 1000)]
        return bool(await _named(self._retry(keys=keys, args=args)))

    async def remove(self, job_id: str) -> bool:
        """Forget a report for good; False when there is none."""
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.delete(self._entry_prefix + job_id)
            pipe.zrem(self._due, job_id)
            pipe.zrem(self._parked, job_id)
            removed, *_ = await _named(pipe.execute())
        return bool(removed)

    async def checked(self, job_id: str) -> None:
        """Forget that a delivered report is to be looked at."""
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.zrem(self._checks, job_id)
            pipe.hdel(self._failures, job_id)
            await _named(pipe.execute())

    async def failure(self, job_id: str) -> tuple[StatusUpdate, str] | None:
        """Return the failure that was delivered, and which report that was; None when it is past.

        Raises:
            pydantic.ValidationError: another version of the worker wrote what this one cannot read.
        """
        said = await _named(self._client.hget(self._failures, job_id))
        if said is None:
            return None
        number, _, update = said.partition(" ")
        return StatusUpdate.model_validate_json(update), number

    async def forget_failure(self, job_id: str) -> None:
        """Let a failure be overwritten, once it is delivered."""
        keys = [self._entry_prefix + job_id, self._failures]
        await _named(self._begin(keys=keys, args=[job_id]))

    async def check_later(self, job_id: str, wait_s: float) -> None:
        """Look at it again later."""
        await _named(self._check_later(keys=[self._checks], args=[job_id, int(wait_s * 1000)]))

    async def state(self, job_id: str) -> Literal["waiting", "parked"] | None:
        """Where a report is; None when the outbox has none for this job."""
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.exists(self._entry_prefix + job_id)
            pipe.zscore(self._parked, job_id)
            exists, parked = await _named(pipe.execute())
        if not exists:
            return None
        return "waiting" if parked is None else "parked"

    async def entries(self, at_most: int) -> tuple[OutboxEntry, ...]:
        """List what is undelivered: first what waits, by when it is due, then what is parked."""
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.zrange(self._due, 0, at_most - 1, withscores=True)
            pipe.zrange(self._parked, 0, at_most - 1, withscores=True)
            (seconds, micros), due, parked = await _named(pipe.execute())
        now_ms = seconds * 1000 + micros / 1000
        listed = [(*item, False) for item in due] + [(*item, True) for item in parked]
        async with self._client.pipeline(transaction=False) as pipe:
            for job_id, _, _ in listed[:at_most]:
                pipe.hgetall(self._entry_prefix + job_id)
            found: Iterable[dict[str, str]] = await _named(pipe.execute())
        return tuple(
            _entry(job_id, fields, parked=is_parked, due_in_s=(score - now_ms) / 1000.0)
            for (job_id, score, is_parked), fields in zip(listed, found, strict=False)
            if fields  # else it was delivered between the two questions
        )


def _entry(
    job_id: str, fields: dict[str, str], *, parked: bool, due_in_s: float = 0.0
) -> OutboxEntry:
    return OutboxEntry(
        job_id=job_id,
        update=fields["update"],
        status=fields["status"],
        first_put_ms=int(float(fields["put_ms"])),
        maybe_reported=fields["maybe_reported"] == "1",
        attempts=int(fields["attempts"]),
        last_error=fields.get("error", ""),
        parked=parked,
        version=int(fields["version"]),
        due_in_s=0.0 if parked else max(0.0, due_in_s),
    )


async def _named(answer: Awaitable[T]) -> T:
    """Wait for Redis and give its errors our name."""
    try:
        return await answer
    except (RedisError, OSError, TimeoutError) as error:
        raise unavailable("The outbox could not be reached", error) from None
