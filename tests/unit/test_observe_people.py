"""Who counts as a person of their own, with networks that find what the test says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
import pytest
from PIL import Image

from worker.avatar.observe.detector import Detection, Detector
from worker.avatar.observe.landmarks import LandmarkNetwork, Landmarks
from worker.avatar.observe.mirrored import BothWays
from worker.avatar.observe.people import PeopleFinder
from worker.avatar.observe.roi import Roi
from worker.avatar.types import Float32Array

PHOTO = BothWays.of(Image.new("RGB", (800, 1200)))


def detection(center_x: float, center_y: float, side_px: float, angle: float) -> Detection:
    """A find whose square is this one."""
    hips = np.array([center_x, center_y], dtype=np.float32)
    reach = side_px / 2.5
    top = hips + reach * np.array([math.sin(angle), -math.cos(angle)], dtype=np.float32)
    box = np.array([center_x - 9, center_y - 9, center_x + 9, center_y + 9], dtype=np.float32)
    return Detection(0.9, box, np.stack([hips, top]).astype(np.float32))


class OnePhoto:
    """A detector that finds the same in the whole photo, as it is, and nothing elsewhere."""

    def __init__(self, found: Sequence[Detection]) -> None:
        self._found = found

    def detect(
        self, image: Image.Image, window: Roi | None = None, *, min_score: float
    ) -> list[Detection]:
        assert min_score > 0
        return list(self._found) if window is None and image is PHOTO.image else []


class Network:
    """Sees in a square the nearest of the people there are, by their (x0, y0, x1, y1)."""

    def __init__(self, shapes: dict[Roi, tuple[int, int, int, int]]) -> None:
        self._shapes = shapes

    def locate(self, photo: BothWays, roi: Roi) -> Landmarks:
        assert photo is PHOTO
        near = min(
            self._shapes,
            key=lambda at: (
                math.hypot(at.center_x - roi.center_x, at.center_y - roi.center_y)
                + abs(at.side_px - roi.side_px)
            ),
        )
        x0, y0, x1, y1 = self._shapes[near]
        unit = ((np.indices((256, 256))[::-1].reshape(2, -1).T + 0.5) / 256).astype(np.float32)
        x, y = near.to_photo(unit).T
        mask = ((x >= x0) & (x < x1) & (y >= y0) & (y < y1)).reshape(256, 256)
        points = np.linspace([x0 + 1, y0 + 1], [x1 - 1, y1 - 1], 33).astype(np.float32)
        ones = np.ones(33, dtype=np.float32)
        world = np.zeros((33, 3), dtype=np.float32)
        return Landmarks(0.99, points, ones, ones, ones, world, mask.astype(np.float32), near, near)


WHOLE = Roi(400.0, 600.0, 1100.0)
UPSIDE_DOWN = Roi(400.0, 500.0, 1200.0, 3.1)
BESIDE = Roi(600.0, 650.0, 1000.0)


@pytest.mark.parametrize(
    ("shapes", "rivals"),
    [
        # The legs alone, taken for somebody upside down, in the larger square.
        ({WHOLE: (300, 150, 500, 1100), UPSIDE_DOWN: (320, 450, 480, 1100)}, 0),
        # Somebody else, half before whom the photo is about.
        ({WHOLE: (300, 150, 500, 1100), BESIDE: (400, 250, 590, 1100)}, 1),
    ],
)
def test_a_find_within_a_person_is_that_person_and_one_beside_is_another(
    shapes: dict[Roi, tuple[int, int, int, int]], rivals: int
) -> None:
    found = [detection(at.center_x, at.center_y, at.side_px, at.angle) for at in shapes]
    finder = PeopleFinder(
        cast("Detector", OnePhoto(found)),
        cast("Detector", OnePhoto([])),
        cast("LandmarkNetwork", Network(shapes)),
    )
    people = finder.find(PHOTO)
    assert people.rivals == rivals
    assert people.dominant is not None
    assert people.dominant.roi == WHOLE


def test_a_find_in_the_mirror_image_is_where_it_is_in_the_photo() -> None:
    class InTheMirror(OnePhoto):
        def detect(
            self, image: Image.Image, window: Roi | None = None, *, min_score: float
        ) -> list[Detection]:
            assert min_score > 0
            return list(self._found) if window is None and image is PHOTO.mirrored else []

    seen: list[Float32Array] = []

    class Looking(Network):
        def locate(self, photo: BothWays, roi: Roi) -> Landmarks:
            seen.append(np.array([roi.center_x, roi.center_y, roi.angle], dtype=np.float32))
            return super().locate(photo, roi)

    finder = PeopleFinder(
        cast("Detector", InTheMirror([detection(300, 600, 1100, 0.2)])),
        cast("Detector", OnePhoto([])),
        cast("LandmarkNetwork", Looking({WHOLE: (300, 150, 500, 1100)})),
    )
    finder.find(PHOTO)
    np.testing.assert_allclose(seen[0], [500, 600, -0.2], atol=1e-3)
