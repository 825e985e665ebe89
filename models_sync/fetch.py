"""Fetch many files: lanes bring the parts, committers give whole files their names.

The thread that calls `run` watches: it starts and ends lanes, ends connections that bring
nothing, tells how far it is, and writes the state, last.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Sequence

from models_sync import nameless
from models_sync.atomic import flush_folder
from models_sync.bucket import Bucket
from models_sync.errors import (
    Interrupted,
    ObjectDamaged,
    PartialLost,
    PartialSpoilt,
    TransferStalled,
)
from models_sync.lanes import Lane
from models_sync.partial import Partial, sweep
from models_sync.plan import expected_md5
from models_sync.progress import Meter, OnProgress, Phase, Progress, eta_s
from models_sync.remote import RemoteObject
from models_sync.settings import SyncSettings
from models_sync.state import Identity, State
from models_sync.tuner import Tuner
from models_sync.volume import folders_of, named_errors, refuse_elsewhere, refuse_overfull
from models_sync.work import FileInWork, Work

TICK_S = 0.05
TELL_EVERY_S = 0.25
SETTLE_EVERY_S = 2.0
STOP_S = 0.5
"""How long lanes have to end when we are stopped; none of them holds anything that is lost."""
QUIET_S = 60.0
"""Without the lock, what others wrote to more lately is left alone: seven parts at 500 kB/s."""
COMMITTERS = 4
"""Flushes side by side: a journal commits them together."""
COMMITS_AHEAD = 64
"""Whole files that wait for their flush; each holds a file descriptor."""


class Fetch:
    """One run over the files of a plan."""

    def __init__(
        self,
        settings: SyncSettings,
        bucket: Bucket,
        state: State,
        files: Sequence[RemoteObject],
        *,
        writer: str,
        adopt: bool,
        on_progress: OnProgress,
        cancel: threading.Event,
    ) -> None:
        self.bucket = bucket
        self.patience_s, self.stall_s = settings.patience_s, settings.stall_s
        self.stopping = threading.Event()
        self.received_bytes = self.resumed_bytes = self.landed_bytes = 0
        self.fetched: list[str] = []
        """Paths that are whole and under their names."""
        self._root, self._state = settings.local_root, state
        self._adopt, self._cancel = adopt, cancel
        self._on_progress = on_progress
        options = {"direct": settings.direct_io, "nameless": nameless.are_possible(self._root)}
        self._files = [
            FileInWork(remote, Partial(self._root, remote, writer, **options)) for remote in files
        ]
        self._total_bytes = sum(remote.size for remote in files)
        self._lock = threading.Lock()
        self._lanes: set[Lane] = set()
        self._error: BaseException | None = None
        self._wake = threading.Event()
        self._commits: queue.Queue[FileInWork | None] = queue.Queue(COMMITS_AHEAD)
        self._committed: queue.SimpleQueue[tuple[FileInWork, Identity]] = queue.SimpleQueue()
        self._tuner, self._meter = Tuner(settings.connections), Meter()

    def run(self) -> None:
        """Bring all files.

        Raises:
            SyncError: the first one; what is whole is kept and recorded, the rest is resumable.
        """
        try:
            self._reserve()
        except BaseException:
            _close(self._files)
            raise
        self.work = Work([file for file in self._files if file.todo])
        committers = [
            threading.Thread(target=self._commit_all, name="commit", daemon=True)
            for _ in range(COMMITTERS)
        ]
        for committer in committers:
            committer.start()
        try:
            for file in self._files:
                if file.left == 0:  # empty, or whole already: nothing will land
                    self._commits.put(file)
            self._watch()
        finally:
            self._stop(committers)
            self._settle()
        if self._error is not None:  # of a file that was being named at the end
            raise self._error
        self._tell()
        if self._adopt:
            for folder in folders_of(self._root, self.fetched):
                sweep(folder, set(self.fetched))

    # -- before the first byte ------------------------------------------------------------------
    def _reserve(self) -> None:
        """Find what an earlier attempt left, and make room for the rest."""
        large = [file for file in self._files if file.partial.parts > 1]
        with named_errors(self._root):
            for folder in folders_of(self._root, (file.remote.path for file in self._files)):
                refuse_elsewhere(self._root, folder)
            # Without the lock, too: a volume that is full takes none, and what lies there is
            # then all the room that there is.
            quiet_s = 0.0 if self._adopt else QUIET_S
            room = sum(file.partial.adopt(quiet_s) for file in large)
            refuse_overfull(self._root, self._total_bytes - room)
        for file in self._files:
            if file.partial.parts > 1:
                file.partial.reserve()
            elif file.remote.size == 0:
                file.open()
            file.begin()

    # -- while it runs --------------------------------------------------------------------------
    def _watch(self) -> None:
        told = settled = time.monotonic()
        while self._error is None:
            now = time.monotonic()
            self._hire(now)
            if self._cancel.is_set():
                raise Interrupted
            if now - told >= TELL_EVERY_S:
                told = now
                self._end_stalled(now)
                self._tell()
            if now - settled >= SETTLE_EVERY_S:
                settled = now
                self._settle()
            with self._lock:
                idle = not self._lanes
            if idle and not self.work.part_size:
                break
            self._wake.wait(TICK_S)
            self._wake.clear()
        if self._error is not None:
            raise self._error

    def _hire(self, now: float) -> None:
        part_size = self.work.part_size
        target = self._tuner.look(self._received(), part_size, now)
        with self._lock:
            missing = target - len(self._lanes) if part_size else 0
            for lane in [Lane(self) for _ in range(missing)]:
                self._lanes.add(lane)
                lane.start()

    def _end_stalled(self, now: float) -> None:
        with self._lock:
            lanes = list(self._lanes)
        for lane in lanes:
            since = lane.waits_since
            if since is not None and now - since > self.stall_s:
                lane.shut(
                    TransferStalled(f"{self.bucket.where}: nothing came for {self.stall_s:g} s")
                )

    def _tell(self) -> None:
        with self._lock:
            coming = sum(lane.in_part for lane in self._lanes)
        done = self.landed_bytes + coming
        rate = self._meter.rate(self._received())
        self._on_progress(
            Progress(
                Phase.FETCHING,
                done_bytes=done,
                total_bytes=self._total_bytes,
                files=len(self.fetched),
                files_total=len(self._files),
                rate=rate,
                eta_s=eta_s(self._total_bytes - done, rate),
            )
        )

    def _received(self) -> int:
        with self._lock:
            return self.received_bytes + sum(lane.received for lane in self._lanes)

    # -- what lanes ask and tell ----------------------------------------------------------------
    def lane_count(self) -> int:
        """How many lanes there are."""
        return max(1, len(self._lanes))

    def may_leave(self, lane: Lane) -> bool:
        """Whether there is one lane too many, and this one may go."""
        with self._lock:
            if len(self._lanes) <= self._tuner.allowed:
                return False
            self._remove(lane)
            return True

    def on_busy(self) -> None:
        """The server asks for less."""
        self._tuner.on_busy(time.monotonic())

    def on_landed(self, file: FileInWork, size: int, *, local: bool) -> None:
        """Count a part; hand the file on when it was the last."""
        with self._lock:
            self.landed_bytes += size
            if local:
                self.resumed_bytes += size
                file.resumed = True
        if not self.work.landed(file):
            return
        if file.partial.parts > 1:
            self._commits.put(file)
        else:  # its flush is short, and handing it over would cost more
            self._try_to_commit(file)

    def on_end(self, lane: Lane, error: BaseException | None) -> None:
        """Note that a lane has ended, and why."""
        with self._lock:
            self._remove(lane)
            self._error = self._error or error
        self._wake.set()

    def _remove(self, lane: Lane) -> None:
        if lane in self._lanes:
            self._lanes.remove(lane)
            self.received_bytes += lane.received

    # -- whole files ----------------------------------------------------------------------------
    def _commit_all(self) -> None:
        while (file := self._commits.get()) is not None:
            if self.stopping.is_set() and self._cancel.is_set():
                continue  # asked to stop: its parts have landed, the next run names it
            self._try_to_commit(file)

    def _try_to_commit(self, file: FileInWork) -> None:
        # Nothing reaches the lane that brought the last part: it would fetch what is no longer due.
        try:
            self._commit(file)
        except BaseException as error:  # noqa: BLE001  # handed to the thread that waits
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._error = self._error or error
        self._wake.set()

    def _commit(self, file: FileInWork) -> None:
        md5 = None if file.remote.published else expected_md5(file.remote)
        if md5 and file.partial.digest("md5") != md5:
            file.partial.close()
            file.partial.discard()
            # Without a manifest a map vouches for the disk, not for what came over the network.
            kind = PartialSpoilt if file.resumed else ObjectDamaged
            raise kind(f"{file.remote.key}: the content does not match its ETag")
        file.partial.flush()
        identity = file.partial.publish()
        file.partial.close()
        self._committed.put((file, identity))

    def _settle(self) -> None:
        """Make the new names last, then write the state."""
        done = []
        while not self._committed.empty():
            done.append(self._committed.get())
        if not done:
            return
        kept = []
        with named_errors(self._root):
            for folder in folders_of(self._root, (file.remote.path for file, _ in done)):
                flush_folder(folder)
            for file, identity in done:
                if self._note(file, identity):
                    kept.append(file.remote.path)
                else:
                    final = file.partial.final
                    self._fail(PartialLost(f"{final}: another process has put its own there"))
        self._state.flush()
        self.fetched.extend(kept)

    def _note(self, file: FileInWork, identity: Identity) -> bool:
        """Record a file, unless another process has replaced or removed it since its rename."""
        published = file.remote.published
        with contextlib.suppress(FileNotFoundError):
            return self._state.note(
                file.remote.path,
                etag=file.etag,
                sha256=published.sha256 if published else None,
                verified=published is not None,
                identity=identity,
            )
        return False

    # -- the end --------------------------------------------------------------------------------
    def _stop(self, committers: Sequence[threading.Thread]) -> None:
        self.stopping.set()
        with self._lock:
            lanes = list(self._lanes)
        for lane in lanes:
            lane.shut(Interrupted())
        deadline = time.monotonic() + STOP_S
        for lane in lanes:
            lane.join(max(0.0, deadline - time.monotonic()))
        if self._cancel.is_set():
            with contextlib.suppress(queue.Empty):
                while True:
                    self._commits.get_nowait()
        for _ in committers:
            self._commits.put(None)
        for committer in committers:
            # A flush cannot be hurried; asked to stop, we do not wait for it.
            committer.join(max(0.0, deadline - time.monotonic()) if self._cancel.is_set() else None)
        threads = [*lanes, *committers]
        if any(thread.is_alive() for thread in threads):
            # One that waits for the network or the disk may still write: its end is not ours to
            # wait for, and a worker that tries again for days must not run out of descriptors.
            threading.Thread(
                target=_close_after, args=(threads, self._files), name="close", daemon=True
            ).start()
            return
        _close(self._files)
        for file in self._files:
            if file.left and file.partial.parts <= 1 and file.is_open:  # no use to go on
                file.partial.discard()


def _close_after(threads: Sequence[threading.Thread], files: Sequence[FileInWork]) -> None:
    for thread in threads:
        thread.join()
    _close(files)


def _close(files: Sequence[FileInWork]) -> None:
    for file in files:
        file.partial.close()
