"""Sections, tapes and landmarks, each alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray

from worker.avatar.measure import LANDMARKS
from worker.avatar.measure.landmarks import from_mapping
from worker.avatar.measure.sections import Bone, Surface
from worker.avatar.measure.tape import Tape, fullest, girth, narrowest, plane_basis, polyline
from worker.errors import FitFailed, ModelInvalid

AXES = [(0, 1, 0), (0, 0, -1), (1, 0, 0), (1, 2, 3), (-1, 0.2, -0.4)]


def unit(axis: tuple[float, float, float]) -> NDArray[np.float64]:
    return np.array(axis, dtype=np.float64) / np.linalg.norm(axis)


def whole(mesh: trimesh.Trimesh) -> Surface:
    return Surface(mesh.faces, np.ones(len(mesh.vertices), dtype=bool))


@pytest.mark.parametrize("axis", AXES)
def test_a_basis_spans_the_plane_across_its_normal(axis: tuple[float, float, float]) -> None:
    basis = np.vstack([plane_basis(unit(axis)), unit(axis)])
    np.testing.assert_allclose(basis @ basis.T, np.eye(3), atol=1e-12)


@pytest.mark.parametrize("axis", AXES)
def test_a_ball_has_the_girth_of_a_circle_across_every_axis(
    axis: tuple[float, float, float],
) -> None:
    ball = trimesh.creation.icosphere(subdivisions=5, radius=0.5)
    heights = ball.vertices @ unit(axis)
    for level in (0.0, 0.3):
        points = whole(ball).section(ball.vertices, heights, level)
        np.testing.assert_allclose(points @ unit(axis), level, atol=1e-12)
        tape = girth(points, unit(axis), what="ball")
        assert tape.length_m == pytest.approx(2 * math.pi * math.sqrt(0.25 - level**2), rel=1e-3)


def test_a_section_agrees_with_trimesh() -> None:
    torus = trimesh.creation.torus(major_radius=1.0, minor_radius=0.3)
    normal, level = unit((0.2, 1, 0.1)), 0.11
    ours = whole(torus).section(torus.vertices, torus.vertices @ normal, level)
    theirs = torus.section(plane_origin=level * normal, plane_normal=normal).vertices
    assert len(ours) == len(theirs)
    gap = np.linalg.norm(ours[:, None] - theirs[None], axis=2).min(axis=1)
    assert gap.max() < 1e-6


def test_a_tape_bridges_a_hollow() -> None:
    hollow = np.array([(0, 0, 0), (2, 0, 0), (2, 0, 2), (1, 0, 0.2), (0, 0, 2)], dtype=np.float64)
    assert girth(hollow, unit((0, 1, 0)), what="hollow").length_m == pytest.approx(8.0)


def test_of_two_outlines_the_near_one_is_taken() -> None:
    pair = trimesh.util.concatenate(
        [
            trimesh.creation.icosphere(radius=0.2),
            trimesh.creation.icosphere(radius=0.1).apply_translation((1, 0, 0)),
        ]
    )
    heights = pair.vertices[:, 1]
    for place, radius in (((0.0, 0, 0), 0.2), ((1.0, 0, 0), 0.1)):
        points = whole(pair).section_near(pair.vertices, heights, 0.001, np.array(place))
        assert np.ptp(points[:, 0]) == pytest.approx(2 * radius, rel=0.05)


def test_a_bump_under_the_point_is_not_the_limb_that_the_bone_runs_through() -> None:
    limb = trimesh.creation.cylinder(radius=0.1, height=0.4)
    bump = trimesh.creation.icosphere(radius=0.02).apply_translation((0.14, 0, 0))
    both = trimesh.util.concatenate([limb, bump])
    upwards = np.array([0.0, 0.0, 1.0])
    at, skin = (both.vertices, both.vertices[:, 2], 0.001), np.array([0.16, 0, 0])
    assert np.ptp(whole(both).section_near(*at, skin)[:, 0]) < 0.05
    bone = Bone(np.array([0.01, 0.0, -0.2]), upwards)
    around = whole(both).section_near(*at, skin, bone=bone)
    assert np.ptp(around[:, 0]) == pytest.approx(0.2, rel=0.01)
    aside = Bone(np.array([0.5, 0.0, 0.0]), upwards)
    assert np.ptp(whole(both).section_near(*at, skin, bone=aside)[:, 0]) < 0.05


def test_a_plane_beside_the_body_meets_nothing() -> None:
    ball = trimesh.creation.icosphere()
    heights = ball.vertices[:, 1]
    assert not len(whole(ball).section(ball.vertices, heights, 9.0))
    near = whole(ball).section_near(ball.vertices, heights, 9.0, np.zeros(3))
    with pytest.raises(FitFailed, match="waist"):
        girth(near, unit((0, 1, 0)), what="waist")


def test_the_fullest_and_the_narrowest_place_are_found_between_the_levels() -> None:
    def wave(level: float) -> Tape:
        return Tape(1.0 + math.sin(level), np.array([[level, 0.0, 0.0]]))

    assert fullest(wave, 0.0, math.pi).curve[0, 0] == pytest.approx(math.pi / 2, abs=math.pi / 72)
    low = narrowest(wave, math.pi, 2 * math.pi).curve[0, 0]
    assert low == pytest.approx(1.5 * math.pi, abs=math.pi / 72)


def test_a_polyline_is_as_long_as_its_pieces() -> None:
    assert polyline(np.zeros(3), np.array([3.0, 4, 0]), np.array([3.0, 4, 2])).length_m == 7.0


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"crotch": 900}, "crotch is vertex 900"),
        ({"crotch": -1}, "crotch is vertex -1"),
        ({"navel": 3}, "unknown: navel"),
    ],
)
def test_landmarks_that_do_not_fit_are_named(change: dict[str, int], complaint: str) -> None:
    with pytest.raises(ModelInvalid, match=complaint):
        from_mapping(dict.fromkeys(LANDMARKS, 1) | change, vertices=900)


def test_a_missing_landmark_is_named() -> None:
    ids = dict.fromkeys(LANDMARKS, 1)
    del ids["cervicale"]
    with pytest.raises(ModelInvalid, match="cervicale"):
        from_mapping(ids, vertices=900)
