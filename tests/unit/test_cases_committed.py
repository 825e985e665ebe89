"""The committed cases and the sample person say what the code of today would say of them."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from worker.avatar.body.free import free_body
from worker.avatar.measure import Measurer
from worker.avatar.photo import read_photo
from worker.avatar.types import KEYPOINTS, Gender, ViewName

CASES = sorted((Path(__file__).resolve().parents[1] / "data" / "cases").iterdir())
SAMPLE = Path(str(resources.files("worker.demo"))) / "sample"

MEASUREMENTS = {
    *("chestCm", "waistCm", "hipCm", "shoulderCm", "sleeveCm", "lengthCm", "neckCm", "bicepCm"),
    *("forearmCm", "wristCm", "thighCm", "calfCm", "ankleCm", "insideLegCm"),
    *("shoulderBreadthCm", "heightCm"),
}


def test_there_are_a_man_and_a_woman() -> None:
    assert [case.name for case in CASES] == ["female-00", "male-00"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_truth_is_what_the_measurer_finds_on_the_true_body(case: Path) -> None:
    truth = json.loads((case / "truth.json").read_text())
    vertices = np.load(case / truth["verticesFile"])["vertices"].astype(np.float64)
    found = Measurer(free_body(Gender(truth["gender"]))).measure(vertices)
    assert set(truth["measurementsCm"]) == MEASUREMENTS
    for name, true_cm in truth["measurementsCm"].items():
        # Half precision moves a vertex by up to 0.5 mm, and no girth by more than 2 mm.
        assert found[name] == pytest.approx(true_cm, abs=0.2), (
            f"{name} is stale: generate the cases again (docs/reference/bench-cases.md)"
        )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_declared_height_and_weight_are_near_the_truth(case: Path) -> None:
    truth = json.loads((case / "truth.json").read_text())
    request = json.loads((case / "request.json").read_text())
    assert request["heightCm"] == pytest.approx(truth["heightCm"], abs=4 * 0.7)
    assert request["weightKg"] == pytest.approx(truth["weightKg"], abs=4 * 1.0)
    assert request["gender"] == truth["gender"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("view", list(ViewName))
def test_each_view_has_a_mask_and_keypoints_of_its_camera(case: Path, view: ViewName) -> None:
    camera = json.loads((case / "camera.json").read_text())[view]
    keypoints = json.loads((case / f"{view}_keypoints.json").read_text())
    mask = np.asarray(Image.open(case / f"{view}_mask.png"))
    assert mask.shape == (camera["height"], camera["width"])
    assert set(np.unique(mask)) == {0, 255}
    assert tuple(keypoints["names"]) == KEYPOINTS
    assert np.array(keypoints["xyc"]).shape == (len(KEYPOINTS), 3)


@pytest.mark.parametrize("view", list(ViewName))
def test_the_sample_photo_tells_its_focal_length_and_no_device(view: ViewName) -> None:
    path = SAMPLE / f"{view}.jpg"
    photo = read_photo(path, view)
    assert photo.pixels.shape == (1600, 1200, 3)
    # 48 mm on the 43.27 mm diagonal of 35 mm film; the photo's diagonal is 2,000 px.
    assert photo.focal_px == pytest.approx(48 / 43.2666 * 2000, rel=1e-3)
    with Image.open(path) as opened:
        exif = opened.getexif()
    assert not {0x010F, 0x0110, 0x8825} & set(exif), "maker, model or place"


def test_the_sample_truth_names_every_measurement_of_the_contract() -> None:
    truth = json.loads((SAMPLE / "truth.json").read_text())
    assert set(truth["measurements"]) == MEASUREMENTS
    assert truth["heightCm"] == truth["measurements"]["heightCm"]
    assert truth["gender"] == "male"
    assert 70 < truth["weightKg"] < 80
