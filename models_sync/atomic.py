"""Files that appear whole or not at all: a name of our own, flush, rename, flush the folder."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from models_sync.errors import VolumeUnwritable

PARTIAL_PREFIX = ".models-sync-"
PARTIAL_SUFFIX = ".part"


def partial_name(path: Path) -> Path:
    """A name beside `path` that no other writer has."""
    return path.with_name(f"{PARTIAL_PREFIX}{uuid.uuid4().hex}{PARTIAL_SUFFIX}")


def is_partial(name: str) -> bool:
    """Whether a file's name is one that `partial_name` gave."""
    middle = name.removeprefix(PARTIAL_PREFIX).removesuffix(PARTIAL_SUFFIX)
    return (
        len(name) == len(PARTIAL_PREFIX) + 32 + len(PARTIAL_SUFFIX)
        and name == f"{PARTIAL_PREFIX}{middle}{PARTIAL_SUFFIX}"
        and all(char in "0123456789abcdef" for char in middle)
    )


def replace_file(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file so that its name never shows half of it, not even after a power cut.

    Raises:
        VolumeUnwritable: the folder cannot be written or is full; what was there is still there.
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
        raise VolumeUnwritable(f"{path}: {error.strerror or error}") from error
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
