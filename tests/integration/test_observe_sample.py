"""The demo's sample person must be found in both slots, and only in the right ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import worker.demo
from worker.avatar.observe import Observer, assets
from worker.avatar.photo import WORKING_SIDE_PX, read_photo
from worker.avatar.types import KEYPOINTS, ViewName
from worker.errors import WrongView

SAMPLE = Path(worker.demo.__file__).parent / "sample"


@pytest.fixture(scope="module")
def observer() -> Observer:
    return Observer.load(assets.default_models_dir())


@pytest.mark.parametrize("view", list(ViewName))
def test_the_sample_person_is_observed_in_each_view(observer: Observer, view: ViewName) -> None:
    photo = read_photo(SAMPLE / f"{view}.jpg", view)
    observation = observer.observe(photo)
    assert observation.warnings == ()
    assert observation.intrinsics.known == (photo.focal_px is not None)
    height = photo.pixels.shape[0]
    assert 0.5 < (observation.box[3] - observation.box[1]) / height < 0.98
    seen = {name: observation.keypoints[row, 2] for row, name in enumerate(KEYPOINTS)}
    for part in ("shoulder", "hip", "knee", "ankle", "big_toe"):
        sides = [seen[f"{side}_{part}"] for side in ("left", "right")]
        assert (min(sides) if view is ViewName.FRONT else max(sides)) > 0.6, part


@pytest.mark.parametrize("view", list(ViewName))
def test_the_sample_photos_do_not_fit_the_other_slot(observer: Observer, view: ViewName) -> None:
    other = ViewName.SIDE if view is ViewName.FRONT else ViewName.FRONT
    photo = read_photo(SAMPLE / f"{view}.jpg", other)
    with pytest.raises(WrongView):
        observer.observe(photo)


def test_the_sample_persons_outline_is_told_from_the_room(observer: Observer) -> None:
    observation = observer.observe(read_photo(SAMPLE / "front.jpg", ViewName.FRONT))
    body = observation.mask > 0.5
    at = {name: observation.keypoints[row, :2] for row, name in enumerate(KEYPOINTS)}
    for name in ("left_shoulder", "right_knee", "left_hip", "nose"):
        x, y = at[name].astype(int)
        assert body[y, x], name
    between_the_feet = (at["left_ankle"] + at["right_ankle"]) / 2
    assert not body[int(between_the_feet[1]), int(between_the_feet[0])]
    assert not body[:, : int(observation.box[0]) - 1].any()
    # The share of the box that a standing person with arms aside covers.
    x0, y0, x1, y1 = observation.box.astype(int)
    assert 0.2 < np.mean(body[y0:y1, x0:x1]) < 0.6


def test_who_is_accepted_is_accepted_when_memory_is_short(
    observer: Observer, tmp_path: Path
) -> None:
    """Work on smaller photos (`economy`) must not tell a shopper to come closer."""
    sample = Image.open(SAMPLE / "front.jpg").convert("RGB")
    wide = Image.new("RGB", (1600, 1200), sample.getpixel((5, 5)))
    height = 640
    small = sample.resize((round(sample.width * height / sample.height), height))
    wide.paste(small, (700, 400))
    path = tmp_path / "wide.png"
    wide.save(path)
    for side_px in (WORKING_SIDE_PX, WORKING_SIDE_PX // 2):
        seen = observer.observe(read_photo(path, ViewName.FRONT, side_px=side_px))
        assert (seen.box[3] - seen.box[1]) / seen.intrinsics.height > 0.4
    assert seen.box[3] - seen.box[1] < 300, "the photo is too large to show anything"
