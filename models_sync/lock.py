"""One puller at a time on a volume: a file with a heartbeat.

It saves bandwidth and nothing else.  Locks lie on network file systems (`flock` succeeds for
everyone on some), so no file's correctness rests on this one: two holders fetch twice, and both
end with the right files (see `partial`).  The lock is a small file that its holder rewrites with
a counter and its progress; whoever waits shows that progress, and takes the lock over once the
counter has stood still or the holder is known to be dead.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from models_sync.atomic import replace_file
from models_sync.errors import Interrupted, VolumeUnwritable
from models_sync.progress import OnProgress, Phase, Progress

LOCK_FILE = ".models-sync.lock"
BEAT_S = 2.0
STALE_S = 15.0
"""A holder that has not been heard for so long is gone: seven beats, more than a slow flush."""
POLL_S = 0.25
SETTLE_S = 0.1
"""Two that take a dead holder's lock at once look again after this: the last one has it."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds the lock, how far it is, and that it lives."""

    token: str
    host: str
    pid: int
    place: str
    """Boot and process namespace: where the process id means something."""
    started: str
    """When the process started, in ticks of the kernel: a process id comes again."""
    beat: int = 0
    done_bytes: int = 0
    total_bytes: int = 0
    files: int = 0
    files_total: int = 0
    rate: float = 0.0
    eta_s: float | None = None

    @classmethod
    def me(cls) -> Self:
        """This process, as a holder that nobody else is."""
        pid = os.getpid()
        return cls(os.urandom(16).hex(), socket.gethostname(), pid, _place(), _started(pid))

    @property
    def is_dead(self) -> bool:
        """Whether it is known to have ended; False when that cannot be known from here."""
        return bool(self.place) and self.place == _place() and _started(self.pid) != self.started


class VolumeLock:
    """`with VolumeLock(root, …) as lock:` waits for its turn; `lock.held` is a hint.

    When the lock file cannot be written, the work goes on without: `held` is False.

    Raises:
        Interrupted: `cancel` was set while waiting.
    """

    def __init__(self, root: Path, on_progress: OnProgress, cancel: threading.Event) -> None:
        self._path = root / LOCK_FILE
        self._on_progress, self._cancel = on_progress, cancel
        self._me = Holder.me()
        self._shown = Progress(Phase.PLANNING)
        self._released = threading.Event()
        self.held = False
        self.waited = False

    def show(self, progress: Progress) -> None:
        """What those who wait are told with the next beat."""
        self._shown = progress

    def __enter__(self) -> Self:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._wait_for_turn()
        except (OSError, VolumeUnwritable):
            return self  # without a lock; what cannot be written will say so by its own name
        self.held = True
        self._beater = threading.Thread(target=self._beat, name="lock", daemon=True)
        self._beater.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._released.set()
        if self.held:
            self._beater.join(POLL_S)
            self._remove()

    # -- waiting --------------------------------------------------------------------------------
    def _wait_for_turn(self) -> None:
        seen: Holder | None = None
        since = time.monotonic()
        while not self._create():
            holder = _read(self._path)
            if holder != seen:
                seen, since = holder, time.monotonic()
            if self._is_gone(holder, since):
                self._write(self._me)
                time.sleep(SETTLE_S)
                if self._is_mine():
                    return
                continue
            self.waited = True
            if holder:
                self._on_progress(_waiting(holder))
            if self._cancel.wait(POLL_S):
                raise Interrupted

    def _create(self) -> bool:
        """Create the lock file with us in it, if there is none: a link is made or it is not."""
        mine = self._path.with_name(f"{LOCK_FILE}.{self._me.token}")
        try:
            mine.write_text(json.dumps(asdict(self._me)))
            os.link(mine, self._path)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            try:
                descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                return False
            try:
                with os.fdopen(descriptor, "w") as file:
                    json.dump(asdict(self._me), file)
            except OSError:  # full: an empty lock would keep others waiting for nobody
                self._path.unlink(missing_ok=True)
                raise
        finally:
            mine.unlink(missing_ok=True)
        return True

    def _is_gone(self, holder: Holder | None, since: float) -> bool:
        if holder and holder.is_dead:
            return True
        with contextlib.suppress(OSError):
            # The volume's own clock, where it tells: a lock left by a pod of yesterday.
            if time.time() - self._path.stat().st_mtime > 4 * STALE_S:
                return True
        return time.monotonic() - since > STALE_S

    # -- holding --------------------------------------------------------------------------------
    def _beat(self) -> None:
        beat = 0
        while not self._released.wait(BEAT_S):
            beat += 1
            shown = self._shown
            with contextlib.suppress(OSError, VolumeUnwritable):  # the next beat may succeed
                if not self._is_mine():
                    return  # taken from us: we were taken for dead, and need no lock to be right
                self._write(
                    replace(
                        self._me,
                        beat=beat,
                        done_bytes=shown.done_bytes,
                        total_bytes=shown.total_bytes,
                        files=shown.files,
                        files_total=shown.files_total,
                        rate=shown.rate,
                        eta_s=shown.eta_s,
                    )
                )
        # A beat that a busy disk held up may have come after the end, and put the file back.
        self._remove()

    def _remove(self) -> None:
        with contextlib.suppress(OSError):
            if self._is_mine():
                self._path.unlink(missing_ok=True)

    def _is_mine(self) -> bool:
        holder = _read(self._path)
        return holder is not None and holder.token == self._me.token

    def _write(self, holder: Holder) -> None:
        text = json.dumps(asdict(holder)).encode()
        replace_file(self._path, lambda file: file.write(text))


def _read(path: Path) -> Holder | None:
    """The holder in a lock file; None when there is none or it is half written."""
    try:
        holder = Holder(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    # Anyone may have written it, and what it says is shown.
    for field in fields(Holder):
        value = getattr(holder, field.name)
        wanted: tuple[type, ...] = (str,) if field.type == "str" else (int, float)
        if not isinstance(value, wanted) and not (value is None and field.name == "eta_s"):
            return None
    return holder


def _waiting(holder: Holder) -> Progress:
    return Progress(
        Phase.WAITING,
        done_bytes=holder.done_bytes,
        total_bytes=holder.total_bytes,
        files=holder.files,
        files_total=holder.files_total,
        rate=holder.rate,
        eta_s=holder.eta_s,
        waiting_for=f"{holder.host} (process {holder.pid})",
    )


def _place() -> str:
    """Where process ids mean what they mean here; empty when that cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process started, empty when there is none; field 22 of /proc/PID/stat (proc(5))."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
