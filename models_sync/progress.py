"""How far a pull is: what a bar, a log line and a readiness page show."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

WINDOW_S = 10.0
"""The rate is that of the last ten seconds: short enough to follow, long enough to read."""


class Phase(StrEnum):
    """What a pull is doing."""

    PLANNING = "planning"
    """Reading the manifest or the listing, and looking at the volume."""
    WAITING = "waiting"
    """Another process pulls onto this volume; the numbers are its own."""
    CHECKING = "checking"
    """Hashing files that lie there already."""
    FETCHING = "fetching"
    UPLOADING = "uploading"
    """Publishing, not pulling."""
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Progress:
    """One look at a running pull."""

    phase: Phase
    done_bytes: int = 0
    total_bytes: int = 0
    files: int = 0
    """Files that are whole."""
    files_total: int = 0
    rate: float = 0.0
    """Bytes a second, over the last ten seconds."""
    eta_s: float | None = None
    """Seconds that are left at this rate; None while nobody knows."""
    waiting_for: str = ""
    """Who pulls, in phase WAITING."""


OnProgress = Callable[[Progress], None]
"""Called a few times a second, from the thread that called `pull`."""


class Meter:
    """Bytes a second over a sliding window."""

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._window_s = window_s
        self._seen: deque[tuple[float, int]] = deque()

    def rate(self, total: int, now: float | None = None) -> float:
        """Note that `total` bytes have arrived so far and give the rate."""
        now = time.monotonic() if now is None else now
        self._seen.append((now, total))
        while len(self._seen) > 2 and now - self._seen[1][0] >= self._window_s:
            self._seen.popleft()
        since, before = self._seen[0]
        return (total - before) / (now - since) if now > since else 0.0


def eta_s(left_bytes: int, rate: float) -> float | None:
    """Seconds until `left_bytes` have come at `rate` bytes a second; None when nothing comes."""
    if left_bytes <= 0:
        return 0.0
    return left_bytes / rate if rate > 0 else None
