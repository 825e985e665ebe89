"""Who is tried again, and when.

The producer's `attempts` and `backoff` count; MAX_RETRIES and `BACKOFF` stand in where it set
none.  The delays are those of Node's worker (bullmq `Backoffs`), `jitter` included, which the
Python package does not know; it is handed the delay that was computed here.
"""

from __future__ import annotations

import random
from typing import Any, Final

from worker.errors import AvatarError, EngineError
from worker.observability.logs import get_logger

log = get_logger("worker.consumer")

BACKOFF: dict[str, Any] = {"type": "exponential", "delay": 2_000}
"""Between attempts, when the producer asked for none: 2 s, 4 s, 8 s, …"""
LONGEST_BACKOFF_MS: Final = 24 * 3_600_000
"""2 ** attempts grows beyond what a sorted set can hold exactly."""


def settle_retry_policy(job: Any, max_retries: int) -> None:
    """Give a job whose producer set no attempts MAX_RETRIES of them, and its next delay in full.

    Only this object is changed: the package decides about a retry from it, and every later
    attempt is given the same policy by the worker that takes it.

    Args:
        job: bullmq.Job; `opts`, `attempts` are changed, `attemptsMade` is read.
        max_retries: attempts in all when the producer set none.
    """
    backoff = job.opts.get("backoff")
    attempts = int(_number(job.opts.get("attempts")))
    if attempts == 0:
        attempts = max_retries
        backoff = backoff or BACKOFF
    job.attempts = job.opts["attempts"] = attempts
    if backoff:
        delay_ms = backoff_delay_ms(backoff, job.attemptsMade + 1)
        job.opts["backoff"] = {"type": "fixed", "delay": delay_ms}


def backoff_delay_ms(backoff: object, attempts_made: int) -> int:
    """Return the pause after attempt number `attempts_made`.

    A strategy of the producer's own lives in the producer's code and cannot be asked: its delay
    is doubled as `exponential` doubles it.  (The package would leave such a job active for ever.)

    Args:
        backoff: `opts.backoff` as it came: `{type, delay, jitter?}`, or a number of milliseconds.
        attempts_made: 1 after the first attempt.
    """
    if isinstance(backoff, int | float):
        backoff = {"type": "fixed", "delay": backoff}
    if not isinstance(backoff, dict):
        backoff = BACKOFF
    kind = backoff.get("type")
    delay = _number(backoff.get("delay"))
    if kind not in {"fixed", "exponential"}:
        delay = delay or float(BACKOFF["delay"])
    if kind != "fixed":
        delay *= 2.0 ** min(attempts_made - 1, 40)
    jitter = min(_number(backoff.get("jitter")), 1.0)
    if jitter > 0:
        delay *= 1.0 - jitter * random.random()  # noqa: S311 - spreads load, hides nothing
    return min(round(delay), LONGEST_BACKOFF_MS)


def _number(value: object) -> float:
    return max(0.0, float(value)) if isinstance(value, int | float) else 0.0


def named(error: BaseException) -> AvatarError:
    """Give an error that nobody expected a name, and its trace to the log."""
    if isinstance(error, AvatarError):
        return error
    log.error("job.unexpected", exc_info=error)
    return EngineError(f"{type(error).__name__}: {error}")
