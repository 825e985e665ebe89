"""The fit on two committed people of known measurements, and on evidence that is no person."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.benchmarks.cases import Case
from worker.avatar.body.free import free_body
from worker.avatar.body.model import BodyModel
from worker.avatar.fit import FitOptions, fit_body
from worker.avatar.fit.solver import Solver
from worker.avatar.measure import Measurer
from worker.avatar.types import BodyFit, ViewName
from worker.errors import BodyHidden, FitFailed

CASES = Path(__file__).resolve().parents[1] / "data" / "cases"
BOTH = (ViewName.FRONT, ViewName.SIDE)
UNDRESSED = FitOptions(silhouette_torso_erode_px=0.0)


@pytest.fixture(params=["male-00", "female-00"])
def case(request: pytest.FixtureRequest) -> Case:
    torch.set_num_threads(1)
    return Case(CASES / request.param)


def fitted(case: Case, views: tuple[ViewName, ...], options: FitOptions = UNDRESSED) -> BodyFit:
    body = BodyModel(free_body(case.gender), dtype=torch.float64)
    return fit_body(
        body,
        [case.observation(view) for view in views],
        height_m=case.request["heightCm"] / 100,
        options=options,
    )


def off_cm(case: Case, fit: BodyFit) -> dict[str, float]:
    data = free_body(case.gender)
    vertices = data.v_template + data.shapedirs @ fit.betas
    vertices *= case.request["heightCm"] / 100 / np.ptp(vertices[:, 1])
    measured = Measurer(data).measure(vertices)
    return {key: measured[key] - true for key, true in case.truth["measurementsCm"].items()}


def test_two_views_bring_the_girths_within_centimetres(case: Case) -> None:
    fit = fitted(case, BOTH)
    off = off_cm(case, fit)
    # Three to four times the mean error of the benchmark: a broken fit is far beyond.
    for key in ("chestCm", "waistCm", "hipCm", "insideLegCm"):
        assert abs(off[key]) < 5.0, (key, off)
    assert min(view.iou for view in fit.views) > 0.93
    assert [view.view for view in fit.views] == list(BOTH)


def test_the_side_view_adds_certainty(case: Case) -> None:
    front, both = fitted(case, BOTH[:1]), fitted(case, BOTH)
    assert np.all(np.linalg.eigvalsh(front.covariance) > 0)
    assert np.trace(both.covariance) < np.trace(front.covariance)


def test_the_body_stands_before_the_camera_and_looks_at_it(case: Case) -> None:
    fit = fitted(case, BOTH[:1])
    view = fit.views[0]
    assert 1.5 < view.transl[2] < 6.0, "metres, for a person who fills the picture"
    body = BodyModel(free_body(case.gender), dtype=torch.float64)
    pose, transl = torch.as_tensor(view.pose)[None], torch.as_tensor(view.transl)[None]
    posed = body(torch.as_tensor(fit.betas)[None], pose, transl)
    turn = posed.transforms[0, 0, :3, :3]
    assert float(turn[2, 2]) < -0.8, "the body's front looks along the camera's -z"
    assert float(turn[1, 1]) < -0.8, "the body's up is the image's up"


def test_the_more_cloth_is_expected_the_more_is_taken_off(case: Case) -> None:
    # Of one kind: with far thinner clothes than the default's, bare outlines are everyday ones'.
    fits = [fitted(case, BOTH, FitOptions(silhouette_torso_erode_px=px)) for px in (8, 32)]
    assert fits[0].wear == fits[1].wear == ("tight", "tight"), "nobody wears anything here"
    thin, thick = (off_cm(case, fit) for fit in fits)
    assert thick["waistCm"] < thin["waistCm"] - 1.0
    assert thick["thighCm"] < thin["thighCm"] - 0.5


def test_without_outlines_the_keypoints_still_place_the_body(case: Case) -> None:
    fit = fitted(case, BOTH[:1], FitOptions(silhouette_refine=False))
    assert fit.views[0].iou > 0.75
    assert fit.views[0].keypoint_rmse_px < 12


def test_the_same_evidence_gives_the_same_body(case: Case) -> None:
    first, again = fitted(case, BOTH[:1]), fitted(case, BOTH[:1])
    np.testing.assert_array_equal(first.betas, again.betas)


def test_a_photo_that_nobody_explains_is_refused(case: Case) -> None:
    seen = case.observation(ViewName.FRONT)
    torn = replace(seen, keypoints=seen.keypoints * np.array([1, 1, 0], dtype=np.float32))
    body = BodyModel(free_body(case.gender), dtype=torch.float64)
    with pytest.raises(BodyHidden, match="keypoints"):
        fit_body(body, [torn], height_m=1.7)
    empty = replace(seen, mask=np.zeros_like(seen.mask))
    with pytest.raises(BodyHidden, match="outline"):
        fit_body(body, [empty], height_m=1.7)
    wall = replace(seen, mask=np.ones_like(seen.mask))
    with pytest.raises(BodyHidden):
        fit_body(body, [wall], height_m=1.7)


def test_equations_without_an_answer_are_a_named_failure(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def singular(*_: object) -> None:
        torch.linalg.cholesky(torch.zeros((2, 2)))

    monkeypatch.setattr(Solver, "improve", singular)
    body = BodyModel(free_body(case.gender), dtype=torch.float64)
    views = [case.observation(view) for view in ViewName]
    with pytest.raises(FitFailed, match="without an answer"):
        fit_body(body, views, height_m=1.7)


def test_progress_only_grows_and_ends(case: Case) -> None:
    told: list[float] = []
    body = BodyModel(free_body(case.gender), dtype=torch.float64)
    seen = case.observation(ViewName.FRONT)
    fit_body(body, [seen], height_m=1.75, progress=told.append)
    assert told == sorted(told)
    assert 0.85 < told[-1] <= 1.0
