"""What Linux does with a file's blocks and Python's `os` has no word for.

Imported for files of several parts: `ctypes` takes 2 ms, and small files need nothing of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os

_LIBC = ctypes.CDLL(None, use_errno=True)
_UNSUPPORTED = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
_START_WRITING = 2
"""SYNC_FILE_RANGE_WRITE of linux/fs.h: begin to write dirty pages, wait for nothing."""


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
