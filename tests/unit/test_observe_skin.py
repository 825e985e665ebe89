"""Skin is found by the colours of the person's own face, in light and in shade."""

import numpy as np
import pytest

from worker.avatar.observe.skin import find_skin
from worker.avatar.types import KEYPOINTS, ByteArray, Float32Array

SKINS = {"light": (224, 182, 160), "olive": (190, 140, 110), "dark": (92, 58, 44)}
FACE, ARM, SHADED_ARM, SHIRT, WALL = (
    slice(20, 80),
    slice(100, 120),
    slice(130, 150),
    slice(160, 190),
    slice(200, 230),
)


def _photo(skin: tuple[int, int, int]) -> ByteArray:
    pixels = np.full((240, 120, 3), 128, dtype=np.uint8)
    pixels[WALL] = (235, 235, 232)
    pixels[SHIRT] = (60, 80, 150)
    pixels[FACE] = pixels[ARM] = skin
    linear = (np.array(skin) / 255.0) ** 2.2 * 0.4
    pixels[SHADED_ARM] = (255 * linear ** (1 / 2.2)).astype(np.uint8)
    noise = np.random.default_rng(3).normal(0, 3, pixels.shape)
    return (pixels + noise).clip(0, 255).astype(np.uint8)


def _keypoints() -> Float32Array:
    keypoints = np.zeros((len(KEYPOINTS), 3), dtype=np.float32)
    for name, place in {
        "nose": (60, 52),
        "left_eye": (68, 42),
        "right_eye": (52, 42),
        "left_ear": (80, 46),
        "right_ear": (40, 46),
    }.items():
        keypoints[KEYPOINTS.index(name)] = (*place, 1.0)
    return keypoints


@pytest.mark.parametrize("skin", SKINS.values(), ids=SKINS)
def test_skin_is_found_in_light_and_shade_and_nothing_else(skin: tuple[int, int, int]) -> None:
    found = find_skin(_photo(skin), _keypoints())
    assert found is not None
    assert found.shape == (240, 120)
    assert found[ARM][5:15].mean() > 0.8
    assert found[SHADED_ARM][5:15].mean() > 0.6
    assert found[SHIRT][5:25].mean() < 0.05
    assert found[WALL][5:25].mean() < 0.3


def test_without_a_face_nothing_is_claimed() -> None:
    hidden = _keypoints() * np.array([1, 1, 0], dtype=np.float32)
    assert find_skin(_photo(SKINS["olive"]), hidden) is None


def test_black_hair_before_the_face_is_not_taken_for_skin() -> None:
    """Nor black sleeves with it."""
    assert find_skin(_photo((8, 8, 8)), _keypoints()) is None
    fringed = _photo(SKINS["olive"])
    fringed[FACE.start : 48] = 8
    assert find_skin(fringed, _keypoints()) is not None


@pytest.mark.parametrize("tone", [(1.0, 1.0, 1.0), (1.07, 0.92, 0.72)], ids=["grey", "brown"])
def test_where_everything_has_the_faces_colour_nothing_is_claimed(
    tone: tuple[float, float, float],
) -> None:
    """In black and white a sleeve as bright as the face looked like an arm."""
    grey = _photo(SKINS["olive"]).mean(axis=2, keepdims=True)
    assert find_skin((grey * tone).clip(0, 255).astype(np.uint8), _keypoints()) is None


def test_the_map_has_255_steps_so_that_it_can_be_made_again() -> None:
    found = find_skin(_photo(SKINS["olive"]), _keypoints())
    assert found is not None
    np.testing.assert_array_equal(np.round(found * 255.0).astype(np.float32) / 255, found)
