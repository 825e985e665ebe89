"""Hash files on the volume and say whether they are what was published."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

from models_sync.digests import OnBytes, parts_match
from models_sync.manifest import PART_BYTES
from models_sync.plan import expected_md5
from models_sync.remote import RemoteObject
from models_sync.state import Identity

CHECKERS = 2
Verdict = tuple[RemoteObject, Identity | None]


def hash_files(
    remotes: Sequence[RemoteObject], root: Path, on_bytes: OnBytes, every_s: float
) -> Generator[list[Verdict], None, None]:
    """Hash files side by side; give those that are done, and at least every `every_s` something.

    Closed early, it waits for what is being hashed; `on_bytes` can make that short.

    Raises:
        Interrupted: `on_bytes` wants it to end.
    """
    with ThreadPoolExecutor(CHECKERS, thread_name_prefix="check") as pool:
        running = {pool.submit(hash_file, remote, root, on_bytes): remote for remote in remotes}
        pending = set(running)
        try:
            while pending:
                done, pending = wait(pending, every_s, return_when=FIRST_COMPLETED)
                yield [(running[verdict], verdict.result()) for verdict in done]
        finally:
            for verdict in pending:
                verdict.cancel()


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
