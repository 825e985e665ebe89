"""The MODEL_SYNC_* variables, typed, once.

An operator sets them on the pod beside the worker's own; the worker's settings read the same
names.  A secret never appears in a repr or an error.  What needs no bucket (place, verify) needs
no variable of the bucket.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from models_sync.errors import SyncSettingsError

SOURCE_PREFIXES = {
    "smplx": "smplx/",
    "pixie": "pixie/",
    "sam3d": "sam3d/",
    "sam2": "sam2/checkpoints/",
}
"""Source → where its files lie in the bucket, and equally below the local root."""
_ENDPOINT = re.compile(
    r"(?:(?P<scheme>https?)://)?"
    r"(?P<host>(?:[^\s:/@?#\[\]]+|\[[0-9a-f:.]+\])(?::\d{1,5})?)/?",
    re.IGNORECASE,
)


_OTHERS_NAMES = {
    "pixie_model_dir": "PIXIE_MODEL_DIR",
    "segmentor_path": "SAM3DBODY_SEGMENTOR_PATH",
}
"""Variables that are the worker's too; all others are MODEL_SYNC_ and the field's name."""


class VolumeSettings(BaseModel):
    """Which weights are wanted, where they lie and where vendor code looks for them.

    Not pydantic-settings: importing it takes 0.1 s of processor, a sixth of all that a pull of
    5,000 files takes when nothing is to be done.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    local_root: Path = Field(Path("/app/models"), description="the volume")
    sources: str = Field("smplx,pixie,sam3d,sam2", description="which models to bring")
    prefix: str = Field("", description="a folder in the bucket that holds the sources")
    public_key: str | None = Field(
        None, description="who may sign the manifest: ed25519 public keys, base64, by commas"
    )
    allow_older: bool = Field(
        False, description="take a signed manifest that is older than the last one"
    )
    pixie_model_dir: Path = Field(
        Path("/app/src/pipeline/PIXIE"),
        description="PIXIE's code; its files are placed in data/ below",
    )
    segmentor_path: Path = Field(
        Path("/app/vendors/sam2"),
        description="SAM2's code; its files are placed in checkpoints/ below",
    )

    @field_validator("public_key")
    @classmethod
    def _a_key_or_none(cls, value: str | None) -> str | None:
        # A secret that was mounted empty must not switch the check of signatures off.
        if value and not value.replace(",", "").strip():
            raise ValueError("is blank; leave it out where no signature is asked for")
        return value or None

    @field_validator("sources")
    @classmethod
    def _known_sources(cls, value: str) -> str:
        for source in (part.strip() for part in value.split(",")):
            if source and source not in SOURCE_PREFIXES:
                raise ValueError(f"{source!r} is none of {', '.join(SOURCE_PREFIXES)}")
        if not value.replace(",", "").strip():
            raise ValueError("names no source")
        return value

    @classmethod
    def load(cls, **given: Any) -> Self:
        """Read the environment; what is `given` goes before it, and an empty variable is none.

        Raises:
            SyncSettingsError: names every wrong variable, what it is for and an example.
        """
        found = {name: os.environ.get(_variable(name)) for name in cls.model_fields}
        try:
            return cls(**{name: value for name, value in found.items() if value} | given)
        except ValidationError as error:
            raise SyncSettingsError("\n".join(cls._explain(error))) from None

    @classmethod
    def _explain(cls, error: ValidationError) -> list[str]:
        lines = []
        for problem in error.errors(include_input=False, include_url=False):
            name = str(problem["loc"][0])
            info = cls.model_fields[name]
            example = f", for example {info.examples[0]}" if info.examples else ""
            lines.append(f"{_variable(name)}: {problem['msg']} ({info.description}{example})")
        return lines

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


class SyncSettings(VolumeSettings):
    """Where the weights come from, who may read them, and how they travel."""

    minio_endpoint: str = Field(description="host[:port] of the S3 server", examples=["s3.shop.eu"])
    minio_secure: bool = Field(True, description="speak TLS to it")
    minio_bucket: str = Field("tryfitted-models", description="the private bucket")
    minio_access_key: SecretStr = Field(
        description="a read-only user's key", examples=["models-reader"]
    )
    minio_secret_key: SecretStr = Field(description="its secret", examples=["(32 characters)"])
    connections: int = Field(
        0, ge=0, le=64, description="connections at once; 0 finds out how many help"
    )
    stall_s: float = Field(
        30.0, gt=0, description="a connection that brings nothing for so long is given up"
    )
    direct_io: bool = Field(
        True, description="write large files past the page cache, where the volume takes it"
    )
    patience_s: float = Field(
        60.0, gt=0, description="a range of bytes is tried again for so long before the pull fails"
    )

    @field_validator("minio_endpoint")
    @classmethod
    def _host_only(cls, value: str) -> str:
        # Any other scheme would be one without TLS, whatever MODEL_SYNC_MINIO_SECURE says.
        found = _ENDPOINT.fullmatch(value.strip())
        if found is None:
            raise ValueError("must be host or host:port, optionally with http:// or https://")
        scheme = f"{found['scheme'].lower()}://" if found["scheme"] else ""
        return scheme + found["host"]


class PublishSettings(SyncSettings):
    """What `publish` needs on top: a key that may write, and one that signs."""

    signing_key: Path | None = Field(
        None, description="file with the ed25519 key that signs the manifest"
    )


def _variable(field: str) -> str:
    return _OTHERS_NAMES.get(field, f"MODEL_SYNC_{field.upper()}")
