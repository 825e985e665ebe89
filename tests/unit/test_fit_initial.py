"""A guess of an estimator may help the fit and must not harm it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.benchmarks.cases import Case
from worker.avatar.body.free import free_body
from worker.avatar.body.model import BodyModel
from worker.avatar.fit import FitOptions, fit_body
from worker.avatar.measure import Measurer
from worker.avatar.types import BodyFit, InitialGuess, ViewName

CASES = Path(__file__).resolve().parents[1] / "data" / "cases"
GIRTHS = ("chestCm", "waistCm", "hipCm", "thighCm", "insideLegCm")


@pytest.fixture(scope="module")
def case() -> Case:
    torch.set_num_threads(1)
    return Case(CASES / "female-00")


def fitted(case: Case, initial: InitialGuess | None) -> BodyFit:
    return fit_body(
        BodyModel(free_body(case.gender), dtype=torch.float64),
        [case.observation(view) for view in (ViewName.FRONT, ViewName.SIDE)],
        height_m=case.request["heightCm"] / 100,
        options=FitOptions(silhouette_torso_erode_px=0),
        initial=initial,
    )


def error_cm(case: Case, fit: BodyFit) -> float:
    data = free_body(case.gender)
    vertices = data.v_template + data.shapedirs @ fit.betas
    vertices *= case.request["heightCm"] / 100 / np.ptp(vertices[:, 1])
    measured = Measurer(data).measure(vertices)
    return float(
        np.mean([abs(measured[key] - case.truth["measurementsCm"][key]) for key in GIRTHS])
    )


@pytest.fixture(scope="module")
def by_itself(case: Case) -> BodyFit:
    return fitted(case, None)


def near(fit: BodyFit, *, turn_deg: float, betas: float) -> InitialGuess:
    """What a good estimator says: the person as they are, with errors of its own."""
    rng = np.random.default_rng(3)
    poses = {
        view.view: view.pose[:22] + np.deg2rad(turn_deg) * rng.standard_normal((22, 3))
        for view in fit.views
    }
    return InitialGuess(fit.betas + betas * rng.standard_normal(len(fit.betas)), poses)


def test_a_good_guess_gives_no_worse_a_body(case: Case, by_itself: BodyFit) -> None:
    helped = fitted(case, near(by_itself, turn_deg=4.0, betas=0.3))
    # Two starts in one valley: they end where the same outlines leave them.
    assert error_cm(case, helped) < error_cm(case, by_itself) + 0.5
    assert min(view.iou for view in helped.views) > min(view.iou for view in by_itself.views) - 0.01


def test_a_guess_of_somebody_who_lies_upside_down_changes_nothing(
    case: Case, by_itself: BodyFit
) -> None:
    wrong = InitialGuess(
        np.full(len(by_itself.betas), 3.0),
        {view: np.full((22, 3), 1.0) for view in (ViewName.FRONT, ViewName.SIDE)},
    )
    unmoved = fitted(case, wrong)
    np.testing.assert_array_equal(unmoved.betas, by_itself.betas)


def test_a_guess_of_the_pose_alone_and_of_one_view_alone_is_taken(
    case: Case, by_itself: BodyFit
) -> None:
    front = near(by_itself, turn_deg=2.0, betas=0.0).poses[ViewName.FRONT]
    helped = fitted(case, InitialGuess(None, {ViewName.FRONT: front}))
    assert error_cm(case, helped) < error_cm(case, by_itself) + 0.5
