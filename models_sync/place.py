"""Bring files from the volume to where vendors' code looks for them.

PIXIE reads `$PIXIE_MODEL_DIR/data`, SAM 2 `$SAM3DBODY_SEGMENTOR_PATH/checkpoints`.  A symbolic
link serves; where a file system has none, a copy, read back and compared.  What already is in its
place is left alone, so that a second run writes nothing and an image that was built with the links
may be read-only.  A real file is never overwritten, unless it is a copy that we made.

Pickles are looked at first: SMPL-X's are converted to .npz beside them, and one that vendor code
will load may hold arrays and nothing else.
"""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from models_sync.atomic import cannot_write, partial_name, replace_file
from models_sync.convert import PICKLE_SUFFIXES, Converted, convert_smplx, refuse_unsafe_pickle
from models_sync.errors import (
    PlacementBlocked,
    PlacementMissing,
    VolumeReadOnly,
    VolumeUnwritable,
)
from models_sync.ledger import Ledger
from models_sync.names import OWN_PREFIX

_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What symlink(2) answers on file systems without links."""
_CHUNK_BYTES = 4 << 20
_BODY_MODEL = re.compile(r"SMPLX_(NEUTRAL|MALE|FEMALE)", re.IGNORECASE)
"""How the names of SMPL-X's own pickles begin; its archives hold others that are no bodies."""


class PlaceSettings(Protocol):
    """What `place` asks of its settings."""

    @property
    def local_root(self) -> Path:
        """The volume."""

    @property
    def pixie_model_dir(self) -> Path:
        """PIXIE's code."""

    @property
    def segmentor_path(self) -> Path:
        """SAM 2's code."""

    def source_names(self) -> tuple[str, ...]:
        """Which models are asked for."""


class How(StrEnum):
    """How a file came to its place."""

    THERE = "there"
    LINKED = "linked"
    COPIED = "copied"


@dataclass(frozen=True, slots=True)
class Placed:
    """One file in its place, checked."""

    source: Path
    target: Path
    how: How


@dataclass(frozen=True, slots=True)
class PlaceReport:
    """What `place` found and did."""

    files: tuple[Placed, ...]
    converted: tuple[Converted, ...]
    skipped: tuple[str, ...]
    """Sentences: what was not placed because there is nothing to place, or nowhere."""

    @property
    def changed(self) -> bool:
        """Whether anything was written."""
        return bool(self.converted) or any(file.how is not How.THERE for file in self.files)


def place(settings: PlaceSettings, *, copy: bool = False) -> PlaceReport:
    """Put the files of every source that is asked for where they are looked for.

    Args:
        settings: the volume, the vendors' folders, the sources.
        copy: copy even where links work.

    Raises:
        PlacementBlocked: something else lies at a target; it was left as it is.
        PlacementMissing: a file is not in its place, and the place is read-only.
        VolumeOfAnotherUser: the place belongs to another user; the message has the command.
        VolumeUnwritable: the place is full or damaged, or a file may not be read.
        PickleRefused, NotABodyModel: a pickle is not what it should be.
    """
    root, wanted = settings.local_root, settings.source_names()
    files: list[Placed] = []
    skipped: list[str] = []
    converted = tuple(_convert_pickles(root / "smplx", skipped)) if "smplx" in wanted else ()
    for source, origin, home, variable in (
        ("pixie", root / "pixie", settings.pixie_model_dir / "data", "PIXIE_MODEL_DIR"),
        (
            "sam2",
            root / "sam2" / "checkpoints",
            settings.segmentor_path / "checkpoints",
            "SAM3DBODY_SEGMENTOR_PATH",
        ),
    ):
        if source not in wanted:
            continue
        if not any(_files(origin)):
            skipped.append(f"{origin} holds no file.")
        elif not home.parent.is_dir():
            skipped.append(f"{variable}: {home.parent} does not exist, so {source} has no place.")
        else:
            files += [
                _place_file(path, home / path.relative_to(origin), root, copy=copy)
                for path in _files(origin)
            ]
    return PlaceReport(tuple(files), converted, tuple(skipped))


def _files(folder: Path) -> Iterator[Path]:
    """Files below a folder, in order, without those that we keep for ourselves."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith(OWN_PREFIX):
            yield path


def _convert_pickles(folder: Path, skipped: list[str]) -> Iterator[Converted]:
    """Convert SMPL-X's pickles that have no .npz beside them, or one that we made of another."""
    for path in _files(folder):
        target = path.with_suffix(".npz")
        ledger = Ledger(folder=target.parent)
        if path.suffix.lower() not in PICKLE_SUFFIXES:
            continue
        if not _BODY_MODEL.match(path.name):
            skipped.append(f"{path} is none of SMPLX_{{NEUTRAL,MALE,FEMALE}}.pkl: not converted.")
            continue
        if target.exists() and (not ledger.made(target) or ledger.made_from(target, path)):
            continue  # the operator's own file, or our conversion of this very pickle
        try:
            converted = convert_smplx(path, target, overwrite=True)
        except VolumeUnwritable as error:
            raise type(error)(
                f"{error.message}\n{path.name} has to be converted: run `models-sync convert-smplx "
                f"{path} --out FILE.npz` where you can write, and publish the .npz instead."
            ) from error
        ledger.record(target, path)
        yield converted


# ---------------------------------------------------------------- one file
def _place_file(source: Path, target: Path, root: Path, *, copy: bool) -> Placed:
    try:
        if source.suffix.lower() in PICKLE_SUFFIXES:
            refuse_unsafe_pickle(source)
        ledger = Ledger(target.parent)
        if _is_in_place(source, target, ledger):
            return Placed(source, target, How.THERE)
        _refuse_to_overwrite(source, target, root, ledger)
        if not copy and _link(source, target):
            return Placed(source, target, How.LINKED)
        _copy(source, target)
        ledger.record(target, source)
    except VolumeReadOnly as error:
        raise PlacementMissing(f"{target} is not there, and {error.message}") from error
    except OSError as error:  # what cannot be written has its name by now
        said = f"{error.filename or source} cannot be read: {error.strerror or error}"
        raise VolumeUnwritable(said) from error
    return Placed(source, target, How.COPIED)


def _is_in_place(source: Path, target: Path, ledger: Ledger) -> bool:
    """Whether `target` is `source`: by a link, by a bind mount, or as a copy of the same bytes."""
    if not target.is_file():
        return False
    if target.samefile(source):
        return True
    if ledger.made(target):
        return ledger.made_from(target, source)
    return not target.is_symlink() and _same_bytes(source, target)


def _refuse_to_overwrite(source: Path, target: Path, root: Path, ledger: Ledger) -> None:
    """Raise PlacementBlocked for what others put at `target`."""
    if target.is_symlink():
        # Ours lead to the volume; a dead one is of no use to anyone.
        if target.exists() and not target.resolve().is_relative_to(root.resolve()):
            raise PlacementBlocked(f"{target} is a link to {target.resolve()}, not to {source}")
    elif target.exists() and not ledger.made(target):
        raise PlacementBlocked(f"{target} is there already, and it is not {source}")


def _link(source: Path, target: Path) -> bool:
    """Put a link at `target`, at once; False: links do not work here."""
    partial = partial_name(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.symlink_to(source.absolute())
        if not partial.is_file() or not partial.samefile(source):
            partial.unlink()
            return False
        partial.replace(target)
    except OSError as error:
        if error.errno in _NO_LINKS:
            return False  # a folder that may not be written says so again when it is copied to
        raise cannot_write(target, error) from error
    return True


def _copy(source: Path, target: Path) -> None:
    """Copy, read back and compare."""
    with source.open("rb") as origin:
        replace_file(target, lambda file: shutil.copyfileobj(origin, file, _CHUNK_BYTES))
    if not _same_bytes(source, target):
        target.unlink()
        raise VolumeUnwritable(f"{target} could be written and reads back differently")


def _same_bytes(one: Path, other: Path) -> bool:
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as left, other.open("rb") as right:
        while chunk := left.read(_CHUNK_BYTES):
            if chunk != right.read(_CHUNK_BYTES):
                return False
    return True
