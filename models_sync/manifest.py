"""What the bucket should hold: `manifest.json`, written by `publish`, trusted by `pull`.

It lies at the top of MODEL_SYNC_PREFIX; `manifest.json.sig` beside it signs its very bytes.  A
file's parts are hashed one by one (blake3), so that each is verified as it lands and a resumed
download knows which parts to keep; the whole is hashed with sha256, which any tool can check.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from models_sync.errors import ManifestInvalid
from models_sync.names import refuse_collisions, refuse_unsafe

MANIFEST_NAME = "manifest.json"
SIGNATURE_NAME = "manifest.json.sig"
PART_BYTES = 4 << 20
"""How large parts are that we publish.  A part is held in memory until it is verified, eight at a
time; what is lost when they are killed is 1.6 % of 2 GiB; 30 GB have a manifest of 600 kB."""
MAX_PART_BYTES = 16 << 20
"""Larger parts would not leave several connections their memory."""
MAX_MANIFEST_BYTES = 64 << 20
"""More than any manifest has; read before anything is trusted."""

MIN_PART_BYTES = 64 << 10
VERSION = 1
_HEX_256 = re.compile(r"[0-9a-f]{64}")
"""A digest of 256 bits, in lower-case hexadecimal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestFile:
    """One file as it was published.

    Raises:
        ManifestInvalid: its parts do not cover it.
        UnsafeKey: the key may not become a file.
    """

    key: str
    """Its name below MODEL_SYNC_PREFIX, and equally below MODEL_SYNC_LOCAL_ROOT."""
    size: int
    """Bytes."""
    sha256: str
    part_size: int = PART_BYTES
    """Bytes of each part but the last."""
    parts: tuple[str, ...]
    """blake3 of each part, in order; empty for an empty file."""
    version_id: str | None = None
    """The object's version, where the bucket keeps versions."""
    licence: str = "unknown"
    """An SPDX id or a tag of one's own, such as `LicenseRef-SMPL-X`."""
    required_by: tuple[str, ...] = ()
    """Who cannot work without it: `smplx`, `pixie`, `sam3d`, `sam2`; empty when optional."""

    def __post_init__(self) -> None:
        refuse_unsafe(self.key)
        if len(self.parts) != part_count(self.size, self.part_size):
            raise ManifestInvalid(
                f"{MANIFEST_NAME}: {self.key}: {len(self.parts)} digests do not cover "
                f"{self.size} bytes"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All files of one publication.

    Raises:
        ManifestInvalid: a key is named twice.
        UnsafeKey: two keys could not lie side by side.
    """

    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    """With its time zone."""
    files: tuple[ManifestFile, ...]

    def __post_init__(self) -> None:
        keys = [file.key for file in self.files]
        if len(set(keys)) != len(keys):
            raise ManifestInvalid(f"{MANIFEST_NAME}: a key is named twice")
        refuse_collisions(keys)

    def to_bytes(self) -> bytes:
        """The bytes that are stored and signed: sorted by key, so the same each time."""
        document = {
            "version": VERSION,
            "created": self.created.astimezone(UTC).isoformat(),
            "files": [asdict(file) for file in sorted(self.files, key=lambda file: file.key)],
        }
        return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a manifest whose signature, when one is needed, has been checked already.

        Raises:
            ManifestInvalid: it is no manifest of a version that we know.
            UnsafeKey: it names a file that may not be written.
        """
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ManifestInvalid(f"{MANIFEST_NAME}: no JSON: {error}") from None
        if not isinstance(document, dict) or document.get("version", VERSION) != VERSION:
            raise ManifestInvalid(f"{MANIFEST_NAME}: not of version {VERSION}")
        entries = document.get("files")
        if not isinstance(entries, list):
            raise ManifestInvalid(f"{MANIFEST_NAME}: no list of files")
        created = {"created": _time(document["created"])} if "created" in document else {}
        return cls(files=tuple(map(_file, entries)), **created)

    def by_key(self) -> dict[str, ManifestFile]:
        """Files by key."""
        return {file.key: file for file in self.files}


def part_count(size: int, part_size: int) -> int:
    """How many parts a file of `size` bytes has."""
    return -(-size // part_size)


def _file(entry: Any) -> ManifestFile:
    """One entry; what we do not know in it is of a later version, and ignored."""
    if not isinstance(entry, dict) or not entry.keys() >= _REQUIRED:
        raise ManifestInvalid(f"{MANIFEST_NAME}: a file lacks {', '.join(sorted(_REQUIRED))}")
    known: dict[str, Any] = {}
    for name, is_right in _IS_RIGHT.items():
        if name in entry:
            value = entry[name]
            if not is_right(value):
                raise ManifestInvalid(f"{MANIFEST_NAME}: {entry['key']!r}: wrong {name}")
            known[name] = tuple(value) if isinstance(value, list) else value
    return ManifestFile(**known)


def _time(text: Any) -> datetime:
    try:
        created = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        created = None
    if created is None or created.tzinfo is None:
        raise ManifestInvalid(f"{MANIFEST_NAME}: created is no time with its zone")
    return created


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and _HEX_256.fullmatch(value) is not None


def _is_plain(value: Any) -> bool:
    """Whether it is text that can be shown and sent."""
    return isinstance(value, str) and value.isprintable()


_IS_RIGHT: Mapping[str, Callable[[Any], bool]] = {
    "key": lambda value: isinstance(value, str),
    "size": lambda value: type(value) is int and value >= 0,
    "sha256": _is_digest,
    "part_size": lambda value: type(value) is int and MIN_PART_BYTES <= value <= MAX_PART_BYTES,
    "parts": lambda value: isinstance(value, list) and all(map(_is_digest, value)),
    "version_id": lambda value: value is None or _is_plain(value),
    "licence": _is_plain,
    "required_by": lambda value: isinstance(value, list) and all(map(_is_plain, value)),
}
"""What each field of a file may be, before anything is done with it."""
_REQUIRED = {"key", "size", "sha256", "parts"}
