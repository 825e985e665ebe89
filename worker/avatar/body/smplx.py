"""The operator's licensed SMPL-X as the body that is fitted, measured and shown.

Landmarks, keypoints and the display mesh are the free body's, brought to SMPL-X's vertices over MHR
(`recipes/mhr`), because SMPL-X itself may not be used where this was built.
"""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from worker.avatar.body.files import load_smplx_npz
from worker.avatar.body.layout import JOINT_INDEX
from worker.avatar.body.mhr import mhr_card, smplx_keypoints
from worker.avatar.body.model import BodyData
from worker.avatar.measure import Landmarks
from worker.avatar.measure.landmarks import from_mapping
from worker.avatar.types import Gender
from worker.errors import ModelInvalid, ModelMissing

VERTICES: Final = 10_475
FACES: Final = 20_908
NUM_BETAS: Final = 50
"""Of its 300 shape directions, which are sorted by variance; the free body has as many."""

_NEAR_M: Final = 0.15
_SIDES: Final = (
    ("acromion", "shoulder"), ("olecranon", "elbow"), ("ulnar_styloid", "wrist"), ("knee", "knee"),
    ("malleolus", "ankle"),
)  # fmt: skip
"""Landmark and the joint that it lies near, on both sides."""


def smplx_path(folder: Path, gender: Gender) -> Path:
    """Where SMPLX_MODEL_DIR holds a gender's body."""
    return folder / f"SMPLX_{gender.name}.npz"


def smplx_genders(folder: Path | None) -> tuple[Gender, ...]:
    """Which bodies SMPLX_MODEL_DIR holds; none: the free body is meant.

    Raises:
        ModelMissing: it holds a gendered body and not the neutral one.  To fit the free body then
            would be less than the operator set up, without a word.
    """
    there = tuple(g for g in Gender if folder is not None and smplx_path(folder, g).is_file())
    if folder is None or not there or Gender.NEUTRAL in there:
        return there
    raise ModelMissing(
        f"{smplx_path(folder, Gender.NEUTRAL)} is missing, beside "
        f"{smplx_path(folder, there[0]).name}.",
        advice="Bring SMPLX_NEUTRAL.npz too, or empty SMPLX_MODEL_DIR to fit the free body.",
    )


def load_smplx(folder: Path, gender: Gender) -> BodyData:
    """Read one gender's body, and make sure that the landmarks mean it.

    Raises:
        ModelMissing: SMPLX_MODEL_DIR lacks the file.
        ModelInvalid: it holds no body in this layout, or one of another topology.
    """
    path = smplx_path(folder, gender)
    if path.is_file() and not zipfile.is_zipfile(path):
        raise ModelInvalid(
            f"{path} is no .npz archive, but perhaps a web page, or a copy that was cut off.",
            advice=f"Delete {path} and fetch it again; `models-sync pull` brings what is missing.",
        )
    data = load_smplx_npz(path, gender)
    if (len(data.v_template), len(data.faces)) != (VERTICES, FACES):
        raise ModelInvalid(
            f"{path} has {len(data.v_template)} vertices and {len(data.faces)} triangles; "
            f"SMPL-X has {VERTICES} and {FACES}.",
            advice="Fetch SMPLX_{NEUTRAL,FEMALE,MALE}.npz of SMPL-X v1.1 (not SMPL or SMPL-H).",
        )
    _hold(path, data)
    # The official files name no keypoints; the joints that could stand in for them lie elsewhere in
    # the body than what observers mark.
    return replace(data, keypoint_regressor=smplx_keypoints())


def smplx_landmarks() -> Landmarks:
    """ISO 8559-1's landmarks as vertices of SMPL-X."""
    return from_mapping(mhr_card()["smplx_landmarks"], vertices=VERTICES)


def _hold(path: Path, data: BodyData) -> None:
    """Refuse a body whose vertices are numbered otherwise: it would be measured elsewhere."""
    template = data.v_template.astype(np.float64)
    joints = data.J_regressor.astype(np.float64) @ template
    marks = smplx_landmarks()
    for landmark, joint in _SIDES:
        for side in ("left", "right"):
            place = template[getattr(marks, f"{landmark}_{side}")]
            apart = float(np.linalg.norm(place - joints[JOINT_INDEX[f"{side}_{joint}"]]))
            if not apart < _NEAR_M:
                raise ModelInvalid(
                    f"{path}: the {side} {landmark} lies {100 * apart:.0f} cm from the {joint}: "
                    "its vertices are not in SMPL-X's order."
                )
    top = template[marks.vertex, 1]
    if (
        top < template[:, 1].max() - _NEAR_M
        or template[marks.heel_left, 1] > template[:, 1].min() + _NEAR_M
    ):
        raise ModelInvalid(f"{path}: head or heel are not where SMPL-X has them.")
