"""Trying again: after a failure that may pass, later and later.

By hand and not by tenacity, whose attempt that succeeds at once was a third of all calls of Python
that a small file took (docs/decisions/0024).
"""

from __future__ import annotations

from collections.abc import Iterator

FIRST_S, MOST_S = 0.25, 5.0


def waits_s() -> Iterator[float]:
    """How long to wait before each further try: of any length up to a limit that doubles.

    Many that fail together do not come back together.
    """
    limit_s = FIRST_S
    while True:
        yield wait_s(0.0, limit_s)
        limit_s = min(MOST_S, 2 * limit_s)


def wait_s(least_s: float, most_s: float) -> float:
    """A length of time between the two, another one for each who asks."""
    import random  # noqa: PLC0415 - most pulls never wait

    return random.uniform(least_s, most_s)  # noqa: S311 - hides nothing
