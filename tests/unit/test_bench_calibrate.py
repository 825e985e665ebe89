"""The tables of the intervals, from errors and what the fit believed of them."""

from __future__ import annotations

import numpy as np
import pytest

from tests.benchmarks.calibrate import HELD, LEAST_HELD, Group, held, likeliest


def _drawn(seed: int, n: int, inflation: float, model_cm: float) -> Group:
    rng = np.random.default_rng(seed)
    believed_cm = rng.uniform(0.2, 3.0, n)
    return Group(rng.normal(0.0, np.hypot(inflation * believed_cm, model_cm)), believed_cm)


def test_what_errors_were_drawn_with_is_found_again() -> None:
    inflation, model_cm = likeliest([_drawn(1, 4000, 1.5, 0.9)])
    # 92 of 100 are to be held, and 90 are by the true pair: 6 % wider.
    assert inflation == pytest.approx(1.5 * 1.064, abs=0.1)
    assert model_cm == pytest.approx(0.9 * 1.064, abs=0.1)


def test_groups_count_alike_however_many_people_they_have() -> None:
    many, few = _drawn(2, 3000, 0.5, 0.3), _drawn(3, 100, 1.5, 1.5)
    pair = likeliest([many, few])
    assert (held(many, pair) + held(few, pair)) / 2 >= HELD
    assert held(few, pair) > LEAST_HELD - 0.01, "the other group would make up for less"
    assert held(many, pair) > 0.99


def test_errors_that_nothing_tried_holds_are_not_papered_over() -> None:
    group = Group(np.full(10, 50.0), np.full(10, 0.1))
    with pytest.raises(ValueError, match="no interval"):
        likeliest([group])
    with pytest.raises(ValueError, match="no fits"):
        likeliest([])
