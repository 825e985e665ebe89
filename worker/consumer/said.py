"""What Redis's errors say.

redis-py's `repr` of a refusal is `server:ResponseError`: it leaves out what the server said.
"""

from __future__ import annotations

from redis.exceptions import ResponseError

from worker.errors import QueueUnavailable


def said(error: BaseException) -> str:
    """Return an error's name and its text, on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def unavailable(what: str, error: BaseException) -> QueueUnavailable:
    """Return the named error for what could not be done, and whether Redis is there.

    Args:
        what: a whole sentence without its full stop.
        error: a refusal, such as NOPERM, READONLY or OOM, is an answer; anything else is none.
    """
    who = "Redis refused" if isinstance(error, ResponseError) else "Redis did not answer"
    return QueueUnavailable(f"{what}. {who}: {said(error)}")
