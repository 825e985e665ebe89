"""Make worker/avatar/body/data/mhr_maps.{npz,json}: MHR's surface in other meshes' vertices.

    python -m recipes.mhr.build CHECKOUT_OF_MHR

The checkout is facebookresearch/MHR (Apache-2.0), whose tools bring MHR's template and the places
of SMPL-X's vertices on it.  SMPL-X itself is not needed and not used: its landmarks and the mesh
that is shown are those of the free body, each at the vertex that lies nearest on MHR.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from scipy.spatial import cKDTree

from recipes.mhr.register import Target, drape, pose_onto, vertices_of
from worker.avatar.body.free import DATA_DIR, display_topology, free_body
from worker.avatar.export.skinned import vertex_normals
from worker.avatar.measure.landmarks import LANDMARKS, load_landmarks
from worker.avatar.types import Float64Array, Gender, Int64Array

TOOLS = Path("tools/mhr_smpl_conversion/assets")
TEMPLATE = TOOLS / "mhr_face_mask.ply"
SMPLX_ON_MHR = TOOLS / "mhr2smplx_mapping.npz"
CM = 0.01
KEYPOINT_NEIGHBOURS = 100


def build(checkout: Path) -> None:
    """Register, and write the maps and their card."""
    mesh: Any = trimesh.load(checkout / TEMPLATE, process=False)
    template = vertices_of(mesh.vertices) * CM
    mhr_faces = np.asarray(mesh.faces, dtype=np.int64)
    target = Target(template, mhr_faces)
    free = free_body(Gender.NEUTRAL)
    faces = np.asarray(free.faces)
    posed = pose_onto(target)
    draped, trusted = drape(posed, faces, target)
    found = target.nearest(draped, vertex_normals(draped, faces))
    gap_mm = 1000 * np.linalg.norm(found.points - draped, axis=1)

    published = np.load(checkout / SMPLX_ON_MHR, allow_pickle=False)
    smplx_corners = mhr_faces[published["triangle_ids"]]
    smplx_weights = published["baryc_coords"].clip(0, 1)
    smplx = np.einsum("nkc,nk->nc", template[smplx_corners], smplx_weights)

    landmarks, off_mm = _landmarks(draped, smplx)
    display_vertices, display_faces = _display(draped, smplx)
    rows, columns, values = _keypoints(draped, smplx)
    arrays = {
        "free_corners": mhr_faces[found.face].astype(np.uint16),
        "free_weights": found.barycentric.astype(np.float16),
        "free_trusted": trusted,
        "smplx_corners": smplx_corners.astype(np.uint16),
        "smplx_weights": smplx_weights.astype(np.float16),
        "smplx_display_vertices": display_vertices.astype(np.uint16),
        "smplx_display_faces": display_faces.astype(np.uint16),
        "smplx_keypoint_rows": rows.astype(np.uint8),
        "smplx_keypoint_columns": columns.astype(np.uint16),
        "smplx_keypoint_values": values.astype(np.float32),
    }
    path = DATA_DIR / "mhr_maps.npz"
    np.savez_compressed(path, **arrays)
    card = {
        "what": "Places of other meshes' vertices on the surface of MHR, level of detail 1.",
        "licence": "Apache-2.0",
        "derived_from": {
            "facebookresearch/MHR": {
                "licence": "Apache-2.0, Copyright (c) Meta Platforms, Inc. and affiliates",
                "commit": _commit(checkout),
                "files": {str(name): _sha256(checkout / name) for name in (TEMPLATE, SMPLX_ON_MHR)},
            },
            "free body": {"licence": "CC0-1.0", "sha256": free.digest},
        },
        "registration_mm": {
            "vertices_on_the_surface_share": round(float(trusted.mean()), 4),
            "rms": round(float(np.sqrt((gap_mm[trusted] ** 2).mean())), 3),
            "p99": round(float(np.percentile(gap_mm[trusted], 99)), 3),
        },
        "smplx_landmarks": landmarks,
        "smplx_landmarks_off_mm": {
            "median": round(float(np.median(off_mm)), 1),
            "max": round(float(np.max(off_mm)), 1),
        },
        "files": {path.name: {"sha256": _sha256(path)}},
    }
    text = json.dumps(card, indent=2) + "\n"
    (DATA_DIR / "mhr_maps.json").write_text(text, encoding="utf-8")
    print(json.dumps(card["registration_mm"]), path.stat().st_size, "bytes")


def _landmarks(draped: Float64Array, smplx: Float64Array) -> tuple[dict[str, int], Float64Array]:
    """For each landmark of the free body, SMPL-X's vertex that lies nearest on MHR."""
    marks = load_landmarks(free_body(Gender.NEUTRAL).faces)
    places = draped[[getattr(marks, name) for name in LANDMARKS]]
    apart = np.linalg.norm(places[:, None] - smplx[None], axis=2)
    nearest = apart.argmin(axis=1)
    return dict(zip(LANDMARKS, nearest.tolist(), strict=True)), 1000 * apart.min(axis=1)


def _keypoints(
    draped: Float64Array, smplx: Float64Array
) -> tuple[Int64Array, Int64Array, Float64Array]:
    """The free body's 23 keypoints as mixtures of SMPL-X's vertices: rows, columns, weights.

    Each weight goes to the nearest vertex; what that does to a keypoint is taken back by the least
    change of the weights of the vertices about it.
    """
    regressor = np.asarray(free_body(Gender.NEUTRAL).keypoint_regressor, dtype=np.float64)
    nearest = cKDTree(smplx).query(draped)[1]
    carried = np.zeros((len(regressor), len(smplx)))
    np.add.at(carried, (slice(None), nearest), regressor)
    for row, place in enumerate(regressor @ draped):
        near = np.argsort(np.linalg.norm(smplx - place, axis=1))[:KEYPOINT_NEIGHBOURS]
        about = np.concatenate([smplx[near].T, np.ones((1, len(near)))])
        off = np.append(place, 1.0) - np.append(carried[row] @ smplx, carried[row].sum())
        carried[row, near] += np.linalg.lstsq(about, off, rcond=None)[0]
    rows, columns = np.nonzero(carried)
    return rows, columns, carried[rows, columns]


def _display(draped: Float64Array, smplx: Float64Array) -> tuple[Int64Array, Int64Array]:
    """The free body's display mesh with each vertex at the nearest one of SMPL-X.

    Triangles whose corners meet are dropped, as in vertex clustering: no hole opens.
    """
    shown = display_topology()
    apart = np.linalg.norm(draped[shown.vertex_index][:, None] - smplx[None], axis=2)
    corners = apart.argmin(axis=1)[shown.faces]
    whole = (corners != np.roll(corners, 1, axis=1)).all(axis=1)
    index, flat = np.unique(corners[whole], return_inverse=True)
    return index.astype(np.int64), flat.reshape(-1, 3).astype(np.int64)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _commit(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - a fixed command
    return done.stdout.strip()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("checkout", type=Path, metavar="CHECKOUT_OF_MHR")
    build(parser.parse_args().checkout)


if __name__ == "__main__":
    main()
