"""What is still to be fetched, cut into ranges for whoever asks next."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock

from models_sync.errors import ObjectReplaced
from models_sync.partial import Partial
from models_sync.remote import RemoteObject

MAX_SPAN_BYTES = 64 << 20
"""One request asks for at most this much: its 20 ms of waiting are 2 % at 60 MB/s."""


@dataclass(eq=False, slots=True)
class FileInWork:
    """One file, and which of its parts nobody fetches yet."""

    remote: RemoteObject
    partial: Partial
    todo: deque[tuple[int, int, bool]] = field(default_factory=deque)
    """(first part, one past the last, whether to look on the disk first)"""
    left: int = 0
    """Parts that have not landed."""
    resumed: bool = False
    """Whether parts of it were on the disk already."""
    is_open: bool = False
    opening: Lock = field(default_factory=Lock)
    etag: str | None = None
    """The version that is read: as it was listed, or as the first answer had it."""

    def begin(self) -> None:
        """Cut the file into parts that an earlier attempt has, and parts that it lacks."""
        self.left = self.partial.parts
        self.etag = self.remote.etag
        landed = set(self.partial.landed())
        first = 0
        while first < self.left:
            local, stop = first in landed, first + 1
            while stop < self.left and (stop in landed) == local:
                stop += 1
            self.todo.append((first, stop, local))
            first = stop

    def open(self) -> None:
        """Open the partial file, if nobody has yet.

        Raises:
            VolumeUnwritable: it cannot be opened.
        """
        with self.opening:
            if not self.is_open:
                self.partial.open()
                self.is_open = True

    def pin(self, etag: str) -> None:
        """Take the version of the first answer; from then on it must stay.

        Raises:
            ObjectReplaced: it has not.
        """
        if self.etag is None:
            self.etag = etag
        elif self.etag != etag:
            raise ObjectReplaced(f"{self.remote.key} was replaced in the bucket meanwhile")


@dataclass(slots=True)
class Span:
    """Some parts of one file that one connection fetches with one request."""

    file: FileInWork
    first: int
    """The next part to come."""
    stop: int
    local: bool
    """Whether the parts may lie on the disk already."""
    gained_at: float = field(default_factory=time.monotonic)
    """When the last part landed, or when this was begun."""
    damaged: int = 0
    """How often a part was not what it should be."""


class Work:
    """The queue of all ranges, largest files first.  Safe to share between threads."""

    def __init__(self, files: Sequence[FileInWork]) -> None:
        self._lock = Lock()
        self._files = deque(sorted(files, key=lambda file: -file.remote.size))
        self._bytes = sum(file.remote.size for file in files)

    def take(self, lanes: int) -> Span | None:
        """Give the next range; None when all are taken.

        Ranges get shorter towards the end, so that all connections end together.
        """
        with self._lock:
            if not self._files:
                return None
            file = self._files[0]
            first, stop, local = file.todo.popleft()
            size = file.partial.part_size
            wanted = max(1, min(MAX_SPAN_BYTES, self._bytes * 2 // (3 * lanes)) // size)
            if stop - first > wanted:
                file.todo.appendleft((first + wanted, stop, local))
                stop = first + wanted
            if not file.todo:
                self._files.popleft()
            self._bytes -= (stop - first) * size
            return Span(file, first, stop, local)

    def give_back(self, file: FileInWork, part: int) -> None:
        """A part that was thought to be on the disk is to be fetched after all."""
        with self._lock:
            file.todo.append((part, part + 1, False))
            self._bytes += file.partial.part_size
            if file not in self._files:
                self._files.appendleft(file)

    def landed(self, file: FileInWork) -> bool:
        """Count a part that has landed; whether it was the last of its file."""
        with self._lock:
            file.left -= 1
            return file.left == 0

    @property
    def part_size(self) -> int:
        """Bytes of the next part; 0 when nothing is left to take."""
        with self._lock:
            if not self._files:
                return 0
            head = self._files[0]
            return min(head.partial.part_size, head.remote.size)
