"""What lies on the volume, as far as we know: `.models-sync.json` below the root.

Only a hint that saves work.  A file whose entry is missing, stale or not believed is hashed
again where a manifest says what it should be, and fetched again otherwise.  Beside it lies the
last manifest that was trusted, so that files can be verified while the bucket is away.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from threading import Lock
from typing import Any, Self

from models_sync.atomic import replace_file
from models_sync.errors import VolumeUnwritable

STATE_FILE = ".models-sync.json"
MANIFEST_FILE = ".models-sync-manifest.json"
SIGNATURE_FILE = ".models-sync-manifest.json.sig"
FORMAT = 2


@dataclass(frozen=True, slots=True)
class Identity:
    """Which file it is that was hashed or written, so that no other is recorded in its place."""

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, file: Path | str | int) -> Self:
        """Of what lies at a path, behind a link too, or of an open file.

        Raises:
            OSError: there is none.
        """
        found = os.stat(file)  # noqa: PTH116 - a Path knows no open file
        return cls(found.st_size, found.st_mtime_ns, found.st_ino)


@dataclass(frozen=True, slots=True)
class Entry:
    """One file as it was when it was last known to be right."""

    size: int
    mtime_ns: int
    """Of a whole second: file systems and their caches agree on nothing finer."""
    etag: str | None
    sha256: str | None
    """As the manifest has it; None when there was no manifest."""
    verified: bool
    """Whether every byte was held against the manifest's digests."""

    def lies_at(self, path: Path | str) -> bool:
        """Whether the file at `path` has not been touched since."""
        try:
            found = Identity.of(path)
        except OSError:
            return False
        return (found.size, found.mtime_ns) == (self.size, self.mtime_ns)


_NAMES = tuple(field.name for field in fields(Entry))


class State:
    """Which version of each file lies on the volume.  Safe to share between threads."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._path = root / STATE_FILE
        self._lock = Lock()
        self._entries = _read(self._path)
        self._changed: dict[str, Entry | None] = {}

    def entries(self) -> Mapping[str, Entry]:
        """Everything that is known, by path below the root."""
        with self._lock:
            return dict(self._entries)

    def entry(self, path: str) -> Entry | None:
        """What is known about `path`."""
        return self._entries.get(path)

    def note(
        self,
        path: str,
        *,
        etag: str | None,
        sha256: str | None,
        verified: bool,
        identity: Identity | None = None,
    ) -> bool:
        """Remember the file that lies at `path`; `flush` writes it down.

        Its time is set to a whole second, which every file system gives back as it was set.

        Args:
            path: below the root.
            etag: of the object that it came from.
            sha256: as the manifest has it.
            verified: whether every byte was held against the manifest.
            identity: the file that this is known of.  Without, whichever lies there now: only
                for who is alone on the volume.

        Returns:
            False: another file lies there by now, and nothing was remembered.

        Raises:
            OSError: no file is there.
        """
        final = f"{self._root}/{path}"
        found = Identity.of(final)
        known = identity or found
        if found != known:
            return False
        second_ns = known.mtime_ns // 1_000_000_000 * 1_000_000_000
        if known.mtime_ns != second_ns:
            with contextlib.suppress(OSError):  # read-only, or another user's: then its own time
                os.utime(final, ns=(second_ns, second_ns))
            found = Identity.of(final)
            if found not in {known, replace(known, mtime_ns=second_ns)}:
                return False
        with self._lock:
            entry = Entry(found.size, found.mtime_ns, etag, sha256, verified)
            self._entries[path] = self._changed[path] = entry
        return True

    def forget(self, paths: Iterable[str]) -> None:
        """Forget files that were removed; `flush` writes it down."""
        with self._lock:
            for path in paths:
                self._entries.pop(path, None)
                self._changed[path] = None

    def flush(self) -> None:
        """Write down what changed, over whatever another process wrote meanwhile.

        Raises:
            VolumeUnwritable: the root cannot be written.
        """
        with self._lock:
            if not self._changed:
                return
            merged = _read(self._path)
            for path, entry in self._changed.items():
                if entry is None:
                    merged.pop(path, None)
                else:
                    merged[path] = entry
            files = {path: _as_dict(entry) for path, entry in sorted(merged.items())}
            # Without indent: with it, json takes its slow way, and this runs every few seconds.
            data = json.dumps({"format": FORMAT, "files": files}).encode()
            replace_file(self._path, lambda file: file.write(data))
            self._entries = merged
            self._changed.clear()


def _as_dict(entry: Entry) -> dict[str, object]:
    return {name: getattr(entry, name) for name in _NAMES}


def _read(path: Path) -> dict[str, Entry]:
    try:
        document: Any = json.loads(path.read_bytes())
        if document["format"] != FORMAT:
            return {}
        return {name: Entry(**entry) for name, entry in document["files"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}  # missing, broken or of another version: it costs work, nothing else


def keep_manifest(root: Path, manifest: bytes, signature: bytes | None) -> None:
    """Keep the manifest that was trusted, and its signature, beside the files.

    Raises:
        VolumeUnwritable: the root cannot be written.
    """
    if local_manifest(root) == (manifest, signature):
        return
    # The signature first: `publish` signs the previous manifest with it too.
    if signature is None:
        try:
            (root / SIGNATURE_FILE).unlink(missing_ok=True)
        except OSError as error:
            raise VolumeUnwritable(f"{root / SIGNATURE_FILE}: {error.strerror}") from error
    else:
        replace_file(root / SIGNATURE_FILE, lambda file: file.write(signature))
    replace_file(root / MANIFEST_FILE, lambda file: file.write(manifest))


def local_manifest(root: Path) -> tuple[bytes, bytes | None] | None:
    """The last trusted manifest and its signature, None when none was kept."""
    try:
        manifest = (root / MANIFEST_FILE).read_bytes()
    except OSError:
        return None
    try:
        return manifest, (root / SIGNATURE_FILE).read_bytes()
    except OSError:
        return manifest, None
