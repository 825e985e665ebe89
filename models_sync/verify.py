"""Are the weights on the volume what was published?  Answered without the bucket.

Quickly, by what was recorded when each file was last hashed: its size and its time.  Fully, by
hashing every byte again.  What the files should be says the manifest that the last pull trusted;
it lies beside them, and its signature is checked again each time.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from models_sync import signing
from models_sync.catalog import CATALOG, source_of
from models_sync.digests import parts_match
from models_sync.errors import ManifestAbsent, VolumeUnwritable
from models_sync.manifest import Manifest, ManifestFile
from models_sync.meter import WorkMeter
from models_sync.progress import OnProgress, Phase
from models_sync.settings import VolumeSettings
from models_sync.state import Identity, State, local_manifest


@dataclass(frozen=True, slots=True)
class Missing:
    """A file that is not there as it should be, and what is wrong with it."""

    path: str
    """Below MODEL_SYNC_LOCAL_ROOT."""
    why: str
    size: int | None = None
    """Bytes that it should have, where a manifest says so."""

    def __str__(self) -> str:
        """`smplx/SMPLX_NEUTRAL.npz (missing)`."""
        return f"{self.path} ({self.why})"


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a full verification found."""

    good: tuple[str, ...]
    bad: tuple[Missing, ...]
    signed: bool
    """Whether the manifest's signature was checked."""
    recorded: bool
    """Whether the volume could be written, so that `verify_quick` knows of it."""


def verify_quick(settings: VolumeSettings, required: Collection[str] = ()) -> list[Missing]:
    """Name what is missing or was never verified.  Reads no file's content; takes no time.

    Args:
        settings: the volume, the sources, the key that signs.
        required: sources whose code is about to be started: then only the files that they cannot
            do without count, and those of the catalogue too.  Without, every file of the
            manifest that belongs to MODEL_SYNC_SOURCES.

    Raises:
        ManifestUntrusted: the manifest beside the files is not signed by MODEL_SYNC_PUBLIC_KEY.
        ManifestInvalid: it cannot be read.
    """
    manifest, _ = kept_manifest(settings)
    known = manifest.by_key() if manifest else {}
    missing = []
    if known:
        state = State(settings.local_root)
        for file in known.values():
            counts = (
                set(file.required_by) & set(required) if required else _is_wanted(file, settings)
            )
            why = _why_not(file, settings.local_root, state) if counts else None
            if why:
                missing.append(Missing(file.key, why, file.size))
    for key in _needed_by_code(required or (() if known else settings.source_names())):
        path = settings.local_root / key
        # Not in the manifest, so that nothing more can be asked of it: copied there by hand, or
        # converted from a pickle that is.
        if key not in known and not (path.is_file() and path.stat().st_size):
            missing.append(Missing(key, "missing"))
    return missing


def verify_full(
    settings: VolumeSettings,
    manifest: Manifest | None = None,
    on_progress: OnProgress | None = None,
    cancel: threading.Event | None = None,
) -> VerifyReport:
    """Hash every file of MODEL_SYNC_SOURCES again and record the outcome on the volume.

    Args:
        settings: the volume, the sources, the key that signs.
        manifest: what the files should be, already trusted; that beside the files if not given.
        on_progress: told how far it is.
        cancel: set to stop.

    Raises:
        ManifestAbsent: no manifest is there and none was given.
        ManifestUntrusted, ManifestInvalid: see `verify_quick`.
        Interrupted: `cancel` was set.
    """
    signed = bool(settings.public_key)
    if manifest is None:
        manifest, signed = kept_manifest(settings)
    if manifest is None:
        raise ManifestAbsent
    state, meter = State(settings.local_root), WorkMeter(on_progress, cancel)
    files = [file for file in manifest.files if _is_wanted(file, settings)]
    meter.begin(Phase.CHECKING, [file.size for file in files])
    good, bad, recorded = [], [], True
    for file in files:
        why = _hash(file, settings.local_root, state, meter)
        if why:
            bad.append(Missing(file.key, why, file.size))
            state.forget([file.key])
        else:
            good.append(file.key)
        meter.file_done()
    try:
        state.flush()
    except VolumeUnwritable:
        recorded = False  # what cannot be written can be verified all the same
    return VerifyReport(tuple(good), tuple(bad), signed, recorded)


def kept_manifest(settings: VolumeSettings) -> tuple[Manifest | None, bool]:
    """The manifest beside the files, and whether its signature was checked.

    Raises:
        ManifestUntrusted, ManifestInvalid: see `verify_quick`.
    """
    kept = local_manifest(settings.local_root)
    if kept is None:
        return None, False
    signed = signing.check(*kept, settings.public_key)
    return Manifest.from_bytes(kept[0]), signed


def how_to_get(missing: Collection[Missing], root: Path) -> str:
    """Say which files are missing and how to get them: for a worker that does not sync itself."""
    names = "".join(f"\n  {file}" for file in missing)
    return (
        f"{len(missing)} files are not as they should be below {root}:{names}\n"
        "Bring them there with `models-sync pull`, or set MODEL_SYNC_ENABLED=true and "
        "MODEL_SYNC_MINIO_*; if you copied them there yourself, `models-sync verify --full` "
        "says whether they are whole."
    )


def _is_wanted(file: ManifestFile, settings: VolumeSettings) -> bool:
    return source_of(file.key) in settings.source_names()


def _needed_by_code(sources: Collection[str]) -> Iterator[str]:
    for name in sources:
        source = CATALOG[name]
        yield from (source.prefix + file for file in source.required)


def _why_not(file: ManifestFile, root: Path, state: State) -> str | None:
    """What is wrong with a file, as far as its size, its time and our records tell."""
    path = root / file.key
    if wrong := _wrong_size(file, path):
        return wrong
    entry = state.entry(file.key)
    if entry is None or not entry.verified:
        return "was never verified"
    if entry.sha256 != file.sha256:
        return "is another version"
    return None if entry.lies_at(path) else "was touched since it was verified"


def _hash(file: ManifestFile, root: Path, state: State, meter: WorkMeter) -> str | None:
    """What is wrong with a file's content; one that is right is recorded."""
    path = root / file.key
    if wrong := _wrong_size(file, path):
        return wrong
    try:
        identity = Identity.of(path)
        if not parts_match(path, file.parts, file.part_size, meter.advance):
            return "is damaged, or another version"
        noted = state.note(
            file.key, etag=None, sha256=file.sha256, verified=True, identity=identity
        )
    except OSError as error:
        return error.strerror or str(error)
    return None if noted else "was replaced while it was read"


def _wrong_size(file: ManifestFile, path: Path) -> str | None:
    try:
        size = path.stat().st_size
    except OSError:
        return "missing"
    return None if size == file.size else f"has {size:,} bytes instead of {file.size:,}"
