"""A folder for all temporary files of this process, and the end of those that dead ones left.

A worker that is killed leaves photos behind, and a container that is started again has the same
disk.  Each process holds a lock on its folder; the kernel gives it up when the process ends,
however it ends, so whoever comes next knows which folders are nobody's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from worker.observability.logs import get_logger

log = get_logger("worker.scratch")

PREFIX: Final = "avatar-scratch-"
LOCK: Final = ".lock"


@contextmanager
def scratch(base: Path | None = None) -> Iterator[Path]:
    """Have every temporary file of this process in one folder while the block lasts.

    Args:
        base: where; TMPDIR or the system's folder when not given.
    """
    base = base or Path(tempfile.gettempdir())
    _remove_left_behind(base)
    made = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=base))
    before = tempfile.tempdir
    lock = os.open(made / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    # Only now under the name that others look for: never without its lock.
    folder = made.rename(made.with_name(made.name.removeprefix(".")))
    try:
        tempfile.tempdir = str(folder)
        yield folder
    finally:
        tempfile.tempdir = before
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _remove_left_behind(base: Path) -> None:
    for unborn in base.glob(f".{PREFIX}*"):  # killed before it had its name; holds nothing yet
        with contextlib.suppress(OSError):
            if time.time() - unborn.stat().st_mtime > 3600:
                shutil.rmtree(unborn, ignore_errors=True)
    for folder in base.glob(f"{PREFIX}*"):
        try:
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            # It got its name with the lock in it: somebody was killed while removing it.
            shutil.rmtree(folder, ignore_errors=True)
            continue
        except OSError:  # another user's, or somebody's else
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
            log.info("scratch.removed", folder=folder.name)
        except OSError:  # its process lives
            continue
        finally:
            os.close(lock)
