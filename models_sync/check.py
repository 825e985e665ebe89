"""Hash a file on the volume and say whether it is what was published."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

from blake3 import blake3

from models_sync.bucket import RemoteObject
from models_sync.errors import Interrupted
from models_sync.manifest import PART_BYTES, ManifestFile
from models_sync.plan import expected_md5


def holds_what_was_published(remote: RemoteObject, root: Path, cancel: threading.Event) -> bool:
    """Whether the file below `root` has the content that the manifest or an MD5 ETag says.

    Raises:
        Interrupted: `cancel` was set.
    """
    path = root / remote.path
    try:
        if path.stat().st_size != remote.size:
            return False
        if remote.published:
            return parts_match(path, remote.published, cancel)
        return _md5(path, cancel) == expected_md5(remote)
    except OSError:
        return False  # it cannot be read: fetching it says why, if that fails too


def parts_match(path: Path, published: ManifestFile, cancel: threading.Event) -> bool:
    """Whether every part of the file has the digest that the manifest names.

    Raises:
        Interrupted: `cancel` was set.
        OSError: the file cannot be read.
    """
    buffer = memoryview(bytearray(min(published.part_size, published.size)))
    with path.open("rb", buffering=0) as file:
        for expected in published.parts:
            if cancel.is_set():
                raise Interrupted
            size = file.readinto(buffer)
            if blake3(buffer[:size]).hexdigest() != expected:
                return False
        return not file.read(1)


def _md5(path: Path, cancel: threading.Event) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(PART_BYTES):
            if cancel.is_set():
                raise Interrupted
            digest.update(block)
    return digest.hexdigest()
