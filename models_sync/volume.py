"""The volume: room for a file before its first byte, and errors of the disk with names."""

from __future__ import annotations

import contextlib
import ctypes
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

_LIBC = ctypes.CDLL(None, use_errno=True)
_UNSUPPORTED = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
_START_WRITING = 2
"""SYNC_FILE_RANGE_WRITE of linux/fs.h: begin to write dirty pages, wait for nothing."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def reserve(descriptor: int, size: int) -> bool:
    """Give the file its size and its blocks; False where the file system cannot promise blocks.

    Not `os.posix_fallocate`: where the file system lacks the call, glibc touches every block
    instead, which takes minutes for 30 GB on a network volume.

    Raises:
        OSError: ENOSPC, EDQUOT or EFBIG: there is no room.
    """
    if size == 0:
        return True
    try:
        fallocate = _LIBC.fallocate
    except AttributeError:  # not Linux
        os.ftruncate(descriptor, size)
        return False
    while fallocate(descriptor, 0, ctypes.c_int64(0), ctypes.c_int64(size)) != 0:
        code = ctypes.get_errno()
        if code == errno.EINTR:
            continue
        if code not in _UNSUPPORTED:
            raise OSError(code, os.strerror(code))
        os.ftruncate(descriptor, size)
        return False
    return True


def start_writing(descriptor: int, offset: int, size: int) -> None:
    """Let the disk begin with bytes that are in memory only, so that the flush is short."""
    with contextlib.suppress(AttributeError):  # not Linux: the flush takes longer
        _LIBC.sync_file_range(
            descriptor, ctypes.c_int64(offset), ctypes.c_int64(size), _START_WRITING
        )


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
    """Partial files and their maps below `root` that nobody has written for so long, and sizes."""
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
