"""Which object names may become files on the volume, and which names are our own."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from models_sync.errors import UnsafeKey

OWN_PREFIX = ".models-sync"
"""What we write beside the weights (state, lock, partial files) starts so, and nobody's weights."""
_LEFTOVER = re.compile(r"\.models-sync(-[0-9a-f]{32}\.(part|map)|\.lock\.[0-9a-f]{32})")
_PART_BYTES = 255
"""NAME_MAX of Linux' file systems; our own names beside a file are shorter."""
_UNPRINTABLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's control and format characters and separators of lines: a name that holds one is read
as another, or moves what a log says after it."""
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\]|^/|/$|//|(^|/)\.\.?(/|$)|^$")


def refuse_unsafe(path: str) -> str:
    """Give `path` back when it is a plain relative path.

    Raises:
        UnsafeKey: it is empty, absolute, has `.` or `..`, backslashes, control or format
            characters, ends in a slash, is too long for a file system, or is a name of our own.
    """
    # What is printable has none of them, and is nearly every path.
    if not path.isprintable() and any(unicodedata.category(char) in _UNPRINTABLE for char in path):
        raise UnsafeKey(f"{path!r} has characters that cannot be seen")
    long = len(path.encode()) > _PART_BYTES
    if long and any(len(part.encode()) > _PART_BYTES for part in path.split("/")):
        raise UnsafeKey(f"{path!r} has a part of more than {_PART_BYTES} bytes")
    if _UNSAFE.search(path):
        raise UnsafeKey(f"{path!r} is not a plain relative path")
    if path.startswith(OWN_PREFIX) or f"/{OWN_PREFIX}" in path:
        raise UnsafeKey(f"{path!r} is a name that models-sync keeps for itself")
    return path


def refuse_collisions(paths: Iterable[str]) -> None:
    """Pass when all paths can lie side by side on any file system.

    Raises:
        UnsafeKey: two paths differ only in case, or one is a folder of another.
    """
    spelled: dict[str, str] = {}
    for path in paths:
        other = spelled.setdefault(path.casefold(), path)
        if other != path:
            raise UnsafeKey(f"{other!r} and {path!r} differ only in case")
    folders: dict[str, str] = {}
    for folded, path in spelled.items():
        parts, spelled_parts = folded.split("/")[:-1], path.split("/")
        for depth in range(1, len(parts) + 1):
            folder = "/".join(parts[:depth])
            if folder in spelled:
                raise UnsafeKey(f"{spelled[folder]!r} is a file and a folder of {path!r}")
            here = "/".join(spelled_parts[:depth])
            other = folders.setdefault(folder, here)
            if other != here:
                raise UnsafeKey(f"the folders {other!r} and {here!r} differ only in case")


def is_own_leftover(name: str) -> bool:
    """Whether a file's name is that of a partial file of ours, of its map, or of a lock to be."""
    return name.startswith(OWN_PREFIX) and _LEFTOVER.fullmatch(name) is not None
