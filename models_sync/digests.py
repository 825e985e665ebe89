"""Every digest of a file in one reading: sha256, blake3 of each part, and the ETag to expect.

The three hashes run side by side, each in a thread of its own (all of them release the
interpreter's lock), so that a file is read once and hashed at the speed of the slowest: md5.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from models_sync.ledger import Stamp
from models_sync.manifest import PART_BYTES, part_count

UPLOAD_PART_BYTES = 16 << 20
"""Parts of an upload: S3 takes 10,000, so up to 160 GB, and three of them are held in memory."""

OnBytes = Callable[[int], None]
"""Told how many more bytes were done; may raise to stop the work."""


@dataclass(frozen=True, slots=True)
class Digests:
    """What a file's content is known by."""

    stamp: Stamp
    """The file as it was while it was read."""
    sha256: str
    parts: tuple[str, ...]
    """blake3 of each PART_BYTES."""
    etag: str
    """What S3 answers for an upload in parts of UPLOAD_PART_BYTES: the MD5, or for several parts
    the MD5 of their MD5s and their number."""


class FileChanged(OSError):
    """The file was written to while it was read."""


def digest(path: Path, on_bytes: OnBytes) -> Digests:
    """Read a file and take all its digests.

    Raises:
        FileChanged: it was not the same file at the end.
        OSError: it cannot be read.
    """
    before = Stamp.of(path)
    sha256, parts, md5s = hashlib.sha256(), list[str](), list[bytes]()
    upload_part = hashlib.md5(usedforsecurity=False)
    in_upload_part = 0
    with ThreadPoolExecutor(3, thread_name_prefix="digest") as pool:
        for block in _blocks(path):
            running = [
                pool.submit(sha256.update, block),
                pool.submit(_append_blake3, parts, block),
                pool.submit(upload_part.update, block),
            ]
            for done in running:
                done.result()
            in_upload_part += len(block)
            if in_upload_part == UPLOAD_PART_BYTES:
                md5s.append(upload_part.digest())
                upload_part, in_upload_part = hashlib.md5(usedforsecurity=False), 0
            on_bytes(len(block))
    if in_upload_part or not md5s:
        md5s.append(upload_part.digest())
    if Stamp.of(path) != before or len(parts) != part_count(before.size, PART_BYTES):
        raise FileChanged(f"{path} changed while it was read")
    return Digests(before, sha256.hexdigest(), tuple(parts), _etag(md5s))


def parts_match(path: Path, parts: tuple[str, ...], part_size: int, on_bytes: OnBytes) -> bool:
    """Whether a file's content is what the manifest's part digests say.

    Raises:
        OSError: it cannot be read.
    """
    number = 0
    for number, block in enumerate(_blocks(path, part_size), start=1):
        if number > len(parts) or blake3(block).hexdigest() != parts[number - 1]:
            return False
        on_bytes(len(block))
    return number == len(parts)


def _append_blake3(parts: list[str], block: bytes) -> None:
    parts.append(blake3(block).hexdigest())


def _blocks(path: Path, size: int = PART_BYTES) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while block := _read(file.read, size):
            yield block


def _read(read: Callable[[int], bytes | None], size: int) -> bytes:
    """Read a whole part: a file may give less than it is asked for."""
    first = read(size) or b""
    if len(first) in {0, size}:
        return first
    pieces = [first]
    missing = size - len(first)
    while missing and (piece := read(missing)):
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)


def _etag(md5s: list[bytes]) -> str:
    if len(md5s) == 1:
        return md5s[0].hex()
    whole = hashlib.md5(b"".join(md5s), usedforsecurity=False)
    return f"{whole.hexdigest()}-{len(md5s)}"
