"""Progress of work that several threads do, and the wish to stop it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from models_sync.errors import Interrupted
from models_sync.progress import Meter, OnProgress, Phase, Progress, eta_s

TELL_EVERY_S = 0.2


class WorkMeter:
    """Counts bytes and files, tells a few times a second, and raises when it is time to stop.

    Args:
        on_progress: who is told.
        cancel: set when the work is to stop.
    """

    def __init__(self, on_progress: OnProgress | None, cancel: threading.Event | None) -> None:
        self._on_progress, self._cancel = on_progress, cancel
        self._lock = threading.Lock()
        self._next_s = 0.0
        self.begin(Phase.PLANNING, ())

    def begin(self, phase: Phase, sizes: Iterable[int]) -> None:
        """Start counting for a phase whose files have these sizes."""
        sizes = list(sizes)
        with self._lock:
            self._phase, self._meter = phase, Meter()
            self._done = self._files = 0
            self._total, self._files_total = sum(sizes), len(sizes)
            self._next_s = 0.0

    def advance(self, count: int) -> None:
        """Note `count` more bytes.

        Raises:
            Interrupted: the work is to stop.
        """
        if self._cancel is not None and self._cancel.is_set():
            raise Interrupted
        with self._lock:
            self._done += count
            self._tell()

    def file_done(self) -> None:
        """Note that one more file is whole."""
        with self._lock:
            self._files += 1
            self._tell()

    def _tell(self) -> None:
        now = time.monotonic()
        if self._on_progress is None or (now < self._next_s and self._done < self._total):
            return
        self._next_s = now + TELL_EVERY_S
        rate = self._meter.rate(self._done, now)
        self._on_progress(
            Progress(
                phase=self._phase,
                done_bytes=self._done,
                total_bytes=self._total,
                files=self._files,
                files_total=self._files_total,
                rate=rate,
                eta_s=eta_s(self._total - self._done, rate),
            )
        )
