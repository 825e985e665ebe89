"""How many connections help: found out while they run."""

from __future__ import annotations

import time

MEMORY_BYTES = 32 << 20
"""For the buffers of all lanes together."""
START_LANES = 16
"""Of small files, so that enough are fetched while others wait for their flush; eight took a tenth
longer.  Of large parts MEMORY_BYTES allows eight of 4 MiB: on a line that limits each connection,
half a second with fewer is half a second lost; next to the server it made no difference."""
MAX_LANES = 32
"""Small files wait for answers, not for bytes: more connections than memory allows large parts."""
WINDOW_S = 0.5
PROBE_EVERY_S = 10.0
WORTHWHILE = 1.1


class Tuner:
    """How many lanes: more while more bring more."""

    def __init__(self, fixed: int = 0) -> None:
        self._fixed = fixed
        # `target` is what helps, `allowed` what the next parts leave memory for.
        self.allowed = self.target = fixed or START_LANES
        self._before = 0
        """How many there were before the last try with more; 0 when none is under way."""
        self._best = 0.0
        self._window = (time.monotonic(), 0)
        self._quiet_until = 0.0

    def look(self, received: int, part_size: int, now: float) -> int:
        """Give the number of lanes to have, after `received` bytes in all.

        Args:
            received: Bytes that came over the network so far.
            part_size: Bytes of the parts that come next: lanes with large ones need memory.
            now: The monotonic clock.
        """
        since, before = self._window
        if now - since >= WINDOW_S and not self._fixed:
            self._window = (now, received)
            self._judge((received - before) / (now - since), now)
        # Memory is bounded for a number that was set, too.
        most = max(2, MEMORY_BYTES // part_size) if part_size else self.target
        self.allowed = min(self.target, most)
        return self.allowed

    def on_busy(self, now: float) -> None:
        """Halve: the server said 503."""
        if not self._fixed and now >= self._quiet_until - PROBE_EVERY_S / 2:
            # Of those that there are: memory may allow fewer than the target.
            self.target, self._before = max(1, min(self.target, self.allowed) // 2), 0
            self._quiet_until = now + PROBE_EVERY_S

    def _judge(self, rate: float, now: float) -> None:
        if self._before and rate < self._best * WORTHWHILE:
            self.target, self._before = self._before, 0
            self._quiet_until = now + PROBE_EVERY_S
        elif now >= self._quiet_until and self.target < MAX_LANES:
            self._before, self._best = self.target, rate
            self.target = min(MAX_LANES, self.target * 3 // 2 + 1)
