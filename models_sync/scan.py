"""Which files of a folder are weights to publish."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from models_sync.catalog import CATALOG, source_of
from models_sync.convert import PICKLE_SUFFIXES, refuse_unsafe_pickle
from models_sync.errors import SourceUnusable
from models_sync.names import refuse_collisions, refuse_unsafe


def scan(folder: Path, sources: Collection[str]) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Find the files of `sources` below `folder`, laid out as they lie in the bucket.

    Returns:
        Key → path of what can be published, and the names of what is no part of a source.
        Hidden files (and ours) are neither.

    Raises:
        SourceUnusable: there is no file of any source, or the folder cannot be read.
        UnsafeKey: a name could not be a file on every volume.
        PickleRefused: a pickle asks for more than arrays.
    """
    files: dict[str, Path] = {}
    ignored: list[str] = []
    try:
        for path in _walk(folder):
            name = path.relative_to(folder).as_posix()
            if source_of(name) in sources:
                files[refuse_unsafe(name)] = path
            else:
                ignored.append(name)
        if not files:
            wanted = ", ".join(CATALOG[name].prefix for name in sources)
            raise SourceUnusable(f"{folder} holds no file below {wanted}")
        refuse_collisions(files)
        for path in files.values():
            if path.suffix.lower() in PICKLE_SUFFIXES:
                refuse_unsafe_pickle(path)
    except OSError as error:
        raise SourceUnusable(f"{error.filename}: {error.strerror}") from error
    return files, tuple(ignored)


def _walk(folder: Path) -> Iterator[Path]:
    """Every file that is not hidden, in order; links to folders are followed, once each."""
    seen: set[Path] = set()

    def stop(error: OSError) -> None:
        raise error

    for here, folders, names in os.walk(folder, onerror=stop, followlinks=True):
        real = Path(here).resolve()
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(here, name)
