"""Trying again: after a failure that may pass, later and later.

By hand and not by tenacity, whose attempt that succeeds at once was a third of all calls of Python
that a small file took (docs/decisions/0024).
"""

from __future__ import annotations

import random
from collections.abc import Iterator

FIRST_S, MOST_S = 0.25, 5.0


def waits_s() -> Iterator[float]:
    """How long to wait before each further try: of any length up to a limit that doubles.

    Many that fail together do not come back together.
    """
    limit_s = FIRST_S
    while True:
        yield random.uniform(0.0, limit_s)  # noqa: S311 - hides nothing
        limit_s = min(MOST_S, 2 * limit_s)
