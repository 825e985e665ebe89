"""Files that have no name until they are whole: O_TMPFILE, and a link when they are done.

A file of one part has nothing that a later pull could go on with.  Made so it leaves nothing
behind when we are killed, and its folder takes one name instead of two and a removal: 9 to 12 % of
the processor that 2,000 files of 64 KiB take to be written, flushed and named
(docs/decisions/0024).  Network volumes seldom have such files; there they are named from the start.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from models_sync.atomic import partial_name
from models_sync.state import Identity

_REFUSED = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL}
"""What systems say that have no such files; the second those that know nothing of the flag."""


def are_possible(root: Path) -> bool:
    """Whether files below `root` can be made and named so: tried, since few systems tell."""
    probe = partial_name(root / "probe")
    try:
        descriptor = create(str(root))
    except OSError:
        return False
    if descriptor < 0:
        return False
    try:
        give_name(descriptor, str(probe))
        # Some file systems in user space give what has a name another inode: then nobody could
        # tell our file from one that another process puts in its place (`State.note`).
        return Identity.of(descriptor) == Identity.of(probe)
    except OSError:  # without /proc, or links
        return False
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)


def create(folder: str) -> int:
    """A file in `folder`, to be written and read; -1 where there are none without a name.

    Raises:
        OSError: the folder is missing or takes no file.
    """
    try:
        return os.open(folder, os.O_RDWR | os.O_TMPFILE, 0o644)
    except AttributeError:  # not Linux
        return -1
    except OSError as error:
        if error.errno in _REFUSED:
            return -1
        raise


def give_name(descriptor: int, path: str) -> None:
    """Give the file the name `path`, at once.

    Raises:
        FileExistsError: something has that name.
        OSError: the folder takes no name.
    """
    # With a descriptor, Python asks for linkat(2) and lets it follow /proc's link to the file.
    os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor)
