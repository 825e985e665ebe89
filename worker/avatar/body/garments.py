"""How clothes lie on bodies: what varies about it, and how it goes with who wears them.

`recipes/wardrobe` learns it from thousands of people in drawn clothes that lie, bridge and hang.
What is worn is a field over the body's vertices, how far its outside stands off along the skin's
normal: a sum of modes, whose coefficients are a Gaussian for each kind of top over each kind of
bottom, linear in betas.
"""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worker.avatar.types import Float64Array, Gender
from worker.errors import ModelInvalid

KINDS = ("tight", "slim", "everyday", "loose")
"""How a garment may sit."""

Outfit = tuple[str, str]
"""The kind of top and the kind of bottom."""

OUTFITS: tuple[Outfit, ...] = tuple(itertools.product(KINDS, KINDS))


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """One outfit on people of one sex: coefficients of the modes, given betas."""

    middle: Float64Array
    """(M,) metres, where betas are 0."""
    by_betas: Float64Array
    """(M, K) metres a standard deviation of a beta."""
    covariance: Float64Array
    """(M, M) square metres that betas leave open."""


@dataclass(frozen=True, slots=True, eq=False)
class Garments:
    """All that may be worn."""

    modes: Float64Array
    """(V, M): metres that each vertex's cloth stands off, for a coefficient of one metre."""
    folds_m: Mapping[Outfit, Float64Array]
    """(V,) root mean square of what the modes leave out."""
    cuts: Mapping[tuple[Outfit, Gender, Gender], Cut]
    """By outfit, the gender of the body whose betas are meant, and the sex of the people."""


def sexes_of(gender: Gender) -> tuple[Gender, ...]:
    """Who may be meant by a declared gender, in the order of `People`'s Gaussians."""
    return (Gender.FEMALE, Gender.MALE) if gender is Gender.NEUTRAL else (gender,)


def write_garments(path: Path, garments: Garments) -> None:
    """Write the file; the same arrays give the same bytes."""
    arrays: dict[str, np.ndarray] = {"modes": garments.modes.astype(np.float16)}
    for outfit, folds_m in garments.folds_m.items():
        arrays[f"{_name(outfit)}_folds_m"] = folds_m.astype(np.float16)
    for (outfit, gender, sex), cut in garments.cuts.items():
        name = f"{_name(outfit)}_{gender}_{sex}"
        arrays[f"{name}_middle"] = cut.middle.astype(np.float32)
        arrays[f"{name}_by_betas"] = cut.by_betas.astype(np.float32)
        arrays[f"{name}_covariance"] = cut.covariance.astype(np.float64)
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type] # numpy's stub takes the names for its own arguments


def read_garments(path: Path) -> Garments:
    """Read the file.

    Raises:
        ModelInvalid: the file is no such file.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name].astype(np.float64) for name in archive.files}
        return Garments(
            modes=arrays["modes"],
            folds_m={outfit: arrays[f"{_name(outfit)}_folds_m"] for outfit in OUTFITS},
            cuts={
                (outfit, gender, sex): Cut(
                    *(
                        arrays[f"{_name(outfit)}_{gender}_{sex}_{field}"]
                        for field in ("middle", "by_betas", "covariance")
                    )
                )
                for outfit in OUTFITS
                for gender in Gender
                for sex in sexes_of(gender)
            },
        )
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ModelInvalid(f"{path.name} does not hold garments: {error}") from error


def _name(outfit: Outfit) -> str:
    return "_over_".join(outfit)
