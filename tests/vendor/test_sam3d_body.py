"""SAM 3D Body's own code, unmocked, in a small configuration that we made, with the network cut."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.vendor import fabricate_sam3d
from tests.vendor.conftest import checkout
from worker.avatar.body.mhr import MHR_VERTICES
from worker.avatar.estimate import Topology, sam3d_code
from worker.avatar.estimate.sam3d_body import Sam3dBody
from worker.avatar.types import Observation, Photo
from worker.errors import EstimateFailed, ModelInvalid, ModelMissing

pytestmark = [pytest.mark.vendor, pytest.mark.timeout(900)]

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def codes() -> tuple[Path, Path, Path]:
    needed = ("torchvision", "yacs", "roma", "einops", "pytorch_lightning", "braceexpand", "cv2")
    return checkout("sam-3d-body", *needed), checkout("dinov3"), checkout("MHR")


@pytest.fixture(scope="module")
def sam3d_files(
    codes: tuple[Path, Path, Path], network_cut: None, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("sam3d") / "files"
    fabricate_sam3d.write(folder, *codes)
    return folder


def load(files: Path, codes: tuple[Path, Path, Path], **options: Any) -> Sam3dBody:
    code, dino, _ = codes
    mhr = files / "assets" / "mhr_model.pt"
    return Sam3dBody.load(code, files / "model.ckpt", mhr, CPU, dino_folder=dino, **options)


@pytest.fixture(scope="module")
def sam3d(sam3d_files: Path, codes: tuple[Path, Path, Path], network_cut: None) -> Sam3dBody:
    return load(sam3d_files, codes)


def test_a_photo_gives_an_mhr_body_in_front_of_our_camera(
    sam3d: Sam3dBody, front: Photo, seen: Observation
) -> None:
    found = sam3d.estimate(front, seen)
    assert found.topology is Topology.MHR
    assert found.rest_vertices.shape == found.posed_vertices.shape == (MHR_VERTICES, 3)
    # The camera is ours, not one of its own.
    assert found.focal_px == pytest.approx(seen.intrinsics.focal_px)
    # At rest y points up, posed y points down: the template's head is at +1.73 m.
    assert 1.5 < found.rest_vertices[:, 1].max() < 2.0
    assert found.rest_vertices[:, 1].min() == pytest.approx(0, abs=0.2)
    head, feet = found.rest_vertices[:, 1].argmax(), found.rest_vertices[:, 1].argmin()
    assert found.posed_vertices[head, 1] < found.posed_vertices[feet, 1]
    assert found.posed_vertices[:, 2].min() > 0
    assert 0 <= found.confidence <= 1
    assert found.source == f"sam3d-body@{sam3d.digests[0][:8]}"


def test_the_camera_that_is_given_decides_how_far_away_the_person_is(
    sam3d: Sam3dBody, front: Photo, seen: Observation
) -> None:
    twice = replace(
        seen, intrinsics=replace(seen.intrinsics, focal_px=2 * seen.intrinsics.focal_px)
    )
    near = sam3d.estimate(front, seen).posed_vertices[:, 2].mean()
    far = sam3d.estimate(front, twice).posed_vertices[:, 2].mean()
    assert far == pytest.approx(2 * near, rel=0.2)


def test_the_mask_is_used_when_it_is_asked_for(
    sam3d: Sam3dBody,
    sam3d_files: Path,
    codes: tuple[Path, Path, Path],
    front: Photo,
    seen: Observation,
) -> None:
    emptied = replace(seen, mask=np.zeros_like(seen.mask))
    with_mask, without = sam3d.estimate(front, seen), sam3d.estimate(front, emptied)
    assert not np.allclose(with_mask.posed_vertices, without.posed_vertices, atol=1e-6)
    blind = load(sam3d_files, codes, use_mask=False)
    first, second = blind.estimate(front, seen), blind.estimate(front, emptied)
    np.testing.assert_array_equal(first.posed_vertices, second.posed_vertices)


def test_its_backbone_in_bfloat16_as_on_cuda_gives_nearly_the_same_body(
    sam3d: Sam3dBody,
    sam3d_files: Path,
    codes: tuple[Path, Path, Path],
    front: Photo,
    seen: Observation,
    *,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = sam3d_code.read_config
    monkeypatch.setattr(sam3d_code, "read_config", lambda *a, **_: read(*a, bfloat16=True))
    halved = load(sam3d_files, codes)
    assert halved.network.backbone_dtype is torch.bfloat16
    kinds = {parameter.dtype for parameter in halved.network.backbone.parameters()}
    assert torch.bfloat16 in kinds
    half, full = halved.estimate(front, seen), sam3d.estimate(front, seen)
    # Eight bits of precision, through a network of random weights.
    np.testing.assert_allclose(half.rest_vertices, full.rest_vertices, atol=0.05)
    assert not np.array_equal(half.rest_vertices, full.rest_vertices)


def test_an_empty_box_is_no_person(sam3d: Sam3dBody, front: Photo, seen: Observation) -> None:
    with pytest.raises(EstimateFailed, match="no person"):
        sam3d.estimate(front, replace(seen, box=np.zeros(4, dtype=np.float32)))


def test_numbers_that_are_not_finite_are_no_estimate(
    sam3d: Sam3dBody, front: Photo, seen: Observation
) -> None:
    broken = replace(seen, intrinsics=replace(seen.intrinsics, focal_px=float("nan")))
    with pytest.raises(EstimateFailed, match="not finite"):
        sam3d.estimate(front, broken)


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def edited(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        whole = torch.load(folder / "model.ckpt", weights_only=True)
        change(whole["state_dict"])
        _write(folder / "model.ckpt", whole)

    return edit


def _write(path: Path, what: Any) -> None:
    path.unlink()
    torch.save(what, path)


def replaced(name: str, content: bytes) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).write_bytes(content)

    return edit


def halved(name: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        content = (folder / name).read_bytes()
        replaced(name, content[: len(content) // 2])(folder)

    return edit


def bomb(folder: Path) -> None:
    _write(folder / "model.ckpt", {"state_dict": Bomb(folder / "exploded")})


def other_mhr(folder: Path) -> None:
    (folder / "assets" / "mhr_model.pt").unlink()
    few = torch.jit.script(fabricate_sam3d.StandIn(torch.rand(1000, 3)))
    few.save(str(folder / "assets" / "mhr_model.pt"))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize(
    ("spoil", "name", "said"),
    [
        (lambda folder: _write(folder / "model.ckpt", {}), "model.ckpt", "no named tensors"),
        (halved("model.ckpt"), "model.ckpt", "ends in the middle"),
        (replaced("model.ckpt", b"<html>403</html>"), "model.ckpt", "a web page"),
        (bomb, "model.ckpt", "asks to run code"),
        (
            edited(lambda state: state.pop("backbone.encoder.cls_token")),
            "model.ckpt",
            r"1 missing \(backbone\.encoder\.cls_token\)",
        ),
        (
            edited(lambda state: state.update({"init_camera.weight": torch.zeros(1, 4)})),
            "model.ckpt",
            r"init_camera\.weight: 1×4, not 1×3",
        ),
        (
            edited(lambda state: (state.clear(), state.update(weight=torch.zeros(3)))),
            "model.ckpt",
            "missing",
        ),
        (
            edited(lambda state: state["init_pose.weight"].fill_(float("inf"))),
            "model.ckpt",
            "1 not finite",
        ),
        (halved("assets/mhr_model.pt"), "mhr_model.pt", "ends in the middle"),
        (replaced("assets/mhr_model.pt", b"{}"), "mhr_model.pt", "a JSON document"),
        (other_mhr, "mhr_model.pt|model.ckpt", "vertices|another shape|fit"),
        (replaced("model_config.yaml", b"<html>404</html>"), "model_config.yaml", "web page"),
        (replaced("model_config.yaml", b"MODEL: {}"), "model_config.yaml", "is no configuration"),
    ],
)
def test_wrong_files_are_refused_by_name_and_run_nothing(
    sam3d_files: Path,
    codes: tuple[Path, Path, Path],
    tmp_path: Path,
    *,
    spoil: Callable[[Path], None],
    name: str,
    said: str,
) -> None:
    folder = tmp_path / "files"
    (folder / "assets").mkdir(parents=True)
    for relative in ("model.ckpt", "model_config.yaml", "assets/mhr_model.pt"):
        os.link(sam3d_files / relative, folder / relative)
    spoil(folder)
    with pytest.raises(ModelInvalid, match=said) as refused:
        load(folder, codes)
    assert any(part in refused.value.message for part in name.split("|"))
    assert not (folder / "exploded").exists()


@pytest.mark.parametrize("name", ["model.ckpt", "model_config.yaml", "assets/mhr_model.pt"])
def test_a_missing_file_is_named(
    sam3d_files: Path, codes: tuple[Path, Path, Path], tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "deep" / "files"
    (folder / "assets").mkdir(parents=True)
    for relative in ("model.ckpt", "model_config.yaml", "assets/mhr_model.pt"):
        if relative != name:
            os.link(sam3d_files / relative, folder / relative)
    with pytest.raises(ModelMissing, match=Path(name).name):
        load(folder, codes)


def test_without_dinov3s_code_nothing_is_fetched_and_it_is_named(
    sam3d_files: Path, codes: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    code, _, _ = codes
    with pytest.raises(ModelMissing, match="holds no dinov3"):
        Sam3dBody.load(
            code,
            sam3d_files / "model.ckpt",
            sam3d_files / "assets" / "mhr_model.pt",
            CPU,
            dino_folder=tmp_path,
        )
