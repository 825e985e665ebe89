"""The real networks on real photographs, and on what can be made of them.

The six photographs lie beside the repository, with what a good worker says of each.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from worker.avatar.observe import Observer, assets, gate
from worker.avatar.photo import read_photo
from worker.avatar.types import KEYPOINTS, Observation, Photo, ViewName
from worker.errors import (
    BodyHidden,
    FeetNotVisible,
    HeadNotVisible,
    InputError,
    LegsNotVisible,
    NoPerson,
    NotStanding,
    PersonTooSmall,
    PhotoTooDark,
    SeveralPeople,
    WrongView,
)

PHOTOS = Path(__file__).resolve().parents[2].parent / "shared" / "photos"
MAN = "standing-man-3551487.jpg"
COAT = "woman-open-coat-972937.jpg"
MAN_TOP, MAN_FEET = 303, 1473

pytestmark = pytest.mark.photos


@pytest.fixture(scope="session")
def observer_models() -> Path:
    """Return the folder that `make setup` filled."""
    folder = assets.default_models_dir()
    assets.verify(folder)
    return folder


@pytest.fixture(scope="session")
def observer(observer_models: Path) -> Observer:
    return Observer.load(observer_models)


def picture(name: str) -> Image.Image:
    path = PHOTOS / name
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return Image.open(path).convert("RGB")


def photo_of(image: Image.Image, view: ViewName = ViewName.FRONT) -> Photo:
    return Photo(view, np.array(image), None)


def refusal(
    observer: Observer, image: Image.Image, view: ViewName = ViewName.FRONT
) -> type[InputError]:
    with pytest.raises(InputError) as caught:
        observer.observe(photo_of(image, view))
    assert caught.value.advice
    return type(caught.value)


def at(observation: Observation, name: str) -> np.ndarray:
    return observation.keypoints[KEYPOINTS.index(name)]


@pytest.fixture(scope="module")
def man(observer: Observer) -> Observation:
    path = PHOTOS / MAN
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return observer.observe(read_photo(path, ViewName.FRONT))


# ------------------------------------------------------------------------- the six photographs
def test_the_standing_man_is_observed_whole(man: Observation) -> None:
    assert man.mask.shape == (1600, 1013)
    assert man.mask.dtype == np.float32
    assert np.abs(man.box - [193, MAN_TOP, 711, MAN_FEET]).max() < 15
    assert man.warnings == (gate.TURNED,)
    assert man.source == "blazepose-full@e9a5c5cb"
    assert not man.intrinsics.known
    assert man.intrinsics.focal_px == pytest.approx(26 / 43.27 * np.hypot(1013, 1600), rel=1e-3)
    # Read off the photograph by eye, to the width of a joint.
    seen_by_eye = {
        "nose": (546, 408), "left_shoulder": (612, 550), "right_shoulder": (466, 492),
        "left_knee": (590, 1130), "right_knee": (395, 1110), "left_ankle": (575, 1370),
        "right_ankle": (262, 1355), "right_big_toe": (350, 1465), "left_big_toe": (690, 1435),
    }  # fmt: skip
    for name, expected in seen_by_eye.items():
        x, y, confidence = at(man, name)
        assert np.hypot(x - expected[0], y - expected[1]) < 35, name
        assert confidence > 0.6, name


def test_the_mans_mask_holds_his_body_and_not_the_wall(man: Observation) -> None:
    body = man.mask > 0.5
    for x, y in [(560, 600), (420, 640), (330, 1200), (590, 1200), (540, 345), (270, 1440)]:
        assert body[y, x], (x, y)
    for x, y in [(100, 800), (500, 1250), (800, 700), (540, 270), (440, 1440), (760, 1000)]:
        assert not body[y, x], (x, y)
    # Sharp: along an outline of 5,000 pixels few are undecided.
    assert np.count_nonzero((man.mask > 0.3) & (man.mask < 0.7)) < 8 * 5000


def test_the_open_coat_is_accepted(observer: Observer) -> None:
    observation = observer.observe(photo_of(picture(COAT)))
    assert observation.box[1] == pytest.approx(388, abs=15)
    assert observation.box[3] == pytest.approx(1581, abs=15)
    assert observation.warnings == ()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sitting-in-dress-3830468.jpg", NotStanding),
        ("woman-feet-cut-off-2448525.jpg", FeetNotVisible),
        ("half-body-1786258.jpg", LegsNotVisible),
        ("two-women-from-behind-1300520.jpg", SeveralPeople),
    ],
)
@pytest.mark.parametrize("mirrored", [False, True])
def test_the_others_are_refused_for_their_reason(
    observer: Observer, name: str, expected: type[InputError], mirrored: bool
) -> None:
    image = picture(name)
    assert refusal(observer, ImageOps.mirror(image) if mirrored else image) is expected


# ------------------------------------------------------------------------- what becomes of them
def test_mirrored_the_sides_change(observer: Observer, man: Observation) -> None:
    mirrored = observer.observe(photo_of(ImageOps.mirror(picture(MAN))))
    for name in KEYPOINTS:
        if "small_toe" in name or name == "nose":
            continue
        other = name.replace("left", "LEFT").replace("right", "left").replace("LEFT", "right")
        x, y, _ = at(mirrored, other)
        assert np.hypot(1013 - x - at(man, name)[0], y - at(man, name)[1]) < 0.5, name
    overlap = (mirrored.mask[:, ::-1] > 0.5) & (man.mask > 0.5)
    union = (mirrored.mask[:, ::-1] > 0.5) | (man.mask > 0.5)
    assert overlap.sum() / union.sum() > 0.999


@pytest.mark.parametrize("change", ["jpeg", "half", "dim", "wide", "tilted"])
def test_ordinary_differences_between_photos_do_not_matter(observer: Observer, change: str) -> None:
    image = picture(MAN)
    match change:
        case "jpeg":
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=40)
            image = Image.open(buffer).convert("RGB")
        case "half":
            image = image.resize((506, 800))
        case "dim":
            image = Image.fromarray((np.asarray(image) * 0.4).astype(np.uint8))
        case "wide":
            image = ImageOps.pad(image, (2000, 1600), color=(120, 130, 125))
        case "tilted":
            image = image.rotate(12, expand=True, fillcolor=(120, 120, 120))
    observation = observer.observe(photo_of(image))
    body_height_px = observation.box[3] - observation.box[1]
    assert body_height_px / image.height > 0.55


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0, 0, 1013, MAN_FEET + 15), None),
        ((0, 0, 1013, MAN_FEET - 30), FeetNotVisible),
        ((0, 0, 1013, MAN_FEET - 150), FeetNotVisible),
        ((0, 0, 1013, 850), LegsNotVisible),
        ((0, MAN_TOP - 15, 1013, 1600), None),
        ((0, MAN_TOP + 30, 1013, 1600), HeadNotVisible),
        ((0, MAN_TOP + 140, 1013, 1600), HeadNotVisible),
        ((300, 0, 1013, 1600), BodyHidden),
    ],
)
def test_cropping_the_man(
    observer: Observer, box: tuple[int, int, int, int], expected: type[InputError] | None
) -> None:
    image = picture(MAN).crop(box)
    if expected is None:
        observer.observe(photo_of(image))
    else:
        assert refusal(observer, image) is expected


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_photo_lying_on_its_side_is_refused(observer: Observer, degrees: int) -> None:
    assert refusal(observer, picture(MAN).rotate(degrees, expand=True)) is NotStanding


def test_a_photo_that_lies_in_the_file_but_says_so_is_fine(
    observer: Observer, man: Observation, tmp_path: Path
) -> None:
    lying = picture(MAN).rotate(90, expand=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "lying.jpg"
    lying.save(path, exif=exif, quality=95)
    observation = observer.observe(read_photo(path, ViewName.FRONT))
    assert np.abs(observation.box - man.box).max() < 15


def cut_out(man: Observation, scale: float) -> Image.Image:
    """Return the man alone on transparent ground."""
    image = picture(MAN)
    image.putalpha(Image.fromarray((man.mask * 255).astype(np.uint8)))
    person = image.crop(tuple(int(edge) for edge in man.box))
    return person.resize((int(person.width * scale), int(person.height * scale)))


@pytest.mark.parametrize(
    ("scale", "expected"), [(1.0, SeveralPeople), (0.7, SeveralPeople), (0.3, None)]
)
def test_a_second_person_is_refused_when_large_and_warned_of_when_small(
    observer: Observer, man: Observation, scale: float, expected: type[InputError] | None
) -> None:
    wide = Image.new("RGB", (1900, 1600), (120, 130, 125))
    wide.paste(picture(COAT), (0, 0))
    other = cut_out(man, scale)
    wide.paste(other, (1250, 1550 - other.height), other)
    if expected is not None:
        assert refusal(observer, wide) is expected
    else:
        assert gate.BYSTANDER in observer.observe(photo_of(wide)).warnings


def test_two_people_in_each_others_arms_are_two(observer: Observer, man: Observation) -> None:
    together = picture(COAT)
    other = cut_out(man, 1.0)
    together.paste(other, (60, 1540 - other.height), other)
    assert refusal(observer, together) is SeveralPeople


def test_somebody_small_is_asked_to_come_closer(observer: Observer, man: Observation) -> None:
    far = Image.new("RGB", (1000, 1600), (120, 130, 125))
    other = cut_out(man, 0.4)
    far.paste(other, (400, 700), other)
    assert refusal(observer, far) is PersonTooSmall


def test_each_slot_wants_its_own_view(observer: Observer) -> None:
    assert refusal(observer, picture(MAN), ViewName.SIDE) is WrongView
    behind = picture("two-women-from-behind-1300520.jpg").crop((0, 300, 600, 1600))
    assert refusal(observer, behind, ViewName.FRONT) is WrongView
    assert refusal(observer, behind, ViewName.SIDE) is WrongView


def test_where_nobody_is_nobody_is_found(observer: Observer) -> None:
    street = picture("woman-feet-cut-off-2448525.jpg").crop((0, 0, 400, 1600))
    assert refusal(observer, street) is NoPerson
    scooter = picture("sitting-in-dress-3830468.jpg").crop((600, 600, 1000, 1500))
    assert refusal(observer, scooter) is NoPerson


def test_in_the_dark_the_light_is_named(observer: Observer) -> None:
    dark = Image.fromarray((np.asarray(picture(MAN)) * 0.05).astype(np.uint8))
    assert refusal(observer, dark) is PhotoTooDark


def test_loading_and_observing_print_nothing(
    observer_models: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fresh = Observer.load(observer_models)
    noise = np.random.default_rng(0).integers(0, 255, (800, 600, 3), dtype=np.uint8)
    with pytest.raises(NoPerson):
        fresh.observe(Photo(ViewName.FRONT, noise, None))
    assert capfd.readouterr() == ("", "")
