"""What the bucket should hold: `manifest.json`, written by `publish`, trusted by `pull`.

It lies at the top of MODEL_SYNC_PREFIX; `manifest.json.sig` beside it signs its very bytes.  A
file's parts are hashed one by one (blake3), so that each is verified as it lands and a resumed
download knows which parts to keep; the whole is hashed with sha256, which any tool can check.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

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

Hex256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""A digest of 256 bits, in lower-case hexadecimal."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ManifestFile(_Model):
    """One file as it was published."""

    key: str
    """Its name below MODEL_SYNC_PREFIX, and equally below MODEL_SYNC_LOCAL_ROOT."""
    size: int = Field(ge=0)
    """Bytes."""
    sha256: Hex256
    part_size: int = Field(default=PART_BYTES, ge=1 << 16, le=MAX_PART_BYTES)
    """Bytes of each part but the last."""
    parts: tuple[Hex256, ...]
    """blake3 of each part, in order; empty for an empty file."""
    version_id: str | None = None
    """The object's version, where the bucket keeps versions."""
    licence: str = "unknown"
    """An SPDX id or a tag of one's own, such as `LicenseRef-SMPL-X`."""
    required_by: tuple[str, ...] = ()
    """Who cannot work without it: `smplx`, `pixie`, `sam3d`, `sam2`; empty when optional."""

    @field_validator("key")
    @classmethod
    def _plain_relative_path(cls, value: str) -> str:
        return refuse_unsafe(value)

    @model_validator(mode="after")
    def _a_digest_for_every_part(self) -> Self:
        if len(self.parts) != part_count(self.size, self.part_size):
            raise ValueError(
                f"{self.key}: {len(self.parts)} digests do not cover {self.size} bytes"
            )
        return self


class Manifest(_Model):
    """All files of one publication."""

    version: Literal[1] = 1
    created: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    files: tuple[ManifestFile, ...]

    @model_validator(mode="after")
    def _names_that_do_not_collide(self) -> Self:
        keys = [file.key for file in self.files]
        if len(set(keys)) != len(keys):
            raise ValueError("a key is named twice")
        refuse_collisions(keys)
        return self

    def to_bytes(self) -> bytes:
        """The bytes that are stored and signed: sorted by key, so the same each time."""
        ordered = self.model_copy(update={"files": tuple(sorted(self.files, key=lambda f: f.key))})
        return (ordered.model_dump_json(indent=1) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a manifest whose signature, when one is needed, has been checked already.

        Raises:
            ManifestInvalid: it is no manifest of a version that we know.
            UnsafeKey: it names a file that may not be written.
        """
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            problem = error.errors(include_input=False, include_url=False)[0]
            place = ".".join(str(part) for part in problem["loc"])
            raise ManifestInvalid(f"{MANIFEST_NAME}: {place}: {problem['msg']}") from None

    def by_key(self) -> dict[str, ManifestFile]:
        """Files by key."""
        return {file.key: file for file in self.files}


def part_count(size: int, part_size: int) -> int:
    """How many parts a file of `size` bytes has."""
    return -(-size // part_size)
