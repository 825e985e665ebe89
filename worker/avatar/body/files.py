"""Bodies as files in the SMPL-X layout: the operator's licensed models in, the free body out.

The layout is that of SMPLX_{NEUTRAL,FEMALE,MALE}.npz as the `smplx` package reads it: 300 shape and
100 expression columns in `shapedirs`, unused ones zero.
"""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from worker.avatar.body.free import CARD_NAME, DATA_DIR, free_body
from worker.avatar.body.layout import JOINT_INDEX, NUM_JOINTS, PARENTS, SMPLX_VERTEX_IDS
from worker.avatar.body.model import BodyData
from worker.avatar.types import KEYPOINTS, Float32Array, Gender
from worker.errors import ModelInvalid, ModelMissing

SHAPE_COLUMNS = 300
EXPRESSION_COLUMNS = 100
NUM_EXPRESSIONS = 10

_OLD_SHAPE_COLUMNS = 10
"""Files of 2019 hold 10 shape and 10 expression columns and nothing else."""

_POSE_FEATURES = 9 * (NUM_JOINTS - 1)

_VERTEX_OF_KEYPOINT = {
    "nose": "nose",
    "left_eye": "leye",
    "right_eye": "reye",
    "left_ear": "lear",
    "right_ear": "rear",
    "left_big_toe": "LBigToe",
    "left_small_toe": "LSmallToe",
    "left_heel": "LHeel",
    "right_big_toe": "RBigToe",
    "right_small_toe": "RSmallToe",
    "right_heel": "RHeel",
}


def export_smplx(out_dir: Path) -> list[Path]:
    """Write the free body for readers of SMPL-X files, e.g. `smplx.create(out_dir, "smplx")`.

    Writes ``out_dir/smplx/SMPLX_{NEUTRAL,FEMALE,MALE}.npz`` (5.5 MB each) and the body's card
    with its licence, CC0, beside them.

    Returns:
        The files written.

    Raises:
        ModelMissing, ModelInvalid: the packed body is missing or not the one of its card.
    """
    folder = out_dir / "smplx"
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for gender in Gender:
        path = folder / f"SMPLX_{gender.name}.npz"
        save_smplx_npz(path, free_body(gender))
        written.append(path)
    shutil.copyfile(DATA_DIR / CARD_NAME, folder / CARD_NAME)
    return [*written, folder / CARD_NAME]


def save_smplx_npz(path: Path, data: BodyData) -> None:
    """Write a body in the SMPL-X layout.

    Face landmarks have no counterpart here: all 51 name the triangle at the tip of the nose.
    `keypoint_regressor` is an addition that readers of the format ignore.
    """
    num_vertices, _, num_betas = data.shapedirs.shape
    if num_betas > SHAPE_COLUMNS:
        raise ValueError(f"the layout has room for {SHAPE_COLUMNS} betas, not {num_betas}")
    shapedirs = np.zeros((num_vertices, 3, SHAPE_COLUMNS + EXPRESSION_COLUMNS), dtype=np.float32)
    shapedirs[:, :, :num_betas] = data.shapedirs
    expressions = data.expressiondirs.shape[2]
    shapedirs[:, :, SHAPE_COLUMNS : SHAPE_COLUMNS + expressions] = data.expressiondirs
    posedirs = data.posedirs
    if posedirs is None:
        posedirs = np.zeros((num_vertices, 3, _POSE_FEATURES), dtype=np.float32)
    # The format marks the root's parent with the largest 32-bit number.
    parents = np.where(data.parents < 0, 2**32 - 1, data.parents)
    nose = int(np.argmax((data.faces == SMPLX_VERTEX_IDS["nose"]).any(axis=1)))
    np.savez_compressed(
        path,
        v_template=data.v_template,
        shapedirs=shapedirs,
        posedirs=posedirs,
        J_regressor=data.J_regressor,
        weights=data.lbs_weights,
        kintree_table=np.stack([parents, np.arange(len(parents))]),
        f=data.faces.astype(np.uint32),
        hands_componentsl=np.eye(45, dtype=np.float32),
        hands_componentsr=np.eye(45, dtype=np.float32),
        hands_meanl=np.zeros(45, dtype=np.float32),
        hands_meanr=np.zeros(45, dtype=np.float32),
        lmk_faces_idx=np.full(51, nose, dtype=np.int64),
        lmk_bary_coords=np.full((51, 3), 1 / 3),
        dynamic_lmk_faces_idx=np.full((79, 17), nose, dtype=np.int64),
        dynamic_lmk_bary_coords=np.full((79, 17, 3), 1 / 3),
        keypoint_regressor=data.keypoint_regressor,
    )


def load_smplx_npz(path: Path, gender: Gender) -> BodyData:
    """Read a body in the SMPL-X layout, such as the operator's licensed SMPL-X.

    Poses are against straight fingers: a file's mean hand pose is not used (`flat_hand_mean=True`
    in `smplx`).  Where a file brings no keypoint regressor, the vertices that SMPL-X names and the
    joints themselves serve.

    Raises:
        ModelMissing: there is no such file.
        ModelInvalid: the file does not hold a body of 55 joints in this layout.
    """
    if not path.is_file():
        raise ModelMissing(f"{path} does not exist")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return _read(archive, path, gender)
    except (KeyError, ValueError, IndexError, OSError, zipfile.BadZipFile) as error:
        raise ModelInvalid(f"{path.name} is not in the SMPL-X layout: {error}") from error


def _read(archive: Any, path: Path, gender: Gender) -> BodyData:
    template = _float32(archive["v_template"])
    num_vertices = len(template)
    columns = _float32(archive["shapedirs"])
    regressor = _float32(archive["J_regressor"])
    weights = _float32(archive["weights"])
    posedirs = _float32(archive["posedirs"])
    for name, array, shape in (
        ("v_template", template, (num_vertices, 3)),
        ("J_regressor", regressor, (NUM_JOINTS, num_vertices)),
        ("weights", weights, (num_vertices, NUM_JOINTS)),
        ("posedirs", posedirs, (num_vertices, 3, _POSE_FEATURES)),
        ("shapedirs", columns[..., 0], (num_vertices, 3)),
    ):
        if array.shape != shape:
            raise ValueError(f"{name} is {array.shape}, not {shape}")
    parents = archive["kintree_table"][0].astype(np.int64)[:NUM_JOINTS]
    parents[0] = -1
    if not np.array_equal(parents, PARENTS):
        raise ValueError("kintree_table is not SMPL-X's skeleton")
    full = columns.shape[2] >= SHAPE_COLUMNS + EXPRESSION_COLUMNS
    first_expression = SHAPE_COLUMNS if full else _OLD_SHAPE_COLUMNS
    shapes = columns[:, :, :first_expression]
    used = np.flatnonzero(np.abs(shapes).max(axis=(0, 1)) > 0)
    if not len(used):
        raise ValueError("shapedirs holds no shape")
    expressions = columns[:, :, first_expression : first_expression + NUM_EXPRESSIONS]
    if "keypoint_regressor" in archive.files:
        keypoints = _float32(archive["keypoint_regressor"])
    else:
        keypoints = _named_keypoints(regressor)
    return BodyData(
        gender=gender,
        name=path.stem.lower().removesuffix(f"_{gender.value}"),
        digest=hashlib.sha256(path.read_bytes()).hexdigest(),
        v_template=template,
        shapedirs=np.ascontiguousarray(shapes[:, :, : used[-1] + 1]),
        expressiondirs=np.ascontiguousarray(expressions),
        posedirs=posedirs if posedirs.any() else None,
        J_regressor=regressor,
        lbs_weights=weights,
        parents=parents,
        faces=archive["f"].astype(np.int64),
        keypoint_regressor=keypoints,
    )


def _float32(array: Any) -> Float32Array:
    return np.ascontiguousarray(array, dtype=np.float32)


def _named_keypoints(joint_regressor: Float32Array) -> Float32Array:
    """Take keypoints from the joints of the same name, and from SMPL-X's named vertices."""
    rows = np.zeros((len(KEYPOINTS), joint_regressor.shape[1]), dtype=np.float32)
    for row, keypoint in enumerate(KEYPOINTS):
        if keypoint in _VERTEX_OF_KEYPOINT:
            rows[row, SMPLX_VERTEX_IDS[_VERTEX_OF_KEYPOINT[keypoint]]] = 1.0
        else:
            rows[row] = joint_regressor[JOINT_INDEX[keypoint]]
    return rows
