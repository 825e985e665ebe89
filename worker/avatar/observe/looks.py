"""The same person through several squares: what one crop's grid adds, their mean leaves out.

The landmark network sees 256 × 256 pixels, and what it says changes by pixels of the photo when
the square around the person is a hundredth larger or stands a hundredth higher.  Which square it is
hangs on a detector that sees even less: a photo cropped by a twentieth is looked at through another
one.  Five squares, around where the landmarks themselves put the body, are looked through, and
the mean is taken: of places, and of the mask's log-odds.

Squares are larger and smaller, higher and lower, but not to a side of each other: the mirror image
of a photo is looked at alike.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import map_coordinates
from scipy.special import expit, logit

from worker.avatar.observe.landmarks import LandmarkNetwork, Landmarks
from worker.avatar.observe.mirrored import BothWays
from worker.avatar.observe.roi import Roi
from worker.avatar.types import Float32Array, Float64Array

_SQUARES = ((1.0, 0.0), (1.06, 0.012), (0.97, 0.012), (1.03, -0.012), (0.94, -0.012))
"""Size, and how much lower, in sides of the square that the landmarks imply."""
_MOST_DOUBT = 1e-4
"""Log-odds are bounded at 9: a mask that is sure of a pixel is not surer than that."""


def look_closely(network: LandmarkNetwork, photo: BothWays, person: Landmarks) -> Landmarks:
    """Look again at a person who was found, through several squares.

    Args:
        network: that found them.
        photo: where.
        person: as found; the squares stand around `person.next_roi`.

    Returns:
        The mean of what is seen; its mask lies over the first square.
    """
    around = person.next_roi
    squares = [
        Roi(
            around.center_x,
            around.center_y + lower * around.side_px,
            size * around.side_px,
            around.angle,
        )
        for size, lower in _SQUARES
    ]
    return mean_of([network.locate(photo, square) for square in squares])


def mean_of(looks: list[Landmarks]) -> Landmarks:
    """Join what is seen of one person through several squares, the first of them the frame."""

    def mean(name: str) -> Float32Array:
        values = [getattr(look, name) for look in looks]
        return np.asarray(np.mean(values, axis=0), dtype=np.float32)

    return Landmarks(
        score=float(np.mean([look.score for look in looks])),
        points=mean("points"),
        depth=mean("depth"),
        visibility=mean("visibility"),
        presence=mean("presence"),
        world=mean("world"),
        mask=_mask_of(looks),
        roi=looks[0].roi,
        next_roi=looks[0].next_roi,
    )


def _mask_of(looks: list[Landmarks]) -> Float32Array:
    """(S, S) over the first square: the mean log-odds of those who see a pixel."""
    side = looks[0].mask.shape[0]
    rows, columns = np.indices((side, side))
    unit = (np.stack((columns.ravel(), rows.ravel()), axis=1) + 0.5) / side
    places = looks[0].roi.to_photo(unit.astype(np.float32))
    total: Float64Array = np.zeros(side * side)
    lookers: Float64Array = np.zeros(side * side)
    for look in looks:
        at = look.roi.from_photo(places) * side - 0.5
        odds = logit(look.mask.clip(_MOST_DOUBT, 1.0 - _MOST_DOUBT))
        seen = map_coordinates(odds, [at[:, 1], at[:, 0]], order=1, mode="nearest")
        inside = np.all((at > -0.5) & (at < side - 0.5), axis=1)
        total += np.where(inside, seen, 0.0)
        lookers += inside
    # The first square sees each of its own pixels, so nobody's number is zero.
    return np.asarray(expit(total / lookers).reshape(side, side), dtype=np.float32)
