"""Connections that fetch side by side, as many as help.

A lane is a thread with one connection and one buffer.  It takes a range, receives it part by
part, holds each part against its digest while it is still in memory, and only then writes it.
Sockets, hashing and disk release the interpreter's lock, so lanes run side by side.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol

from blake3 import blake3

from models_sync.again import waits_s
from models_sync.bucket import Bucket
from models_sync.direct import aligned_buffer
from models_sync.errors import (
    AnswerStrange,
    BucketBusy,
    BucketUnreachable,
    Interrupted,
    ObjectDamaged,
    SyncError,
    TransferCut,
)
from models_sync.wire import Range, Wire
from models_sync.work import FileInWork, Span, Work

MIN_CHUNK_BYTES, MAX_CHUNK_BYTES = 64 << 10, 4 << 20
QUICK_S, SLOW_S = 0.05, 0.5
"""A chunk is what one read waits for.  Large ones spare the interpreter's lock, which on a busy
machine costs more than anything else (twice the rate, measured); small ones on a slow line keep a
line that crawls apart from one that has stalled."""
MAX_DAMAGED = 3
"""How often a part may arrive damaged: a proxy's cache may be bad once, not three times."""


class Boss(Protocol):
    """Whom a lane works for."""

    work: Work
    bucket: Bucket
    stopping: threading.Event
    patience_s: float
    stall_s: float

    def lane_count(self) -> int:
        """How many lanes there are."""

    def may_leave(self, lane: Lane) -> bool:
        """Whether there is one lane too many, and this one may go."""

    def on_busy(self) -> None:
        """The server asks for less."""

    def on_landed(self, file: FileInWork, size: int, *, local: bool) -> None:
        """A part has been written, or was found on the disk."""

    def on_end(self, lane: Lane, error: BaseException | None) -> None:
        """The lane ends; with an error, the pull fails."""


class Lane(threading.Thread):
    """One connection.  A daemon: nothing that it does has to be finished."""

    def __init__(self, boss: Boss) -> None:
        super().__init__(name="lane", daemon=True)
        self._boss = boss
        self._buffer = memoryview(b"")
        self._wire = Wire(boss.bucket.endpoint, boss.stall_s)
        self._shut_because: BaseException | None = None
        self._chunk_bytes = MIN_CHUNK_BYTES
        self.received = 0
        """Bytes that came over the network."""
        self.in_part = 0
        """How much of that is of a part that has not landed yet."""
        self.waits_since: float | None = None
        """Since when no byte has come of an answer that has begun; None while none is awaited."""

    def run(self) -> None:
        """Work until nothing is left to take."""
        error: BaseException | None = None
        try:
            while not self._boss.stopping.is_set() and not self._boss.may_leave(self):
                span = self._boss.work.take(self._boss.lane_count())
                if span is None:
                    break
                self._carry_out(span)
        except Interrupted:
            pass
        except BaseException as raised:  # noqa: BLE001  # handed to the thread that waits for us
            error = raised
        self._wire.close()
        self._buffer = memoryview(b"")  # now, and not when the cycle that a lane is in is found
        self._boss.on_end(self, error)

    def shut(self, because: BaseException) -> None:
        """Make a read that waits fail, from another thread."""
        self._shut_because = because
        self._wire.shut()

    # -- one range ------------------------------------------------------------------------------
    def _carry_out(self, span: Span) -> None:
        part_size = min(span.file.partial.part_size, span.file.remote.size)
        if len(self._buffer) < part_size:
            self._buffer = aligned_buffer(part_size)
        span.file.open()
        if span.local:
            self._look_on_disk(span)
            return
        waits = waits_s()
        while span.first < span.stop:
            try:
                self._fetch(span)
            except SyncError as error:
                if not self._is_worth_another(span, error):
                    raise
                self._boss.stopping.wait(next(waits))

    def _look_on_disk(self, span: Span) -> None:
        for part in range(span.first, span.stop):
            self._refuse_to_go_on()
            if span.file.partial.holds(part, self._buffer):
                self._boss.on_landed(span.file, span.file.partial.size_of(part), local=True)
            else:
                self._boss.work.give_back(span.file, part)

    def _fetch(self, span: Span) -> None:
        file, partial = span.file, span.file.partial
        offset = span.first * partial.part_size
        size = min(span.stop * partial.part_size, file.remote.size) - offset
        self._shut_because = None
        self._refuse_to_go_on()
        try:
            with self._wire.open_range(file.remote, offset, size, file.etag) as answer:
                file.pin(answer.etag)
                while span.first < span.stop:
                    part_bytes = partial.size_of(span.first)
                    digest = self._receive(answer, part_bytes)
                    self._refuse_damaged(span, digest)
                    self._refuse_to_go_on()
                    partial.write(span.first, self._buffer[:part_bytes], digest)
                    span.first += 1
                    span.gained_at, span.damaged = time.monotonic(), 0
                    self.in_part = 0
                    self._boss.on_landed(file, part_bytes, local=False)
        except BucketUnreachable as error:
            # What a quick line brought in one read, a slow one may not bring before it is
            # taken for stalled: begin anew with what even that one brings.
            self._chunk_bytes = MIN_CHUNK_BYTES
            self._refuse_to_go_on(error)
            if isinstance(error, BucketBusy):
                self._boss.on_busy()
            raise
        finally:
            self.waits_since, self.in_part = None, 0

    def _receive(self, answer: Range, size: int) -> bytes:
        """Receive one part into the buffer and give its digest."""
        digest, got, view = blake3(), 0, self._buffer
        while got < size:
            self.waits_since = since = time.monotonic()
            chunk = view[got : min(got + self._chunk_bytes, size)]
            count = answer.readinto(chunk)
            self._refuse_to_go_on()
            if not count:
                raise TransferCut(f"the answer ended after {got:,} of {size:,} bytes of a part")
            digest.update(chunk[:count])
            got += count
            self.received += count
            self.in_part = got
            self._suit_chunk(time.monotonic() - since)
        self.waits_since = None
        return digest.digest()

    def _suit_chunk(self, took_s: float) -> None:
        if took_s < QUICK_S:
            self._chunk_bytes = min(MAX_CHUNK_BYTES, self._chunk_bytes * 2)
        elif took_s > SLOW_S:
            self._chunk_bytes = max(MIN_CHUNK_BYTES, self._chunk_bytes // 2)

    def _refuse_damaged(self, span: Span, digest: bytes) -> None:
        expected = span.file.partial.expects(span.first)
        if expected is not None and digest.hex() != expected:
            span.damaged += 1
            raise ObjectDamaged(
                f"{span.file.remote.key}: part {span.first} is not what the manifest says: "
                "damaged on the way or in the bucket, or replaced after it was published"
            )

    def _refuse_to_go_on(self, cause: BaseException | None = None) -> None:
        """Raise why we were shut, if we were: bytes read after that are worth nothing."""
        if self._shut_because is not None:
            raise self._shut_because from cause
        if self._boss.stopping.is_set():
            raise Interrupted from cause

    def _is_worth_another(self, span: Span, error: SyncError) -> bool:
        if time.monotonic() - span.gained_at > self._boss.patience_s:
            return False
        if type(error) is ObjectDamaged:
            return span.damaged < MAX_DAMAGED
        return isinstance(error, BucketUnreachable) and not isinstance(error, AnswerStrange)
