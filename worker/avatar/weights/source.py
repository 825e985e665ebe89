"""`WeightsFile`: a file on the operator's volume, and what it is when it is not weights."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Final

from worker.errors import ModelInvalid, ModelMissing

HEAD_BYTES: Final = 512
"""Enough to tell what a file is; also the size of a tar archive's blocks."""

_ZIP: Final = b"PK\x03\x04"
_PICKLE: Final = b"\x80"
"""Every pickle of protocol 2 and later begins so, and with it torch's format of before 1.6."""
_STARTS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"<!doctype html", "a web page, such as a login or error page saved under this name"),
    (b"<html", "a web page, such as a login or error page saved under this name"),
    (b"<?xml", "an XML document, such as an object store's error"),
    (b"version https://git-lfs", "a git LFS pointer, not the file that it stands for"),
    (b"{", "a JSON document, such as a service's error"),
    (b"\x1f\x8b", "compressed with gzip"),
)
_UNPACKED_SLACK: Final = 1.01
_UNPACKED_TEXT_BYTES: Final = 8_000_000
"""torch stores tensors as they are and compresses only a TorchScript's text: an archive that
unpacks to much more than itself is a bomb."""


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """One file of weights."""

    name: str
    """What it is to people: `SAM 2.1 hiera large`."""
    path: Path
    sha256: str | None = None
    """The digest that it must have, where one is known; None: any."""
    how_to_get: str | None = None
    """One sentence for the operator; None: delete it and sync again."""

    def missing(self, why: str = "is missing") -> ModelMissing:
        """Return the error that says that this file is not there."""
        return ModelMissing(f"{self._called} {why}.", advice=self.how_to_get)

    def wrong(self, why: str) -> ModelInvalid:
        """Return the error that says what is wrong with this file."""
        return ModelInvalid(
            f"{self._called} {why}.",
            advice=self.how_to_get
            or f"Delete {self.path} and fetch it again; `models-sync pull` brings what is missing.",
        )

    @property
    def _called(self) -> str:
        return f"{self.path} ({self.name})"

    def open(self) -> BufferedReader:
        """Open the file for reading.

        Raises:
            ModelMissing: there is none.
            ModelInvalid: it cannot be read.
        """
        if not self.path.is_file():
            raise self.missing()
        try:
            return self.path.open("rb")
        except OSError as error:
            raise self.wrong(f"cannot be read: {error.strerror}") from error

    def look(self) -> str:
        """Say what this file is by its start and its table of contents, without reading it all.

        Raises:
            ModelMissing, ModelInvalid: as `open` and `verify`.
        """
        with self.open() as file:
            if instead := _what_instead(file):
                raise self.wrong(f"is {instead}")
            return f"{self.path}, {file.seek(0, 2) / 1e6:,.0f} MB"

    def verify(self, file: BufferedReader) -> str:
        """Make sure that an open file can be weights and has the digest that it must have.

        Returns:
            Its SHA-256.

        Raises:
            ModelInvalid: it is something else, ends in the middle, or is another file.
        """
        if instead := _what_instead(file):
            raise self.wrong(f"is {instead}")
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if self.sha256 is not None and digest != self.sha256:
            raise self.wrong(
                f"has the digest sha256:{digest[:12]}…, not sha256:{self.sha256[:12]}…"
            )
        file.seek(0)
        return digest


def _what_instead(file: BufferedReader) -> str | None:
    """Say what a file is, in words, when it cannot be a checkpoint of torch."""
    head = file.read(HEAD_BYTES)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "empty"
    if not any(head):
        return "all zeros at its start, as an empty tar archive or a download that never came is"
    if head.startswith(b"PK"):
        return _what_archive(file, whole=head.startswith(_ZIP))
    for start, words in _STARTS:
        if text.startswith(start):
            return words
    if head[257:262] == b"ustar":
        return "a tar archive, not a checkpoint of torch"
    return None if head.startswith(_PICKLE) else "no checkpoint of torch"


def _what_archive(file: BufferedReader, *, whole: bool) -> str | None:
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        # The list of members stands at the end.
        return "a checkpoint that ends in the middle: it was cut off while it was copied"
    if not whole or not any(member.filename.endswith("data.pkl") for member in members):
        return "a zip archive without a checkpoint in it"
    size = file.seek(0, 2)
    unpacked = sum(member.file_size for member in members)
    if unpacked > _UNPACKED_SLACK * size + _UNPACKED_TEXT_BYTES:
        return f"an archive of {size:,} bytes that unpacks to {unpacked:,}"
    return None
