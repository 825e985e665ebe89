"""One file that is wanted, as the bucket has it."""

from __future__ import annotations

from dataclasses import dataclass

from models_sync.manifest import ManifestFile


@dataclass(frozen=True, slots=True)
class RemoteObject:
    """One file that is wanted."""

    key: str
    """Its full name in the bucket."""
    path: str
    """Where it belongs below the local root."""
    size: int
    etag: str | None
    """As it was listed; None where a manifest says what the content is."""
    published: ManifestFile | None = None
    """What the manifest says about it; without one, nothing about it can be verified."""
