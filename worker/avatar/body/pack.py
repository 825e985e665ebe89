"""The packed form in which the free body ships: one .npz for all three genders, about 7 MB.

Shape directions are whole numbers of `STEP_M`, low and high bytes apart, which deflate shrinks
well; regressors are sparse; topology, weights and regressors are shared by the genders.  With
betas of ±3 and 50 components the rounding moves a vertex by 0.05 mm (root mean square).
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worker.avatar.body.model import People
from worker.avatar.types import Float32Array, Gender, Int64Array
from worker.errors import ModelInvalid

STEP_M = 5e-6
"""What one unit of a packed shape direction stands for."""


@dataclass(frozen=True, slots=True, eq=False)
class PackedShape:
    """What differs between the genders."""

    v_template: Float32Array
    """(V, 3)."""
    shapedirs: Float32Array
    """(V, 3, K)."""


@dataclass(frozen=True, slots=True, eq=False)
class PackedTopology:
    """What the genders share."""

    expressiondirs: Float32Array
    """(V, 3, 10)."""
    J_regressor: Float32Array
    """(55, V)."""
    lbs_weights: Float32Array
    """(V, 55)."""
    faces: Int64Array
    """(F, 3)."""
    keypoint_regressor: Float32Array
    """(23, V)."""
    display_vertices: Int64Array
    """(Vd,)."""
    display_faces: Int64Array
    """(Fd, 3)."""


def write_pack(path: Path, topology: PackedTopology, shapes: dict[Gender, PackedShape]) -> None:
    """Write the packed body; the same arrays give the same bytes."""
    arrays: dict[str, Any] = {
        "faces": topology.faces.astype(np.uint16),
        "display_vertices": topology.display_vertices.astype(np.uint16),
        "display_faces": topology.display_faces.astype(np.uint16),
        "expressiondirs": _quantise(topology.expressiondirs),
    }
    for name in ("J_regressor", "lbs_weights", "keypoint_regressor"):
        matrix = np.asarray(getattr(topology, name), dtype=np.float32)
        rows, columns = np.nonzero(matrix)
        arrays[f"{name}_shape"] = np.array(matrix.shape, dtype=np.int32)
        arrays[f"{name}_rows"] = rows.astype(np.uint16)
        arrays[f"{name}_columns"] = columns.astype(np.uint16)
        arrays[f"{name}_values"] = matrix[rows, columns]
    for gender, shape in shapes.items():
        arrays[f"{gender}_v_template"] = shape.v_template.astype(np.float32)
        arrays[f"{gender}_shapedirs"] = _quantise(shape.shapedirs)
    np.savez_compressed(path, **arrays)


def read_topology(path: Path) -> PackedTopology:
    """Unfold what the genders share.

    Raises:
        ModelInvalid: the file is no pack.
    """
    with _open(path) as pack:
        regressors = {
            name: _dense(pack, name)
            for name in ("J_regressor", "lbs_weights", "keypoint_regressor")
        }
        return PackedTopology(
            expressiondirs=_restore(pack["expressiondirs"], len(regressors["lbs_weights"])),
            faces=pack["faces"].astype(np.int64),
            display_vertices=pack["display_vertices"].astype(np.int64),
            display_faces=pack["display_faces"].astype(np.int64),
            **regressors,
        )


def read_shape(path: Path, gender: Gender) -> PackedShape:
    """Unfold what is one gender's own.

    Raises:
        ModelInvalid: the file is no pack.
    """
    with _open(path) as pack:
        template = pack[f"{gender}_v_template"]
        return PackedShape(template, _restore(pack[f"{gender}_shapedirs"], len(template)))


def write_people(path: Path, people: Mapping[Gender, People]) -> None:
    """Write how the betas of each gender's adults are spread."""
    arrays: dict[str, Any] = {}
    for gender, spread in people.items():
        arrays[f"{gender}_means"] = spread.means.astype(np.float32)
        arrays[f"{gender}_covariances"] = spread.covariances.astype(np.float32)
    np.savez_compressed(path, **arrays)


def read_people(path: Path, gender: Gender) -> People:
    """Read how the betas of a gender's adults are spread.

    Raises:
        ModelInvalid: the file is no such file.
    """
    with _open(path) as pack:
        return People(
            pack[f"{gender}_means"].astype(np.float64),
            pack[f"{gender}_covariances"].astype(np.float64),
        )


def _open(path: Path) -> Any:  # np.load's archive has no public type
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ModelInvalid(f"{path.name} is not a packed body: {error}") from error


def _quantise(directions: Float32Array) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Turn (V, 3, K) into (2, K·V·3) bytes, component by component, the low bytes first."""
    steps = np.rint(np.asarray(directions, dtype=np.float64) / STEP_M).transpose(2, 0, 1)
    if np.abs(steps).max() > np.iinfo(np.int16).max:
        raise ValueError("a shape direction is too long to be packed")
    pairs = np.ascontiguousarray(steps).astype("<i2").view(np.uint8).reshape(-1, 2)
    return np.ascontiguousarray(pairs.T)


def _restore(planes: np.ndarray[Any, np.dtype[np.uint8]], num_vertices: int) -> Float32Array:
    """Undo `_quantise`."""
    steps = np.ascontiguousarray(planes.T).view("<i2").reshape(-1, num_vertices, 3)
    directions = (steps.astype(np.float64) * STEP_M).astype(np.float32)
    return np.ascontiguousarray(directions.transpose(1, 2, 0))


def _dense(pack: Any, name: str) -> Float32Array:
    matrix = np.zeros(pack[f"{name}_shape"], dtype=np.float32)
    matrix[pack[f"{name}_rows"], pack[f"{name}_columns"]] = pack[f"{name}_values"]
    return matrix
