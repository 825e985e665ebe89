"""Ed25519 over the manifest's bytes: whoever can write to the bucket cannot pass off weights.

Nothing here is a format of our own.  The private key is a PKCS#8 PEM file, as
`openssl genpkey -algorithm ed25519` writes it; `MODEL_SYNC_PUBLIC_KEY` is base64 of the 32 bytes
of RFC 8032; `manifest.json.sig` holds raw signatures of 64 bytes, the manifest's own first:

    head -c 64 manifest.json.sig > one.sig
    openssl pkeyutl -verify -pubin -inkey models-sync.pub -rawin -in manifest.json -sigfile one.sig

A bucket cannot replace two objects at once.  So the signature of the manifest before stays behind
the new one, and `publish` stores signatures first: a reader that takes the manifest first and its
signatures second always finds the one that it needs.
"""

from __future__ import annotations

import base64
import binascii
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from models_sync.errors import KeyFileUnusable, ManifestUntrusted, SyncSettingsError

SIGNATURE_BYTES = 64
_PUBLIC_BYTES = 32


@dataclass(frozen=True, slots=True)
class KeyPair:
    """What `keygen` made."""

    private: Path
    """PKCS#8 PEM, mode 600; for MODEL_SYNC_SIGNING_KEY, on the machine that publishes."""
    public: Path
    """The same public key as PEM, for openssl."""
    public_key: str
    """For MODEL_SYNC_PUBLIC_KEY, on every reader."""


def check(manifest: bytes, signatures: bytes | None, public_key: str | None) -> bool:
    """Check a manifest before anything in it is believed.

    Args:
        manifest: its very bytes, as they came from the bucket.
        signatures: the content of `manifest.json.sig`; None when there is no such object.
        public_key: MODEL_SYNC_PUBLIC_KEY, several keys separated by commas while one is replaced.

    Returns:
        True: one of the keys signed it.  False: no key is configured, nothing was checked.

    Raises:
        ManifestUntrusted: a key is configured and none of the signatures is by it.
        SyncSettingsError: MODEL_SYNC_PUBLIC_KEY is no key.
    """
    if not public_key:
        return False
    keys = parse_public_keys(public_key)
    if not signatures:
        raise ManifestUntrusted("manifest.json has no signature, and MODEL_SYNC_PUBLIC_KEY is set")
    if len(signatures) % SIGNATURE_BYTES:
        raise ManifestUntrusted(f"manifest.json.sig has {len(signatures)} bytes")
    if _fitting(manifest, signatures, keys) is None:
        raise ManifestUntrusted("manifest.json is not signed by the key of MODEL_SYNC_PUBLIC_KEY")
    return True


def fitting(manifest: bytes, signatures: bytes | None, public_key: str) -> bytes | None:
    """The one of the signatures that is of this manifest, by one of the keys; None: there is none.

    Raises:
        SyncSettingsError: `public_key` is no key.
    """
    return _fitting(manifest, signatures or b"", parse_public_keys(public_key))


def sign(manifest: bytes, key: Ed25519PrivateKey, before: bytes | None = None) -> bytes:
    """Make the content of `manifest.json.sig`.

    Args:
        manifest: the bytes that will be stored.
        key: see `load_signing_key`.
        before: the signature of the manifest that is being replaced, see `fitting`; of several
            the first is taken.
    """
    return key.sign(manifest) + (before or b"")[:SIGNATURE_BYTES]


def parse_public_keys(text: str) -> tuple[Ed25519PublicKey, ...]:
    """Read MODEL_SYNC_PUBLIC_KEY.

    Raises:
        SyncSettingsError: a part of it is not base64 of 32 bytes, or it holds no key at all.
    """
    keys = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            raw = base64.b64decode(part, validate=True)
        except binascii.Error:
            raw = b""
        if len(raw) != _PUBLIC_BYTES:
            raise SyncSettingsError(
                "MODEL_SYNC_PUBLIC_KEY: must be what `models-sync keygen` printed, 44 characters "
                "of base64 (or several, separated by commas)"
            )
        keys.append(Ed25519PublicKey.from_public_bytes(raw))
    if not keys:
        raise SyncSettingsError("MODEL_SYNC_PUBLIC_KEY: is set and holds no key")
    return tuple(keys)


def load_signing_key(path: Path) -> Ed25519PrivateKey:
    """Read MODEL_SYNC_SIGNING_KEY.

    Raises:
        KeyFileUnusable: there is no such file, or it holds no ed25519 key without a passphrase.
    """
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise KeyFileUnusable(f"{path}: {error.strerror or error}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        # The library's own text could quote the file.
        raise KeyFileUnusable(f"{path} is not a PEM private key without a passphrase") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileUnusable(f"{path} holds a key that is not ed25519")
    return key


def public_text(key: Ed25519PrivateKey) -> str:
    """What readers put into MODEL_SYNC_PUBLIC_KEY."""
    raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return base64.b64encode(raw).decode()


def keygen(path: Path) -> KeyPair:
    """Write a new private key to `path` (mode 600) and its public key beside it.

    Raises:
        KeyFileUnusable: there is a file already (a key that signs is never overwritten), or the
            folder cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    public = path.with_name(f"{path.name}.pub")
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    try:
        # O_EXCL: two runs cannot both believe that theirs is the key.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
        public.write_bytes(
            key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
    except FileExistsError:
        raise KeyFileUnusable(f"{path} exists already; it was left as it is") from None
    except OSError as error:
        raise KeyFileUnusable(f"{path}: {error.strerror or error}") from error
    return KeyPair(path, public, public_text(key))


def _fitting(
    manifest: bytes, signatures: bytes, keys: tuple[Ed25519PublicKey, ...]
) -> bytes | None:
    for start in range(0, len(signatures), SIGNATURE_BYTES):
        one = signatures[start : start + SIGNATURE_BYTES]
        if any(_is_by(key, one, manifest) for key in keys):
            return one
    return None


def _is_by(key: Ed25519PublicKey, signature: bytes, manifest: bytes) -> bool:
    try:
        key.verify(signature, manifest)
    except InvalidSignature:
        return False
    return True
