"""Names of the keys that this worker keeps in Redis beside BullMQ's own.

They begin with BullMQ's prefix, so that an ACL or a cluster's hash tag that covers the queue
covers them, and go on with a name that is no queue's, so that no job id can collide with them.
"""

from __future__ import annotations


def own_key(prefix: str, queue: str, *parts: str) -> str:
    """Return `{prefix}:{queue}-worker:part:part`, e.g. `bull:avatar_build-worker:lease:JOBID`."""
    return ":".join((prefix, f"{queue}-worker", *parts))
