"""All persons in the photo, and which of them the photo is about.

A detector sees a letterboxed picture of about 200 pixels, in which a person must be fairly
large.  So it also looks through half-sized windows that overlap by half.  Windows cut people,
and a cut person can look like another one: every find is therefore looked at again by the
landmark network, and finds whose mask lies on that of a larger one are dropped.  The detector of
people looks at the mirror image, too (`BothWays`), since what it finds places the first crop.

People in each other's arms are one person to BlazePose.  Their faces still count as two; what is
a face at all, `faces` decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from worker.avatar.observe.detector import Detection, Detector, body_square, merge
from worker.avatar.observe.faces import find_faces
from worker.avatar.observe.landmarks import LandmarkNetwork, Landmarks
from worker.avatar.observe.mirrored import BothWays
from worker.avatar.observe.roi import Frame, Roi
from worker.avatar.types import Float32Array

_WHOLE_SCORE = 0.5  # mediapipe's own threshold for people
_WINDOW_SCORE = 0.6  # windows are many, so that chance finds are, too
_PERSON_SCORE = 0.7  # of the landmark network; above 0.99 on people, near 0 on all else
_SEEN = 0.5
_MIN_SEEN_POINTS = 5
"""Inside the photo; whom less is seen of is a guess about somebody beyond the frame."""
_MAX_CANDIDATES = 8
_SAME_PERSON = 0.8
"""Share of a find's mask on another's from which both are one person.  Limbs and doubles found in
80 photographs of one rendered person: 0.93 to 0.99.  Two people pasted into one photograph, one
before the other: up to 0.58, where three quarters of the landmarks lie on the other one's mask."""
_COMPARABLE_SIZE = 0.5
"""As large as half of the dominant person: twice as far from the camera."""
_NOTICEABLE_SIZE = 0.15
_FACE_TO_SQUARE = 0.065
"""Side of a face box in sides of the body's square: 0.065 to 0.067 on standing people."""


@dataclass(frozen=True, slots=True)
class People:
    """Who is in the photo."""

    dominant: Landmarks | None
    rivals: int = 0
    """Others of comparable size."""
    touching: int = 0
    """Smaller ones whose outline meets that of the dominant person."""
    bystanders: int = 0
    """Smaller ones apart."""


class PeopleFinder:
    """Looks for everybody in a photo."""

    def __init__(self, people: Detector, faces: Detector, network: LandmarkNetwork) -> None:
        self._people = people
        self._faces = faces
        self.network = network

    def find(self, photo: BothWays) -> People:
        """Look through the whole photo and through windows, and sort people by size."""
        windows = list(_windows(photo.width, photo.height))
        candidates = self._candidates(photo, None, _WHOLE_SCORE)
        for window in windows:
            candidates += self._candidates(photo, window, _WINDOW_SCORE)
        faces = find_faces(self._faces, photo, windows)
        whole = Frame(0, 0, photo.width, photo.height)
        persons = [
            person
            for person in self._looked_at_again(photo, candidates)
            if len(_seen_points(person, whole)) >= _MIN_SEEN_POINTS
        ]
        return _sorted_out(persons, faces, whole)

    def _candidates(self, photo: BothWays, window: Roi | None, min_score: float) -> list[Detection]:
        there = None if window is None else window.mirrored(photo.width)
        straight = self._people.detect(photo.image, window, min_score=min_score)
        turned = self._people.detect(photo.mirrored, there, min_score=min_score)
        return merge([*straight, *(found.mirrored(photo.width) for found in turned)])

    def _looked_at_again(self, photo: BothWays, candidates: list[Detection]) -> list[Landmarks]:
        located: list[Landmarks] = []
        for square in _distinct(candidates)[:_MAX_CANDIDATES]:
            person = self.network.locate(photo, square)
            if person.score < _PERSON_SCORE:
                continue
            # As mediapipe's tracker does: landmarks place a better square than the detector.
            person = self.network.locate(photo, person.next_roi)
            if person.score >= _PERSON_SCORE:
                located.append(person)
        # The whole body before a limb of it that was taken for somebody upside down.
        persons: list[Landmarks] = []
        for person in sorted(located, key=_mask_area, reverse=True):
            if all(_share_on(person, other) < _SAME_PERSON for other in persons):
                persons.append(person)
        return persons


def _windows(width: int, height: int) -> Iterator[Roi]:
    side = max(width, height) / 2
    for center_y in _centers(height, side):
        for center_x in _centers(width, side):
            yield Roi(float(center_x), float(center_y), side)


def _centers(length: float, side: float) -> Float32Array:
    if length <= side:
        return np.array([length / 2], dtype=np.float32)
    steps = int(np.ceil((length - side) / (side / 2))) + 1
    return np.linspace(side / 2, length - side / 2, steps, dtype=np.float32)


def _distinct(candidates: list[Detection]) -> list[Roi]:
    """Drop body squares that nearly coincide with a better one; larger bodies come first."""
    kept: list[Roi] = []
    for candidate in sorted(candidates, key=lambda d: d.score, reverse=True):
        mine = body_square(candidate)
        for other in kept:
            apart = np.hypot(mine.center_x - other.center_x, mine.center_y - other.center_y)
            small, large = sorted((mine.side_px, other.side_px))
            if apart < 0.1 * large and small > 0.7 * large:
                break
        else:
            kept.append(mine)
    return sorted(kept, key=lambda roi: roi.side_px, reverse=True)


def _mask_area(person: Landmarks) -> float:
    """Return how much of the photo a person covers, in square pixels."""
    return float((person.mask > _SEEN).mean()) * person.roi.side_px**2


def _share_on(person: Landmarks, other: Landmarks) -> float:
    """Return the share of a person's mask that lies on the mask of another."""
    rows, columns = np.nonzero(person.mask > _SEEN)
    if len(rows) == 0:
        return 1.0  # nothing of this person is seen: the find says nothing new
    centers = (np.stack([columns, rows], axis=1) + 0.5) / person.mask.shape[0]
    points = person.roi.to_photo(centers.astype(np.float32))
    cells = np.floor(other.roi.from_photo(points) * other.mask.shape[0]).astype(int)
    inside = np.all((cells >= 0) & (cells < other.mask.shape[0]), axis=1)
    columns, rows = cells[inside].T
    return float(np.count_nonzero(other.mask[rows, columns] > _SEEN)) / len(points)


def _sorted_out(persons: list[Landmarks], faces: list[Detection], photo: Frame) -> People:
    if not persons:
        return People(dominant=None)
    dominant = max(persons, key=lambda person: _seen_area(person, photo))
    rivals = touching = bystanders = 0
    for person in persons:
        if person is dominant:
            continue
        size = person.next_roi.side_px / dominant.next_roi.side_px
        if size >= _COMPARABLE_SIZE:
            rivals += 1
        elif size >= _NOTICEABLE_SIZE and _touch(person, dominant, photo):
            touching += 1
        elif size >= _NOTICEABLE_SIZE:
            bystanders += 1
    if rivals == 0 and any(_is_of_someone_else(face, dominant) for face in faces):
        rivals = 1
    return People(dominant, rivals, touching, bystanders)


def _is_of_someone_else(face: Detection, person: Landmarks) -> bool:
    """Tell whether a face of comparable size is not where this person's face is."""
    usual_px = _FACE_TO_SQUARE * person.next_roi.side_px
    apart = np.linalg.norm(person.points[:11] - face.center, axis=1).min()
    return bool(face.size_px >= _COMPARABLE_SIZE * usual_px and apart > 0.6 * face.size_px)


def _seen_points(person: Landmarks, photo: Frame) -> Float32Array:
    """Return the (N, 2) landmarks that are seen and inside the photo."""
    points = person.points[person.visibility * person.presence >= _SEEN]
    inside = np.all((points >= 0) & (points < (photo.width, photo.height)), axis=1)
    return np.asarray(points[inside], dtype=np.float32)


def _seen_area(person: Landmarks, photo: Frame) -> float:
    """Return the area of the box around the seen landmarks."""
    width, height = np.ptp(_seen_points(person, photo), axis=0)
    return float(width * height)


def _touch(a: Landmarks, b: Landmarks, photo: Frame) -> bool:
    """Tell whether two masks meet."""
    masks = [person.roi.uncrop(person.mask, photo) > _SEEN for person in (a, b)]
    return bool((masks[0] & masks[1]).any())
