"""`convert-smplx`: the official body models as numbers alone.

SMPLX_*.pkl are pickles of Python 2, with sparse matrices of scipy (and chumpy objects in SMPL and
MANO); older .npz hold some of their tables as pickled objects.  What comes out is an .npz that
`np.load(allow_pickle=False)` reads whole, the same bytes each time.  Names of joints and parts are
no numbers and are left out.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from models_sync import pickles
from models_sync.atomic import replace_file
from models_sync.errors import NotABodyModel, PickleRefused, PlacementBlocked
from models_sync.pickles import Array

REQUIRED_ARRAYS = (
    "v_template",
    "shapedirs",
    "posedirs",
    "J_regressor",
    "weights",
    "kintree_table",
    "f",
)
"""What every body model of the SMPL family has (smplx/body_models.py)."""

PICKLE_SUFFIXES = {".pkl", ".pickle"}


@dataclass(frozen=True, slots=True)
class Converted:
    """What a conversion did."""

    source: Path
    target: Path
    shapes: dict[str, tuple[int, ...]]
    """Name → shape of each array that was kept."""
    left_out: tuple[str, ...]
    """Entries that hold no numbers."""


def convert_smplx(
    source: Path, target: Path | None = None, *, overwrite: bool = False
) -> Converted:
    """Write the numeric arrays of an official body model to an .npz.

    Args:
        source: SMPLX_*.pkl or .npz as its publisher ships it.
        target: where to; the source's name with .npz when not given.
        overwrite: whether a file at `target` may be replaced.

    Raises:
        PickleRefused: the file asks for more than arrays (it was not run) or is damaged.
        NotABodyModel: it lacks arrays of a body model, or cannot be read.
        PlacementBlocked: `target` exists.
        VolumeUnwritable: `target` cannot be written.
    """
    target = target or source.with_suffix(".npz")
    if target.exists() and not overwrite:
        raise PlacementBlocked(f"{target} exists")
    arrays, left_out = read_arrays(source)
    if missing := [name for name in REQUIRED_ARRAYS if name not in arrays]:
        raise NotABodyModel(f"{source.name} has no {', '.join(missing)}")
    ordered = {name: arrays[name] for name in sorted(arrays)}
    # Not compressed: it saves 5 % of such files, and is paid for at every start.
    replace_file(target, lambda file: np.savez(file, allow_pickle=False, **ordered))
    return Converted(source, target, {name: ordered[name].shape for name in ordered}, left_out)


def read_arrays(path: Path) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Read the numeric arrays of a .pkl or .npz, and the names of what holds no numbers.

    Raises:
        PickleRefused, NotABodyModel: see `convert_smplx`.
    """
    try:
        if path.suffix.lower() in PICKLE_SUFFIXES:
            entries = pickles.load(path.read_bytes())
            if not isinstance(entries, dict):
                raise NotABodyModel(f"{path.name} holds no table of arrays")
            found = {str(name): pickles.as_array(value) for name, value in entries.items()}
        else:
            found = _npz_arrays(path)
    except OSError as error:
        raise NotABodyModel(f"{path}: {error.strerror or error}") from error
    except PickleRefused as error:
        raise PickleRefused(f"{path.name}: {error.message}") from error
    numbers = {name: array for name, array in found.items() if array is not None}
    return numbers, tuple(sorted(set(found) - set(numbers)))


def _npz_arrays(path: Path) -> dict[str, Array | None]:
    try:
        with zipfile.ZipFile(path) as archive:
            found: dict[str, Array | None] = {}
            for member in archive.namelist():
                with archive.open(member) as file:
                    found[member.removesuffix(".npy")] = _npy_array(file)
            return found
    except (OSError, PickleRefused):
        raise
    except Exception as error:  # a damaged archive raises nearly anything
        raise NotABodyModel(f"{path.name} is no .npz of arrays: {error}") from error


def _npy_array(file: IO[bytes]) -> Array | None:
    """Read one .npy; where it holds objects, its body is a pickle of the array."""
    version = np.lib.format.read_magic(file)
    header = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else (np.lib.format.read_array_header_2_0)
    )
    shape, fortran, dtype = header(file)
    if dtype.hasobject:
        return pickles.as_array(pickles.load(file.read()))
    if dtype.kind not in "biuf":
        return None
    array = np.frombuffer(file.read(), dtype=dtype)
    return array.reshape(shape, order="F" if fortran else "C")


def refuse_unsafe_pickle(path: Path) -> None:
    """Pass when a pickle holds arrays and nothing that loading it would run.

    Raises:
        PickleRefused: it names more.
    """
    try:
        pickles.load(path.read_bytes())
    except PickleRefused as error:
        raise PickleRefused(f"{path}: {error.message}") from error
