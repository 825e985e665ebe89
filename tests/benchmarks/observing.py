"""Photos of cases as the worker's own observers see them, kept beside the photos.

Observing takes longer than fitting and depends on nothing that is tuned in a fit; what was seen
is kept under a key of the photo, the networks and the observers' code, and seen again when any of
them changes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import worker.avatar.observe
import worker.avatar.photo
from tests.benchmarks.cases import Case
from worker.avatar.observe import assets
from worker.avatar.observe.observer import Observer
from worker.avatar.photo import read_photo
from worker.avatar.types import Intrinsics, Observation, ViewName
from worker.errors import InputError


class Refused(Exception):
    """The observers do not accept the photo.

    Attributes:
        code: of the error that a shopper would get.
    """

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class SeenCases:
    """Observations of cases: from photos by the real observers, else the case's own.

    Args:
        direct: take masks and keypoints where a case has both them and photos.
    """

    def __init__(self, *, direct: bool = False) -> None:
        self._direct = direct
        self._observer: Observer | None = None

    def observation(self, case: Case, view: ViewName) -> Observation:
        """What is seen of a case from one side.

        Raises:
            Refused: the photo cannot be used.
            MalformedCase: there is neither a photo nor a mask.
        """
        photo = case.photo(view)
        if photo is None or (self._direct and (case.folder / f"{view.value}_mask.png").exists()):
            return case.observation(view)
        kept = photo.with_name(f"{photo.stem}_seen-{_key(photo)}.npz")
        if not kept.exists():
            self._see(photo, view, kept)
        return _read(kept)

    def _see(self, photo: Path, view: ViewName, kept: Path) -> None:
        if self._observer is None:
            self._observer = Observer.load(assets.default_models_dir(), threads=1)
        try:
            seen = self._observer.observe(read_photo(photo, view))
        except InputError as refusal:
            _write(kept, {"refused": refusal.code}, {})
            return
        arrays, plain = {}, {}
        for field in fields(seen):
            value = getattr(seen, field.name)
            if isinstance(value, np.ndarray):
                arrays[field.name] = value
            elif isinstance(value, Intrinsics):
                plain[field.name] = asdict(value)
            else:
                plain[field.name] = value
        _write(kept, plain, arrays)


def _write(path: Path, plain: dict[str, Any], arrays: dict[str, np.ndarray[Any, Any]]) -> None:
    """Write a file that a run cut short leaves no half of."""
    partial = path.with_suffix(".part")
    with partial.open("wb") as file:
        np.savez_compressed(file, said=np.array(json.dumps(plain)), **arrays)  # type: ignore[arg-type] # numpy's stub takes the names for its own arguments
    partial.replace(path)


def _read(path: Path) -> Observation:
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    said = json.loads(str(arrays.pop("said")))
    if "refused" in said:
        raise Refused(said["refused"])
    said["view"] = ViewName(said["view"])
    said["intrinsics"] = Intrinsics(**said["intrinsics"])
    said["warnings"] = tuple(said["warnings"])
    return Observation(**said, **arrays)


def _key(photo: Path) -> str:
    digest = hashlib.sha256(_observers())
    digest.update(photo.read_bytes())
    return digest.hexdigest()[:12]


@cache
def _observers() -> bytes:
    """Digest of all that decides what is seen in a photo."""
    digest = hashlib.sha256()
    for asset in assets.ASSETS:
        digest.update(asset.sha256.encode())
    for package in (worker.avatar.observe, worker.avatar.photo):
        for path in sorted(Path(str(package.__file__)).parent.glob("*.py")):
            digest.update(path.read_bytes())
    digest.update(repr([field.name for field in fields(Observation)]).encode())
    return digest.digest()
