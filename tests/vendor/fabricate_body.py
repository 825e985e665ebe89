"""A body of 10,475 vertices and 20,908 triangles in SMPL-X's layout, made from the free body.

MHR's tools say where on MHR each vertex of SMPL-X lies; our map says where the free body's do.  So
every vertex here has SMPL-X's number and place, and the free body's shape, weights and triangles,
the last as far as they stay triangles.  SMPL-X's own shape and triangles are not known here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from scipy.spatial import cKDTree

from recipes.mhr.register import Target
from tests.vendor.conftest import checkout
from worker.avatar.body.files import save_smplx_npz
from worker.avatar.body.free import free_body
from worker.avatar.body.mhr import mhr_to_free, mhr_to_smplx
from worker.avatar.body.model import BodyData
from worker.avatar.body.smplx import FACES, VERTICES
from worker.avatar.export.skinned import vertex_normals
from worker.avatar.types import Gender

TEMPLATE = Path("tools/mhr_smpl_conversion/assets/mhr_face_mask.ply")


@dataclass(frozen=True)
class Topology:
    """How SMPL-X's vertices lie on the free body, and the free body's on SMPL-X."""

    corners: np.ndarray
    """(10475, 3) vertices of the free body about each of SMPL-X's."""
    weights: np.ndarray
    """(10475, 3)."""
    nearest: np.ndarray
    """(13492,) SMPL-X's vertex nearest to each of the free body's."""
    faces: np.ndarray
    """(20908, 3)."""


@cache
def topology() -> Topology:
    mesh: Any = trimesh.load(checkout("MHR") / TEMPLATE, process=False)
    template = np.asarray(mesh.vertices, dtype=np.float64) / 100
    free, smplx = mhr_to_free().carry(template), mhr_to_smplx().carry(template)
    free_faces = np.asarray(free_body(Gender.NEUTRAL).faces)
    normals = vertex_normals(template, np.asarray(mesh.faces))
    over = mhr_to_smplx()
    facing = np.einsum("nkc,nk->nc", normals[over.corners], over.weights)
    found = Target(free, free_faces).nearest(smplx, facing)
    nearest = np.asarray(cKDTree(smplx).query(free)[1])
    faces = nearest[free_faces]
    faces = faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)]
    # As many as SMPL-X has: the last ones repeat the first, and change no surface.
    faces = faces[np.arange(FACES) % len(faces)]
    return Topology(free_faces[found.face], found.barycentric, nearest, faces)


def smplx_body(gender: Gender) -> BodyData:
    """The free body of one gender in that topology."""
    body, made = free_body(gender), topology()

    def at_smplx(per_vertex: np.ndarray) -> np.ndarray:
        mixed = np.einsum("vk...,vk->v...", per_vertex[made.corners], made.weights)
        return np.ascontiguousarray(mixed, dtype=np.float32)

    template = at_smplx(body.v_template)

    def regressor(matrix: np.ndarray) -> np.ndarray:
        gathered = np.zeros((len(matrix), VERTICES), dtype=np.float32)
        np.add.at(gathered, (slice(None), made.nearest), matrix)
        # Vertices have moved to their neighbours' places: what that did to a joint is taken back
        # by the least change of the weights about it.
        for row, place in enumerate(matrix @ body.v_template):
            near = np.argsort(np.linalg.norm(template - place, axis=1))[:200]
            about = np.concatenate([template[near].T, np.ones((1, len(near)))])
            off = np.append(place, 1.0) - np.append(gathered[row] @ template, gathered[row].sum())
            gathered[row, near] += np.linalg.lstsq(about, off, rcond=None)[0]
        return gathered

    return BodyData(
        gender=gender,
        name="smplx",
        digest="0" * 64,
        v_template=template,
        shapedirs=at_smplx(body.shapedirs),
        expressiondirs=at_smplx(body.expressiondirs),
        posedirs=None,
        J_regressor=regressor(body.J_regressor),
        lbs_weights=at_smplx(body.lbs_weights),
        parents=body.parents,
        faces=made.faces,
        keypoint_regressor=regressor(body.keypoint_regressor),
    )


def write_smplx(folder: Path) -> None:
    """SMPLX_{NEUTRAL,FEMALE,MALE}.npz in a folder, as SMPLX_MODEL_DIR is."""
    folder.mkdir(parents=True, exist_ok=True)
    for gender in Gender:
        np.savez(folder / f"SMPLX_{gender.name}.npz", **smplx_arrays(gender))


@cache
def smplx_arrays(gender: Gender) -> dict[str, np.ndarray]:
    """What an official .npz holds: all that ours does but the keypoint regressor."""
    import io

    file = io.BytesIO()
    save_smplx_npz(file, smplx_body(gender))  # type: ignore[arg-type]  # numpy writes to either
    file.seek(0)
    with np.load(file) as archive:
        return {name: archive[name] for name in archive.files if name != "keypoint_regressor"}
