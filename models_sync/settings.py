"""The MODEL_SYNC_* variables, typed, once.

An operator sets them on the pod beside the worker's own; the worker's settings read the same
names.  A secret never appears in a repr or an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from models_sync.errors import SyncSettingsError

SOURCE_PREFIXES = {
    "smplx": "smplx/",
    "pixie": "pixie/",
    "sam3d": "sam3d/",
    "sam2": "sam2/checkpoints/",
}
"""Source → where its files lie in the bucket, and equally below the local root."""


class SyncSettings(BaseSettings):
    """Where the weights are, who may read them, and where they go."""

    model_config = SettingsConfigDict(
        env_prefix="MODEL_SYNC_", env_ignore_empty=True, frozen=True, extra="ignore"
    )

    minio_endpoint: str = Field(description="host[:port] of the S3 server", examples=["s3.shop.eu"])
    minio_secure: bool = Field(True, description="speak TLS to it")
    minio_bucket: str = Field("tryfitted-models", description="the private bucket")
    minio_access_key: SecretStr = Field(
        description="a read-only user's key", examples=["models-reader"]
    )
    minio_secret_key: SecretStr = Field(description="its secret", examples=["(32 characters)"])
    prefix: str = Field("", description="a folder in the bucket that holds the sources")
    sources: str = Field("smplx,pixie,sam3d,sam2", description="which models to bring")
    local_root: Path = Field(Path("/app/models"), description="the volume")

    @field_validator("sources")
    @classmethod
    def _known_sources(cls, value: str) -> str:
        for source in (part.strip() for part in value.split(",")):
            if source and source not in SOURCE_PREFIXES:
                raise ValueError(f"{source!r} is none of {', '.join(SOURCE_PREFIXES)}")
        if not value.replace(",", "").strip():
            raise ValueError("names no source")
        return value

    @field_validator("minio_endpoint")
    @classmethod
    def _host_only(cls, value: str) -> str:
        host = value.split("://", 1)[-1].rstrip("/")
        if not host or "/" in host or "@" in host:
            raise ValueError("must be host or host:port, optionally with http:// or https://")
        return value

    @classmethod
    def load(cls) -> Self:
        """Read the environment.

        Raises:
            SyncSettingsError: names every wrong variable, what it is for and an example.
        """
        try:
            return cls()
        except ValidationError as error:
            raise SyncSettingsError("\n".join(cls._explain(error))) from None

    @classmethod
    def _explain(cls, error: ValidationError) -> list[str]:
        lines = []
        for problem in error.errors(include_input=False, include_url=False):
            name = str(problem["loc"][0]).lower().removeprefix("model_sync_")
            info = cls.model_fields[name]
            example = f", for example {info.examples[0]}" if info.examples else ""
            lines.append(
                f"MODEL_SYNC_{name.upper()}: {problem['msg']} ({info.description}{example})"
            )
        return lines

    def wanted_prefixes(self) -> dict[str, str]:
        """Local prefix → prefix in the bucket, of each source that was asked for."""
        root = f"{self.prefix.strip('/')}/" if self.prefix.strip("/") else ""
        names = [part.strip() for part in self.sources.split(",") if part.strip()]
        return {SOURCE_PREFIXES[name]: root + SOURCE_PREFIXES[name] for name in names}
