"""Bring one file to the volume: whole and verified, or not at all.

Each writer has a temporary file of its own and the final name appears by an atomic rename, so
that two pods on one volume can at worst do the work twice.
"""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_exponential

from models_sync.bucket import Bucket, RemoteObject
from models_sync.errors import BucketUnreachable, ObjectDamaged, VolumeUnwritable
from models_sync.plan import Plan, State

FILES_AT_ONCE = 4

Advance = Callable[[int], None]
"""Called with the bytes that have arrived since the last call; negative when a try is lost."""


def pull(bucket: Bucket, plan: Plan, root: Path, state: State, advance: Advance) -> None:
    """Fetch everything that `plan` names, several files at once.

    Raises:
        SyncError: of the first file that failed; files that arrived are kept and recorded.
    """
    with ThreadPoolExecutor(FILES_AT_ONCE, thread_name_prefix="pull") as pool:
        running = {
            pool.submit(fetch, bucket, item.remote, root, advance): item.remote
            for item in plan.fetch
        }
        try:
            for done in as_completed(running):
                done.result()
                state.record(running[done].path, running[done].etag)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@retry(
    retry=retry_if_exception_type((BucketUnreachable, ObjectDamaged)),
    stop=stop_after_attempt(4),
    wait=wait_exponential(multiplier=0.5, max=8),
    reraise=True,
)
def fetch(bucket: Bucket, remote: RemoteObject, root: Path, advance: Advance) -> None:
    """Fetch one file: preallocate, download, verify, flush, rename.

    Raises:
        ObjectDamaged: the size or, where the ETag is an MD5, the content is not as listed.
        VolumeUnwritable: the disk is full or the folder may not be written.
    """
    final = root / remote.path
    partial = final.with_name(f".{final.name}.{uuid.uuid4().hex}.part")
    arrived = 0
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            if remote.size:
                # Says that the disk is full before the first byte travels.
                os.posix_fallocate(file.fileno(), 0, remote.size)
            digest = hashlib.md5(usedforsecurity=False)
            with bucket.stream(remote) as chunks:
                for chunk in chunks:
                    file.write(chunk)
                    digest.update(chunk)
                    arrived += len(chunk)
                    advance(len(chunk))
            _verify(remote, arrived, digest.hexdigest())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(final)
        _flush_folder(final.parent)
    except OSError as error:
        advance(-arrived)
        raise VolumeUnwritable(f"{final}: {error.strerror or error}") from error
    except BaseException:
        advance(-arrived)
        raise
    finally:
        partial.unlink(missing_ok=True)


def _verify(remote: RemoteObject, arrived: int, md5: str) -> None:
    if arrived != remote.size:
        raise ObjectDamaged(f"{remote.key}: {arrived:,} of {remote.size:,} bytes arrived")
    # A plain ETag is the MD5 of the object; one of several parts ("…-7") is not.
    if re.fullmatch(r"[0-9a-f]{32}", remote.etag) and md5 != remote.etag:
        raise ObjectDamaged(f"{remote.key}: the content does not match its ETag")


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
