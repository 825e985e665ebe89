"""Squares, crops, anchors, suppression: the arithmetic around the networks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from worker.avatar.observe.detector import Detection, anchor_centers, body_square, iou, merge
from worker.avatar.observe.landmarks import Sight, mirror, refine
from worker.avatar.observe.mirrored import BothWays
from worker.avatar.observe.roi import Frame, Roi


def dots(width: int, height: int, centers: list[tuple[float, float]], sigma: float) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width] + 0.5
    picture = np.zeros((height, width))
    for cx, cy in centers:
        picture += 255 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * sigma**2))
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8)).convert("RGB")


def bright_spot(pixels: np.ndarray) -> np.ndarray:
    """Return the centre of mass (x, y), 0..1."""
    weights = pixels.astype(float)
    y, x = np.mgrid[0 : pixels.shape[0], 0 : pixels.shape[1]] + 0.5
    total = weights.sum()
    return np.array([(x * weights).sum(), (y * weights).sum()]) / total / pixels.shape[::-1]


def test_the_person_detector_has_its_2254_anchors_in_mediapipes_order() -> None:
    anchors = anchor_centers(224, (8, 16, 32, 32, 32), per_layer=2)
    assert anchors.shape == (2254, 2)
    # 28² cells twice, 14² cells twice, 7² cells six times.
    assert anchors[0] == pytest.approx([0.5 / 28, 0.5 / 28])
    assert anchors[1] == pytest.approx([0.5 / 28, 0.5 / 28])
    assert anchors[2] == pytest.approx([1.5 / 28, 0.5 / 28])
    assert anchors[2 * 28 * 28] == pytest.approx([0.5 / 14, 0.5 / 14])
    assert anchors[2 * 28 * 28 + 2 * 14 * 14 + 6] == pytest.approx([1.5 / 7, 0.5 / 7])


def test_the_face_detector_has_its_2304_anchors() -> None:
    anchors = anchor_centers(192, (4,), per_layer=1)
    assert anchors.shape == (2304, 2)
    assert anchors[-1] == pytest.approx([47.5 / 48, 47.5 / 48])


@pytest.mark.parametrize(
    ("top", "angle_deg"), [((50, 20), 0), ((80, 50), 90), ((20, 50), -90), ((71.2, 28.8), 45)]
)
def test_the_square_turns_with_the_body(top: tuple[float, float], angle_deg: float) -> None:
    roi = Roi.around_body(np.array([50.0, 50.0]), np.array(top))
    assert math.degrees(roi.angle) == pytest.approx(angle_deg, abs=0.1)
    assert roi.side_px == pytest.approx(2 * 30 * 1.25, rel=1e-3)
    # Whatever the angle, the point above the hips lies above the middle of the square.
    assert roi.from_photo(np.array([top]))[0] == pytest.approx([0.5, 0.1], abs=1e-3)


def test_the_square_of_a_body_upside_down() -> None:
    roi = Roi.around_body(np.array([50.0, 50.0]), np.array([50.0, 80.0]))
    assert abs(math.degrees(roi.angle)) == pytest.approx(180)


def test_photo_and_square_coordinates_are_inverse() -> None:
    roi = Roi(321.5, 123.25, 456.0, 0.7)
    points = np.random.default_rng(3).uniform(-0.5, 1.5, (50, 2)).astype(np.float32)
    assert np.abs(roi.from_photo(roi.to_photo(points)) - points).max() < 1e-5


@pytest.mark.parametrize("angle", [0.0, 0.4, -1.2, math.pi / 2])
@pytest.mark.parametrize("outside", ["black", "edge"])
@pytest.mark.parametrize(("side_px", "size_px"), [(300.0, 256), (700.0, 128), (90.0, 256)])
def test_a_crop_shows_points_where_the_mapping_says(
    angle: float, outside: str, side_px: float, size_px: int
) -> None:
    center = (241.3, 318.8)
    image = dots(500, 640, [center], sigma=side_px / 40)
    roi = Roi(230.0, 330.0, side_px, angle)
    crop = roi.crop(image, size_px, outside=outside)
    expected = roi.from_photo(np.array([center]))[0]
    error_px = np.abs(bright_spot(crop[..., 0]) - expected) * size_px
    assert error_px.max() < 0.3


def test_outside_the_photo_a_crop_is_black_or_continues_the_edge() -> None:
    image = Image.new("RGB", (100, 100), (200, 100, 50))
    roi = Roi(0.0, 50.0, 100.0)
    assert roi.crop(image, 64, outside="black")[32, 5].tolist() == [0, 0, 0]
    assert roi.crop(image, 64, outside="edge")[32, 5].tolist() == [200, 100, 50]
    assert roi.crop(image, 64, outside="black")[32, 60].tolist() == [200, 100, 50]


def test_a_square_wholly_outside_the_photo_is_cropped_without_failing() -> None:
    image = Image.new("RGB", (100, 100), (200, 100, 50))
    crop = Roi(-500.0, -500.0, 50.0).crop(image, 64, outside="black")
    assert crop.shape == (64, 64, 3)
    assert crop.max() == 0


@pytest.mark.parametrize("angle", [0.0, 0.5, -2.0])
def test_a_map_of_the_square_is_laid_back_onto_the_photo(angle: float) -> None:
    roi = Roi(260.0, 300.0, 400.0, angle)
    spot = np.asarray(dots(256, 256, [(100.0, 150.0)], sigma=8).convert("L"), dtype=np.float32)
    photo = Frame(0, 0, 500, 640)
    laid = roi.uncrop(spot, photo)
    expected = roi.to_photo(np.array([[100 / 256, 150 / 256]]))[0]
    found = bright_spot(laid) * (500, 640)
    assert np.abs(found - expected).max() < 0.3
    part = Frame(150, 200, 420, 500)
    assert np.abs(roi.uncrop(spot, part) - laid[part.rows_columns(photo)]).max() < 1e-3


def test_frames_cut_each_other() -> None:
    photo = Frame(0, 0, 100, 80)
    assert photo.common_with(-5, 10, 50, 200) == Frame(0, 10, 50, 80)
    nothing = photo.common_with(200, 200, 300, 300)
    assert (nothing.width, nothing.height) == (0, 0)
    assert Roi(50.0, 40.0, 10.0).frame(photo) == Frame(45, 35, 55, 45)


def detection(score: float, x: float) -> Detection:
    box = np.array([x, 0, x + 10, 10], dtype=np.float32)
    return Detection(score, box, np.array([[x + 5, 5], [x + 5, 0]], dtype=np.float32))


def test_overlapping_detections_are_averaged_by_score_and_others_kept() -> None:
    merged = merge([detection(0.5, 2.0), detection(1.0, 0.0), detection(0.8, 100.0)])
    assert [found.score for found in merged] == [1.0, 0.8]
    assert merged[0].box[0] == pytest.approx(2 / 3)
    assert merged[0].points[0, 0] == pytest.approx(5 + 2 / 3)
    assert merged[1].center == pytest.approx([105, 5])
    assert merged[1].size_px == pytest.approx(10)
    assert body_square(merged[1]).side_px == pytest.approx(2 * 5 * 1.25)


def test_boxes_without_area_do_not_vanish_in_suppression() -> None:
    empty = Detection(0.9, np.zeros(4, dtype=np.float32), np.zeros((2, 2), dtype=np.float32))
    assert len(merge([empty])) == 1
    assert merge([]) == []


def test_intersection_over_union() -> None:
    a = np.array([0, 0, 10, 10], dtype=np.float32)
    assert iou(a, a) == 1.0
    assert iou(a, a + 5) == pytest.approx(25 / 175)
    assert iou(a, a + 20) == 0.0


def test_landmarks_move_to_the_centre_of_a_sure_heat_map_only() -> None:
    heatmaps = np.full((64, 64, 3), -20.0, dtype=np.float32)
    heatmaps[30:33, 40:43, 0] = 10.0  # sure, centred on row 31, column 41
    heatmaps[31, 41, 1] = -1.0  # below one half: not sure
    start = np.array([[40.2, 30.2], [40.2, 30.2], [200.0, 30.0]], dtype=np.float32) / 64
    moved = refine(start, heatmaps) * 64
    assert moved[0] == pytest.approx([41, 31], abs=1e-2)
    assert moved[1] == pytest.approx([40.2, 30.2])
    assert moved[2] == pytest.approx([200, 30])


def test_a_square_of_the_mirror_image_is_the_mirror_image_of_the_square() -> None:
    rng = np.random.default_rng(5)
    photo = BothWays.of(Image.fromarray(rng.integers(0, 255, (333, 251, 3), dtype=np.uint8)))
    roi = Roi(120.3, 160.0, 140.0, 0.2)
    straight, turned = photo.crops(roi, 64, outside="edge")
    again, first = BothWays(photo.mirrored, photo.image).crops(
        roi.mirrored(photo.width), 64, outside="edge"
    )
    np.testing.assert_array_equal(straight, first)
    np.testing.assert_array_equal(turned, again)
    # Shrinking begins at another pixel, so that of single pixels of noise the same is not left.
    smooth = BothWays.of(dots(251, 333, [(90, 140), (150, 190)], 9.0))
    straight, turned = smooth.crops(roi, 64, outside="edge")
    np.testing.assert_allclose(turned[:, ::-1], straight, atol=0.05)


def test_what_is_seen_in_the_mirror_is_the_other_side_and_twice_is_the_same() -> None:
    rng = np.random.default_rng(9)
    seen = Sight(
        flag=np.ones(1, dtype=np.float32),
        values=rng.random((39, 5)).astype(np.float32),
        unit=rng.random((39, 2)).astype(np.float32),
        mask=rng.random((256, 256)).astype(np.float32),
        world=rng.random((39, 3)).astype(np.float32),
    )
    once, twice = mirror(seen), mirror(mirror(seen))
    for left, right in ((2, 5), (7, 8), (9, 10), (11, 12), (27, 28), (31, 32)):
        assert once.unit[left, 0] == 1.0 - seen.unit[right, 0]
        assert once.values[left, 3] == seen.values[right, 3]
    assert once.unit[0, 1] == seen.unit[0, 1]
    for before, after in zip(seen, twice, strict=True):
        np.testing.assert_allclose(after, before, atol=1e-6)
