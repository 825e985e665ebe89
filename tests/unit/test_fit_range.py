"""Who is outside of what the body model knows is told so, and never made a standard adult."""

from pathlib import Path

import pytest
import torch

from tests.benchmarks.cases import Case
from worker.avatar.body.free import free_body
from worker.avatar.body.model import BodyModel
from worker.avatar.fit import FitOptions, fit_body
from worker.avatar.fit.fitter import WEIGHT_DISAGREES
from worker.avatar.types import Gender, ViewName
from worker.errors import OutOfRange

CASES = Path(__file__).resolve().parents[1] / "data" / "cases"


@pytest.fixture(scope="module")
def case() -> Case:
    torch.set_num_threads(1)
    return Case(CASES / "male-00")


@pytest.mark.parametrize("height_m", [1.05, 2.4])
@pytest.mark.parametrize("gender", Gender)
def test_a_height_that_no_adult_has_is_refused(case: Case, gender: Gender, height_m: float) -> None:
    body = BodyModel(free_body(gender), dtype=torch.float64)
    with pytest.raises(OutOfRange, match="outside") as refusal:
        fit_body(body, [case.observation(ViewName.FRONT)], height_m=height_m)
    assert refusal.value.code == "OUT_OF_RANGE"
    assert "height" in refusal.value.advice


def test_a_weight_that_the_photos_deny_is_mentioned(case: Case) -> None:
    body = BodyModel(free_body(case.gender), dtype=torch.float64)
    said = {}
    for factor in (1.0, 0.55):
        fit = fit_body(
            body,
            [case.observation(view) for view in ViewName],
            height_m=case.request["heightCm"] / 100,
            weight_kg=case.request["weightKg"] * factor,
            options=FitOptions(silhouette_torso_erode_px=0.0),
        )
        said[factor] = fit.warnings
    assert said == {1.0: (), 0.55: (WEIGHT_DISAGREES,)}
