"""When SAM 2's outline takes the place of the free one.  In SAM 2's place stands a known outline:
its own code runs in test_sam2.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from worker.avatar.observe.sam2 import DISAGREES, PROMPTS, Sam2Masks
from worker.avatar.types import KEYPOINTS, Intrinsics, Observation, Photo, ViewName

HEIGHT, WIDTH = 200, 120


class Outline:
    """Answers with the part of a known outline that was looked at."""

    def __init__(self, inside: np.ndarray[Any, Any]) -> None:
        self.inside = inside

    def set_image(self, pixels: np.ndarray[Any, Any]) -> None:
        self.pixels = pixels

    def predict(self, **prompts: Any) -> tuple[np.ndarray[Any, Any], None, None]:
        self.prompts = prompts
        # The photo's pixels say where they are from.
        x, y = (int(number) for number in self.pixels[0, 0, :2])
        height, width = self.pixels.shape[:2]
        part = self.inside[y : y + height, x : x + width]
        return np.where(part, 8.0, -8.0)[None].astype(np.float32), None, None

    def reset_predictor(self) -> None:
        self.pixels = np.zeros((0, 0, 3))


def rectangle(x0: int, y0: int, x1: int, y1: int) -> np.ndarray[Any, Any]:
    inside = np.zeros((HEIGHT, WIDTH), dtype=bool)
    inside[y0:y1, x0:x1] = True
    return inside


@pytest.fixture
def photo() -> Photo:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    pixels = np.stack([columns, rows, rows * 0], axis=-1).astype(np.uint8)
    return Photo(ViewName.FRONT, pixels, None)


@pytest.fixture
def seen() -> Observation:
    keypoints = np.zeros((len(KEYPOINTS), 3), dtype=np.float32)
    for count, name in enumerate(PROMPTS):
        keypoints[KEYPOINTS.index(name)] = (60, 30 + 17 * count, 0.9)
    return Observation(
        ViewName.FRONT,
        Intrinsics(200.0, WIDTH, HEIGHT, known=False),
        np.array([40, 20, 80, 180], dtype=np.float32),
        keypoints,
        rectangle(40, 20, 80, 180).astype(np.float32),
        ("it is dim",),
        "free",
    )


def masks(inside: np.ndarray[Any, Any]) -> Sam2Masks:
    return Sam2Masks(Outline(inside), torch.device("cpu"), "sam2@abc", "abc")


def test_an_outline_that_agrees_replaces_mask_box_and_source(
    photo: Photo, seen: Observation
) -> None:
    refined = masks(rectangle(42, 18, 82, 178)).refine(photo, seen)
    assert np.array_equal(refined.mask > 0.5, rectangle(42, 18, 82, 178))
    np.testing.assert_array_equal(refined.box, [42, 18, 82, 178])
    assert refined.source == "free+sam2@abc"
    assert refined.warnings == seen.warnings
    assert refined.keypoints is seen.keypoints


@pytest.mark.parametrize(
    ("inside", "what"),
    [
        (rectangle(0, 0, 0, 0), "nothing"),
        (rectangle(40, 20, 80, 90), "the shirt"),
        (rectangle(24, 4, 96, 196), "everything that was looked at"),
        (rectangle(84, 20, 96, 180), "what stands beside"),
        (rectangle(40, 20, 80, 180) & ~rectangle(55, 20, 62, 180), "a body without its middle"),
    ],
)
def test_an_outline_of_something_else_leaves_the_free_one_and_says_so(
    photo: Photo, seen: Observation, inside: np.ndarray[Any, Any], what: str
) -> None:
    refined = masks(inside).refine(photo, seen)
    assert refined.mask is seen.mask
    assert refined.source == "free"
    assert refined.warnings == ("it is dim", DISAGREES)


def test_the_prompts_are_in_the_pixels_of_what_is_looked_at(
    photo: Photo, seen: Observation
) -> None:
    sam2 = masks(rectangle(40, 20, 80, 180))
    sam2.refine(photo, seen)
    prompts = sam2.predictor.prompts
    # A tenth of the height of 160 px is looked at beside the box: from column 24 and row 4.
    np.testing.assert_allclose(prompts["box"], [14.4, 14.4, 57.6, 177.6], atol=1e-4)
    np.testing.assert_array_equal(prompts["point_coords"][0], [36, 26])
    assert len(prompts["point_coords"]) == len(PROMPTS)


def test_a_keypoint_that_is_unsure_or_outside_the_outline_is_no_prompt(
    photo: Photo, seen: Observation
) -> None:
    seen.keypoints[KEYPOINTS.index("nose"), 2] = 0.3
    seen.keypoints[KEYPOINTS.index("left_knee"), 0] = 100
    sam2 = masks(rectangle(40, 20, 80, 180))
    sam2.refine(photo, seen)
    assert len(sam2.predictor.prompts["point_coords"]) == len(PROMPTS) - 2


def test_without_sure_keypoints_the_box_alone_is_the_prompt(
    photo: Photo, seen: Observation
) -> None:
    seen.keypoints[:, 2] = 0
    sam2 = masks(rectangle(40, 20, 80, 180))
    assert sam2.refine(photo, seen).source == "free+sam2@abc"
    assert sam2.predictor.prompts["point_coords"] is None


def test_a_person_at_the_edge_is_looked_at_within_the_photo(
    photo: Photo, seen: Observation
) -> None:
    at_edge = rectangle(0, 0, 40, HEIGHT)
    seen.keypoints[:, 0] = 20
    seen.box[:] = (0, 0, 40, HEIGHT)
    seen.mask[:] = at_edge
    sam2 = masks(at_edge)
    refined = sam2.refine(photo, seen)
    assert np.array_equal(refined.mask > 0.5, at_edge)
    assert (sam2.predictor.prompts["box"] >= 0).all()
