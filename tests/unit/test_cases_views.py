"""The synthetic cases: what an observer sees of a known body, and how it is written down."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recipes.cases.baselines import Baseline, features, mean_absolute_errors
from recipes.cases.folder import Declared, write_case
from recipes.cases.subject import DENSITY_KG_M3, Subject, weight_of
from recipes.cases.views import FOCAL_PX, HEIGHT, WIDTH, Look, View, observe
from worker.avatar.body.free import free_body
from worker.avatar.types import KEYPOINTS, Gender, ViewName


@pytest.fixture(scope="module")
def subject() -> Subject:
    body = free_body(Gender.FEMALE)
    vertices = body.v_template.astype(np.float64)
    return Subject(
        Gender.FEMALE,
        vertices,
        body.J_regressor.astype(np.float64) @ vertices,
        float(np.ptp(vertices[:, 1])) * 100,
        weight_of(vertices, body.faces),
        {"chestCm": 92.0},
    )


def seen(subject: Subject, name: ViewName, seed: int = 3, clothes_px: int = 0) -> View:
    rig = free_body(subject.gender)
    return observe(rig, subject, name, np.random.default_rng(seed), Look(clothes_px))


@pytest.fixture(scope="module")
def front(subject: Subject) -> View:
    return seen(subject, ViewName.FRONT)


def test_the_whole_body_is_in_the_frame_at_about_two_millimetres_a_pixel(
    subject: Subject, front: View
) -> None:
    rows, columns = np.nonzero(front.mask)
    assert rows.min() > 0
    assert rows.max() < HEIGHT - 1
    assert columns.min() > 0
    assert columns.max() < WIDTH - 1
    assert 2.0 < subject.height_cm * 10 / np.ptp(rows) < 2.6


def test_the_left_side_is_on_the_right_of_a_front_view(front: View) -> None:
    x = dict(zip(KEYPOINTS, front.keypoints[:, 0], strict=True))
    assert x["left_shoulder"] > x["right_shoulder"] + 80
    assert x["left_ankle"] > x["right_ankle"] + 20


def test_the_side_view_faces_right_and_is_narrow(subject: Subject) -> None:
    side = seen(subject, ViewName.SIDE)
    at = dict(zip(KEYPOINTS, side.keypoints[:, 0], strict=True))
    assert at["nose"] > at["left_ear"] + 15
    assert at["left_big_toe"] > at["left_heel"] + 40
    assert abs(at["left_hip"] - at["right_hip"]) < 40


def test_keypoints_are_about_four_pixels_off_and_upright(front: View) -> None:
    y = dict(zip(KEYPOINTS, front.keypoints[:, 1], strict=True))
    assert y["nose"] < y["left_shoulder"] < y["left_hip"] < y["left_knee"] < y["left_heel"]
    columns, rows = front.keypoints[:, :2].astype(int).T
    # Toes and ears lie at the edge; 4 px of noise put some of them outside.
    assert front.mask[rows, columns].mean() > 0.7


def test_the_same_seed_sees_the_same_and_another_does_not(subject: Subject, front: View) -> None:
    again, other = seen(subject, ViewName.FRONT), seen(subject, ViewName.FRONT, seed=4)
    assert np.array_equal(front.mask, again.mask)
    assert np.array_equal(front.keypoints, again.keypoints)
    assert not np.array_equal(front.keypoints, other.keypoints)


def test_clothes_grow_the_mask_and_change_nothing_else(subject: Subject, front: View) -> None:
    dressed = seen(subject, ViewName.FRONT, clothes_px=3)
    assert np.array_equal(front.keypoints, dressed.keypoints)
    assert not (front.mask & ~dressed.mask).any()
    width = front.mask[HEIGHT // 2].sum()
    assert dressed.mask[HEIGHT // 2].sum() >= width + 6


def test_weight_is_volume_times_density() -> None:
    # A tetrahedron with edges of 1 m along the axes holds a sixth of a cubic metre.
    corners = np.vstack((np.zeros(3), np.eye(3)))
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    assert weight_of(corners, faces) == pytest.approx(DENSITY_KG_M3 / 6)


def test_the_baseline_finds_a_law_that_is_linear_in_its_features() -> None:
    rng = np.random.default_rng(1)
    law = np.array([3.0, 0.2, 0.5, 40.0])
    people = []
    for height, weight in zip(rng.uniform(150, 200, 30), rng.uniform(45, 120, 30), strict=True):
        waist = float(features(height, weight, True) @ law)
        people.append(
            Subject(
                Gender.MALE, np.zeros((1, 3)), np.zeros((55, 3)), height, weight, {"waistCm": waist}
            )
        )
    knows = Baseline.fitted(people, with_weight=True)
    guesses = [knows.predict(p.height_cm, p.weight_kg) for p in people]
    assert mean_absolute_errors(guesses, people)["waistCm"] == pytest.approx(0, abs=1e-3)
    blind = Baseline.fitted(people, with_weight=False)
    guesses = [blind.predict(p.height_cm, p.weight_kg) for p in people]
    assert mean_absolute_errors(guesses, people)["waistCm"] > 3


@pytest.mark.parametrize(("half", "within_m"), [(False, 1e-6), (True, 6e-4)])
def test_a_case_reads_back_as_it_was(
    subject: Subject, front: View, tmp_path: Path, half: bool, within_m: float
) -> None:
    write_case(tmp_path, subject, Declared(168.3, 61.0), [front], half=half)
    mask = np.asarray(Image.open(tmp_path / "front_mask.png"))
    assert mask.dtype == np.uint8
    assert np.array_equal(mask == 255, front.mask)
    keypoints = json.loads((tmp_path / "front_keypoints.json").read_text())
    assert tuple(keypoints["names"]) == KEYPOINTS
    assert np.abs(np.array(keypoints["xyc"]) - front.keypoints).max() <= 0.005 + 1e-9
    cameras = json.loads((tmp_path / "camera.json").read_text())
    assert cameras == {"front": {"focalPx": FOCAL_PX, "width": WIDTH, "height": HEIGHT}}
    assert json.loads((tmp_path / "request.json").read_text()) == {
        "heightCm": 168.3,
        "weightKg": 61.0,
        "gender": "female",
    }
    truth = json.loads((tmp_path / "truth.json").read_text())
    assert truth["measurementsCm"] == {"chestCm": 92.0}
    vertices = np.load(tmp_path / truth["verticesFile"])["vertices"]
    assert np.abs(vertices - subject.vertices).max() < within_m
