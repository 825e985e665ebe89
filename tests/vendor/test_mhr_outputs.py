"""Four real outputs of SAM 3D Body, which MHR's tools ship, come over to our bodies.

They had no part in the registration: that used MHR's template alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from recipes.mhr.register import Target
from tests.vendor.conftest import checkout
from worker.avatar.body.articulated import ArticulatedShape
from worker.avatar.body.free import free_body
from worker.avatar.body.layout import SMPLX_VERTEX_IDS
from worker.avatar.body.mhr import mhr_to_free, mhr_to_smplx
from worker.avatar.estimate.guess import to_body
from worker.avatar.export.skinned import vertex_normals
from worker.avatar.measure import Measurer
from worker.avatar.types import Gender

pytestmark = pytest.mark.vendor

TOOLS = Path("tools/mhr_smpl_conversion")
PEOPLE = ("img_subj00", "img_subj01", "img_subj02", "img_subj03")


@pytest.fixture(scope="module")
def mhr() -> Path:
    return checkout("MHR")


@pytest.fixture(scope="module")
def template(mhr: Path) -> trimesh.Trimesh:
    return trimesh.load(mhr / TOOLS / "assets" / "mhr_face_mask.ply", process=False)


def output(mhr: Path, name: str) -> np.ndarray:
    with np.load(mhr / TOOLS / "data" / "sam3d_body_outputs" / f"{name}.npz") as archive:
        vertices = archive["pred_vertices"].astype(np.float64)
    # Posed vertices look down the camera's axes: half a turn about x has y up again.
    return vertices * (1, -1, -1)


@pytest.mark.parametrize("name", PEOPLE)
def test_the_surface_of_a_real_output_is_kept(
    mhr: Path, template: trimesh.Trimesh, name: str
) -> None:
    faces = np.asarray(free_body(Gender.NEUTRAL).faces)
    vertices = output(mhr, name)
    carried = mhr_to_free().carry(vertices)
    there = Target(carried, faces)
    ours = vertex_normals(vertices, np.asarray(template.faces))
    apart_mm = 1000 * np.linalg.norm(there.nearest(vertices, ours).points - vertices, axis=1)
    assert np.median(apart_mm) < 0.5
    assert np.percentile(apart_mm, 95) < 3.0
    volume = trimesh.Trimesh(vertices, template.faces, process=False).volume
    kept = trimesh.Trimesh(carried, faces, process=False).volume
    assert kept == pytest.approx(volume, rel=0.02)


@pytest.mark.parametrize("name", PEOPLE)
def test_fingertips_and_heels_are_where_smplx_numbers_them(mhr: Path, name: str) -> None:
    """Two maps, made by different people, agree about places that SMPL-X names by number."""
    vertices = output(mhr, name)
    free, smplx = mhr_to_free().carry(vertices), mhr_to_smplx().carry(vertices)
    for place, vertex in SMPLX_VERTEX_IDS.items():
        assert np.linalg.norm(free[vertex] - smplx[vertex]) < 0.03, place


@pytest.mark.parametrize("name", PEOPLE)
def test_a_real_output_becomes_a_plausible_person(mhr: Path, name: str) -> None:
    torch.set_num_threads(1)
    data = free_body(Gender.NEUTRAL)
    over = mhr_to_free()
    found = to_body(ArticulatedShape(data, 50), over.carry(output(mhr, name)), over.trusted)
    measured = Measurer(data).measure(data.v_template + data.shapedirs[:, :, :50] @ found.betas)
    assert 150 < measured["heightCm"] < 200
    assert 60 < measured["waistCm"] < 110
    assert 80 < measured["hipCm"] < 120
    assert 68 < measured["insideLegCm"] < 95
    assert found.rms_mm < 25
