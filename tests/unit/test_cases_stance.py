"""How the benchmark's people stand, and the phone that photographs them."""

from __future__ import annotations

import numpy as np
import pytest

from recipes.cases.phone import HEIGHT, WIDTH, draw_phone
from recipes.cases.stance import Arm, Stance, bend, draw_stance
from recipes.cases.subject import Subject
from worker.avatar.body.free import free_body
from worker.avatar.body.layout import JOINT_INDEX, JOINT_NAMES
from worker.avatar.types import Float64Array, Gender, ViewName

BODY = free_body(Gender.FEMALE)
UPRIGHT = np.tile(np.eye(3), (len(JOINT_NAMES), 1, 1))


def _subject() -> Subject:
    vertices = BODY.v_template.astype(np.float64)
    joints = BODY.J_regressor.astype(np.float64) @ vertices
    vertices, joints = vertices - joints[0], joints - joints[0]
    return Subject(Gender.FEMALE, vertices, joints, float(np.ptp(vertices[:, 1])) * 100, 60.0, {})


SUBJECT = _subject()


def _bent(stance: Stance) -> Float64Array:
    return bend(SUBJECT, BODY.lbs_weights.astype(np.float64), UPRIGHT, stance)(SUBJECT.vertices)


def _at(points: Float64Array, joint: str) -> Float64Array:
    """The middle of the skin that a joint carries."""
    carried = BODY.lbs_weights[:, JOINT_INDEX[joint]] > 0.8
    middle: Float64Array = points[carried].mean(axis=0)
    return middle


def test_arms_of_the_t_pose_leave_the_body_as_it_was() -> None:
    straight = Arm(out=90.0, ahead=0.0, bend=0.0)
    still = _bent(Stance("T", UPRIGHT.copy(), straight, straight))
    # The free body's regressed joints do not lie quite on one line.
    assert np.abs(still - SUBJECT.vertices).max() < 0.03
    trunk = BODY.lbs_weights[:, [0, 3, 6, 9]].sum(axis=1) > 0.99
    assert np.abs(still - SUBJECT.vertices)[trunk].max() < 1e-4


def test_hanging_arms_hang_beside_the_hips() -> None:
    hanging = Arm(out=12.0, ahead=0.0, bend=5.0)
    posed = _bent(Stance("down", UPRIGHT.copy(), hanging, hanging))
    hand = _at(posed, "left_wrist")
    assert hand[1] < 0.1
    assert 0.1 < hand[0] < 0.5


def test_hands_on_hips_reach_the_hips_with_the_elbows_out() -> None:
    akimbo = Arm(0, 0, 0, on_hip=True)
    posed = _bent(Stance("akimbo", UPRIGHT.copy(), akimbo, akimbo))
    hand, elbow = _at(posed, "left_wrist"), _at(posed, "left_elbow")
    hip = SUBJECT.joints[JOINT_INDEX["left_hip"]]
    assert np.linalg.norm(hand - hip) < 0.25
    assert elbow[0] > hand[0] + 0.06


@pytest.mark.parametrize("view", list(ViewName))
@pytest.mark.parametrize("seed", range(6))
def test_people_stand_on_both_feet_and_face_where_the_view_wants(view: ViewName, seed: int) -> None:
    stance = draw_stance(view, np.random.default_rng(seed))
    posed = _bent(stance)
    left, right = _at(posed, "left_foot"), _at(posed, "right_foot")
    assert abs(left[1] - right[1]) < 0.06
    assert np.ptp(posed[:, 1]) > 0.95 * np.ptp(SUBJECT.vertices[:, 1])
    across = _at(posed, "left_hip") - _at(posed, "right_hip")
    turned_deg = np.degrees(np.arctan2(-across[2], across[0]))
    if view is ViewName.FRONT:
        assert abs(turned_deg) < 50
    else:
        assert 55 < abs(turned_deg) < 125


@pytest.mark.parametrize("seed", range(8))
def test_the_phone_has_the_whole_person_in_view(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = _bent(draw_stance(ViewName.FRONT, rng))
    points = points - [0.0, points[:, 1].min(), 0.0]
    phone = draw_phone(points, rng)
    uv, depth = phone.see(points)
    assert (depth > 1.0).all()
    assert (uv > 0).all()
    assert (uv < [WIDTH, HEIGHT]).all()
    assert np.ptp(uv[:, 1]) > 0.4 * HEIGHT
    assert np.allclose(phone.axes() @ phone.axes().T, np.eye(3))
