"""Intervals widen with what the fit does not know."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from worker.avatar.body.free import free_body
from worker.avatar.body.model import BodyModel
from worker.avatar.measure import Measurer
from worker.avatar.measure.intervals import (
    measurement_intervals_cm,
    standard_errors_cm,
)
from worker.avatar.types import BodyFit, Gender

BODY = BodyModel(free_body(Gender.FEMALE), dtype=torch.float64)
MEASURER = Measurer(BODY.data)
HEIGHT_M = 1.68


def _fit(spread: float) -> BodyFit:
    count = BODY.num_betas
    return BodyFit(Gender.FEMALE, np.zeros(count), spread**2 * np.eye(count), (), 14)


def test_every_measurement_has_an_interval_around_it() -> None:
    intervals = measurement_intervals_cm(BODY, MEASURER, _fit(0.2), height_m=HEIGHT_M)
    vertices = BODY.v_template.numpy()
    measured = MEASURER.measure(vertices * (HEIGHT_M / np.ptp(vertices[:, 1])))
    assert set(intervals) == set(measured)
    for key, (low, high) in intervals.items():
        assert low < measured[key] < high
        assert (low + high) / 2 == pytest.approx(measured[key])


def test_twice_the_spread_of_shape_is_twice_the_error_of_a_girth() -> None:
    once, twice = (
        standard_errors_cm(BODY, MEASURER, _fit(spread), height_m=HEIGHT_M) for spread in (0.2, 0.4)
    )
    for key in ("chestCm", "waistCm", "hipCm"):
        assert 1.8 < twice[key] / once[key] < 2.1


def test_loose_clothes_widen_everything_but_the_declared_height() -> None:
    dressed, loose = (
        measurement_intervals_cm(
            BODY, MEASURER, replace(_fit(0.2), wear=("everyday", bottom)), height_m=HEIGHT_M
        )
        for bottom in ("everyday", "loose")
    )
    for key, (low, high) in dressed.items():
        wider = (loose[key][1] - loose[key][0]) / (high - low)
        assert wider == pytest.approx(1.0) if key == "heightCm" else wider > 1.2


def test_the_main_directions_stand_for_all_of_them() -> None:
    """Against bodies drawn from the covariance itself."""
    rng = np.random.default_rng(5)
    expected = standard_errors_cm(BODY, MEASURER, _fit(0.3), height_m=HEIGHT_M)
    drawn = []
    for _ in range(60):
        betas = torch.as_tensor(0.3 * rng.standard_normal(BODY.num_betas))
        vertices = BODY.shaped(betas[None])[0].numpy()
        drawn.append(dict(MEASURER.measure(vertices * (HEIGHT_M / np.ptp(vertices[:, 1])))))
    for key in ("chestCm", "waistCm", "hipCm", "thighCm"):
        spread = np.std([each[key] for each in drawn])
        assert 0.75 * spread < expected[key] < 1.35 * spread
