"""Which photos are good enough, and what the shopper should do about the others.

The rules run from the coarsest to the finest, so that the first refusal is the most useful one:
somebody whose legs are outside the picture is not told that the light is poor.  Thresholds are
far from both sides of what they tell apart; the docstring of each says how far.
"""

from __future__ import annotations

import numpy as np

from worker.avatar.observe.keypoints import confidences
from worker.avatar.observe.landmarks import Landmarks
from worker.avatar.observe.light import outline_contrast
from worker.avatar.observe.mask import box_of
from worker.avatar.observe.people import People
from worker.avatar.observe.posture import ANKLES, HIPS, KNEES, Posture
from worker.avatar.types import BoolArray, ByteArray, Float32Array, ViewName
from worker.errors import (
    BodyHidden,
    FeetNotVisible,
    HeadNotVisible,
    LegsNotVisible,
    NoPerson,
    NotStanding,
    PersonTooSmall,
    PhotoTooDark,
    SeveralPeople,
    WrongView,
)

_FACE = [0, 2, 5, 7, 8]
_FOOT_SIDES = ([29, 31], [30, 32])  # heel and toe, left and right
_ARMS = [13, 14, 15, 16]

_MIN_HEIGHT_SHARE = 0.4
_MIN_HEIGHT_PX = 300
_SEEN = 0.3
"""Confidence of the better seen side.  Whole bodies have 0.9 and more, also in dresses and in
profile; points beyond the frame have less than 0.1, and just inside it up to 0.25."""
_SURELY_SEEN = 0.6
_MAX_TRUNK_TILT_DEG = 35.0
_MAX_HIP_FLEXION_DEG = 38.0
_MAX_KNEE_FLEXION_DEG = 50.0
_MIN_LEG_TO_TRUNK = 1.05
_MAX_FRONT_YAW_DEG = 65.0
_TURNED_YAW_DEG = 30.0
_SIDE_YAW_DEG = (50.0, 130.0)
_MIN_OUTLINE_CONTRAST = 5.0
"""Grey levels."""

BYSTANDER = (
    "Someone else is in the background. They were left out, but a picture of you alone is safer."
)
TURNED = "You are turned a little away from the camera. Facing it gives better measurements."
ARM_OUTSIDE = "An arm is partly outside the picture."
TOUCHING_EDGE = "You stand close to the edge of the picture. A step back would be safer."


def choose_person(people: People) -> Landmarks:
    """Return the one person whom the photo is about.

    Raises:
        NoPerson, SeveralPeople: there is none, or there are others as large or in touch.
    """
    if people.dominant is None:
        raise NoPerson
    if people.rivals:
        raise SeveralPeople
    return people.dominant


def check_frame(person: Landmarks, mask: Float32Array) -> None:
    """Refuse people who are too small or not wholly inside the picture.

    Raises:
        PersonTooSmall, LegsNotVisible, FeetNotVisible, HeadNotVisible, BodyHidden
    """
    height, width = mask.shape
    box = box_of(mask > 0.5)
    if box is None:
        raise BodyHidden("The person's outline could not be found.")
    body_height_px = float(box[3] - box[1])
    seen = confidences(person)
    inside = _inside(person, width, height)
    if not inside[KNEES].any() or seen[KNEES].max() < _SEEN or not inside[HIPS].any():
        raise LegsNotVisible
    _check_feet(seen, inside, mask, body_height_px)
    if not inside[0] or seen[_FACE].max() < _SEEN or _touches_top(mask, body_height_px):
        raise HeadNotVisible
    if body_height_px < _MIN_HEIGHT_SHARE * height or body_height_px < _MIN_HEIGHT_PX:
        raise PersonTooSmall(f"The person is only {body_height_px:.0f} pixels high.")


def check_posture(posture: Posture, view: ViewName) -> None:
    """Refuse people who do not stand or face the wrong way.

    Raises:
        NotStanding, WrongView
    """
    if posture.trunk_tilt_deg > _MAX_TRUNK_TILT_DEG:
        raise NotStanding(
            "The person is not upright in the picture.",
            advice="Please stand upright, and turn the photo so that your head is at the top.",
        )
    flexed = (
        posture.hip_flexion_deg > _MAX_HIP_FLEXION_DEG
        or posture.knee_flexion_deg > _MAX_KNEE_FLEXION_DEG
        or posture.leg_to_trunk < _MIN_LEG_TO_TRUNK
    )
    if flexed:
        raise NotStanding
    turn_deg = abs(posture.yaw_deg)
    if view is ViewName.FRONT and turn_deg > _MAX_FRONT_YAW_DEG:
        seen_from = "behind" if turn_deg > _SIDE_YAW_DEG[1] else "the side"
        raise WrongView(
            f"The front photo shows the person from {seen_from}.",
            advice="Please face the camera for the front photo.",
        )
    if view is ViewName.SIDE and not _SIDE_YAW_DEG[0] <= turn_deg <= _SIDE_YAW_DEG[1]:
        seen_from = "behind" if turn_deg > _SIDE_YAW_DEG[1] else "the front"
        raise WrongView(
            f"The side photo shows the person from {seen_from}.",
            advice="Please turn sideways for the side photo.",
        )


def check_light(pixels: ByteArray, mask: Float32Array) -> None:
    """Refuse photos in which the person melts into what is behind.

    Raises:
        PhotoTooDark
    """
    contrast = outline_contrast(pixels, mask)
    if contrast < _MIN_OUTLINE_CONTRAST:
        raise PhotoTooDark(
            f"The person hardly stands out from the background ({contrast:.0f} grey levels)."
        )


def check_neighbours(people: People) -> None:
    """Refuse smaller people who touch the dominant one.

    Raises:
        SeveralPeople
    """
    if people.touching:
        raise SeveralPeople("Someone else touches the person's outline.")


def warnings_for(
    people: People, person: Landmarks, posture: Posture, mask: Float32Array, view: ViewName
) -> tuple[str, ...]:
    """Return what the shopper should know about an accepted photo, in plain words."""
    height, width = mask.shape
    inside = _inside(person, width, height)
    found = []
    if people.bystanders:
        found.append(BYSTANDER)
    if view is ViewName.FRONT and abs(posture.yaw_deg) > _TURNED_YAW_DEG:
        found.append(TURNED)
    if not inside[_ARMS].all():
        found.append(ARM_OUTSIDE)
    elif (mask[:, [0, -1]] > 0.5).any() or (mask[[0, -1]] > 0.5).any():
        found.append(TOUCHING_EDGE)
    return tuple(found)


def _check_feet(
    seen: Float32Array, inside: BoolArray, mask: Float32Array, body_height_px: float
) -> None:
    if not inside[ANKLES].any() or seen[ANKLES].max() < _SEEN:
        raise FeetNotVisible
    for side in _FOOT_SIDES:
        if not inside[side].any():
            raise FeetNotVisible
    feet = [index for side in _FOOT_SIDES for index in side]
    if seen[feet].max() < _SEEN:
        raise FeetNotVisible
    # Where the frame cuts the feet the outline runs along it, and the points beyond are guesses.
    along_bottom = np.count_nonzero(mask[-1] > 0.5)
    if along_bottom > 0.02 * body_height_px and seen[feet].min() < _SURELY_SEEN:
        raise FeetNotVisible


def _touches_top(mask: Float32Array, body_height_px: float) -> bool:
    return bool(np.count_nonzero(mask[0] > 0.5) > 0.02 * body_height_px)


def _inside(person: Landmarks, width: int, height: int) -> BoolArray:
    x, y = person.points.T
    return np.asarray((x >= 0) & (x < width) & (y >= 0) & (y < height))
