"""The manifest that lies in the bucket, and its replacement by the next one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from models_sync import signing
from models_sync.errors import (
    KeyFileUnusable,
    ManifestInvalid,
    ManifestUntrusted,
    PublishConflict,
    UnsafeKey,
)
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
_TURNS = 3
"""How often a signature is stored again that another publisher has overwritten."""


@dataclass(frozen=True, slots=True)
class Publication:
    """What the bucket says now, trusted as far as we sign it again."""

    store: Store
    root: str
    key: Ed25519PrivateKey | None
    raw: bytes | None
    files: dict[str, ManifestFile]
    """By key; empty when there is none, or when we start anew."""
    is_ours: bool
    """Whether readers will accept it as it lies there."""
    before: bytes | None
    """The signature that readers need who have read the manifest and not yet its signature."""

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
        trusted = f"{signing.public_text(key)},{settings.public_key or ''}" if key else ""
        before = signing.fitting(raw, signatures, trusted) if raw and trusted else None
        if raw is None or start_anew:
            # Of a key that we do not know, the first is the likeliest.
            before = before or signatures
            return cls(store, root, key, raw, {}, is_ours=False, before=before)
        if trusted:
            try:
                signing.check(raw, signatures, trusted)
            except ManifestUntrusted as error:
                raise ManifestUntrusted(
                    f"{error.message}, nor by that of MODEL_SYNC_SIGNING_KEY. While a key is being "
                    "replaced, set MODEL_SYNC_PUBLIC_KEY to the old one here too. (`publish "
                    "--replace` would start anew from this folder, and drop from the manifest "
                    "whatever the folder lacks.)"
                ) from error
        files = Manifest.from_bytes(raw).by_key()
        is_ours = _is_by(key, raw, signatures)
        return cls(store, root, key, raw, files, is_ours, before)

    @property
    def signs(self) -> bool:
        """Whether what we publish is signed."""
        return self.key is not None

    def replace(self, manifest: Manifest) -> bool:
        """Store the next manifest, unless it says what the bucket's says; whether it was stored.

        Raises:
            PublishConflict: the bucket's is no longer the one that we read, or was replaced by
                someone else's while we stored ours.
        """
        if manifest.by_key() == self.files and self.is_ours:
            return False
        if self.store.read_or_none(self.root + MANIFEST_NAME, MAX_MANIFEST_BYTES) != self.raw:
            raise PublishConflict(f"the manifest of {self.store.where} is not the one that we read")
        data = self._later(manifest).to_bytes()
        if self.key is not None:
            # First, and with the signature before: see models_sync/signing.py.
            self._store_signatures(signing.sign(data, self.key, self.before))
        self.store.write_small(self.root + MANIFEST_NAME, data, "application/json")
        self._read_back(data)
        return True

    def _later(self, manifest: Manifest) -> Manifest:
        """The manifest with a time after that of the one before, whatever our clock says.

        Readers refuse a signed one that is older than what they have.
        """
        before = _created(self.raw)
        if before is None or manifest.created > before:
            return manifest
        return replace(manifest, created=before + timedelta(seconds=1))

    def _read_back(self, data: bytes) -> None:
        """Make sure that what lies there is ours, and that its signature lies beside it."""
        for _ in range(_TURNS):
            if self.store.read_or_none(self.root + MANIFEST_NAME, MAX_MANIFEST_BYTES) != data:
                break
            there = self.store.read_or_none(self.root + SIGNATURE_NAME, _MAX_SIGNATURE_BYTES)
            if _is_by(self.key, data, there):
                return
            if self.key is None:
                break  # someone began to sign
            self._store_signatures(signing.sign(data, self.key, there))
        raise PublishConflict(
            f"{self.store.where}: someone else published while we stored the manifest"
        )

    def _store_signatures(self, signatures: bytes) -> None:
        self.store.write_small(self.root + SIGNATURE_NAME, signatures, "application/octet-stream")


def _created(raw: bytes | None) -> datetime | None:
    try:
        return Manifest.from_bytes(raw).created if raw else None
    except (ManifestInvalid, UnsafeKey):
        return None  # it is being replaced because nobody can read it


def _is_by(key: Ed25519PrivateKey | None, raw: bytes, signatures: bytes | None) -> bool:
    if key is None:
        return signatures is None
    try:
        return signing.check(raw, signatures, signing.public_text(key))
    except ManifestUntrusted:
        return False
