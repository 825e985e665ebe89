"""Which postures and framings pass, on people made of numbers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from worker.avatar.observe import gate
from worker.avatar.observe.keypoints import BLAZEPOSE_INDEX, to_keypoints
from worker.avatar.observe.landmarks import Landmarks
from worker.avatar.observe.people import People
from worker.avatar.observe.posture import Posture
from worker.avatar.observe.roi import Roi
from worker.avatar.types import KEYPOINTS, ViewName
from worker.errors import (
    BodyHidden,
    FeetNotVisible,
    HeadNotVisible,
    InputError,
    LegsNotVisible,
    NoPerson,
    NotStanding,
    PersonTooSmall,
    PhotoTooDark,
    SeveralPeople,
    WrongView,
)

HEIGHT, WIDTH = 1000, 600

# BlazePose's 33 landmarks of somebody 1.7 m tall who faces the camera, metres, x to the right of
# the picture (so the person's left is at +x), y down, z away from the camera.
STANDING = np.zeros((33, 3))
STANDING[:11] = [0, -1.55, -0.1]
for index, (side, y) in {
    11: (0.18, -1.40), 13: (0.25, -1.12), 15: (0.28, -0.88), 17: (0.28, -0.80), 19: (0.28, -0.80),
    21: (0.28, -0.80), 23: (0.10, -0.90), 25: (0.10, -0.48), 27: (0.10, -0.08), 29: (0.10, -0.02),
    31: (0.12, 0.0),
}.items():  # fmt: skip
    STANDING[index] = [side, y, 0]
    STANDING[index + 1] = [-side, y, 0]


def person(body: np.ndarray = STANDING, *, yaw_deg: float = 0, tilt_deg: float = 0) -> Landmarks:
    """Show a body to a distant camera, turned about its axis and in the picture."""
    yaw, tilt = math.radians(yaw_deg), math.radians(tilt_deg)
    x, y, z = body.T
    turned = np.stack(
        [x * math.cos(yaw) - z * math.sin(yaw), y, x * math.sin(yaw) + z * math.cos(yaw)], axis=1
    )
    rotation = np.array([[math.cos(tilt), -math.sin(tilt)], [math.sin(tilt), math.cos(tilt)]])
    turned[:, :2] = (turned[:, :2] + [0, 0.85]) @ rotation.T - [0, 0.85]
    points = turned[:, :2] * 500 + [WIDTH / 2, 925]
    roi = Roi(WIDTH / 2, 500, 1100, tilt)
    # The network's metric landmarks are in the crop's axes, and the crop turns with the body.
    world = turned.copy()
    world[:, :2] = world[:, :2] @ rotation
    return Landmarks(
        score=1.0,
        points=points.astype(np.float32),
        depth=turned[:, 2].astype(np.float32),
        visibility=np.ones(33, dtype=np.float32),
        presence=np.ones(33, dtype=np.float32),
        world=world.astype(np.float32),
        mask=np.zeros((256, 256), dtype=np.float32),
        roi=roi,
        next_roi=roi,
    )


def bent(hip_deg: float, knee_deg: float) -> np.ndarray:
    """Bend hips and knees forward, towards the camera."""
    body = STANDING.copy()
    hip, knee = math.radians(hip_deg), math.radians(knee_deg)
    for side in (0, 1):
        thigh = np.linalg.norm(STANDING[25 + side] - STANDING[23 + side])
        shank = np.linalg.norm(STANDING[27 + side] - STANDING[25 + side])
        body[25 + side] = body[23 + side] + thigh * np.array([0, math.cos(hip), -math.sin(hip)])
        body[27 + side] = body[25 + side] + shank * np.array(
            [0, math.cos(hip - knee), -math.sin(hip - knee)]
        )
    return body


def mask_of(top: int = 80, bottom: int = 940, left: int = 150, right: int = 450) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.float32)
    mask[top:bottom, left:right] = 1.0
    return mask


def unseen(body: Landmarks, indices: list[int]) -> Landmarks:
    visibility = body.visibility.copy()
    visibility[indices] = 0.05
    return replace(body, visibility=visibility)


def moved(body: Landmarks, indices: list[int], y_px: float) -> Landmarks:
    points = body.points.copy()
    points[indices, 1] = y_px
    return replace(body, points=points)


# ------------------------------------------------------------------------------- posture
@pytest.mark.parametrize("tilt_deg", [0, 10, -20, 90, 180])
def test_the_posture_is_measured_in_the_picture_not_in_the_turned_crop(tilt_deg: float) -> None:
    posture = Posture.of(person(tilt_deg=tilt_deg))
    assert posture.trunk_tilt_deg == pytest.approx(abs(tilt_deg), abs=0.5)
    assert posture.hip_flexion_deg < 1
    assert posture.knee_flexion_deg < 1


@pytest.mark.parametrize("yaw_deg", [0, 40, -40, 90, -90, 150, -150])
def test_the_direction_that_a_person_faces(yaw_deg: float) -> None:
    assert Posture.of(person(yaw_deg=yaw_deg)).yaw_deg == pytest.approx(yaw_deg, abs=1)


def test_flexion_of_hips_and_knees() -> None:
    posture = Posture.of(person(bent(80, 85)))
    assert posture.hip_flexion_deg == pytest.approx(80, abs=1)
    assert posture.knee_flexion_deg == pytest.approx(85, abs=1)


@pytest.mark.parametrize("yaw_deg", [0, 30, -45, 60])
def test_facing_the_camera_more_or_less_is_a_front_view(yaw_deg: float) -> None:
    gate.check_posture(Posture.of(person(yaw_deg=yaw_deg)), ViewName.FRONT)


@pytest.mark.parametrize(
    ("yaw_deg", "word"), [(90, "the side"), (-100, "the side"), (170, "behind")]
)
def test_other_directions_are_no_front_view(yaw_deg: float, word: str) -> None:
    with pytest.raises(WrongView, match=word) as caught:
        gate.check_posture(Posture.of(person(yaw_deg=yaw_deg)), ViewName.FRONT)
    assert "face the camera" in caught.value.advice


@pytest.mark.parametrize("yaw_deg", [70, 90, 115, -70, -90, -115])
def test_either_profile_is_a_side_view(yaw_deg: float) -> None:
    gate.check_posture(Posture.of(person(yaw_deg=yaw_deg)), ViewName.SIDE)


@pytest.mark.parametrize(
    ("yaw_deg", "word"), [(0, "the front"), (30, "the front"), (180, "behind")]
)
def test_other_directions_are_no_side_view(yaw_deg: float, word: str) -> None:
    with pytest.raises(WrongView, match=word) as caught:
        gate.check_posture(Posture.of(person(yaw_deg=yaw_deg)), ViewName.SIDE)
    assert "sideways" in caught.value.advice


@pytest.mark.parametrize(("hip_deg", "knee_deg"), [(0, 0), (15, 20), (25, 30)])
@pytest.mark.parametrize(("view", "yaw_deg"), [(ViewName.FRONT, 0), (ViewName.SIDE, 90)])
def test_slightly_bent_is_standing(
    view: ViewName, yaw_deg: float, hip_deg: float, knee_deg: float
) -> None:
    gate.check_posture(Posture.of(person(bent(hip_deg, knee_deg), yaw_deg=yaw_deg)), view)


def test_knees_that_only_depth_says_are_bent_count_less_than_those_seen_in_profile() -> None:
    # What BlazePose makes of a straight woman whom a phone looks down on by 20 degrees.
    crouching = bent(32, 57)
    gate.check_posture(Posture.of(person(crouching)), ViewName.FRONT)
    with pytest.raises(NotStanding):
        gate.check_posture(Posture.of(person(crouching, yaw_deg=90)), ViewName.SIDE)


@pytest.mark.parametrize(
    ("hip_deg", "knee_deg"), [(85, 85), (60, 60), (50, 55), (100, 20), (5, 90), (40, 80)]
)
@pytest.mark.parametrize(("view", "yaw_deg"), [(ViewName.FRONT, 0), (ViewName.SIDE, 90)])
def test_sitting_and_kneeling_are_not_standing(
    view: ViewName, yaw_deg: float, hip_deg: float, knee_deg: float
) -> None:
    with pytest.raises(NotStanding):
        gate.check_posture(Posture.of(person(bent(hip_deg, knee_deg), yaw_deg=yaw_deg)), view)


@pytest.mark.parametrize("tilt_deg", [60, 90, -90, 180])
def test_a_photo_that_lies_on_its_side_is_told_to_be_turned(tilt_deg: float) -> None:
    with pytest.raises(NotStanding) as caught:
        gate.check_posture(Posture.of(person(tilt_deg=tilt_deg)), ViewName.FRONT)
    assert "turn the photo" in caught.value.advice


def test_straddled_legs_are_not_standing_even_if_the_depth_is_misjudged() -> None:
    straddled = person()
    points = straddled.points.copy()
    points[[25, 26]] = points[[23, 24]] + np.array([[180, 120], [-180, 120]])
    with pytest.raises(NotStanding):
        gate.check_posture(Posture.of(replace(straddled, points=points)), ViewName.FRONT)


# ------------------------------------------------------------------------------- framing
def test_somebody_wholly_in_the_picture_passes_without_warnings() -> None:
    whole, mask = person(), mask_of()
    gate.check_frame(whole, mask)
    posture = Posture.of(whole)
    assert gate.warnings_for(People(whole), whole, posture, mask, ViewName.FRONT) == ()


FRAMINGS: list[tuple[Landmarks, np.ndarray, type[InputError]]] = [
    (moved(person(), [25, 26, 27, 28, 29, 30, 31, 32], 1300), mask_of(bottom=1000), LegsNotVisible),
    (unseen(person(), [25, 26, 27, 28, 29, 30, 31, 32]), mask_of(bottom=700), LegsNotVisible),
    (moved(person(), [27, 28, 29, 30, 31, 32], 1050), mask_of(bottom=1000), FeetNotVisible),
    (moved(person(), [29, 31], 1010), mask_of(), FeetNotVisible),
    (unseen(person(), [27, 28, 29, 30, 31, 32]), mask_of(), FeetNotVisible),
    (person(), mask_of(bottom=1000), FeetNotVisible),
    (moved(person(), list(range(11)), -40), mask_of(top=0), HeadNotVisible),
    (unseen(person(), list(range(11))), mask_of(), HeadNotVisible),
    (person(), mask_of(top=0), HeadNotVisible),
    (person(), mask_of(left=0), BodyHidden),
    (person(), mask_of(right=600), BodyHidden),
    (person(), mask_of(top=600), PersonTooSmall),
    (person(), np.zeros((HEIGHT, WIDTH), dtype=np.float32), BodyHidden),
]


@pytest.mark.parametrize(("body", "mask", "expected"), FRAMINGS)
def test_what_is_outside_the_picture_is_named(
    body: Landmarks, mask: np.ndarray, expected: type[InputError]
) -> None:
    with pytest.raises(expected):
        gate.check_frame(body, mask)


def test_a_photo_that_was_made_small_to_save_memory_is_not_refused_for_it() -> None:
    """What is shown at half the size passes if it passed at the whole."""
    height, share = 500, 0.27
    body = person()
    body = replace(body, points=body.points * share + 100)
    mask = np.zeros((height, 700), dtype=np.float32)
    top, bottom, left, right = (round(each * share) + 100 for each in (80, 940, 150, 450))
    mask[top:bottom, left:right] = 1.0
    with pytest.raises(PersonTooSmall, match="232 pixels"):
        gate.check_frame(body, mask)
    gate.check_frame(body, mask, shrunk=0.5)


def test_one_foot_hidden_behind_the_other_is_no_reason_to_refuse() -> None:
    gate.check_frame(unseen(person(), [26, 28, 30, 32]), mask_of())


def test_warnings_are_in_plain_words() -> None:
    turned = person(yaw_deg=45)
    people = People(turned, bystanders=1)
    found = gate.warnings_for(people, turned, Posture.of(turned), mask_of(), ViewName.FRONT)
    assert found == (gate.BYSTANDER, gate.TURNED)
    edge = mask_of()
    edge[500:510, 0:200] = 1.0
    whole = person()
    found = gate.warnings_for(People(whole), whole, Posture.of(whole), edge, ViewName.FRONT)
    assert found == (gate.TOUCHING_EDGE,)
    reaching = moved(whole, [15], -10)
    found = gate.warnings_for(People(whole), reaching, Posture.of(whole), edge, ViewName.FRONT)
    assert found == (gate.ARM_OUTSIDE,)


# ------------------------------------------------------------------------------- people, light
def test_nobody_several_or_one() -> None:
    bright = np.random.default_rng(0).integers(60, 250, (100, 100, 3), dtype=np.uint8)
    whole = person()
    assert gate.choose_person(People(whole, bystanders=2), bright) is whole
    with pytest.raises(SeveralPeople):
        gate.choose_person(People(whole, rivals=1), bright)
    with pytest.raises(NoPerson):
        gate.choose_person(People(None), bright)
    with pytest.raises(PhotoTooDark):
        gate.choose_person(People(None), bright // 4)
    with pytest.raises(PhotoTooDark):
        gate.choose_person(People(None), 120 + bright // 10)
    gate.check_neighbours(People(whole, bystanders=3))
    with pytest.raises(SeveralPeople):
        gate.check_neighbours(People(whole, touching=1))


def test_somebody_who_melts_into_the_background_is_refused() -> None:
    mask = mask_of()
    pixels = np.full((HEIGHT, WIDTH, 3), 60, dtype=np.uint8)
    pixels[mask > 0.5] = 62
    with pytest.raises(PhotoTooDark, match="2 grey levels"):
        gate.check_light(pixels, mask)
    pixels[mask > 0.5] = 80
    gate.check_light(pixels, mask)


# ------------------------------------------------------------------------------- keypoints
def test_keypoints_keep_the_persons_sides_and_leave_small_toes_unseen() -> None:
    keypoints = to_keypoints(person(), WIDTH, HEIGHT)
    assert keypoints.shape == (len(KEYPOINTS), 3)
    at = {name: keypoints[row] for row, name in enumerate(KEYPOINTS)}
    assert at["left_shoulder"][0] > at["right_shoulder"][0]  # facing: left is on the right
    assert at["left_ankle"][1] > at["left_knee"][1] > at["left_hip"][1]
    assert at["left_small_toe"][2] == 0
    assert at["right_small_toe"][2] == 0
    assert all(at[name][2] == 1 for name in BLAZEPOSE_INDEX)


def test_keypoints_outside_the_photo_have_no_confidence() -> None:
    keypoints = to_keypoints(moved(person(), [31], HEIGHT + 5), WIDTH, HEIGHT)
    assert keypoints[KEYPOINTS.index("left_big_toe"), 2] == 0
    assert keypoints[KEYPOINTS.index("right_big_toe"), 2] == 1
