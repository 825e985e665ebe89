"""What has to be fetched: the manifest, or the listing, held against the volume."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from models_sync.bucket import Bucket
from models_sync.errors import (
    BucketRefused,
    ManifestInvalid,
    ManifestOlder,
    ManifestUntrusted,
    NothingThere,
    ObjectMissing,
    UnsafeKey,
)
from models_sync.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, SIGNATURE_NAME, Manifest
from models_sync.names import refuse_collisions, refuse_unsafe
from models_sync.remote import RemoteObject
from models_sync.settings import SOURCE_PREFIXES, SyncSettings
from models_sync.state import Identity, State, local_manifest
from models_sync.volume import named_errors

MAX_SIGNATURE_BYTES = 64 << 10


class Trust(StrEnum):
    """How much is known about what the files should be."""

    SIGNED = "signed manifest"
    """Every byte is held against digests whose signature was checked."""
    MANIFEST = "manifest, unsigned"
    """Every byte is held against digests that whoever writes to the bucket could have written."""
    UNVERIFIED = "unverified"
    """No manifest: size and ETag, and the content where the ETag is an MD5."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What should be on the volume, and on whose word."""

    files: tuple[RemoteObject, ...]
    trust: Trust
    manifest: bytes | None = None
    signature: bytes | None = None


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """One file to fetch or to check, and why."""

    remote: RemoteObject
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a pull would do."""

    fetch: tuple[PlannedFile, ...]
    check: tuple[PlannedFile, ...]
    """There with the right size; hashed here, and fetched only if they are something else."""
    present: tuple[RemoteObject, ...]
    trust: Trust

    @property
    def total_bytes(self) -> int:
        """How much would be downloaded."""
        return sum(item.remote.size for item in self.fetch)

    @property
    def is_done(self) -> bool:
        """Whether there is nothing to do."""
        return not self.fetch and not self.check

    def as_dict(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "fetch": [_as_dict(item.remote) | {"reason": item.reason} for item in self.fetch],
            "check": [_as_dict(item.remote) | {"reason": item.reason} for item in self.check],
            "present": [_as_dict(item) for item in self.present],
            "totalBytes": self.total_bytes,
            "verified": str(self.trust),
        }


def read_wanted(bucket: Bucket, settings: SyncSettings) -> Wanted:
    """Ask the bucket what there should be: its manifest, or a listing where it has none.

    Raises:
        ManifestUntrusted: a public key is set, and the manifest is missing or not signed by it.
        ManifestOlder: the manifest is signed, and older than the last one that was.
        ManifestInvalid: there is a manifest that cannot be read.
        NothingThere: a source has no file.
        UnsafeKey: a name may not become a file.
    """
    with bucket.reader() as read:
        manifest = _read_optional(read, settings.bucket_root + MANIFEST_NAME, MAX_MANIFEST_BYTES)
        # The manifest first: `publish` signs the one before with the new signature too.
        signature_key = settings.bucket_root + SIGNATURE_NAME
        signature = manifest and _read_optional(read, signature_key, MAX_SIGNATURE_BYTES)
    if manifest is None:
        if settings.public_key:
            raise ManifestUntrusted(
                f"{bucket.where} has no {settings.bucket_root}{MANIFEST_NAME} that may be read, "
                "and MODEL_SYNC_PUBLIC_KEY asks for a signed one"
            )
        listed = bucket.list(settings.wanted_prefixes())
        for remote in listed:
            refuse_unsafe(remote.path)
        refuse_collisions(remote.path for remote in listed)
        return Wanted(tuple(listed), Trust.UNVERIFIED)
    signed = bool(settings.public_key)
    if signed:
        from models_sync import signing  # noqa: PLC0415 - costs 50 ms, and is seldom needed

        signing.check(manifest, signature, settings.public_key)
    found = Manifest.from_bytes(manifest)
    if signed and not settings.allow_older:
        _refuse_older(found, bucket, settings)
    return Wanted(
        tuple(_of_sources(found, bucket, settings)),
        Trust.SIGNED if signed else Trust.MANIFEST,
        manifest,
        signature,
    )


def make_plan(wanted: Wanted, root: Path, state: State) -> Plan:
    """Hold what is wanted against the volume.  Reads names, sizes and times; writes nothing.

    Raises:
        VolumeOfAnotherUser, VolumeUnwritable: a folder may not even be looked into.
    """
    fetch: list[PlannedFile] = []
    check: list[PlannedFile] = []
    present: list[RemoteObject] = []
    for remote in wanted.files:
        reason, checkable = _why(remote, f"{root}/{remote.path}", state)
        if reason is None:
            present.append(remote)
        else:
            (check if checkable else fetch).append(PlannedFile(remote, reason))
    return Plan(tuple(fetch), tuple(check), tuple(present), wanted.trust)


def is_complete(wanted: Wanted, root: Path, state: State) -> bool:
    """Whether there is nothing to do; looks no further than the first file that is not here.

    Raises:
        VolumeOfAnotherUser, VolumeUnwritable: as `make_plan`.
    """
    return all(_why(remote, f"{root}/{remote.path}", state)[0] is None for remote in wanted.files)


def expected_md5(remote: RemoteObject) -> str | None:
    """The MD5 of an object's content, where its ETag is one; that of an upload in parts is not."""
    etag = remote.etag or ""
    return etag if re.fullmatch(r"[0-9a-f]{32}", etag) else None


def _why(remote: RemoteObject, path: str, state: State) -> tuple[str | None, bool]:
    """Why a file is not simply there (None when it is), and whether hashing it would tell."""
    with named_errors(path):
        try:
            size = Identity.of(path).size
        except (FileNotFoundError, NotADirectoryError):
            return "missing", False
    if size != remote.size:
        return f"has {size:,} bytes instead of {remote.size:,}", False
    entry = state.entry(remote.path)
    if entry is None:
        reason = "of unknown origin"
    elif remote.published and entry.sha256 != remote.published.sha256:
        reason = "published anew" if entry.sha256 else "not verified yet"
    elif not remote.published and entry.etag != remote.etag:
        reason = "replaced in the bucket"
    elif not entry.lies_at(path):
        reason = "touched since it was fetched"
    elif remote.published and not entry.verified:
        reason = "not verified yet"
    else:
        return None, False
    return reason, bool(remote.published or expected_md5(remote))


def _refuse_older(found: Manifest, bucket: Bucket, settings: SyncSettings) -> None:
    """Raise ManifestOlder for one that was replaced; the volume's last one says so, if signed."""
    from models_sync import signing  # noqa: PLC0415 - see `read_wanted`

    kept = local_manifest(settings.local_root)
    if kept is None:
        return
    try:
        signing.check(*kept, settings.public_key)
        last = Manifest.from_bytes(kept[0])
    except (ManifestUntrusted, ManifestInvalid, UnsafeKey):
        return  # of a time without a signature or with another key: it proves nothing
    if found.created < last.created:
        raise ManifestOlder(
            f"the manifest of {bucket.where} is of {found.created:%Y-%m-%d %H:%M:%S %Z}, and the "
            f"one of the last pull is of {last.created:%Y-%m-%d %H:%M:%S %Z}"
        )


def _of_sources(
    manifest: Manifest, bucket: Bucket, settings: SyncSettings
) -> Iterable[RemoteObject]:
    root = settings.bucket_root
    for source in settings.source_names():
        prefix = SOURCE_PREFIXES[source]
        files = [file for file in manifest.files if file.key.startswith(prefix)]
        if not files:
            raise NothingThere(f"the manifest of {bucket.where} names nothing below {prefix}")
        for file in files:
            yield RemoteObject(
                key=root + file.key,
                path=file.key,
                size=file.size,
                etag=None,
                published=file,
            )


def _read_optional(read: Callable[[str, int], bytes], key: str, max_bytes: int) -> bytes | None:
    try:
        return read(key, max_bytes)
    except ObjectMissing:
        return None
    except BucketRefused as error:
        # A key that may not list is told 403 where there is nothing; a wrong key never lists.
        if "AccessDenied" in error.message:
            return None
        raise


def _as_dict(remote: RemoteObject) -> dict[str, object]:
    published = remote.published
    return {
        "key": remote.key,
        "path": remote.path,
        "size": remote.size,
        "etag": remote.etag,
        "sha256": published.sha256 if published else None,
        "licence": published.licence if published else None,
        "requiredBy": list(published.required_by) if published else [],
    }
