"""SMPL-Anthropometry's own code, unmocked, on bodies whose measures are known."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from tests.vendor.conftest import checkout
from worker.avatar.measure.anthropometry import SmplAnthropometry
from worker.errors import FitFailed, ModelInvalid, ModelMissing

pytestmark = pytest.mark.vendor

SIDES, RADIUS_M = 24, 0.13


@pytest.fixture(scope="module")
def measurer() -> SmplAnthropometry:
    return SmplAnthropometry.load(checkout("SMPL-Anthropometry"))


def tube(measurer: SmplAnthropometry) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A body that is one tube: every part's triangles are the same tube, upright."""
    code = measurer.code
    named = {
        vertex
        for entry in code.SMPLX_LANDMARK_INDICES.values()
        for vertex in (entry if isinstance(entry, tuple) else (entry,))
    }
    free = np.array([vertex for vertex in range(10_475) if vertex not in named])
    angle = 2 * np.pi * np.arange(SIDES) / SIDES
    ring = RADIUS_M * np.stack([np.cos(angle), 0 * angle, np.sin(angle)], axis=1)
    vertices = np.zeros((10_475, 3))
    low, high = free[:SIDES], free[SIDES : 2 * SIDES]
    up = np.array([0.0, 1.0, 0.0])
    vertices[low], vertices[high] = ring - up, ring + up
    vertices[sorted(named)] = (RADIUS_M, 0.1, 0)
    following = np.roll(np.arange(SIDES), -1)
    strip = np.concatenate(
        [
            np.stack([low, low[following], high], axis=1),
            np.stack([high, low[following], high[following]], axis=1),
        ]
    )
    faces = np.zeros((20_908, 3), dtype=np.int64)
    for part in measurer.segments.values():
        faces[part[: len(strip)]] = strip[: len(part)]
    joints = np.zeros((55, 3))
    joints[:, 1] = np.linspace(-1, 1, 55)
    return vertices, joints, faces


def test_every_circumference_of_a_tube_is_that_of_its_polygon(measurer: SmplAnthropometry) -> None:
    found = measurer.measure(*tube(measurer))
    around = {name: cm for name, cm in found.items() if "circumference" in name}
    assert len(around) >= 9
    expected = 100 * 2 * SIDES * RADIUS_M * np.sin(np.pi / SIDES)
    for name, cm in around.items():
        assert cm == pytest.approx(expected, abs=1e-3), name


def test_a_length_is_that_between_its_landmarks(measurer: SmplAnthropometry) -> None:
    vertices, joints, faces = tube(measurer)
    marks = measurer.code.SMPLX_LANDMARK_INDICES
    heels = marks["HEELS"]
    vertices[list(heels)] = (0, 0, 0)
    vertices[marks["HEAD_TOP"]] = (0, 1.75, 0)
    assert measurer.measure(vertices, joints, faces)["height"] == pytest.approx(175)


def test_its_modules_leave_no_names_behind(measurer: SmplAnthropometry) -> None:
    folder = str(Path(measurer.code.__file__ or "").parent)
    left = [
        name
        for name, module in list(sys.modules.items())
        if str(getattr(module, "__file__", "")).startswith(folder)
    ]
    assert left == []
    assert folder not in sys.path
    assert "visualize" not in sys.modules


def test_another_topology_and_a_body_that_a_plane_misses_are_refused(
    measurer: SmplAnthropometry,
) -> None:
    vertices, joints, faces = tube(measurer)
    with pytest.raises(ModelInvalid, match="10475"):
        measurer.measure(vertices[:9], joints, faces)
    with pytest.raises(FitFailed, match="cannot measure"):
        measurer.measure(vertices * 0, joints, faces)


def test_a_missing_checkout_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="body_parts_2_faces"):
        SmplAnthropometry.load(tmp_path)
