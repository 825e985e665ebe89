"""Bring what is missing to the volume: plan, wait for our turn, check, fetch, and plan again.

    report = pull(SyncSettings.load(), on_progress=print, cancel=event)

What is there is never touched before what replaces it is whole, verified and on the disk.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from models_sync.again import wait_s
from models_sync.bucket import Bucket
from models_sync.errors import (
    Interrupted,
    ObjectDamaged,
    ObjectMissing,
    ObjectReplaced,
    PartialLost,
    PartialSpoilt,
    VolumeUnwritable,
)
from models_sync.fetch import TELL_EVERY_S, Fetch
from models_sync.lock import VolumeLock
from models_sync.partial import sweep_own
from models_sync.plan import Plan, Trust, Wanted, is_complete, make_plan, read_wanted
from models_sync.progress import OnProgress, Phase, Progress
from models_sync.remote import RemoteObject
from models_sync.settings import SyncSettings
from models_sync.state import Identity, State, keep_manifest
from models_sync.volume import folders_of

ROUNDS = 6
"""How often we plan anew because the bucket or another process changed things meanwhile."""
SETTLE_S = 0.5
"""Before planning anew: whoever publishes is at it."""


@dataclass(slots=True)
class PullReport:
    """What a pull did."""

    root: Path
    trust: Trust = Trust.UNVERIFIED
    fetched: list[str] = field(default_factory=list)
    """Paths that came over the network."""
    adopted: list[str] = field(default_factory=list)
    """Paths that lay there already and were found right by hashing them."""
    present: list[str] = field(default_factory=list)
    """Paths that were known to be right."""
    fetched_bytes: int = 0
    """The size of what was fetched."""
    received_bytes: int = 0
    """What came over the network for it, repeated ranges included."""
    resumed_bytes: int = 0
    """What an earlier attempt had left, and was verified and kept."""
    seconds: float = 0.0

    def as_dict(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "root": str(self.root),
            "verified": str(self.trust),
            "fetched": self.fetched,
            "adopted": self.adopted,
            "present": self.present,
            "fetchedBytes": self.fetched_bytes,
            "receivedBytes": self.received_bytes,
            "resumedBytes": self.resumed_bytes,
            "seconds": round(self.seconds, 3),
        }


def prepare(settings: SyncSettings) -> Plan:
    """What a pull would do now; nothing is written.

    Raises:
        SyncError: the bucket, the manifest or a name in it is not as it should be.
    """
    wanted = read_wanted(Bucket(settings), settings)
    return make_plan(wanted, settings.local_root, State(settings.local_root))


def pull(
    settings: SyncSettings,
    on_progress: OnProgress | None = None,
    cancel: threading.Event | None = None,
) -> PullReport:
    """Bring every file that is wanted to the volume, verified.  Blocks; call it in a thread.

    Args:
        settings: Which files, from where, to where.
        on_progress: Called a few times a second, from this thread.
        cancel: When set, the pull ends within two seconds and can be gone on with.

    Raises:
        Interrupted: `cancel` was set.
        SyncError: by its name; files that are whole are kept, and old ones are still there.
    """
    return _Pull(settings, on_progress or _tell_nobody, cancel or threading.Event()).run()


class _Pull:
    def __init__(
        self, settings: SyncSettings, on_progress: OnProgress, cancel: threading.Event
    ) -> None:
        self._settings, self._root = settings, settings.local_root
        self._on_progress, self._cancel = on_progress, cancel
        self._bucket = Bucket(settings)
        self._report = PullReport(self._root)
        self._writer = os.urandom(4).hex()

    def run(self) -> PullReport:
        started = time.monotonic()
        self._on_progress(Progress(Phase.PLANNING))
        wanted = read_wanted(self._bucket, self._settings)
        self._report.present = [remote.path for remote in wanted.files]
        if not is_complete(wanted, self._root, State(self._root)):
            with VolumeLock(self._root, self._on_progress, self._cancel) as lock:
                if lock.waited:
                    wanted = read_wanted(self._bucket, self._settings)
                # Only now: another may have brought some before it was our turn.
                plan = make_plan(wanted, self._root, State(self._root))
                wanted = self._until_done(wanted, plan, lock)
        with contextlib.suppress(VolumeUnwritable):  # a read-only root that has everything
            if wanted.manifest is not None:
                keep_manifest(self._root, wanted.manifest, wanted.signature)
        report = self._report
        done = {*report.fetched, *report.adopted}  # in an earlier round than the last, too
        report.present = [path for path in report.present if path not in done]
        report.trust = wanted.trust
        report.seconds = time.monotonic() - started
        files, size = len(wanted.files), sum(remote.size for remote in wanted.files)
        self._on_progress(Progress(Phase.DONE, size, size, files, files))
        return report

    def _until_done(self, wanted: Wanted, plan: Plan, lock: VolumeLock) -> Wanted:
        """Carry out a plan; a new one when bucket or volume were changed by others meanwhile."""
        for rounds_left in reversed(range(ROUNDS)):
            self._report.present = [remote.path for remote in plan.present]
            try:
                if not plan.is_done:
                    self._carry_out(plan, State(self._root), lock)
                break
            except (PartialLost, PartialSpoilt) as error:
                if not rounds_left:
                    raise
                # Two that take each other's partials must not go on doing so in step.
                if self._cancel.wait(wait_s(0.1, 1.0)):
                    raise Interrupted from error
            except (ObjectDamaged, ObjectMissing) as error:
                again = read_wanted(self._bucket, self._settings)
                # Published anew while we read; or in the middle of being replaced, as it seems.
                seems_new = again != wanted or isinstance(error, ObjectReplaced)
                if not seems_new or not rounds_left:
                    raise
                if self._cancel.wait(SETTLE_S):
                    raise Interrupted from error
                wanted = again
            plan = make_plan(wanted, self._root, State(self._root))
        for folder in folders_of(self._root, (remote.path for remote in wanted.files)):
            sweep_own(folder, self._writer)
        return wanted

    def _carry_out(self, plan: Plan, state: State, lock: VolumeLock) -> None:
        def tell(progress: Progress) -> None:
            lock.show(progress)
            self._on_progress(progress)

        files = [item.remote for item in plan.fetch]
        files += self._check([item.remote for item in plan.check], state, tell)
        fetch = Fetch(
            self._settings,
            self._bucket,
            state,
            files,
            writer=self._writer,
            adopt=lock.held,
            on_progress=tell,
            cancel=self._cancel,
        )
        sizes = {remote.path: remote.size for remote in files}
        try:
            fetch.run()
        finally:
            self._report.fetched += fetch.fetched
            self._report.fetched_bytes += sum(sizes[path] for path in fetch.fetched)
            self._report.received_bytes += fetch.received_bytes
            self._report.resumed_bytes += fetch.resumed_bytes

    def _check(
        self, remotes: list[RemoteObject], state: State, tell: OnProgress
    ) -> Iterable[RemoteObject]:
        """Hash files that lie there already; give those that are something else."""
        if not remotes:
            return []
        from models_sync.check import hash_files  # noqa: PLC0415 - with its threads 5 ms

        wrong: list[RemoteObject] = []
        total, hashed, files = sum(remote.size for remote in remotes), 0, 0

        def on_bytes(count: int) -> None:
            nonlocal hashed
            hashed += count  # a lost update shows a moment's wrong percentage, nothing else
            if self._cancel.is_set():
                raise Interrupted

        with contextlib.closing(hash_files(remotes, self._root, on_bytes, TELL_EVERY_S)) as found:
            try:
                for verdicts in found:
                    for remote, identity in verdicts:
                        if identity is None or not self._adopt(remote, identity, state):
                            wrong.append(remote)
                    files += len(verdicts)
                    tell(Progress(Phase.CHECKING, hashed, total, files, len(remotes)))
            finally:
                with contextlib.suppress(VolumeUnwritable):
                    # Read-only, and everything is there: then the next pull hashes it again.
                    # A volume that has to take a file says so when it is fetched.
                    state.flush()
        return wrong

    def _adopt(self, remote: RemoteObject, identity: Identity, state: State) -> bool:
        """Record a file that was found right; False when another lies there by now."""
        published = remote.published
        with contextlib.suppress(FileNotFoundError):
            if state.note(
                remote.path,
                etag=remote.etag,
                sha256=published.sha256 if published else None,
                verified=published is not None,
                identity=identity,
            ):
                self._report.adopted.append(remote.path)
                return True
        return False


def _tell_nobody(_: Progress) -> None:
    """Nobody asked."""
