"""The clothes of the benchmark's cases: outside the body, uneven, and falling from above."""

from __future__ import annotations

import numpy as np
import pytest

from recipes.cases.draping import Worn, dress
from recipes.cases.garments import FAMILIES, TEST_ONLY
from recipes.cases.subject import Subject
from worker.avatar.body.free import free_body
from worker.avatar.body.layout import JOINT_INDEX
from worker.avatar.types import BoolArray, Float64Array, Gender

BODY = free_body(Gender.MALE)


def _subject() -> Subject:
    vertices = BODY.v_template.astype(np.float64)
    joints = BODY.J_regressor.astype(np.float64) @ vertices
    vertices, joints = vertices - joints[0], joints - joints[0]
    stature_cm = float(np.ptp(vertices[:, 1])) * 100
    return Subject(Gender.MALE, vertices, joints, stature_cm, 75.0, {})


SUBJECT = _subject()


def _worn(family: str, seed: int) -> Worn:
    return dress(BODY, SUBJECT, family, np.random.default_rng(seed))


def _trunk() -> BoolArray:
    height, joints = SUBJECT.vertices[:, 1], SUBJECT.joints
    spine = [0, 3, 6, 9]
    trunk: BoolArray = (
        (BODY.lbs_weights[:, spine].sum(axis=1) > 0.5)
        & (height > joints[JOINT_INDEX["left_hip"], 1])
        & (height < joints[JOINT_INDEX["spine3"], 1])
    )
    return trunk


def _lift_m(worn: Worn) -> Float64Array:
    """Of the trunk, outwards."""
    trunk = _trunk()
    moved = worn.vertices[trunk] - SUBJECT.vertices[trunk]
    out = SUBJECT.vertices[trunk] * (1.0, 0.0, 1.0)
    length: Float64Array = (moved * out).sum(axis=1) / np.linalg.norm(out, axis=1)
    return length


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_clothes_lie_outside_the_body(family: str) -> None:
    lifts = np.concatenate([_lift_m(_worn(family, seed)) for seed in range(4)])
    assert lifts.min() > -0.002
    assert lifts.max() < 0.25


def test_tight_clothes_stay_within_a_centimetre_and_others_vary_over_the_body() -> None:
    tight, everyday = _lift_m(_worn("tight", 1)), _lift_m(_worn("everyday", 1))
    assert np.percentile(tight, 95) < 0.01
    assert everyday.std() > 0.004
    assert np.percentile(everyday, 95) > 2 * np.percentile(everyday, 20)


def test_shoes_and_hair_add_to_the_stature() -> None:
    worn = _worn("tight", 2)
    taller = np.ptp(worn.vertices[:, 1]) - np.ptp(SUBJECT.vertices[:, 1])
    assert 0.01 < taller < 0.08


def test_the_same_seed_dresses_alike() -> None:
    assert np.array_equal(_worn("everyday", 3).vertices, _worn("everyday", 3).vertices)


def test_a_whole_family_is_kept_from_development() -> None:
    assert set(TEST_ONLY) < set(FAMILIES)
    kept = {garment.name for name in TEST_ONLY for part in FAMILIES[name] for garment in part}
    seen = {
        garment.name
        for name, parts in FAMILIES.items()
        if name not in TEST_ONLY
        for part in parts
        for garment in part
    }
    assert not kept & seen
