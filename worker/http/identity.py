"""Which code this is: `/v1/ping` answers with it, so that a deployment can be verified."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from worker.settings import WorkerSettings


@dataclass(frozen=True, slots=True)
class Identity:
    """Version, commit and image of this worker; None where nobody said."""

    version: str
    git_commit: str | None
    build_time: str | None
    image_digest: str | None

    @classmethod
    def of(cls, settings: WorkerSettings) -> Self:
        """Read what the image was built with, and what the operator says of it."""
        return cls(
            version=importlib.metadata.version("avatar-worker"),
            git_commit=settings.git_commit,
            build_time=settings.build_time,
            image_digest=settings.image_digest,
        )

    def to_wire(self) -> dict[str, Any]:
        """As the contract has it; an image cannot know its own digest, so it is declared."""
        return {
            "gitCommit": self.git_commit,
            "buildTime": self.build_time,
            "declaredImageDigest": self.image_digest,
            "imageDigestSource": "env" if self.image_digest else "none",
        }
