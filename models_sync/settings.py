"""The MODEL_SYNC_* variables, typed, once.

An operator sets them on the pod beside the worker's own; the worker's settings read the same
names.  A secret never appears in a repr or an error.  What needs no bucket (place, verify) needs
no variable of the bucket.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from models_sync.errors import SyncSettingsError

SOURCE_PREFIXES = {
    "smplx": "smplx/",
    "pixie": "pixie/",
    "sam3d": "sam3d/",
    "sam2": "sam2/checkpoints/",
}
"""Source → where its files lie in the bucket, and equally below the local root."""
Read = Callable[[Any], Any]
"""Makes a value of a variable's text, or of what a caller gives.

ValueError and TypeError say what is wrong with it.
"""
_ENDPOINT = re.compile(
    r"(?:(?P<scheme>https?)://)?"
    r"(?P<host>(?:[^\s:/@?#\[\]]+|\[[0-9a-f:.]+\])(?::(?P<port>\d{1,5}))?)/?",
    re.IGNORECASE,
)


_OTHERS_NAMES = {
    "pixie_model_dir": "PIXIE_MODEL_DIR",
    "segmentor_path": "SAM3DBODY_SEGMENTOR_PATH",
}
"""Variables that are the worker's too; all others are MODEL_SYNC_ and the field's name."""


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("must be text")
    return value.strip()  # a secret that comes from a file ends in a new line


def _name(value: Any) -> str:
    name = _text(value)
    if not name or not name.isprintable():
        raise ValueError("is blank" if not name else "has characters that cannot be seen")
    return name


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    known = {"true": True, "1": True, "yes": True, "on": True}
    known |= {"false": False, "0": False, "no": False, "off": False}
    if str(value).strip().lower() not in known:
        raise ValueError("must be true or false")
    return known[str(value).strip().lower()]


def _count_up_to(most: int) -> Read:
    def read(value: Any) -> int:
        try:
            count = int(value)
        except (TypeError, ValueError):
            count = -1
        if not 0 <= count <= most:
            raise ValueError(f"must be a whole number from 0 to {most}")
        return count

    return read


def _seconds(value: Any) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = 0.0
    if not 0.0 < seconds < math.inf:
        raise ValueError("must be a number of seconds above 0")
    return seconds


def _key_or_none(value: Any) -> str | None:
    # A secret that was mounted empty must not switch the check of signatures off.
    if value and not _text(value).replace(",", ""):
        raise ValueError("is blank; leave it out where no signature is asked for")
    return value or None


def _known_sources(value: Any) -> str:
    for source in (part.strip() for part in _text(value).split(",")):
        if source and source not in SOURCE_PREFIXES:
            raise ValueError(f"{source!r} is none of {', '.join(SOURCE_PREFIXES)}")
    if not value.replace(",", "").strip():
        raise ValueError("names no source")
    return str(value)


def _host_only(value: Any) -> str:
    # Any other scheme would be one without TLS, whatever MODEL_SYNC_MINIO_SECURE says.
    found = _ENDPOINT.fullmatch(_text(value))
    if found is None or int(found["port"] or 0) >= 1 << 16:
        raise ValueError("must be host or host:port, optionally with http:// or https://")
    scheme = f"{found['scheme'].lower()}://" if found["scheme"] else ""
    return scheme + str(found["host"])


def _variable(
    read: Read, about: str, default: Any = MISSING, *, example: str = "", secret: bool = False
) -> Any:
    """A field of a variable; one without a default has to be set."""
    metadata = {"read": read, "about": about, "example": example}
    return field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class VolumeSettings:
    """Which weights are wanted, where they lie and where vendor code looks for them.

    Not pydantic: importing it and building its models takes 0.1 s of processor, which a pull of
    small files waits for before it asks for the first byte (docs/decisions/0024).

    Raises:
        SyncSettingsError: names every wrong variable, what it is for and an example.
    """

    local_root: Path = _variable(Path, "the volume", Path("/app/models"))
    sources: str = _variable(_known_sources, "which models to bring", "smplx,pixie,sam3d,sam2")
    prefix: str = _variable(_text, "a folder in the bucket that holds the sources", "")
    public_key: str | None = _variable(
        _key_or_none, "who may sign the manifest: ed25519 public keys, base64, by commas", None
    )
    allow_older: bool = _variable(
        _truth, "take a signed manifest that is older than the last one", default=False
    )
    pixie_model_dir: Path = _variable(
        Path, "PIXIE's code; its files are placed in data/ below", Path("/app/src/pipeline/PIXIE")
    )
    segmentor_path: Path = _variable(
        Path,
        "SAM2's code; its files are placed in checkpoints/ below",
        Path("/app/vendors/sam2"),
    )

    def __post_init__(self) -> None:
        wrong = []
        for one in fields(self):
            try:
                value = one.metadata["read"](getattr(self, one.name))
                object.__setattr__(self, one.name, value)  # frozen for everybody else
            except (TypeError, ValueError) as error:
                wrong.append(_problem(one.name, one.metadata, str(error)))
        if wrong:
            raise SyncSettingsError("\n".join(wrong))

    @classmethod
    def load(cls, **given: Any) -> Self:
        """Read the environment; what is `given` goes before it, and an empty variable is none.

        Raises:
            SyncSettingsError: names every wrong variable, what it is for and an example.
        """
        found = {one.name: os.environ.get(_name_of(one.name)) or None for one in fields(cls)}
        values = {name: value for name, value in (found | given).items() if value is not None}
        lacking = [one for one in fields(cls) if one.default is MISSING and one.name not in values]
        if not lacking:
            return cls(**values)
        wrong = [_problem(one.name, one.metadata, "is not set") for one in lacking]
        try:
            cls(**values | {one.name: one.metadata["example"] for one in lacking})
        except SyncSettingsError as error:
            wrong.append(error.message)
        raise SyncSettingsError("\n".join(wrong))

    def wanted_prefixes(self) -> dict[str, str]:
        """Local prefix → prefix in the bucket, of each source that was asked for."""
        return {
            SOURCE_PREFIXES[name]: self.bucket_root + SOURCE_PREFIXES[name]
            for name in self.source_names()
        }

    def source_names(self) -> tuple[str, ...]:
        """The sources that were asked for."""
        return tuple(part.strip() for part in self.sources.split(",") if part.strip())

    @property
    def bucket_root(self) -> str:
        """MODEL_SYNC_PREFIX as keys start with it: empty, or ending in one slash."""
        return f"{self.prefix.strip('/')}/" if self.prefix.strip("/") else ""


@dataclass(frozen=True, kw_only=True)
class SyncSettings(VolumeSettings):
    """Where the weights come from, who may read them, and how they travel."""

    minio_endpoint: str = _variable(
        _host_only, "host[:port] of the S3 server", example="s3.shop.eu"
    )
    minio_secure: bool = _variable(_truth, "speak TLS to it", default=True)
    minio_bucket: str = _variable(_name, "the private bucket", "tryfitted-models")
    minio_access_key: str = _variable(
        _name, "a read-only user's key", example="models-reader", secret=True
    )
    minio_secret_key: str = _variable(_name, "its secret", example="(32 characters)", secret=True)
    connections: int = _variable(
        _count_up_to(64), "connections at once; 0 finds out how many help", 0
    )
    stall_s: float = _variable(
        _seconds, "a connection that brings nothing for so long is given up", 30.0
    )
    direct_io: bool = _variable(
        _truth,
        "write large files past the page cache, where the volume takes it",
        default=True,
    )
    patience_s: float = _variable(
        _seconds, "a range of bytes is tried again for so long before the pull fails", 60.0
    )


@dataclass(frozen=True, kw_only=True)
class PublishSettings(SyncSettings):
    """What `publish` needs on top: a key that may write, and one that signs."""

    signing_key: Path | None = _variable(
        lambda value: value and Path(value),
        "file with the ed25519 key that signs the manifest",
        None,
    )


def _name_of(setting: str) -> str:
    return _OTHERS_NAMES.get(setting, f"MODEL_SYNC_{setting.upper()}")


def _problem(setting: str, about: Mapping[str, Any], what: str) -> str:
    example = f", for example {about['example']}" if about["example"] else ""
    return f"{_name_of(setting)}: {what} ({about['about']}{example})"
