"""The manifest that lies in the bucket, and its replacement by the next one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from models_sync import signing
from models_sync.errors import KeyFileUnusable, ManifestUntrusted, PublishConflict
from models_sync.manifest import (
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    SIGNATURE_NAME,
    Manifest,
    ManifestFile,
)
from models_sync.settings import PublishSettings
from models_sync.store import Store

_MAX_SIGNATURE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Publication:
    """What the bucket says now, trusted as far as we sign it again."""

    store: Store
    root: str
    key: Ed25519PrivateKey | None
    raw: bytes | None
    signatures: bytes | None
    files: dict[str, ManifestFile]
    """By key; empty when there is none, or when we start anew."""
    is_ours: bool
    """Whether readers will accept it as it lies there."""

    @classmethod
    def read(cls, store: Store, settings: PublishSettings, *, start_anew: bool) -> Self:
        """Read the manifest, and check what we are about to sign again.

        Raises:
            KeyFileUnusable: it is signed, and MODEL_SYNC_SIGNING_KEY is not set or no key.
            ManifestUntrusted: it is not signed by our key, nor by MODEL_SYNC_PUBLIC_KEY.
            ManifestInvalid: it cannot be read.
        """
        key = signing.load_signing_key(settings.signing_key) if settings.signing_key else None
        root = settings.bucket_root
        raw = store.read_or_none(root + MANIFEST_NAME, MAX_MANIFEST_BYTES)
        signatures = store.read_or_none(root + SIGNATURE_NAME, _MAX_SIGNATURE_BYTES)
        if signatures is not None and key is None:
            raise KeyFileUnusable(
                f"the manifest of {store.where} is signed; MODEL_SYNC_SIGNING_KEY is not set, and "
                "readers would refuse one without a signature"
            )
        if raw is None or start_anew:
            return cls(store, root, key, raw, signatures, {}, is_ours=False)
        if key is not None:
            trusted = f"{signing.public_text(key)},{settings.public_key or ''}"
            try:
                signing.check(raw, signatures, trusted)
            except ManifestUntrusted as error:
                raise ManifestUntrusted(
                    f"{error.message}. `publish --replace` starts anew from the folder's files."
                ) from error
        files = Manifest.from_bytes(raw).by_key()
        return cls(store, root, key, raw, signatures, files, _is_by(key, raw, signatures))

    @property
    def signs(self) -> bool:
        """Whether what we publish is signed."""
        return self.key is not None

    def replace(self, manifest: Manifest) -> bool:
        """Store the next manifest, unless it says what the bucket's says; whether it was stored.

        Raises:
            PublishConflict: the bucket's is no longer the one that we read.
        """
        if manifest.by_key() == self.files and self.is_ours:
            return False
        if self.store.read_or_none(self.root + MANIFEST_NAME, MAX_MANIFEST_BYTES) != self.raw:
            raise PublishConflict(f"the manifest of {self.store.where} is not the one that we read")
        data = manifest.to_bytes()
        if self.key is not None:
            # First, and with the signature before: see models_sync/signing.py.
            signatures = signing.sign(data, self.key, self.signatures)
            self.store.write_small(
                self.root + SIGNATURE_NAME, signatures, "application/octet-stream"
            )
        self.store.write_small(self.root + MANIFEST_NAME, data, "application/json")
        return True


def _is_by(key: Ed25519PrivateKey | None, raw: bytes, signatures: bytes | None) -> bool:
    if key is None:
        return signatures is None
    try:
        return signing.check(raw, signatures, signing.public_text(key))
    except ManifestUntrusted:
        return False
