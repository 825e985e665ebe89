"""Whom the fit expects: one sex or the other, until the photos say which."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.benchmarks.cases import Case
from worker.avatar.body.articulated import articulated_shape
from worker.avatar.body.free import free_body
from worker.avatar.body.model import BodyModel, People
from worker.avatar.fit import FitOptions, fit_body
from worker.avatar.fit.laplace import log_evidence, shares
from worker.avatar.fit.people import ShapePrior
from worker.avatar.types import Gender, ViewName

CASES = Path(__file__).resolve().parents[1] / "data" / "cases"
CPU = torch.device("cpu")
SHAPE = articulated_shape(free_body(Gender.NEUTRAL), 50, CPU)


def _prior(people: People | None) -> ShapePrior:
    return ShapePrior(SHAPE, people, 1.72, None)


def _equations(prior: ShapePrior, betas: torch.Tensor, seen: torch.Tensor, sigma: float):  # type: ignore[no-untyped-def]  # a pair of tensors
    """As if betas themselves were seen, to `sigma`, beside the prior."""
    rows = prior.rows(betas)
    matrix = rows.by_shared.mT @ rows.by_shared + torch.eye(50, dtype=betas.dtype) / sigma**2
    gradient = rows.by_shared.mT @ rows.residual + (betas - seen) / sigma**2
    return matrix, gradient


def test_evidence_is_the_integral_over_everything_else() -> None:
    generator = torch.Generator().manual_seed(5)
    rows = torch.randn((9, 4), generator=generator, dtype=torch.float64)
    seen = torch.randn(9, generator=generator, dtype=torch.float64)
    at = torch.tensor([1, 3])
    found = []
    for scale in (0.3, 1.0, 3.0):
        mean = torch.tensor([0.5, -0.2], dtype=torch.float64)
        prior = torch.eye(2, dtype=torch.float64) * scale**2
        # The same integral in data space: others flat, approximated by a spread of 1e3.
        covariance = torch.eye(4, dtype=torch.float64) * 1e6
        covariance[at[:, None], at] = prior
        middle = torch.zeros(4, dtype=torch.float64)
        middle[at] = mean
        exact = torch.distributions.MultivariateNormal(
            rows @ middle, rows @ covariance @ rows.mT + torch.eye(9, dtype=torch.float64)
        ).log_prob(seen)
        ours = log_evidence(rows.mT @ rows, -rows.mT @ seen, at, torch.linalg.inv(prior), -mean)
        found.append(float(exact) - ours)
    np.testing.assert_allclose(found, found[0], atol=1e-3)


def test_unknowns_that_nothing_speaks_of_do_not_matter() -> None:
    generator = torch.Generator().manual_seed(6)
    rows = torch.randn((9, 4), generator=generator, dtype=torch.float64)
    seen = torch.randn(9, generator=generator, dtype=torch.float64)
    at, prior = torch.tensor([0, 1]), torch.eye(2, dtype=torch.float64)
    less = [
        log_evidence(rows.mT @ rows, -rows.mT @ seen, at, prior, away.expand(2))
        for away in torch.tensor([0.0, 1.0], dtype=torch.float64)
    ]
    rows = torch.cat([rows, torch.zeros((9, 3), dtype=torch.float64)], dim=1)
    more = [
        log_evidence(rows.mT @ rows, -rows.mT @ seen, at, prior, away.expand(2))
        for away in torch.tensor([0.0, 1.0], dtype=torch.float64)
    ]
    assert more[1] - more[0] == pytest.approx(less[1] - less[0], abs=1e-6)


def test_shares_sum_to_one_however_unlikely_all_are() -> None:
    assert shares([-5000.0, -5000.0 + np.log(3)]) == pytest.approx([0.25, 0.75])


@pytest.mark.parametrize("sex", [0, 1])
def test_someone_whose_shape_is_seen_is_expected_to_be_of_that_sex(sex: int) -> None:
    people = free_body(Gender.NEUTRAL).people
    assert people is not None
    prior = _prior(people)
    person = torch.as_tensor(people.means[sex])
    before = prior.residual(person)[:-1].norm()
    prior.weigh(person, *_equations(prior, person, person, 0.1))
    alone = _prior(People(people.means[sex : sex + 1], people.covariances[sex : sex + 1]))
    torch.testing.assert_close(
        prior.residual(person * 1.5), alone.residual(person * 1.5), atol=1e-3, rtol=1e-3
    )
    assert prior.residual(person)[:-1].norm() < before


def test_who_is_hardly_seen_may_be_of_either_sex() -> None:
    prior = _prior(free_body(Gender.NEUTRAL).people)
    person = torch.zeros(50, dtype=SHAPE.template.dtype)
    before = prior.residual(person)
    prior.weigh(person, *_equations(prior, person, person, 100.0))
    torch.testing.assert_close(prior.residual(person), before, atol=0.3, rtol=0.3)


def test_a_body_of_one_sex_or_of_the_operator_is_left_as_it_is() -> None:
    for people in (free_body(Gender.FEMALE).people, None):
        prior = _prior(people)
        person = torch.full((50,), 0.2, dtype=SHAPE.template.dtype)
        before = prior.residual(person)
        prior.weigh(person, *_equations(prior, person, person, 0.1))
        torch.testing.assert_close(prior.residual(person), before)


def test_undressed_and_of_undeclared_sex_is_fitted() -> None:
    case = Case(CASES / "female-00")
    body = BodyModel(free_body(Gender.NEUTRAL), dtype=torch.float64)
    fit = fit_body(
        body,
        [case.observation(ViewName.FRONT)],
        height_m=case.request["heightCm"] / 100,
        options=FitOptions(silhouette_torso_erode_px=0.0),
    )
    assert fit.wear == ()
    assert fit.views[0].iou > 0.9
