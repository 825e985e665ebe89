"""Remove from the volume what we brought there and nobody publishes any more.

Only what is known to be ours: files that we fetched, that nobody touched since, and that the
manifest of the last pull does not name; and partial files that nobody has written to for long.
Whatever else lies on the volume is somebody's.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from models_sync.atomic import cannot_write
from models_sync.errors import UnsafeKey
from models_sync.names import refuse_unsafe
from models_sync.settings import VolumeSettings
from models_sync.state import State
from models_sync.verify import kept_manifest
from models_sync.volume import refuse_elsewhere, stale_partials

STALE_AFTER_S = 24 * 3600.0
"""A partial file that nobody wrote to for a day: its pull was given up, not interrupted."""


@dataclass(frozen=True, slots=True)
class Removable:
    """One file that can go."""

    path: Path
    size: int
    """Bytes on the disk."""
    why: str


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """What can go, and what stays though the manifest does not name it."""

    remove: tuple[Removable, ...]
    kept: tuple[str, ...]
    """Files that we brought and that somebody changed since."""
    forget: tuple[str, ...]
    """Records of files that are gone, or will be."""

    @property
    def total_bytes(self) -> int:
        """How much room it makes."""
        return sum(file.size for file in self.remove)


def plan_prune(settings: VolumeSettings, *, stale_after_s: float = STALE_AFTER_S) -> PrunePlan:
    """Look for what can go.  Removes nothing.

    Without a manifest nobody knows which files are still published, and only partial files go.

    Raises:
        ManifestUntrusted, ManifestInvalid: the manifest on the volume cannot be believed.
    """
    root = settings.local_root
    manifest, _ = kept_manifest(settings)
    remove, kept, forget = [], [], []
    if manifest is not None:
        published = manifest.by_key()
        for name, entry in State(root).entries().items():
            if name in published:
                continue
            path = root / name
            if not _is_on_volume(name, path, root):
                forget.append(name)  # no record of ours: whoever wrote it meant another file
                continue
            if entry.lies_at(path) and not path.is_symlink():
                remove.append(Removable(path, entry.size, "no longer published"))
            elif path.exists():
                kept.append(name)
                continue
            forget.append(name)
    remove += [
        Removable(path, size, "left by a pull that was given up")
        for path, size in stale_partials(root, stale_after_s)
    ]
    return PrunePlan(tuple(remove), tuple(kept), tuple(forget))


def prune(settings: VolumeSettings, plan: PrunePlan) -> None:
    """Remove what `plan` names, and folders that it leaves empty.

    Raises:
        FolderElsewhere: a file is not on the volume, and nothing was removed from there on.
        VolumeUnwritable: the volume cannot be written.
    """
    root = settings.local_root
    for file in plan.remove:
        refuse_elsewhere(root, file.path.parent)  # it may have become a link meanwhile
        try:
            file.path.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(file.path, error) from error
        for folder in file.path.parents:
            if folder == root or not folder.is_relative_to(root):
                break
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()
    state = State(root)
    state.forget(plan.forget)
    state.flush()


def _is_on_volume(name: str, path: Path, root: Path) -> bool:
    """Whether a record's name is one that we could have written, and leads to below the root.

    The records are signed by nobody: whoever may write to the volume may write anything there.
    """
    try:
        refuse_unsafe(name)
        return path.parent.resolve().is_relative_to(root.resolve())
    except (UnsafeKey, OSError, RuntimeError):  # RuntimeError: links in a circle
        return False
