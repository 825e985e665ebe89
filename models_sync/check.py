"""Hash a file on the volume and say whether it is what was published."""

from __future__ import annotations

import hashlib
from pathlib import Path

from models_sync.bucket import RemoteObject
from models_sync.digests import OnBytes, parts_match
from models_sync.manifest import PART_BYTES
from models_sync.plan import expected_md5


def holds_what_was_published(remote: RemoteObject, root: Path, on_bytes: OnBytes) -> bool:
    """Whether the file below `root` has the content that the manifest or an MD5 ETag says.

    Raises:
        Interrupted: `on_bytes` wants it to end.
    """
    path = root / remote.path
    try:
        if path.stat().st_size != remote.size:
            return False
        if remote.published:
            return parts_match(path, remote.published.parts, remote.published.part_size, on_bytes)
        return _md5(path, on_bytes) == expected_md5(remote)
    except OSError:
        return False  # it cannot be read: fetching it says why, if that fails too


def _md5(path: Path, on_bytes: OnBytes) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(PART_BYTES):
            digest.update(block)
            on_bytes(len(block))
    return digest.hexdigest()
