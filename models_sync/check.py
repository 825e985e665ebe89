"""Hash a file on the volume and say whether it is what was published."""

from __future__ import annotations

import hashlib
from pathlib import Path

from models_sync.digests import OnBytes, parts_match
from models_sync.manifest import PART_BYTES
from models_sync.plan import expected_md5
from models_sync.remote import RemoteObject
from models_sync.state import Identity


def hash_file(remote: RemoteObject, root: Path, on_bytes: OnBytes) -> Identity | None:
    """Hold the file below `root` against what the manifest or an MD5 ETag says.

    Returns:
        Which file was found right, as it was before it was read; None: it is something else.

    Raises:
        Interrupted: `on_bytes` wants it to end.
    """
    path = root / remote.path
    try:
        identity = Identity.of(path)
        if identity.size != remote.size:
            return None
        published = remote.published
        right = (
            parts_match(path, published.parts, published.part_size, on_bytes)
            if published
            else _md5(path, on_bytes) == expected_md5(remote)
        )
    except OSError:
        return None  # it cannot be read: fetching it says why, if that fails too
    return identity if right else None


def _md5(path: Path, on_bytes: OnBytes) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(PART_BYTES):
            digest.update(block)
            on_bytes(len(block))
    return digest.hexdigest()
