"""All sixteen measurements on a body of tubes and cones whose girths and lengths are known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial import Delaunay

from worker.avatar.measure import MEASUREMENT_KEYS, Landmarks, Measurements, Measurer
from worker.errors import FitFailed, ModelInvalid

SIDES = 240  # of each tube: its perimeter falls short of the circle's by 3 in 100,000
TOLERANCE_CM = 0.1

CROTCH, STATURE = 0.80, 1.75
# Height and radius of the trunk's cones, from the crotch to the top of the head.
TRUNK = [
    (0.80, 0.145),
    (0.90, 0.175),  # hip
    (1.04, 0.1435),  # hip bone
    (1.10, 0.130),  # waist
    (1.16, 0.1383),  # lowest rib
    (1.28, 0.155),  # bust
    (1.42, 0.100),  # shoulder
    (1.46, 0.060),  # neck
    (1.50, 0.060),
    (1.56, 0.060),
    (1.60, 0.090),
    (1.70, 0.090),
    (1.75, 0.001),
]
LEG_X = 0.075
# Height and radius of a leg, from the crotch down.
LEG = [
    (0.80, 0.065),
    (0.70, 0.065),
    (0.45, 0.045),  # knee
    (0.32, 0.055),  # calf
    (0.12, 0.035),  # ankle, narrowest
    (0.08, 0.038),  # ankle joint
    (0.00, 0.040),
]
ARM_Y = 1.38
# Distance from the midline and radius of an arm.
ARM = [
    (0.14, 0.035),
    (0.17, 0.038),  # shoulder joint
    (0.18, 0.040),  # shoulder point, on top
    (0.22, 0.044),
    (0.305, 0.052),  # upper arm, midway
    (0.43, 0.042),  # elbow
    (0.50, 0.046),  # forearm
    (0.67, 0.028),  # wrist
    (0.75, 0.030),
]


@dataclass(frozen=True)
class TubeBody:
    v_template: NDArray[np.float64]
    faces: NDArray[np.int64]
    lbs_weights: NDArray[np.float64]
    J_regressor: NDArray[np.float64]

    def at(self, x: float, y: float, z: float) -> int:
        gap = np.linalg.norm(self.v_template - (x, y, z), axis=1)
        assert gap.min() < 1e-9, f"no vertex at {x, y, z}"
        return int(gap.argmin())


def tube(
    rings: Sequence[tuple[NDArray[np.float64], float]], u: Sequence[float], v: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Rings about centres, in the plane of u and v, joined by quads; no caps."""
    turn = 2 * np.pi * np.arange(SIDES) / SIDES
    circle = np.cos(turn)[:, None] * np.array(u) + np.sin(turn)[:, None] * np.array(v)
    vertices = np.concatenate([centre + radius * circle for centre, radius in rings])
    here = np.arange(SIDES)
    there = np.roll(here, -1)
    quads = [
        np.stack([here, there, there + SIDES, here, there + SIDES, here + SIDES], axis=1)
        + k * SIDES
        for k in range(len(rings) - 1)
    ]
    return vertices, np.concatenate(quads).reshape(-1, 3)


def floor_of_trunk() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The disc at the height of the crotch, with a hole for each leg."""
    turn = 2 * np.pi * np.arange(SIDES) / SIDES
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    legs = [circle * LEG[0][1] + (side * LEG_X, 0) for side in (1, -1)]
    grid = np.stack(np.meshgrid(*[np.linspace(-0.14, 0.14, 41)] * 2), axis=-1).reshape(-1, 2)
    from_legs = np.min([np.hypot(grid[:, 0] - s * LEG_X, grid[:, 1]) for s in (1, -1)], axis=0)
    grid = grid[(np.hypot(*grid.T) < TRUNK[0][1] - 0.004) & (from_legs > LEG[0][1] + 0.004)]
    flat = np.concatenate([circle * TRUNK[0][1], *legs, grid])
    triangles = Delaunay(flat).simplices
    middle = flat[triangles].mean(axis=1)
    hole = np.min([np.hypot(middle[:, 0] - s * LEG_X, middle[:, 1]) for s in (1, -1)], axis=0)
    triangles = triangles[hole > LEG[0][1] * math.cos(math.pi / SIDES)]
    return np.stack([flat[:, 0], np.full(len(flat), CROTCH), flat[:, 1]], axis=1), triangles


def tube_body() -> TubeBody:
    shells, triangles, joint_of, count = [], [], [], 0

    def add(shell: tuple[NDArray, NDArray], joints: Sequence[int]) -> None:
        nonlocal count
        vertices, faces = shell
        shells.append(vertices)
        triangles.append(faces + count)
        joint_of.append(np.resize(joints, len(vertices)) if len(joints) == 1 else np.array(joints))
        count += len(vertices)

    def per_ring(joints: Sequence[int]) -> list[int]:
        return [joint for joint in joints for _ in range(SIDES)]

    x, y, z = np.eye(3)
    add(
        tube([(h * y, r) for h, r in TRUNK], x, z),
        per_ring([0, 0, 3, 3, 6, 6, 9, 12, 12, 15, 15, 15, 15]),
    )
    add(floor_of_trunk(), [0])
    for side, (hip, knee, ankle) in ((1, (1, 4, 7)), (-1, (2, 5, 8))):
        add(
            tube([(side * LEG_X * x + h * y, r) for h, r in LEG], x, z),
            per_ring([hip, hip, knee, knee, knee, ankle, ankle]),
        )
    for side, (shoulder, elbow, wrist) in ((1, (16, 18, 20)), (-1, (17, 19, 21))):
        collar = shoulder - 3
        add(
            tube([(side * d * x + ARM_Y * y, r) for d, r in ARM], y, z),
            per_ring([collar, collar, collar, shoulder, shoulder, elbow, elbow, wrist, wrist]),
        )
    vertices, faces = np.concatenate(shells), np.concatenate(triangles)
    vertices, inverse = weld(vertices)
    weights = np.zeros((len(vertices), 55))
    weights[inverse, np.concatenate(joint_of)] = 1
    weights /= weights.sum(axis=1, keepdims=True)
    body = TubeBody(vertices, inverse[faces], weights, np.zeros((55, len(vertices))))
    for joint, centre, normal in (
        (12, 1.46 * y, y),
        (15, 1.56 * y, y),
        (16, 0.17 * x + ARM_Y * y, x),
        (17, -0.17 * x + ARM_Y * y, x),
        (19, -0.43 * x + ARM_Y * y, x),
        (21, -0.67 * x + ARM_Y * y, x),
        (4, LEG_X * x + 0.45 * y, y),
        (7, LEG_X * x + 0.08 * y, y),
    ):
        apart = vertices - centre
        ring = (np.abs(apart @ normal) < 1e-9) & (np.linalg.norm(apart, axis=1) < 0.065)
        body.J_regressor[joint, ring] = 1 / ring.sum()
        np.testing.assert_allclose(body.J_regressor[joint] @ vertices, centre, atol=1e-9)
    return body


def weld(vertices: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    _, first, inverse = np.unique(
        np.round(vertices, 9), axis=0, return_index=True, return_inverse=True
    )
    return vertices[first], inverse.reshape(-1)


def landmarks_of(body: TubeBody) -> Landmarks:
    both = {}
    for name, (px, py, pz) in {
        "neck_side": (0.06, 1.46, 0),
        "acromion": (0.18, ARM_Y + 0.04, 0),
        "bust_point": (0.155 * math.sin(math.pi / 6), 1.28, 0.155 * math.cos(math.pi / 6)),
        "lowest_rib": (0.1383, 1.16, 0),
        "iliac_crest": (0.1435, 1.04, 0),
        "gluteal": (0.175 * math.sin(math.pi / 6), 0.90, -0.175 * math.cos(math.pi / 6)),
        "olecranon": (0.43, ARM_Y, -0.042),
        "ulnar_styloid": (0.67, ARM_Y, -0.028),
        "knee": (LEG_X, 0.45, 0.045),
        "malleolus": (LEG_X + 0.038, 0.08, 0),
        "heel": (LEG_X, 0, -0.04),
    }.items():
        both[f"{name}_left"], both[f"{name}_right"] = body.at(px, py, pz), body.at(-px, py, pz)
    return Landmarks(
        vertex=body.at(0.001, STATURE, 0),
        cervicale=body.at(0, 1.46, -0.06),
        suprasternale=body.at(0, 1.46, 0.06),
        neck_front=body.at(0, 1.50, 0.06),
        crotch=body.at(0, CROTCH, 0),
        **both,
    )


def hanging_arm() -> float:
    """Shoulder point to the elbow below the joint, then along the ulna to the wrist point."""
    upper = math.hypot(0.18 - 0.17, (0.43 - 0.17) + 0.042 + 0.04)
    return upper + math.hypot(0.67 - 0.43, 0.042 - 0.028)


def circle_cm(radius: float) -> float:
    return 100 * 2 * math.pi * radius


KNOWN_CM = {
    "chestCm": circle_cm(0.155),
    "waistCm": circle_cm(0.130),
    "hipCm": circle_cm(0.175),
    "shoulderCm": 200 * math.hypot(0.18, 1.46 - (ARM_Y + 0.04), 0.06),
    "sleeveCm": 100 * hanging_arm(),
    "lengthCm": 100 * (ARM_Y + 0.04 - CROTCH),
    "neckCm": circle_cm(0.060),
    "bicepCm": circle_cm(0.052),
    "forearmCm": circle_cm(0.046),
    "wristCm": circle_cm(0.028),
    "thighCm": circle_cm(0.065),
    "calfCm": circle_cm(0.055),
    "ankleCm": circle_cm(0.035),
    "insideLegCm": 100 * CROTCH,
    "shoulderBreadthCm": 200 * math.hypot(0.18, 1.46 - (ARM_Y + 0.04), 0.06),
    "heightCm": 100 * STATURE,
}


@pytest.fixture(scope="module")
def body() -> TubeBody:
    return tube_body()


@pytest.fixture(scope="module")
def measurer(body: TubeBody) -> Measurer:
    return Measurer(body, landmarks_of(body))


@pytest.fixture(scope="module")
def measured(body: TubeBody, measurer: Measurer) -> Measurements:
    return measurer.measure(body.v_template)


def test_the_keys_are_the_contracts_in_its_order(measured: Measurements) -> None:
    assert tuple(measured) == MEASUREMENT_KEYS
    assert tuple(measured.curves) == MEASUREMENT_KEYS
    assert set(KNOWN_CM) == set(MEASUREMENT_KEYS)


@pytest.mark.parametrize("key", MEASUREMENT_KEYS)
def test_a_known_body_is_measured_to_a_millimetre(measured: Measurements, key: str) -> None:
    assert measured[key] == pytest.approx(KNOWN_CM[key], abs=TOLERANCE_CM)


@pytest.mark.parametrize("key", sorted(set(MEASUREMENT_KEYS) - {"sleeveCm"}))
def test_the_curve_is_as_long_as_the_measurement_says(measured: Measurements, key: str) -> None:
    length_m = np.linalg.norm(np.diff(measured.curves[key], axis=0), axis=1).sum()
    assert 100 * length_m == pytest.approx(measured[key], abs=1e-6)


@pytest.mark.parametrize("scale", [0.62, 1.31])
def test_a_scaled_body_has_scaled_measurements(
    body: TubeBody, measurer: Measurer, measured: Measurements, scale: float
) -> None:
    scaled = measurer.measure(scale * body.v_template)
    for key in MEASUREMENT_KEYS:
        assert scaled[key] == pytest.approx(scale * measured[key], rel=1e-9)


def test_where_the_body_stands_does_not_matter(
    body: TubeBody, measurer: Measurer, measured: Measurements
) -> None:
    moved = measurer.measure(body.v_template + np.array([3.0, -1.1, 0.4]))
    for key in MEASUREMENT_KEYS:
        assert moved[key] == pytest.approx(measured[key], abs=1e-6)


def test_legs_that_touch_do_not_raise_the_crotch_or_widen_the_thigh(
    body: TubeBody, measurer: Measurer, measured: Measurements
) -> None:
    touching = body.v_template.copy()
    below = np.clip((CROTCH - touching[:, 1]) / 0.1, 0, 1)  # straight legs that cross the midline
    leg = (body.lbs_weights[:, [1, 4, 7]].sum(axis=1) > 0) * 1.0
    leg -= body.lbs_weights[:, [2, 5, 8]].sum(axis=1) > 0
    touching[:, 0] -= leg * below * 0.02
    crossed = measurer.measure(touching)
    assert touching[leg > 0, 0].min() < 0 < touching[leg < 0, 0].max()
    assert crossed["insideLegCm"] == pytest.approx(measured["insideLegCm"], abs=1e-9)
    assert crossed["thighCm"] == pytest.approx(measured["thighCm"], abs=0.3)


def test_a_body_of_another_topology_is_refused(body: TubeBody, measurer: Measurer) -> None:
    with pytest.raises(ModelInvalid, match="was expected"):
        measurer.measure(body.v_template[:-1])


def test_a_model_without_landmarks_is_refused(body: TubeBody) -> None:
    with pytest.raises(ModelInvalid, match="No landmarks are known"):
        Measurer(body)


def test_weights_of_another_skeleton_are_refused(body: TubeBody) -> None:
    with pytest.raises(ModelInvalid, match="55"):
        Measurer(replace(body, lbs_weights=body.lbs_weights[:, :24]), landmarks_of(body))


def test_a_body_that_is_not_finite_is_refused(body: TubeBody, measurer: Measurer) -> None:
    broken = body.v_template.copy()
    broken[7, 1] = np.nan
    with pytest.raises(FitFailed, match="not finite"):
        measurer.measure(broken)


def test_a_body_without_height_is_refused(body: TubeBody, measurer: Measurer) -> None:
    with pytest.raises(FitFailed, match="m tall"):
        measurer.measure(np.zeros_like(body.v_template))


def test_a_template_that_is_not_centred_is_refused(body: TubeBody) -> None:
    shifted = replace(body, v_template=body.v_template + np.array([3.0, 0, 0]))
    with pytest.raises(ModelInvalid, match="plane of symmetry"):
        Measurer(shifted, landmarks_of(body))


def test_legs_that_do_not_part_are_refused(body: TubeBody) -> None:
    # A template whose midline is that of the neck alone puts the crotch above all else.
    neck_only = body.v_template + np.where(body.v_template[:, 1:2] < 1.45, [9.0, 0, 0], 0.0)
    with pytest.raises(FitFailed, match="do not part"):
        Measurer(replace(body, v_template=neck_only), landmarks_of(body)).measure(body.v_template)


def test_a_section_that_is_not_there_is_named(body: TubeBody) -> None:
    one_arm = replace(body, faces=body.faces[(body.v_template[body.faces, 0] > -0.2).any(axis=1)])
    with pytest.raises(FitFailed, match="upper arm"):
        Measurer(one_arm, landmarks_of(body)).measure(body.v_template)
