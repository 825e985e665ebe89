"""All persons in the photo, and which of them the photo is about.

The detector sees a letterboxed picture of 224 pixels, in which a person must be fairly large.
So it also looks through half-sized windows that overlap by half.  Windows cut people, and a cut
person can look like another one: every find is therefore looked at again by the landmark
network, and finds that lie on a person already known are dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from worker.avatar.observe.detector import Detection, PersonDetector
from worker.avatar.observe.landmarks import LandmarkNetwork, Landmarks
from worker.avatar.observe.roi import Roi
from worker.avatar.types import Float32Array

_WHOLE_SCORE = 0.5  # mediapipe's own threshold
_WINDOW_SCORE = 0.6  # windows are many, so that chance finds are, too
_PERSON_SCORE = 0.7  # of the landmark network; it is above 0.99 on people and low on all else
_SEEN = 0.5
_MAX_CANDIDATES = 8
_COMPARABLE_SIZE = 0.5
"""As large as half of the dominant person: twice as far from the camera."""
_NOTICEABLE_SIZE = 0.15


@dataclass(frozen=True, slots=True)
class People:
    """Who is in the photo."""

    dominant: Landmarks | None
    rivals: tuple[Landmarks, ...] = ()
    """Others of comparable size."""
    touching: tuple[Landmarks, ...] = ()
    """Smaller ones whose outline meets that of the dominant person."""
    bystanders: tuple[Landmarks, ...] = ()
    """Smaller ones apart."""


def find_people(image: Image.Image, detector: PersonDetector, network: LandmarkNetwork) -> People:
    """Look for people in the whole photo and through windows, and sort them by size."""
    candidates = detector.detect(image, min_score=_WHOLE_SCORE)
    for window in _windows(image.width, image.height):
        candidates += detector.detect(image, window, min_score=_WINDOW_SCORE)
    persons: list[Landmarks] = []
    for candidate in _distinct(candidates)[:_MAX_CANDIDATES]:
        person = network.locate(image, candidate.roi)
        if person.score < _PERSON_SCORE:
            continue
        # As mediapipe's tracker does: the landmarks place a better square than the detector.
        person = network.locate(image, person.next_roi)
        if person.score >= _PERSON_SCORE and not any(_same(person, known) for known in persons):
            persons.append(person)
    return _sorted_out(persons, image.width, image.height)


def seen_box(person: Landmarks, width: int, height: int) -> Float32Array:
    """Return the (4,) box around the landmarks that are seen and inside the photo."""
    points = person.points[person.visibility * person.presence >= _SEEN]
    if len(points) == 0:
        return np.zeros(4, dtype=np.float32)
    limits = np.array([width, height], dtype=np.float32)
    return np.concatenate([points.min(axis=0).clip(0, limits), points.max(axis=0).clip(0, limits)])


def _windows(width: int, height: int) -> Iterator[Roi]:
    side = max(width, height) / 2
    for center_y in _centers(height, side):
        for center_x in _centers(width, side):
            yield Roi(center_x, center_y, side)


def _centers(length: float, side: float) -> Float32Array:
    if length <= side:
        return np.array([length / 2], dtype=np.float32)
    steps = int(np.ceil((length - side) / (side / 2))) + 1
    return np.linspace(side / 2, length - side / 2, steps, dtype=np.float32)


def _distinct(candidates: list[Detection]) -> list[Detection]:
    """Keep the best of detections whose body circles nearly coincide, larger bodies first."""
    kept: list[Detection] = []
    for candidate in sorted(candidates, key=lambda d: d.score, reverse=True):
        mine = candidate.roi
        for other in (d.roi for d in kept):
            apart = np.hypot(mine.center_x - other.center_x, mine.center_y - other.center_y)
            sizes = sorted((mine.side_px, other.side_px))
            if apart < 0.1 * sizes[1] and sizes[0] > 0.7 * sizes[1]:
                break
        else:
            kept.append(candidate)
    return sorted(kept, key=lambda d: d.roi.side_px, reverse=True)


def _same(person: Landmarks, known: Landmarks) -> bool:
    """Tell whether most of what is seen of a person lies on the mask of a known one."""
    seen = person.visibility * person.presence >= _SEEN
    points = person.points[seen]
    if len(points) == 0:
        return True
    at = known.roi.from_photo(points) * known.mask.shape[0]
    rows_columns = at[:, ::-1].astype(int)
    inside = np.all((rows_columns >= 0) & (rows_columns < known.mask.shape[0]), axis=1)
    rows, columns = rows_columns[inside].T
    return bool(np.count_nonzero(known.mask[rows, columns] > _SEEN) > 0.6 * len(points))


def _sorted_out(persons: list[Landmarks], width: int, height: int) -> People:
    if not persons:
        return People(dominant=None)

    def seen_area(person: Landmarks) -> float:
        box = seen_box(person, width, height)
        return float((box[2] - box[0]) * (box[3] - box[1]))

    dominant = max(persons, key=seen_area)
    rivals, touching, bystanders = [], [], []
    for person in persons:
        if person is dominant:
            continue
        size = person.next_roi.side_px / dominant.next_roi.side_px
        if size >= _COMPARABLE_SIZE:
            rivals.append(person)
        elif size >= _NOTICEABLE_SIZE and _touch(person, dominant, width, height):
            touching.append(person)
        elif size >= _NOTICEABLE_SIZE:
            bystanders.append(person)
    return People(dominant, tuple(rivals), tuple(touching), tuple(bystanders))


def _touch(a: Landmarks, b: Landmarks, width: int, height: int) -> bool:
    """Tell whether two masks meet."""
    masks = [person.roi.uncrop(person.mask, width, height) > _SEEN for person in (a, b)]
    return bool((masks[0] & masks[1]).any())
