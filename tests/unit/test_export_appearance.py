import numpy as np
import pytest

from worker.avatar.export.appearance import NEUTRAL_SKIN, skin_tone
from worker.avatar.export.colour import (
    hex_of,
    lab_from_srgb,
    linear_from_srgb,
    srgb_from_lab,
    srgb_from_linear,
)
from worker.avatar.types import KEYPOINTS, Intrinsics, Observation, Photo, ViewName

LIGHT, DARK = (224, 182, 155), (92, 60, 44)
SHIRT, HAIR, ROOM = (40, 70, 150), (30, 22, 18), (205, 210, 214)
PLACES = {
    "nose": (150, 92),
    "left_eye": (162, 80),
    "right_eye": (138, 80),
    "left_ear": (178, 84),
    "right_ear": (122, 84),
    "left_elbow": (235, 240),
    "left_wrist": (250, 330),
    "right_elbow": (65, 240),
    "right_wrist": (50, 330),
}


def person(skin: tuple[int, int, int], *, sleeves: bool = False) -> tuple[Photo, Observation]:
    """A crude figure: a hairy head, a shirt, two arms, lit from the left, with sensor noise."""
    rows, columns = np.mgrid[0:480, 0:300]
    pixels = np.full((480, 300, 3), ROOM, dtype=np.float64)
    mask = np.zeros((480, 300), dtype=bool)

    def paint(area: np.ndarray, colour: tuple[int, int, int]) -> None:
        shade = 0.9 + 0.15 * (1 - columns[area] / 300)
        pixels[area] = np.array(colour) * shade[:, None]
        mask[area] = True

    paint(np.hypot(columns - 150, (rows - 90) * 0.8) < 34, skin)
    paint((np.hypot(columns - 150, (rows - 90) * 0.8) < 34) & (rows < 68), HAIR)
    paint((abs(columns - 150) < 60) & (rows > 135) & (rows < 470), SHIRT)
    for x0, x1 in ((228, 262), (38, 72)):
        paint((columns > x0) & (columns < x1) & (rows > 225) & (rows < 370), skin)
        if sleeves:
            paint((columns > x0) & (columns < x1) & (rows > 225) & (rows < 370), SHIRT)
    noise = np.random.default_rng(0).normal(0, 3, pixels.shape)
    keypoints = np.zeros((23, 3), dtype=np.float32)
    for name, place in PLACES.items():
        keypoints[KEYPOINTS.index(name)] = (*place, 0.9)
    photo = Photo(ViewName.FRONT, np.clip(pixels + noise, 0, 255).astype(np.uint8), None)
    camera = Intrinsics(600.0, 300, 480, known=False)
    box = np.array([30, 40, 270, 470], dtype=np.float32)
    return photo, Observation(ViewName.FRONT, camera, box, keypoints, mask.astype(np.float32))


def difference(first: tuple[int, int, int], second: tuple[int, int, int]) -> float:
    """CIE76 colour difference; about 2.3 can just be seen."""
    lab = lab_from_srgb(np.array([first, second]) / 255.0)
    return float(np.linalg.norm(lab[0] - lab[1]))


@pytest.mark.parametrize("skin", [LIGHT, DARK])
def test_the_skin_is_read_from_face_and_bare_arms(skin: tuple[int, int, int]) -> None:
    tone = skin_tone(*person(skin))
    assert difference(tone.rgb, skin) < 5
    assert tone.regions == ("face", "left_arm", "right_arm")
    assert tone.document()["sources"]["skinColor"]["from"] == "photo"


def test_sleeves_do_not_colour_the_skin() -> None:
    tone = skin_tone(*person(LIGHT, sleeves=True))
    assert tone.regions == ("face",)
    assert difference(tone.rgb, LIGHT) < 5


def test_a_skin_coloured_sleeve_that_differs_from_the_face_is_left_out() -> None:
    photo, seen = person(LIGHT)
    pixels = photo.pixels.copy()
    pixels[226:369, 229:262] = (214, 120, 52)  # an orange sleeve: inside the skin's hues
    tone = skin_tone(Photo(photo.view, pixels, None), seen)
    assert tone.regions == ("face", "right_arm")


def test_highlights_and_shadow_do_not_move_the_colour() -> None:
    photo, seen = person(LIGHT)
    pixels = photo.pixels.copy()
    pixels[84:92, 140:150] = 255
    pixels[98:112, 130:170] = pixels[98:112, 130:170] // 4
    assert difference(skin_tone(Photo(photo.view, pixels, None), seen).rgb, LIGHT) < 6


def test_a_monochrome_photo_gives_the_neutral_tone_and_says_so() -> None:
    photo, seen = person(LIGHT)
    grey = np.repeat(photo.pixels.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
    tone = skin_tone(Photo(photo.view, grey, None), seen)
    assert tone.rgb == NEUTRAL_SKIN
    assert tone.document() == {
        "skinColor": {"rgb": list(NEUTRAL_SKIN), "hex": hex_of(NEUTRAL_SKIN)},
        "sources": {
            "skinColor": {"from": "default", "reason": "the photo holds no colour"},
        },
    }


def test_without_visible_skin_the_neutral_tone_is_taken() -> None:
    photo, seen = person(LIGHT)
    pixels = photo.pixels.copy()
    pixels[seen.mask > 0.5] = SHIRT
    assert skin_tone(Photo(photo.view, pixels, None), seen).reason == "no bare skin was found"


def test_unseen_keypoints_are_not_looked_at() -> None:
    photo, seen = person(LIGHT)
    seen.keypoints[:, 2] = 0.1
    assert skin_tone(photo, seen).rgb == NEUTRAL_SKIN


def test_keypoints_outside_the_picture_do_no_harm() -> None:
    photo, seen = person(LIGHT)
    seen.keypoints[KEYPOINTS.index("left_wrist"), :2] = (900, -300)
    seen.keypoints[KEYPOINTS.index("right_elbow"), :2] = (-500, 240)
    seen.keypoints[KEYPOINTS.index("right_wrist"), :2] = (-500, 330)
    assert "face" in skin_tone(photo, seen).regions


def test_lab_agrees_with_known_values_and_goes_back() -> None:
    # Bruce Lindbloom's calculator, sRGB, D65.
    known = {(255, 255, 255): (100.0, 0.0, 0.0), (255, 0, 0): (53.24, 80.09, 67.20)}
    for rgb, lab in known.items():
        np.testing.assert_allclose(lab_from_srgb(np.array(rgb) / 255.0), lab, atol=0.02)
    colours = np.random.default_rng(1).random((50, 3))
    np.testing.assert_allclose(srgb_from_lab(lab_from_srgb(colours)), colours, atol=1e-4)
    np.testing.assert_allclose(srgb_from_linear(linear_from_srgb(colours)), colours, atol=1e-9)
