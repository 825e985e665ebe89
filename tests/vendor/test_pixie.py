"""PIXIE's own code, unmocked, on files that we made, with the network cut."""

from __future__ import annotations

import os
import pickle
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.vendor import fabricate_pixie
from tests.vendor.conftest import checkout
from worker.avatar.estimate import Topology
from worker.avatar.estimate.pixie import Crop, Pixie
from worker.avatar.types import Observation, Photo
from worker.errors import ModelInvalid, ModelMissing

pytestmark = [pytest.mark.vendor, pytest.mark.timeout(900)]

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pixie_code() -> Path:
    return checkout("PIXIE", "torchvision", "yacs", "kornia", "cv2", "skimage", "yaml")


@pytest.fixture(scope="module")
def pixie_random(
    pixie_code: Path, network_cut: None, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """PIXIE as an operator has it, code and data, with random weights of its full shapes."""
    folder = tmp_path_factory.mktemp("pixie")
    (folder / "pixielib").symlink_to(pixie_code / "pixielib")
    fabricate_pixie.write_small_files(folder / "data")
    torch.save(fabricate_pixie.states(folder), folder / "data" / "pixie_model.tar")
    return folder


@pytest.fixture(scope="module")
def pixie(pixie_random: Path, network_cut: None) -> Pixie:
    return Pixie.load(pixie_random, CPU)


def test_a_photo_gives_a_body_in_front_of_the_camera(
    pixie: Pixie, front: Photo, seen: Observation
) -> None:
    found = pixie.estimate(front, seen)
    assert found.topology is Topology.SMPLX
    assert found.source == pixie.source == f"pixie@{pixie.digests[0][:8]}"
    assert found.betas is not None
    assert found.betas.shape == (200,)
    assert found.pose is not None
    assert found.pose.shape == (55, 3)
    # What we fabricated stands upright, facing the camera: half a turn about x.
    assert abs(np.linalg.norm(found.pose[0]) - np.pi) < 0.3
    crop = Crop.around(seen)
    focal = seen.intrinsics.focal_px
    places = found.posed_vertices
    assert places[:, 2].min() > 0
    u = focal * places[:, 0] / places[:, 2] + seen.intrinsics.width / 2
    v = focal * places[:, 1] / places[:, 2] + seen.intrinsics.height / 2
    # The scale of 0.9 half crops a metre, which we put into its last layer, is what is seen.
    assert np.ptp(v) == pytest.approx(
        0.45 * crop.side * np.ptp(found.rest_vertices[:, 1]), rel=0.15
    )
    assert crop.left < u.mean() < crop.left + crop.side
    assert 0 <= found.confidence <= 1


def test_the_same_photo_gives_the_same_body(pixie: Pixie, front: Photo, seen: Observation) -> None:
    first, second = pixie.estimate(front, seen), pixie.estimate(front, seen)
    np.testing.assert_array_equal(first.posed_vertices, second.posed_vertices)


def test_the_crop_shows_the_box_and_is_black_beyond_the_photo(
    front: Photo, seen: Observation
) -> None:
    crop = Crop.around(seen)
    image = crop.cut(front, 64, CPU)[0]
    assert image.shape == (3, 64, 64)
    width = front.pixels.shape[1]
    middle = int(crop.top + crop.side / 2), int(crop.left + crop.side / 2)
    near = front.pixels[middle[0] - 12 : middle[0] + 12, middle[1] - 12 : middle[1] + 12]
    assert abs(float(image[:, 31:33, 31:33].mean()) - near.mean() / 255) < 0.05
    if crop.left < -crop.side / 16:
        assert float(image[:, :, 0].max()) == 0.0
    assert Crop(0.0, 0.0, float(width)).cut(front, 32, CPU).min() >= 0


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def edited(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def edit(data: Path) -> None:
        state = torch.load(data / "pixie_model.tar", weights_only=True, mmap=True)
        state = {name: dict(part) for name, part in state.items()}
        change(state)
        (data / "pixie_model.tar").unlink()
        torch.save(state, data / "pixie_model.tar")

    return edit


def replaced(name: str, content: bytes) -> Callable[[Path], None]:
    def edit(data: Path) -> None:
        (data / name).unlink()
        (data / name).write_bytes(content)

    return edit


def empty_tar(data: Path) -> None:
    (data / "pixie_model.tar").unlink()
    tarfile.open(data / "pixie_model.tar", "w").close()


def thirteen_empty_parts(data: Path) -> None:
    (data / "pixie_model.tar").unlink()
    torch.save({name: {} for name in fabricate_pixie.MODULES}, data / "pixie_model.tar")


def truncated(data: Path) -> None:
    with (data / "pixie_model.tar").open("rb") as whole:
        head = whole.read(4_000_000)
    (data / "pixie_model.tar").unlink()
    (data / "pixie_model.tar").write_bytes(head)


def bomb_in_the_weights(data: Path) -> None:
    (data / "pixie_model.tar").unlink()
    torch.save({"Encoder_body": Bomb(data / "exploded")}, data / "pixie_model.tar")


def bomb_in_the_regressor(data: Path) -> None:
    (data / "SMPLX_to_J14.pkl").unlink()
    (data / "SMPLX_to_J14.pkl").write_bytes(pickle.dumps(Bomb(data / "exploded"), protocol=2))


def bomb_in_the_body(data: Path) -> None:
    (data / "SMPLX_NEUTRAL_2020.npz").unlink()
    thing: Any = np.array(Bomb(data / "exploded"), dtype=object)
    np.savez(data / "SMPLX_NEUTRAL_2020.npz", v_template=thing)


def other_body(data: Path) -> None:
    with np.load(data / "SMPLX_NEUTRAL_2020.npz", allow_pickle=True) as archive:
        arrays = {name: archive[name] for name in archive.files if name != "joint2num"}
    arrays["shapedirs"] = arrays["shapedirs"][:, :, :20]
    (data / "SMPLX_NEUTRAL_2020.npz").unlink()
    np.savez(data / "SMPLX_NEUTRAL_2020.npz", **arrays)


@pytest.mark.parametrize(
    ("spoil", "name", "said"),
    [
        (empty_tar, "pixie_model.tar", "empty tar archive"),
        (thirteen_empty_parts, "pixie_model.tar", "no named tensors under `Encoder_body`"),
        (truncated, "pixie_model.tar", "ends in the middle"),
        (
            replaced("pixie_model.tar", b"<!DOCTYPE html><html>Sign in</html>"),
            "pixie_model.tar",
            "a web page",
        ),
        (bomb_in_the_weights, "pixie_model.tar", "asks to run code"),
        (
            edited(lambda state: state.pop("Moderator_hand_share")),
            "pixie_model.tar",
            "holds no `Moderator_hand_share`",
        ),
        (
            edited(lambda state: state["Regressor_body"].pop("layers.0.bias")),
            "pixie_model.tar",
            r"does not fit Regressor_body: 1 missing \(layers\.0\.bias\)",
        ),
        (
            edited(
                lambda state: state["Extractor_head_share"].update(
                    {"layers.0.weight": torch.zeros(2048, 7)}
                )
            ),
            "pixie_model.tar",
            "does not fit Extractor_head_share: 1 of another shape",
        ),
        (
            edited(lambda state: state.update(Encoder_head=state["Regressor_head"])),
            "pixie_model.tar",
            "does not fit Encoder_head: not one tensor fits, it is another model's",
        ),
        (bomb_in_the_regressor, "SMPLX_to_J14.pkl", "is refused"),
        (bomb_in_the_body, "SMPLX_NEUTRAL_2020.npz", "is no body model"),
        (other_body, "SMPLX_NEUTRAL_2020.npz", r"`shapedirs` of \(10475, 3, 20\)"),
        (
            replaced("smplx_extra_joints.yaml", b"head_top: {face: 1}"),
            "smplx_extra_joints.yaml",
            "names no triangles",
        ),
    ],
)
def test_wrong_files_are_refused_by_name_and_run_nothing(
    pixie_random: Path, tmp_path: Path, spoil: Callable[[Path], None], name: str, said: str
) -> None:
    (tmp_path / "pixielib").symlink_to((pixie_random / "pixielib").resolve())
    data = tmp_path / "data"
    data.mkdir()
    for path in (pixie_random / "data").iterdir():
        os.link(path, data / path.name)
    spoil(data)
    with pytest.raises(ModelInvalid, match=said) as refused:
        Pixie.load(tmp_path, CPU)
    assert name in refused.value.message
    assert not (data / "exploded").exists()
    shutil.rmtree(data)


@pytest.mark.parametrize("name", ["pixie_model.tar", "SMPLX_to_J14.pkl", "SMPLX_NEUTRAL_2020.npz"])
def test_a_missing_file_is_named_and_ends_nothing(
    pixie_random: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "pixielib").symlink_to((pixie_random / "pixielib").resolve())
    (tmp_path / "data").mkdir()
    for path in (pixie_random / "data").iterdir():
        if path.name != name:
            os.link(path, tmp_path / "data" / path.name)
    with pytest.raises(ModelMissing, match=name):
        Pixie.load(tmp_path, CPU)
