"""Which finds count as faces, with a detector that finds what the test says."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import pytest
from PIL import Image

from worker.avatar.observe.detector import Detection, Detector
from worker.avatar.observe.faces import find_faces
from worker.avatar.observe.mirrored import BothWays
from worker.avatar.observe.roi import Roi

PHOTO = BothWays.of(Image.new("RGB", (800, 1200)))
WINDOWS = [Roi(float(x), float(y), 600.0) for y in (300.0, 600.0, 900.0) for x in (300.0, 500.0)]
BOX = (280, 610, 350, 680)
"""Whole in the last four windows, and in none of the first two."""


Score = Callable[[Roi | None, bool], float]
"""Of the face in a window of the photo (None: all of it), or of its mirror image."""


class Scored:
    """A face detector that finds one box in each look, with the score that the test gives it."""

    def __init__(self, score: Score, box: tuple[int, int, int, int] = BOX) -> None:
        self._score = score
        self._box = np.array(box, dtype=np.float32)

    def detect(
        self, image: Image.Image, window: Roi | None = None, *, min_score: float
    ) -> list[Detection]:
        turned = image is PHOTO.mirrored
        if window is not None and turned:
            window = window.mirrored(PHOTO.width)
        score = self._score(window, turned)
        if score < min_score:
            return []
        points = np.tile((self._box[:2] + self._box[2:]) / 2, (6, 1)).astype(np.float32)
        found = Detection(score, self._box.copy(), points)
        return [found.mirrored(PHOTO.width) if turned else found]


def finds(score: Score, box: tuple[int, int, int, int] = BOX) -> list[Detection]:
    return find_faces(cast("Detector", Scored(score, box)), PHOTO, WINDOWS)


def test_a_face_that_every_window_shows_is_found_once_and_where_it_is() -> None:
    (face,) = finds(lambda window, turned: 0.0 if window is None else 0.8 - 0.1 * turned)
    np.testing.assert_allclose(face.box, BOX)
    assert face.score == pytest.approx(0.8)


def test_what_looks_like_a_face_in_one_window_only_is_none() -> None:
    one = WINDOWS[4]
    assert finds(lambda window, turned: 0.95 if window == one and not turned else 0.0) == []


def test_what_looks_like_a_face_one_way_round_only_is_none() -> None:
    def straight_only(window: Roi | None, turned: bool) -> float:
        assert window is None or window in WINDOWS
        return 0.0 if turned else 0.95

    assert finds(straight_only) == []


def test_windows_that_cut_a_face_do_not_speak_against_it() -> None:
    # The first two end at 600, in the middle of this box; the last two begin there.
    def not_where_it_is_cut(window: Roi | None, turned: bool) -> float:
        assert turned in (False, True)
        return 0.9 if window in WINDOWS[2:4] else 0.0

    assert len(finds(not_where_it_is_cut, (310, 570, 380, 640))) == 1


def test_a_face_too_large_for_any_window_is_found_in_the_whole_photo() -> None:
    large = (50, 100, 750, 800)

    def whole_only(window: Roi | None, turned: bool) -> float:
        return 0.7 - 0.1 * turned if window is None else 0.0

    assert len(finds(whole_only, large)) == 1
    assert finds(lambda window, turned: 0.8 * whole_only(window, turned), large) == []


def test_the_mirror_image_of_a_photo_has_the_same_faces() -> None:
    def uneven(window: Roi | None, turned: bool) -> float:
        return 0.0 if window is None else 0.9 - 0.3 * turned

    def uneven_the_other_way(window: Roi | None, turned: bool) -> float:
        return uneven(window, not turned)

    assert len(finds(uneven)) == len(finds(uneven_the_other_way)) == 1
