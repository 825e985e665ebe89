"""A second measurer's trouble is told, and is nobody else's."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from worker.avatar.measure.anthropometry import SmplAnthropometry

BODY: Any = SimpleNamespace(J_regressor=np.zeros((55, 10_475)), faces=np.zeros((20_908, 3)))


def measurer(outcome: dict[str, float] | Exception) -> SmplAnthropometry:
    class Measurer:
        measurements: dict[str, float]

        def measure(self, _: object) -> None:
            if isinstance(outcome, Exception):
                raise outcome
            self.measurements = outcome

    definitions = SimpleNamespace(
        LENGTHS={}, CIRCUMFERENCES={}, CIRCUMFERENCE_TO_BODYPARTS={}, possible_measurements=()
    )
    code: Any = SimpleNamespace(
        SMPLXMeasurementDefinitions=lambda: definitions,
        Measurer=Measurer,
        SMPLX_LANDMARK_INDICES={},
        MEASUREMENT_TYPES={},
        SMPLX_JOINT2IND={},
    )
    return SmplAnthropometry(code, {}, "second@0")


@pytest.mark.parametrize("failure", [KeyError("waist"), ZeroDivisionError(), TypeError("None")])
def test_whatever_it_raises_the_job_goes_on(failure: Exception) -> None:
    told = measurer(failure).report(BODY, np.zeros((10_475, 3)))
    assert type(failure).__name__ in told["failure"]


def test_a_length_that_is_no_number_does_not_reach_the_report() -> None:
    told = measurer({"waist": 70.04, "hip": float("nan")}).report(BODY, np.zeros((10_475, 3)))
    assert told["cm"] == {"waist": 70.0}
    json.dumps(told, allow_nan=False)
