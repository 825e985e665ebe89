"""Files that appear whole or not at all: a name of our own, flush, rename, flush the folder."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from models_sync.errors import VolumeOfAnotherUser, VolumeReadOnly, VolumeUnwritable
from models_sync.names import OWN_PREFIX


def partial_name(path: Path) -> Path:
    """A name beside `path` that no other writer has; `names.is_own_leftover` knows it."""
    return path.with_name(f"{OWN_PREFIX}-{os.urandom(16).hex()}.part")


def replace_file(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file so that its name never shows half of it, not even after a power cut.

    Raises:
        VolumeUnwritable, VolumeReadOnly, VolumeOfAnotherUser: the folder cannot be written or is
            full; what was there is still there.
    """
    partial = partial_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        flush_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # the reason is already on its way
            partial.unlink(missing_ok=True)


def flush_folder(folder: Path) -> None:
    """Make the names in `folder` survive a power cut; some network file systems cannot."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(descriptor)


def cannot_write(path: Path, error: OSError) -> VolumeUnwritable:
    """Say why `path` cannot be written: read-only, someone else's, or what the system said."""
    # os.path, not pathlib: in a folder that may not be entered, pathlib's questions raise.
    folder = path if os.path.isdir(path) else path.parent  # noqa: PTH112 - as said
    while not os.path.exists(folder):  # noqa: PTH110 - as said
        folder = folder.parent
    if error.errno == errno.EROFS:
        return VolumeReadOnly(f"{folder} is read-only")
    if error.errno not in {errno.EACCES, errno.EPERM}:
        return VolumeUnwritable(f"{path}: {error.strerror or error}")
    owner, us = folder.stat().st_uid, os.geteuid()
    if owner == us:
        return VolumeReadOnly(f"{folder} may not be written, though it is ours")
    return VolumeOfAnotherUser(
        f"{folder} belongs to user {owner}, and this is user {us}. "
        f"As root: chown -R {us}:{os.getegid()} {folder}"
    )
