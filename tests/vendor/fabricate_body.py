"""A body of 10,475 vertices and 20,908 triangles in SMPL-X's layout, made from the free body.

Edges are merged until so many vertices are left; then every vertex that we or `smplx` address by
number gets its number.  So what is tested on it is the format and the numbers of SMPL-X, not its
shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from worker.avatar.body.files import save_smplx_npz
from worker.avatar.body.free import free_body
from worker.avatar.body.layout import SMPLX_VERTEX_IDS
from worker.avatar.body.mhr import mhr_card
from worker.avatar.body.model import BodyData
from worker.avatar.body.smplx import FACES, VERTICES
from worker.avatar.measure.landmarks import load_landmarks
from worker.avatar.types import Gender


@dataclass(frozen=True)
class Topology:
    """How the free body's vertices become SMPL-X's."""

    index: np.ndarray
    """(10475,) which vertex of the free body each is."""
    slot: np.ndarray
    """(13492,) which of them each vertex of the free body was merged into."""
    faces: np.ndarray
    """(20908, 3)."""


@cache
def topology() -> Topology:
    body = free_body(Gender.NEUTRAL)
    named = _named(body)
    faces, home = _merged(
        np.asarray(body.v_template, dtype=np.float64), np.asarray(body.faces), set(named.values())
    )
    others = [int(vertex) for vertex in np.unique(home) if vertex not in set(named.values())]
    free_slots = [slot for slot in range(VERTICES) if slot not in named]
    # What is left over repeats a vertex that no triangle uses.
    index = np.full(VERTICES, others[0])
    index[list(named)] = list(named.values())
    index[free_slots[: len(others)]] = others
    number = {vertex: slot for slot, vertex in named.items()}
    number |= dict(zip(others, free_slots, strict=False))
    slot = np.array([number[int(vertex)] for vertex in home])
    faces = slot[faces]
    assert faces.shape == (FACES, 3)
    return Topology(index, slot, faces)


def _named(body: BodyData) -> dict[int, int]:
    """SMPL-X's number → the free body's vertex."""
    marks = load_landmarks(body.faces)
    named = {SMPLX_VERTEX_IDS[name]: SMPLX_VERTEX_IDS[name] for name in SMPLX_VERTEX_IDS}
    for name, slot in mhr_card()["smplx_landmarks"].items():
        vertex = int(getattr(marks, name))
        if vertex not in named.values():
            named.setdefault(slot, vertex)
    return named


def _merged(places: np.ndarray, faces: np.ndarray, kept: set[int]) -> tuple[np.ndarray, np.ndarray]:
    """Merge short edges until FACES triangles are left; also where each vertex went."""
    faces, home = faces.copy(), np.arange(len(places))
    while (excess := len(faces) - FACES) > 0:
        edges = np.sort(
            np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1
        )
        edges, uses = np.unique(edges, axis=0, return_counts=True)
        around: dict[int, set[int]] = {}
        for a, b in edges.tolist():
            around.setdefault(a, set()).add(b)
            around.setdefault(b, set()).add(a)
        length = np.linalg.norm(places[edges[:, 0]] - places[edges[:, 1]], axis=1)
        rim = set(edges[uses != 2].ravel().tolist())
        target = np.arange(len(places))
        touched: set[int] = set()
        merged = 0
        for row in np.argsort(length):
            keep, gone = edges[row].tolist()
            if gone in kept:
                keep, gone = gone, keep
            near = around[keep] | around[gone]
            if gone in kept or {keep, gone} & rim or near & touched:
                continue
            if len(around[keep] & around[gone]) != 2:
                continue
            touched |= near
            target[gone] = keep
            merged += 1
            if 2 * merged >= excess:
                break
        home = target[home]
        faces = target[faces]
        faces = faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)]
    return faces, home


def smplx_body(gender: Gender) -> BodyData:
    """The free body of one gender in that topology."""
    body, made = free_body(gender), topology()

    def merged(matrix: Any) -> Any:
        """Give what each vertex weighed to the one that it was merged into."""
        gathered = np.zeros((len(matrix), VERTICES), dtype=np.float32)
        np.add.at(gathered, (slice(None), made.slot), matrix)
        return gathered

    return BodyData(
        gender=gender,
        name="smplx",
        digest="0" * 64,
        v_template=body.v_template[made.index],
        shapedirs=body.shapedirs[made.index],
        expressiondirs=body.expressiondirs[made.index],
        posedirs=None,
        J_regressor=merged(body.J_regressor),
        lbs_weights=body.lbs_weights[made.index],
        parents=body.parents,
        faces=made.faces,
        keypoint_regressor=merged(body.keypoint_regressor),
    )


def write_smplx(folder: Path) -> None:
    """SMPLX_{NEUTRAL,FEMALE,MALE}.npz in a folder, as SMPLX_MODEL_DIR is."""
    folder.mkdir(parents=True, exist_ok=True)
    for gender in Gender:
        save_smplx_npz(folder / f"SMPLX_{gender.name}.npz", smplx_body(gender))
        strip_keypoints(folder / f"SMPLX_{gender.name}.npz")


def strip_keypoints(path: Path) -> None:
    """Take out what the official files do not have."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files if name != "keypoint_regressor"}
    np.savez(path, **arrays)


def smplx_arrays(gender: Gender) -> dict[str, np.ndarray]:
    """What an official .npz holds."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "body.npz"
        save_smplx_npz(path, smplx_body(gender))
        strip_keypoints(path)
        with np.load(path) as archive:
            return {name: archive[name] for name in archive.files}
