"""The volume: whether there is room, where its folders lead, and errors of the disk with names."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from models_sync.atomic import cannot_write
from models_sync.errors import FolderElsewhere, VolumeFull, VolumeUnwritable
from models_sync.names import is_own_leftover

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def free_bytes(folder: Path) -> int:
    """How much we may still write below `folder`, or below its nearest parent that exists.

    A file system that tells no size (some in user space) is taken to have room.
    """
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize if found.f_blocks else sys.maxsize


def refuse_overfull(root: Path, needed: int) -> None:
    """Pass when `needed` more bytes fit.

    Raises:
        VolumeFull: they do not.
    """
    free = free_bytes(root)
    if needed > free:
        raise VolumeFull(
            f"{root} has {free:,} bytes free; the files that are missing need {needed:,}"
        )


def folders_of(root: Path, paths: Iterable[str]) -> set[Path]:
    """The folders of files, whose paths are below `root`."""
    return {root / folder for folder in {path.rpartition("/")[0] for path in paths}}


def refuse_elsewhere(root: Path, folder: Path) -> None:
    """Pass when what is written to `folder` lands below `root`.

    Raises:
        FolderElsewhere: a link leads out of the volume.
    """
    leads_to = folder.resolve()
    if not leads_to.is_relative_to(root.resolve()):
        raise FolderElsewhere(f"{folder} leads to {leads_to}, which is not below {root}")


class named_errors:  # noqa: N801 - read as a verb: `with named_errors(path):`
    """Turn what the operating system says about `path` into errors with names.

    Not by `contextlib`: it is entered five times a file, and a generator each costs more.
    """

    __slots__ = ("_path",)

    def __init__(self, path: Path | str) -> None:
        self._path = path

    def __enter__(self) -> None:
        """Nothing is to be prepared."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, OSError):
            raise _name(Path(self._path), error) from error


def _name(path: Path, error: OSError) -> VolumeUnwritable:
    if error.errno in _FULL:
        return VolumeFull(f"{path}: {error.strerror}")
    return cannot_write(path, error)


def stale_partials(root: Path, older_than_s: float) -> list[tuple[Path, int]]:
    """What killed processes left below `root` that nobody has written for so long, and sizes."""
    found = []
    deadline = time.time() - older_than_s
    for folder, _, names in os.walk(root):
        for name in filter(is_own_leftover, names):
            path = Path(folder, name)
            with contextlib.suppress(OSError):  # gone meanwhile
                status = path.stat()
                if status.st_mtime <= deadline:
                    found.append((path, status.st_blocks * 512))
    return found
