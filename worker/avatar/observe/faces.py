"""Faces in the photo that more than one look confirms.

The windows overlap, so that a face lies whole in several of them, and each is looked at as it is
and mirrored (`BothWays`).  A face is found in nearly all of these looks; a hand, a knee or a fold
that looks like one is found in one or two.  So what counts is the mean score of the looks that
show a find whole, with 0 where it was not found, and not the best: with the best, a hand scored
0.71 and a knee 0.73, and two people who were alone were refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from worker.avatar.observe.detector import Detection, Detector, iou
from worker.avatar.observe.mirrored import BothWays
from worker.avatar.observe.roi import Roi

_LEAST_SCORE = 0.3
"""Of one look; below, nothing is said to be there."""
_WHOLE_SCORE = 0.6
"""Mean of both looks at the whole photo: mediapipe's own threshold for faces."""
_WINDOW_SCORE = 0.65
"""Mean of all looks through windows.  Faces of two people in one photograph, pasted beside and
half before each other: 0.69 and more.  What is no face, in 118 rendered photographs: 0.60 once (a
knee), else 0.52 and less; in the six photographs of the tests 0.24 and less."""
_SAME_FACE_IOU = 0.3
_MARGIN = 0.1
"""Of a face's size: a window must show this much around it."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What was found in one window (None: the whole photo) of the photo or of its mirror image."""

    window: Roi | None
    found: Sequence[Detection]

    def score(self, face: Detection) -> float:
        """Return how sure this look is of a face; 0 when it was not found."""
        same = (each for each in self.found if iou(each.box, face.box) >= _SAME_FACE_IOU)
        return max((each.score for each in same), default=0.0)


def find_faces(detector: Detector, photo: BothWays, windows: Sequence[Roi]) -> list[Detection]:
    """Look for faces in the whole photo and through windows that overlap by half.

    Args:
        detector: of faces.
        photo: as it is and mirrored.
        windows: upright squares.

    Returns:
        Each face as the surest look saw it, best first.
    """
    looks = [each for window in (None, *windows) for each in _both(detector, photo, window)]
    everything = sorted(
        (found for look in looks for found in look.found), key=lambda face: face.score, reverse=True
    )
    distinct: list[Detection] = []
    for face in everything:
        if all(iou(face.box, other.box) < _SAME_FACE_IOU for other in distinct):
            distinct.append(face)
    return [face for face in distinct if _is_sure(face, looks, photo)]


def _both(detector: Detector, photo: BothWays, window: Roi | None) -> tuple[_Look, _Look]:
    there = None if window is None else window.mirrored(photo.width)
    straight = detector.detect(photo.image, window, min_score=_LEAST_SCORE)
    turned = detector.detect(photo.mirrored, there, min_score=_LEAST_SCORE)
    return (
        _Look(window, straight),
        _Look(window, [found.mirrored(photo.width) for found in turned]),
    )


def _is_sure(face: Detection, looks: Sequence[_Look], photo: BothWays) -> bool:
    of_whole = [look.score(face) for look in looks if look.window is None]
    of_windows = [
        look.score(face)
        for look in looks
        if look.window is not None and _shows_whole(look.window, face, photo)
    ]
    sure_of_whole = float(np.mean(of_whole)) >= _WHOLE_SCORE
    return sure_of_whole or (len(of_windows) > 0 and float(np.mean(of_windows)) >= _WINDOW_SCORE)


def _shows_whole(window: Roi, face: Detection, photo: BothWays) -> bool:
    """Tell whether a window shows all that the photo does of a face and a little around it."""
    margin = _MARGIN * face.size_px
    frame = np.array([photo.width, photo.height])
    low = np.maximum(face.box[:2] - margin, 0.0)
    high = np.minimum(face.box[2:] + margin, frame)
    center, half = np.array([window.center_x, window.center_y]), window.side_px / 2
    return bool((low >= center - half).all() and (high <= center + half).all())
