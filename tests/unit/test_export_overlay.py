import io

import numpy as np
import pytest
from PIL import Image

from worker.avatar.export.overlay import MAX_HEIGHT_PX, mask_png, outlines_of, overlay_png
from worker.avatar.types import Photo, ViewName


def disc(height: int, width: int, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    return np.hypot(columns - width / 2, rows - height / 2) < radius


def pixels_of(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def luminance(pixels: np.ndarray) -> np.ndarray:
    return pixels[..., :3] @ np.array([0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("shade", [0, 128, 255])
def test_the_outline_stands_out_on_any_photo(shade: int) -> None:
    body = disc(600, 400, 120)
    photo = Photo(ViewName.FRONT, np.full((600, 400, 3), shade, dtype=np.uint8), None)
    drawn = luminance(pixels_of(overlay_png(photo, body)))
    across = drawn[300, 300:340]  # the outline passes at x = 320
    assert np.ptp(across) > 100
    assert abs(drawn[20, 20] - shade) < 1  # away from the body nothing is touched


def test_the_outline_lies_on_the_edge_of_the_body() -> None:
    body = disc(600, 400, 120)
    photo = Photo(ViewName.FRONT, np.full((600, 400, 3), 255, dtype=np.uint8), None)
    drawn = luminance(pixels_of(overlay_png(photo, body)))
    darkest = np.flatnonzero(drawn[300] < 120)
    left, right = darkest[darkest < 200], darkest[darkest > 200]
    assert abs((left.min() + left.max()) / 2 + 0.5 - 80) < 1
    assert abs((right.min() + right.max()) / 2 + 0.5 - 320) < 1


def test_large_photos_are_shown_smaller() -> None:
    photo = Photo(ViewName.SIDE, np.zeros((3000, 2000, 3), dtype=np.uint8), None)
    drawn = pixels_of(overlay_png(photo, disc(3000, 2000, 500)))
    assert drawn.shape == (MAX_HEIGHT_PX, 800, 3)
    assert drawn.any()


def test_a_body_that_covers_nothing_leaves_the_photo_as_it_was() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (90, 70, 3), dtype=np.uint8)
    photo = Photo(ViewName.FRONT, pixels, None)
    drawn = pixels_of(overlay_png(photo, np.zeros((90, 70), dtype=bool)))
    np.testing.assert_array_equal(drawn, pixels)


def test_only_confident_keypoints_are_marked() -> None:
    photo = Photo(ViewName.FRONT, np.zeros((200, 200, 3), dtype=np.uint8), None)
    keypoints = np.array([[50, 50, 0.9], [150, 150, 0.2]], dtype=np.float32)
    drawn = pixels_of(overlay_png(photo, np.zeros((200, 200), dtype=bool), keypoints=keypoints))
    assert drawn[49:51, 49:51].min() > 200
    assert not drawn[140:160, 140:160].any()


def test_outlines_close_at_the_photos_edge_and_use_pixel_centres() -> None:
    body = np.zeros((10, 20), dtype=bool)
    body[:, 5:9] = True
    (line,) = outlines_of(body)
    np.testing.assert_allclose(line[0], line[-1])
    np.testing.assert_allclose(line.min(axis=0), [5, 0])
    np.testing.assert_allclose(line.max(axis=0), [9, 10])


def test_a_mask_comes_back_as_grey() -> None:
    mask = np.linspace(-0.1, 1.1, 200, dtype=np.float32).reshape(10, 20)
    back = pixels_of(mask_png(mask))
    np.testing.assert_array_equal(back, np.rint(np.clip(mask, 0, 1) * 255))
