"""The measurer on the free body: plausible on every body, and following shape as a tape would."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from worker.avatar.body.free import free_body
from worker.avatar.measure import MEASUREMENT_KEYS, Measurements, Measurer
from worker.avatar.types import Gender

BODIES = 100
GIRTHS = ("chestCm", "waistCm", "hipCm", "neckCm", "bicepCm", "thighCm", "calfCm")

# What a measurement can be, as a share of the stature.  Fifty independent betas make bodies more
# extreme than adults are, so these catch a tape at the wrong place and no centimetres.
SHARE_OF_STATURE = {
    "chestCm": (0.35, 0.90),
    "waistCm": (0.25, 0.90),
    "hipCm": (0.38, 0.95),
    "shoulderCm": (0.18, 0.35),
    "sleeveCm": (0.25, 0.42),
    "lengthCm": (0.26, 0.43),
    "neckCm": (0.12, 0.38),
    "bicepCm": (0.07, 0.30),
    "forearmCm": (0.07, 0.22),
    "wristCm": (0.05, 0.16),
    "thighCm": (0.19, 0.54),
    "calfCm": (0.13, 0.34),
    "ankleCm": (0.06, 0.22),
    "insideLegCm": (0.36, 0.57),
    "shoulderBreadthCm": (0.18, 0.35),
    "heightCm": (1.0, 1.0),
}

# Where landmarks may lie, as a share of the stature; ANSUR II's means are in the middle.
HEIGHT_OF_LANDMARK = {
    "vertex": (0.995, 1.0),
    "cervicale": (0.82, 0.90),
    "suprasternale": (0.77, 0.86),
    "neck_front": (0.80, 0.89),
    "bust_point_left": (0.66, 0.80),
    "lowest_rib_left": (0.58, 0.72),
    "iliac_crest_left": (0.54, 0.70),
    "gluteal_left": (0.42, 0.60),
    "crotch": (0.36, 0.57),
    "knee_left": (0.20, 0.36),
    "malleolus_left": (0.02, 0.07),
    "heel_left": (0.0, 0.02),
}


@dataclass(frozen=True)
class Population:
    gender: Gender
    measurer: Measurer
    template: NDArray[np.float64]
    directions: NDArray[np.float64]
    faces: NDArray[np.int64]

    def body(self, betas: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.template + self.directions[:, :, : len(betas)] @ betas

    def random_bodies(self, count: int) -> list[NDArray[np.float64]]:
        draws = np.random.default_rng(8559).standard_normal((count, self.directions.shape[2]))
        return [self.body(betas) for betas in draws]

    def place(self, name: str, body: NDArray[np.float64]) -> NDArray[np.float64]:
        return body[getattr(self.measurer.landmarks, name)]


@cache
def population(gender: Gender) -> Population:
    data = free_body(gender)
    return Population(
        gender=gender,
        measurer=Measurer(data),
        template=data.v_template.astype(np.float64),
        directions=data.shapedirs.astype(np.float64),
        faces=np.asarray(data.faces),
    )


@cache
def crowd(gender: Gender) -> list[tuple[NDArray[np.float64], Measurements]]:
    people = population(gender)
    return [(body, people.measurer.measure(body)) for body in people.random_bodies(BODIES)]


@pytest.fixture(params=list(Gender), ids=lambda gender: gender.value)
def people(request: pytest.FixtureRequest) -> Population:
    return population(request.param)


def volume(people: Population, body: NDArray[np.float64]) -> float:
    a, b, c = (body[people.faces[:, k]] for k in range(3))
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


def fatter(people: Population) -> NDArray[np.float64]:
    """Unit betas along which the volume grows most while the stature stays."""
    count = min(20, people.directions.shape[2])
    base = volume(people, people.template)
    unit = np.eye(count)
    growth = np.array([volume(people, people.body(0.1 * e)) - base for e in unit])
    top, heel = people.measurer.landmarks.vertex, people.measurer.landmarks.heel_left
    taller = people.directions[top, 1, :count] - people.directions[heel, 1, :count]
    growth -= taller * (growth @ taller) / (taller @ taller)
    return growth / np.linalg.norm(growth)


def test_random_bodies_have_plausible_measurements(people: Population) -> None:
    for number, (_, measured) in enumerate(crowd(people.gender)):
        for key, (low, high) in SHARE_OF_STATURE.items():
            share = measured[key] / measured["heightCm"]
            assert low <= share <= high, f"body {number}: {key} is {share:.3f} of the stature"


def test_landmarks_stay_where_they_should(people: Population) -> None:
    for number, (body, _) in enumerate(crowd(people.gender)):
        floor, stature = body[:, 1].min(), np.ptp(body[:, 1])
        for name, (low, high) in HEIGHT_OF_LANDMARK.items():
            share = (people.place(name, body)[1] - floor) / stature
            assert low <= share <= high, f"body {number}: {name} lies at {share:.3f}"
        for name in asdict(people.measurer.landmarks):
            if name.endswith("_left"):
                right = people.place(name.replace("_left", "_right"), body)
                assert people.place(name, body)[0] > 0.01 > -0.01 > right[0], (
                    f"body {number}: {name}"
                )


def test_the_crotch_is_on_the_midline_near_its_landmark(people: Population) -> None:
    for body, measured in crowd(people.gender):
        crotch = measured.curves["insideLegCm"][0]
        assert abs(crotch[0]) < 0.005
        assert crotch[1] == pytest.approx(people.place("crotch", body)[1], abs=0.01)


def test_a_level_section_below_the_crotch_is_one_leg_and_well_above_it_both(
    people: Population,
) -> None:
    surface = people.measurer._anatomy.trunk
    for body, measured in crowd(people.gender)[:20]:
        crotch = measured.curves["insideLegCm"][0, 1]
        seat = people.place("gluteal_left", body)
        for level, both in ((crotch - 0.002, False), (crotch + 0.03, True)):
            outline = surface.section_near(body, body[:, 1], float(level), seat)
            assert (outline[:, 0].min() < -0.05) == both


def test_a_throat_that_stands_out_is_no_neck_of_its_own(people: Population) -> None:
    pointed = crowd(people.gender)[0][0].copy()
    pointed[people.measurer.landmarks.neck_front] += (0.0, 0.04, 0.01)
    found = people.measurer.measure(pointed)
    low, high = SHARE_OF_STATURE["neckCm"]
    assert low < found["neckCm"] / found["heightCm"] < high


def test_more_fat_means_longer_tapes(people: Population) -> None:
    direction = fatter(people)
    steps = [
        people.measurer.measure(people.body(s * direction)) for s in (-1.5, -0.75, 0, 0.75, 1.5)
    ]
    for key in GIRTHS:
        values = [step[key] for step in steps]
        assert values == sorted(values), f"{key}: {values}"


def test_lengths_hardly_follow_fat(people: Population) -> None:
    direction = fatter(people)
    thin, fat = (people.measurer.measure(people.body(s * direction)) for s in (-1, 1))
    assert fat["heightCm"] == pytest.approx(thin["heightCm"], rel=0.01)
    assert fat["insideLegCm"] == pytest.approx(thin["insideLegCm"], rel=0.06)


def test_a_scaled_body_has_scaled_measurements(people: Population) -> None:
    body, once = crowd(people.gender)[0]
    scaled = people.measurer.measure(1.07 * body)
    for key in MEASUREMENT_KEYS:
        assert scaled[key] == pytest.approx(1.07 * once[key], rel=1e-6)


def test_a_mirrored_person_measures_the_same(people: Population) -> None:
    mirror = np.array([-1.0, 1.0, 1.0])
    _, partner = cKDTree(people.template).query(people.template * mirror)
    body, once = crowd(people.gender)[0]
    mirrored = people.measurer.measure(body[partner] * mirror)
    for key in MEASUREMENT_KEYS:
        assert mirrored[key] == pytest.approx(once[key], abs=0.4), key


@pytest.mark.parametrize(
    ("gender", "stature_cm", "expected"),
    [
        (
            Gender.FEMALE,
            162.8,
            {"chestCm": 94.7, "waistCm": 86.1, "hipCm": 102.1, "neckCm": 33.0, "wristCm": 15.5}
            | {"thighCm": 61.6, "calfCm": 37.3, "ankleCm": 21.6, "insideLegCm": 78.2},
        ),
        (
            Gender.MALE,
            175.6,
            {"chestCm": 105.9, "waistCm": 94.1, "hipCm": 102.0, "neckCm": 39.8, "wristCm": 17.6}
            | {"thighCm": 62.5, "calfCm": 39.2, "ankleCm": 22.9, "insideLegCm": 84.6},
        ),
    ],
)
def test_a_body_of_mean_stature_and_weight_measures_like_the_mean_soldier(
    gender: Gender, stature_cm: float, expected: dict[str, float]
) -> None:
    """ANSUR II's means of 1,986 women (67.8 kg) and 4,082 men (85.5 kg), within an eighth.

    Its waist is at the navel, its people are not our body: this catches a tape at the wrong
    place, not a centimetre.
    """
    people = population(gender)
    weight_kg = {Gender.FEMALE: 67.8, Gender.MALE: 85.5}[gender]
    direction = fatter(people)

    def sized(amount: float) -> NDArray[np.float64]:
        body = people.body(amount * direction)
        return body * (stature_cm / 100 / np.ptp(body[:, 1]))

    amounts = np.linspace(-3, 3, 25)
    kilograms = [1010 * volume(people, sized(amount)) for amount in amounts]
    measured: Measurements = people.measurer.measure(
        sized(np.interp(weight_kg, kilograms, amounts))
    )
    for key, value in expected.items():
        assert measured[key] == pytest.approx(value, rel=0.125), key
