"""One person through several squares, with a network that sees what is there."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
from PIL import Image

from worker.avatar.observe.landmarks import LandmarkNetwork, Landmarks
from worker.avatar.observe.looks import look_closely
from worker.avatar.observe.mirrored import BothWays
from worker.avatar.observe.roi import Roi
from worker.avatar.types import Float32Array

PHOTO = BothWays.of(Image.new("RGB", (800, 1200)))
AROUND = Roi(400.0, 600.0, 900.0, 0.1)
RADIUS_PX = 250.0
SIDE = 256
NOISE_PX = 4.0


class Network:
    """Sees a disc around the middle of `AROUND`, and its points to within a cell of its grid."""

    def __init__(self) -> None:
        self.squares: list[Roi] = []

    def locate(self, photo: BothWays, roi: Roi) -> Landmarks:
        """Put points on the grid of the square that is looked through."""
        assert photo is PHOTO
        self.squares.append(roi)
        cell_px = roi.side_px / SIDE
        true = points_px()
        on_grid = np.floor(roi.from_photo(true) * SIDE / NOISE_PX) * NOISE_PX / SIDE
        odds = depth_px(roi) / cell_px
        return Landmarks(
            score=0.99,
            points=roi.to_photo(on_grid.astype(np.float32)),
            depth=np.zeros(33, dtype=np.float32),
            visibility=np.ones(33, dtype=np.float32),
            presence=np.ones(33, dtype=np.float32),
            world=np.zeros((33, 3), dtype=np.float32),
            mask=(1.0 / (1.0 + np.exp(-odds.clip(-20, 20)))).astype(np.float32),
            roi=roi,
            next_roi=AROUND,
        )


def points_px() -> Float32Array:
    """(33, 2) on a spiral inside the disc."""
    turns = np.linspace(0.0, 6.0 * math.pi, 33)
    radius = np.linspace(20.0, 240.0, 33)
    x, y = 400.0 + radius * np.cos(turns), 600.0 + radius * np.sin(turns)
    return np.stack((x, y), axis=1).astype(np.float32)


def offsets(roi: Roi) -> Float32Array:
    """(2, S, S) x and y of a square's cells from the middle of the disc, pixels."""
    rows, columns = np.indices((SIDE, SIDE))
    unit = (np.stack((columns.ravel(), rows.ravel()), axis=1) + 0.5) / SIDE
    places = roi.to_photo(unit.astype(np.float32)) - np.array([400.0, 600.0])
    return np.asarray(places.T.reshape(2, SIDE, SIDE), dtype=np.float32)


def depth_px(roi: Roi) -> Float32Array:
    """(S, S) how far inside the disc a cell lies."""
    return np.asarray(RADIUS_PX - np.hypot(*offsets(roi)), dtype=np.float32)


def looked() -> tuple[Network, Landmarks]:
    network = Network()
    first = network.locate(PHOTO, Roi(390.0, 610.0, 950.0))
    network.squares.clear()
    return network, look_closely(cast("LandmarkNetwork", network), PHOTO, first)


def test_the_squares_stand_where_the_landmarks_put_the_body_and_to_no_side_of_it() -> None:
    network, seen = looked()
    assert network.squares[0] == seen.roi == AROUND
    assert len(network.squares) > 1
    for square in network.squares:
        assert (square.center_x, square.angle) == (AROUND.center_x, AROUND.angle)
    assert np.mean([square.center_y for square in network.squares]) == AROUND.center_y
    assert np.isclose(np.mean([square.side_px for square in network.squares]), AROUND.side_px)


def test_the_mask_lies_over_the_first_square() -> None:
    _, seen = looked()
    truth = depth_px(seen.roi)
    sure = np.abs(truth) > seen.roi.side_px / SIDE
    np.testing.assert_array_equal((seen.mask > 0.5)[sure], (truth > 0)[sure])


def test_the_mean_lies_nearer_than_one_look() -> None:
    network, seen = looked()

    def error_px(found: Landmarks) -> float:
        apart = found.points - points_px()
        return float(np.sqrt(((apart - apart.mean(axis=0)) ** 2).mean()))

    alone = [error_px(network.locate(PHOTO, square)) for square in tuple(network.squares)]
    assert error_px(seen) < 0.7 * min(alone)
