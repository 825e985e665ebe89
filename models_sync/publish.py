"""`publish`: bring a folder of weights to the bucket, and say in a manifest what they are.

Files first, the manifest last: a reader sees the old publication or the new one.  (While a file of
the old one is being replaced under its own key, a reader that is about to fetch it is told that it
is not what the manifest says, and tries again later.)  What the bucket holds already, by its ETag,
is not sent again: neither after an interruption nor when the bucket was once filled by hand.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from models_sync.catalog import CATALOG, required_by, source_of
from models_sync.digests import UPLOAD_PART_BYTES, Digests, digest
from models_sync.errors import NothingThere, SourceUnusable
from models_sync.manifest import PART_BYTES, Manifest, ManifestFile
from models_sync.meter import WorkMeter
from models_sync.progress import OnProgress, Phase
from models_sync.publication import Publication
from models_sync.scan import scan
from models_sync.settings import PublishSettings
from models_sync.store import Store

_FILES_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """What the operator may choose."""

    licences: Mapping[str, str] = field(default_factory=dict)
    """Source → licence tag, instead of the catalogue's."""
    mirror: bool = False
    """Files that the folder no longer has leave the manifest, then the bucket."""
    replace: bool = False
    """Start from nothing instead of from the bucket's manifest."""
    dry_run: bool = False
    """Only say what would be done."""


@dataclass(frozen=True, slots=True)
class PublishReport:
    """What was done, or would be."""

    uploaded: tuple[str, ...]
    unchanged: tuple[str, ...]
    kept: tuple[str, ...]
    """In the manifest, not in the folder, and left there."""
    removed: tuple[str, ...]
    ignored: tuple[str, ...]
    """In the folder and no part of a source."""
    missing: tuple[str, ...]
    """What code cannot start without, of sources that have some files and not these."""
    uploaded_bytes: int
    signed: bool
    made_bucket: bool = False
    """Whether there was no such bucket before."""

    def as_dict(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "uploaded": list(self.uploaded),
            "unchanged": list(self.unchanged),
            "kept": list(self.kept),
            "removed": list(self.removed),
            "ignored": list(self.ignored),
            "missing": list(self.missing),
            "uploadedBytes": self.uploaded_bytes,
            "signed": self.signed,
            "madeBucket": self.made_bucket,
        }


def publish(
    settings: PublishSettings,
    folder: Path,
    options: PublishOptions | None = None,
    on_progress: OnProgress | None = None,
    cancel: threading.Event | None = None,
) -> PublishReport:
    """Bring the files of `folder` to the bucket, then the manifest.

    A bucket that does not exist is made, private as S3 servers make them.

    Raises:
        NothingThere: there is no bucket, and this is a dry run.
        SourceUnusable: the folder holds no source, cannot be read, or changes meanwhile.
        UnsafeKey: a file's name could not be one on every volume.
        PickleRefused: a pickle asks for more than arrays.
        KeyFileUnusable: the bucket's manifest is signed, and we have no key.
        ManifestUntrusted: the bucket's manifest is not signed by a key that we trust.
        PublishConflict: someone else published meanwhile.
        ObjectDamaged: the server holds something else than what was sent.
        BucketRefused, BucketUnreachable: the server.
        Interrupted: `cancel` was set; what the manifest says still holds.
    """
    options = options or PublishOptions()
    files, ignored = scan(folder, settings.source_names())
    store = Store(settings)
    made_bucket = False
    try:
        publication = Publication.read(store, settings, start_anew=options.replace)
    except NothingThere:
        # Not asked before: whoever may only write objects may not ask whether there is a bucket.
        if options.dry_run:
            raise
        made_bucket = store.make_bucket()
        publication = Publication.read(store, settings, start_anew=options.replace)
    before = publication.files
    meter = WorkMeter(on_progress, cancel)
    known = _digest_all(files, meter)
    there = store.stored(settings.wanted_prefixes())
    to_send = [name for name in files if there.get(name) != _stored(known[name])]
    gone = {
        name for name in before if name not in files and source_of(name) in settings.source_names()
    }
    versions: dict[str, str | None] = {}
    if not options.dry_run:
        meter.begin(Phase.UPLOADING, [known[name].stamp.size for name in to_send])

        def send(name: str) -> str | None:
            key = settings.bucket_root + name
            version = store.upload(key, files[name], known[name], meter.advance)
            meter.file_done()
            return version

        large = {name for name in to_send if known[name].stamp.size > UPLOAD_PART_BYTES}
        versions = _side_by_side(send, to_send, one_by_one=large)
    after = {name: file for name, file in before.items() if not (options.mirror and name in gone)}
    for name in files:
        licence = options.licences.get(source_of(name) or "")
        after[name] = _entry(name, known[name], before.get(name), versions, licence)
    if not options.dry_run:
        publication.replace(Manifest(files=tuple(after.values())))
        if options.mirror:  # after the manifest: nobody asks for them any more
            store.remove([settings.bucket_root + name for name in sorted(gone)])
    return PublishReport(
        uploaded=tuple(sorted(to_send)),
        unchanged=tuple(sorted(set(files) - set(to_send))),
        kept=() if options.mirror else tuple(sorted(gone)),
        removed=tuple(sorted(gone)) if options.mirror else (),
        ignored=ignored,
        missing=tuple(_missing(after)),
        uploaded_bytes=sum(known[name].stamp.size for name in to_send),
        signed=publication.signs,
        made_bucket=made_bucket,
    )


def _missing(files: Collection[str]) -> Iterator[str]:
    """What code cannot start without, of each source that has any file."""
    for source in CATALOG.values():
        if any(name.startswith(source.prefix) for name in files):
            yield from (
                source.prefix + name
                for name in source.required
                if source.prefix + name not in files
            )


def _digest_all(files: Mapping[str, Path], meter: WorkMeter) -> dict[str, Digests]:
    known = {}
    try:
        meter.begin(Phase.CHECKING, [path.stat().st_size for path in files.values()])
        for name, path in files.items():
            known[name] = digest(path, meter.advance)
            meter.file_done()
    except OSError as error:
        # What we raise ourselves, `FileChanged`, is a sentence; the system's has two parts.
        said = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        raise SourceUnusable(said) from error
    return known


def _stored(known: Digests) -> tuple[int, str]:
    """Size and ETag of an object that holds this very content."""
    return known.stamp.size, known.etag


def _side_by_side(
    send: Callable[[str], str | None], names: list[str], *, one_by_one: Collection[str]
) -> dict[str, str | None]:
    """Call `send` for every name, several at once; large files hold several parts in memory."""
    alone = threading.Lock()

    def send_in_turn(name: str) -> str | None:
        with alone if name in one_by_one else nullcontext():
            return send(name)

    with ThreadPoolExecutor(_FILES_AT_ONCE, thread_name_prefix="publish") as pool:
        try:
            return dict(zip(names, pool.map(send_in_turn, names), strict=True))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _entry(
    name: str,
    known: Digests,
    before: ManifestFile | None,
    versions: Mapping[str, str | None],
    licence: str | None,
) -> ManifestFile:
    same = before is not None and before.sha256 == known.sha256
    kept_version = before.version_id if before is not None and same else None
    source = source_of(name)
    return ManifestFile(
        key=name,
        size=known.stamp.size,
        sha256=known.sha256,
        part_size=PART_BYTES,
        parts=known.parts,
        version_id=versions.get(name, kept_version),
        licence=licence or (CATALOG[source].licence if source else "unknown"),
        required_by=required_by(name),
    )
