"""Our body module against the `smplx` package, on the files that we export for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import smplx
import torch

from worker.avatar.body.files import export_smplx, load_smplx_npz, save_smplx_npz
from worker.avatar.body.free import free_body
from worker.avatar.body.layout import JOINT_INDEX, SMPLX_VERTEX_IDS
from worker.avatar.body.model import BodyModel
from worker.avatar.types import KEYPOINTS, Gender
from worker.errors import ModelInvalid, ModelMissing

if TYPE_CHECKING:
    from pathlib import Path

NUM_BETAS = 40
AGREEMENT_M = 1e-5


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("body")
    export_smplx(out)
    return out


def random_bodies(
    num_betas: int, count: int = 4
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(8559)
    betas = 2 * torch.randn(count, num_betas, generator=generator, dtype=torch.float64)
    pose = 0.6 * torch.randn(count, 55, 3, generator=generator, dtype=torch.float64)
    pose[:, 0] *= 3
    return betas, pose, torch.randn(count, 3, generator=generator, dtype=torch.float64)


def posed_by_smplx(
    folder: Path, gender: Gender, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    betas, pose, transl = (values.to(dtype) for values in random_bodies(NUM_BETAS))
    oracle = smplx.create(
        str(folder),
        model_type="smplx",
        gender=gender.value,
        ext="npz",
        num_betas=NUM_BETAS,
        num_expression_coeffs=10,
        use_pca=False,
        flat_hand_mean=True,
        batch_size=len(betas),
        dtype=dtype,
    )
    flat = pose.flatten(1)
    with torch.no_grad():
        out = oracle(
            betas=betas,
            global_orient=flat[:, :3],
            body_pose=flat[:, 3:66],
            jaw_pose=flat[:, 66:69],
            leye_pose=flat[:, 69:72],
            reye_pose=flat[:, 72:75],
            left_hand_pose=flat[:, 75:120],
            right_hand_pose=flat[:, 120:165],
            transl=transl,
        )
    return out.vertices, out.joints[:, :55], out.joints[:, 55:76]


@pytest.mark.parametrize("gender", list(Gender))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_smplx_poses_the_exported_body_as_we_do(
    exported: Path, gender: Gender, dtype: torch.dtype
) -> None:
    vertices, joints, _ = posed_by_smplx(exported, gender, dtype)
    betas, pose, transl = (values.to(dtype) for values in random_bodies(NUM_BETAS))
    ours = BodyModel(free_body(gender), num_betas=NUM_BETAS, dtype=dtype)(betas, pose, transl)
    assert (ours.vertices - vertices).abs().max() < AGREEMENT_M
    assert (ours.joints - joints).abs().max() < AGREEMENT_M


def test_pose_correctives_of_a_licensed_file_are_applied_as_smplx_does(tmp_path: Path) -> None:
    plain = free_body(Gender.NEUTRAL)
    rng = np.random.default_rng(0)
    posedirs = (1e-3 * rng.standard_normal((len(plain.v_template), 3, 486))).astype(np.float32)
    fields = {name: getattr(plain, name) for name in type(plain).__slots__}
    (tmp_path / "smplx").mkdir()
    path = tmp_path / "smplx" / "SMPLX_NEUTRAL.npz"
    save_smplx_npz(path, type(plain)(**(fields | {"posedirs": posedirs})))
    vertices, _, _ = posed_by_smplx(tmp_path, Gender.NEUTRAL, torch.float64)
    betas, pose, transl = random_bodies(NUM_BETAS)
    corrected = BodyModel(load_smplx_npz(path, Gender.NEUTRAL), NUM_BETAS, torch.float64)
    assert (corrected(betas, pose, transl).vertices - vertices).abs().max() < AGREEMENT_M
    uncorrected = BodyModel(plain, NUM_BETAS, torch.float64)
    assert (uncorrected(betas, pose, transl).vertices - vertices).abs().max() > 1e-3


def test_vertices_that_smplx_addresses_by_number_are_where_it_means(exported: Path) -> None:
    _, _, extra = posed_by_smplx(exported, Gender.NEUTRAL, torch.float64)
    betas, pose, transl = random_bodies(NUM_BETAS)
    data = free_body(Gender.NEUTRAL)
    vertices = BodyModel(data, NUM_BETAS, torch.float64)(betas, pose, transl).vertices
    keypoints = torch.tensor(data.keypoint_regressor, dtype=torch.float64) @ vertices
    # smplx appends nose, eyes, ears, then toes and heels, in this order.
    names = ("nose", "right_eye", "left_eye", "right_ear", "left_ear")
    feet = ("big_toe", "small_toe", "heel")
    names += tuple(f"left_{part}" for part in feet) + tuple(f"right_{part}" for part in feet)
    ours = keypoints[:, [KEYPOINTS.index(name) for name in names]]
    assert (ours - extra[:, : len(names)]).norm(dim=-1).max() < 0.03
    template = data.v_template
    joints = data.J_regressor @ template
    for finger in ("thumb", "index", "middle", "ring", "pinky"):
        tip = template[SMPLX_VERTEX_IDS[f"l{finger}"]]
        last, middle = (joints[JOINT_INDEX[f"left_{finger}{bone}"]] for bone in (3, 2))
        assert 0.005 < np.linalg.norm(tip - last) < 0.04
        assert (tip - last) @ (last - middle) > 0


def test_an_exported_file_reads_back_as_the_same_body(exported: Path) -> None:
    path = exported / "smplx" / "SMPLX_FEMALE.npz"
    read, shipped = load_smplx_npz(path, Gender.FEMALE), free_body(Gender.FEMALE)
    assert read.posedirs is None
    assert read.name == "smplx"
    for name in (
        *("v_template", "shapedirs", "expressiondirs", "J_regressor", "lbs_weights", "parents"),
        *("faces", "keypoint_regressor"),
    ):
        np.testing.assert_array_equal(getattr(read, name), getattr(shipped, name))


def test_a_file_without_our_keypoints_takes_them_from_joints_and_named_vertices(
    exported: Path, tmp_path: Path
) -> None:
    with np.load(exported / "smplx" / "SMPLX_MALE.npz") as archive:
        arrays = {name: archive[name] for name in archive.files if name != "keypoint_regressor"}
    np.savez(tmp_path / "SMPLX_MALE.npz", **arrays)
    read, shipped = load_smplx_npz(tmp_path / "SMPLX_MALE.npz", Gender.MALE), free_body(Gender.MALE)
    distance = (read.keypoint_regressor - shipped.keypoint_regressor) @ shipped.v_template
    assert np.linalg.norm(distance, axis=1).max() < 0.06


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match=r"SMPLX_MALE\.npz"):
        load_smplx_npz(tmp_path / "SMPLX_MALE.npz", Gender.MALE)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        ({"J_regressor": np.zeros((24, 10))}, "J_regressor"),
        ({"kintree_table": np.zeros((2, 55))}, "skeleton"),
        ({"shapedirs": np.zeros((10, 3, 400))}, "no shape"),
        ({"weights": None}, "weights"),
    ],
)
def test_a_file_of_another_layout_is_refused(
    tmp_path: Path, spoil: dict[str, np.ndarray | None], told: str
) -> None:
    arrays: dict[str, np.ndarray | None] = {
        "v_template": np.zeros((10, 3)),
        "shapedirs": np.ones((10, 3, 400)),
        "posedirs": np.zeros((10, 3, 486)),
        "J_regressor": np.zeros((55, 10)),
        "weights": np.zeros((10, 55)),
        "kintree_table": np.stack([free_body(Gender.MALE).parents, np.arange(55)]),
        "f": np.zeros((4, 3)),
    }
    arrays |= spoil
    path = tmp_path / "SMPLX_MALE.npz"
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(ModelInvalid, match=told):
        load_smplx_npz(path, Gender.MALE)


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "SMPLX_MALE.npz"
    path.write_bytes(b"not a model")
    with pytest.raises(ModelInvalid, match=r"SMPLX_MALE\.npz"):
        load_smplx_npz(path, Gender.MALE)
