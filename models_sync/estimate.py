"""How long a pull would take by the network: measured for a second, on the very files.

Large files are bound by bytes, small ones by answers, so each kind is measured by itself: its
ranges are read over as many connections as a pull begins with, and thrown away.  A pull may end
sooner (it tries more connections, and goes on with what an earlier one left) or later: it also
writes, and hashes what lies there already.  Where the disk is slower than the network, as next to
the server, it takes longer (docs/reference/performance.md).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from models_sync.bucket import Bucket
from models_sync.errors import SyncError, TransferStalled
from models_sync.manifest import PART_BYTES
from models_sync.plan import Plan
from models_sync.remote import RemoteObject
from models_sync.settings import SyncSettings
from models_sync.tuner import MEMORY_BYTES, START_LANES
from models_sync.wire import Wire

MEASURE_S = 1.0
"""For large files, and again for small ones."""
MAX_READ_BYTES = 256 << 20
"""More than that says nothing new about a rate."""
RANGE_BYTES = 32 << 20
_CHUNK_BYTES = 64 << 10

Range = tuple[RemoteObject, int, int]
"""Object, offset, bytes."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """How long fetching would take, and from what that was worked out."""

    seconds: float
    bytes_per_s: float | None
    """Of large files; None: there is none."""
    files_per_s: float | None
    """Of small ones; None: there is none."""
    connections: int
    measured_s: float
    read_bytes: int

    def as_dict(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "seconds": round(self.seconds, 3),
            "bytesPerSecond": self.bytes_per_s and round(self.bytes_per_s),
            "filesPerSecond": self.files_per_s and round(self.files_per_s, 1),
            "connections": self.connections,
            "measuredSeconds": round(self.measured_s, 2),
            "readBytes": self.read_bytes,
        }


def estimate(bucket: Bucket, settings: SyncSettings, plan: Plan) -> Estimate:
    """Read from the files that would be fetched, for about a second a kind; keep nothing.

    Raises:
        TransferStalled: nothing came in that time.
        SyncError: by its name; a pull would end with the same.
    """
    files = [item.remote for item in plan.fetch if item.remote.size]
    large = [file for file in files if file.size >= PART_BYTES]
    small = [file for file in files if file.size < PART_BYTES]
    lanes = settings.connections or START_LANES
    large_lanes = min(lanes, MEMORY_BYTES // PART_BYTES)  # as a pull begins with
    seconds, bytes_per_s, files_per_s, measured_s, read = 0.0, None, None, 0.0, 0
    if large:
        sample = _Sample(bucket, large_lanes, _ranges(large))
        bytes_per_s = sample.received / sample.seconds
        seconds += sum(file.size for file in large) / bytes_per_s
        measured_s, read = sample.seconds, sample.received
    if small:
        sample = _Sample(bucket, lanes, ((file, 0, file.size) for file in _spread(small)))
        # By bytes, so that a file that was cut off by the end of the time counts too.
        share = sample.received / sum(file.size for file in small)
        files_per_s = share * len(small) / sample.seconds
        seconds += len(small) / files_per_s
        measured_s, read = measured_s + sample.seconds, read + sample.received
    return Estimate(
        seconds, bytes_per_s, files_per_s, lanes if small else large_lanes, measured_s, read
    )


class _Sample:
    """Ranges read side by side until they are all read or the time is over."""

    def __init__(self, bucket: Bucket, lanes: int, ranges: Iterator[Range]) -> None:
        self._ranges, self._lock = ranges, threading.Lock()
        self._over = threading.Event()
        self._error: SyncError | None = None
        self.received = 0
        # Its own limit is far above ours: whoever waits is shut when the time is over.
        wires = [Wire(bucket.endpoint, stall_s=60 * MEASURE_S) for _ in range(lanes)]
        threads = [
            threading.Thread(target=self._read, args=[wire], name="measure", daemon=True)
            for wire in wires
        ]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, began + MEASURE_S - time.monotonic()))
        self._over.set()
        self.seconds = time.monotonic() - began
        for wire in wires:
            wire.shut()
        if self._error is not None:
            raise self._error
        if not self.received:
            raise TransferStalled(f"{bucket.where}: nothing came for {self.seconds:.1f} s")

    def _read(self, wire: Wire) -> None:
        buffer = memoryview(bytearray(_CHUNK_BYTES))
        try:
            while not self._over.is_set() and (span := self._take()):
                remote, offset, size = span
                with wire.open_range(remote, offset, size, remote.etag) as answer:
                    while size and not self._over.is_set():
                        count = answer.readinto(buffer[:size])
                        if not count:
                            break
                        size -= count
                        with self._lock:
                            self.received += count
        except SyncError as error:
            if not self._over.is_set():  # else it is we who ended it
                self._error = error
                self._over.set()
        finally:
            wire.close()

    def _take(self) -> Range | None:
        with self._lock:
            return next(self._ranges, None) if self.received < MAX_READ_BYTES else None


def _ranges(files: Sequence[RemoteObject]) -> Iterator[Range]:
    """Ranges of the largest files first, as a pull takes them."""
    for file in sorted(files, key=lambda file: -file.size):
        for offset in range(0, file.size, RANGE_BYTES):
            yield file, offset, min(RANGE_BYTES, file.size - offset)


def _spread(files: Sequence[RemoteObject]) -> Iterator[RemoteObject]:
    """All files, each once, beginning with some from everywhere."""
    step = max(1, len(files) // 64)
    for first in range(step):
        yield from files[first::step]
