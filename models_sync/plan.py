"""What has to be fetched: the bucket's listing held against the volume."""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from models_sync.bucket import RemoteObject
from models_sync.errors import UnsafeKey, VolumeUnwritable

STATE_FILE = ".models-sync.json"


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """One file to fetch, and why."""

    remote: RemoteObject
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a pull would do."""

    fetch: tuple[PlannedFile, ...]
    present: tuple[RemoteObject, ...]

    @property
    def total_bytes(self) -> int:
        """How much would be downloaded."""
        return sum(item.remote.size for item in self.fetch)

    def as_dict(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "fetch": [asdict(item.remote) | {"reason": item.reason} for item in self.fetch],
            "present": [asdict(item) for item in self.present],
            "totalBytes": self.total_bytes,
            "verified": "size and ETag",
        }


class State:
    """Which version of each file lies on the volume: `.models-sync.json` below the root.

    Only a hint that saves work: a file whose entry is missing or stale is fetched again.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / STATE_FILE
        try:
            loaded = json.loads(self._path.read_text())
        except (OSError, ValueError):
            loaded = {}
        self._etags: dict[str, str] = loaded if isinstance(loaded, dict) else {}

    def etag(self, path: str) -> str | None:
        """The ETag with which `path` was fetched."""
        return self._etags.get(path)

    def record(self, path: str, etag: str) -> None:
        """Remember a file that has arrived whole."""
        self._etags[path] = etag
        partial = self._path.with_suffix(f".{uuid.uuid4().hex}.part")
        try:
            partial.write_text(json.dumps(self._etags, indent=1, sort_keys=True))
            partial.replace(self._path)
        except OSError as error:
            raise VolumeUnwritable(f"{self._path}: {error.strerror or error}") from error
        finally:
            partial.unlink(missing_ok=True)


def make_plan(remotes: list[RemoteObject], root: Path, state: State) -> Plan:
    """Compare the listing with the volume.

    Raises:
        UnsafeKey: a name has `..`, is absolute, holds control characters, or two names differ
            only in case.
    """
    fetch, present = [], []
    spelled: dict[str, str] = {}
    for remote in remotes:
        _refuse_unsafe(remote.path)
        other = spelled.setdefault(remote.path.casefold(), remote.path)
        if other != remote.path:
            raise UnsafeKey(f"{other!r} and {remote.path!r} differ only in case")
        reason = _why(remote, root / remote.path, state)
        if reason:
            fetch.append(PlannedFile(remote, reason))
        else:
            present.append(remote)
    return Plan(tuple(fetch), tuple(present))


def _why(remote: RemoteObject, path: Path, state: State) -> str | None:
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return "missing"
    if size != remote.size:
        return f"has {size:,} bytes instead of {remote.size:,}"
    known = state.etag(remote.path)
    if known is None:
        return "of unknown origin"
    return None if known == remote.etag else "replaced in the bucket"


def _refuse_unsafe(path: str) -> None:
    pure = PurePosixPath(path)
    if (
        pure.is_absolute()
        or ".." in pure.parts
        or "\\" in path
        or any(ord(char) < 32 or ord(char) == 127 for char in path)
        or str(pure) != path
    ):
        raise UnsafeKey(f"{path!r} is not a plain relative path")
