"""Which object names may become files on the volume."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from models_sync.errors import UnsafeKey

OWN_PREFIX = ".models-sync"
"""What we write beside the weights (state, lock, partial files) starts so at the root."""


def refuse_unsafe(path: str) -> str:
    """Give `path` back when it is a plain relative path.

    Raises:
        UnsafeKey: it is empty, absolute, has `.` or `..`, backslashes or control characters,
            ends in a slash, or is a name of our own.
    """
    pure = PurePosixPath(path)
    if (
        not pure.parts
        or pure.is_absolute()
        or ".." in pure.parts
        or "\\" in path
        or any(ord(char) < 32 or ord(char) == 127 for char in path)
        or str(pure) != path
    ):
        raise UnsafeKey(f"{path!r} is not a plain relative path")
    if pure.parts[0].startswith(OWN_PREFIX):
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
    for folded, path in spelled.items():
        for parent in PurePosixPath(folded).parents:
            if str(parent) in spelled:
                raise UnsafeKey(f"{spelled[str(parent)]!r} is a file and a folder of {path!r}")
