"""Writing past the page cache: what arrives goes from our memory to the disk, copied by nobody.

The copy into the page cache was more than half of all that a pull of large files cost in processor
time, and lanes that write to one file wait for each other there (docs/decisions/0016).  Not every
file system takes such writes, and none takes ends that are no whole block: what is not written
here, the caller writes the usual way.
"""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path

BLOCK_BYTES = mmap.PAGESIZE
"""Address, offset and length have to be multiples of the disk's block, which is no larger."""
_REFUSED = {errno.EINVAL, errno.EOPNOTSUPP}


def aligned_buffer(size: int) -> memoryview:
    """Memory of `size` bytes (at least one) that begins where a block may begin."""
    return memoryview(mmap.mmap(-1, size))


def open_direct(path: Path | str) -> int:
    """Open an existing file for `write_direct`; -1 where the file system has no such thing."""
    try:
        return os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_DIRECT)
    except AttributeError:  # not Linux
        return -1
    except OSError as error:
        if error.errno in _REFUSED:
            return -1
        raise


def write_direct(descriptor: int, data: memoryview, offset: int) -> int:
    """Write what it takes of the whole blocks of `data`, from an aligned buffer.

    Returns:
        How many bytes were written; 0 where such writes are refused.

    Raises:
        OSError: the disk is full, or fails.
    """
    whole = len(data) // BLOCK_BYTES * BLOCK_BYTES
    if descriptor < 0 or not whole:
        return 0
    try:
        return os.pwrite(descriptor, data[:whole], offset)
    except OSError as error:
        if error.errno in _REFUSED:
            return 0
        raise
