"""Cloth between skin and outline: its prior, what is worn, and what the fit makes of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from tests.benchmarks.cases import Case
from worker.avatar.body.free import free_body
from worker.avatar.body.model import BodyModel
from worker.avatar.fit import FitOptions, fit_body
from worker.avatar.fit.cloth import BOTTOM, REGIONS, TOP, undressed
from worker.avatar.fit.definitions import as_the_body_means
from worker.avatar.fit.wardrobe import hypotheses, mixed, most_likely, posterior
from worker.avatar.types import KEYPOINTS, BodyFit, Observation, ViewName

CASES = Path(__file__).resolve().parents[1] / "data" / "cases"
LIKE = torch.zeros(1, dtype=torch.float64)
FRONT = (ViewName.FRONT,)
WAIST, HAIR = REGIONS.index("waist"), REGIONS.index("hair")


def test_a_prior_is_a_proper_gaussian_that_ties_a_garment_and_the_views_together() -> None:
    for each in hypotheses(list(ViewName), 1.0, LIKE):
        spread = each.prior.covariance
        assert bool((torch.linalg.eigvalsh(spread) > 0).all())
        count = len(REGIONS)
        assert spread[WAIST, WAIST + count] > 0.5 * spread[WAIST, WAIST], "front and side"
        assert spread[WAIST, REGIONS.index("chest")] > 0, "one top"
        assert spread[WAIST, HAIR] == 0
    assert sum(each.probability for each in hypotheses(FRONT, 1.0, LIKE)) == pytest.approx(1.0)


def test_twice_the_allowance_is_twice_the_cloth_but_not_twice_the_soles() -> None:
    usual, double = (hypotheses(FRONT, scale, LIKE)[0].prior.mean[0].exp() for scale in (1.0, 2.0))
    worn = torch.tensor([name in TOP or name in BOTTOM for name in REGIONS])
    torch.testing.assert_close(double[worn], 2 * usual[worn])
    torch.testing.assert_close(double[~worn], usual[~worn])


def test_a_mixture_spreads_at_least_as_far_as_its_parts() -> None:
    possible = hypotheses(FRONT, 1.0, LIKE)
    both = mixed([(0.5, possible[0].prior), (0.5, possible[-1].prior)])
    metres = (possible[0].prior.mean.exp() + possible[-1].prior.mean.exp()) / 2
    torch.testing.assert_close(both.mean.exp(), metres)
    apart = possible[0].prior.mean[0, WAIST] - possible[-1].prior.mean[0, WAIST]
    assert both.covariance[WAIST, WAIST] > apart**2 / 4


@pytest.mark.parametrize("worn", ["tight", "everyday", "loose"])
def test_what_is_worn_is_found_when_the_cloth_itself_is_seen(worn: str) -> None:
    possible = hypotheses(FRONT, 1.0, LIKE)
    true = next(each for each in possible if each.top == each.bottom == worn).prior.mean
    start = mixed([(each.probability, each.prior) for each in possible]).mean
    # As if each thickness had been seen to a millimetre, linearised in its logarithm.
    metres, per_sigma = start.exp().flatten(), 1000.0
    slope = metres * per_sigma
    away = (metres - true.exp().flatten()) * per_sigma
    at = torch.arange(len(REGIONS))
    chances = posterior(possible, torch.diag(slope**2), slope * away, start, at)
    assert sum(chances) == pytest.approx(1.0)
    assert most_likely(possible, chances) == (worn, worn)
    assert max(chances) > 0.9


def test_skin_takes_the_cloth_off_arms_but_never_off_trunk_legs_and_feet() -> None:
    shares = torch.full((1, 1, len(REGIONS)), 1 / len(REGIONS), dtype=torch.float64)
    left = undressed(shares, torch.ones((1, 1), dtype=torch.float64))[0, 0]
    assert left[REGIONS.index("forearm")] == 0
    for worn in ("waist", "thigh", "shin", "shoe"):  # beige shirts, trousers and shoes
        at = REGIONS.index(worn)
        assert left[at] == shares[0, 0, at] > 0


# --------------------------------------------------------------------- in the fit
@pytest.fixture(scope="module")
def case() -> Case:
    torch.set_num_threads(1)
    return Case(CASES / "male-00")


def _clad(seen: Observation, px: float) -> Observation:
    """The same person in cloth that stands off by so many pixels; head, hands, feet are bare."""
    outside = distance_transform_edt(seen.mask < 0.5)
    rows, columns = np.mgrid[: seen.mask.shape[0], : seen.mask.shape[1]]
    place = {name: seen.keypoints[KEYPOINTS.index(name), :2] for name in KEYPOINTS}
    worn = rows > min(place["left_shoulder"][1], place["right_shoulder"][1])
    worn &= rows < max(place["left_ankle"][1], place["right_ankle"][1])
    for wrist in ("left_wrist", "right_wrist"):
        worn &= np.hypot(columns - place[wrist][0], rows - place[wrist][1]) > 45.0
    return replace(seen, mask=((outside == 0) | (worn & (outside < px))).astype(np.float32))


def _fitted(case: Case, seen: list[Observation], options: FitOptions) -> BodyFit:
    body = BodyModel(free_body(case.gender), dtype=torch.float64)
    height_m = case.request["heightCm"] / 100
    return fit_body(body, seen, height_m=height_m, options=options)


def _volume(case: Case, fit: BodyFit) -> float:
    data = free_body(case.gender)
    vertices = data.v_template + data.shapedirs @ fit.betas
    vertices *= case.request["heightCm"] / 100 / np.ptp(vertices[:, 1])
    a, b, c = vertices[data.faces].transpose(1, 0, 2)
    return float(np.einsum("fi,fi->", a, np.cross(b, c)) / 6)


def test_clothes_make_people_less_fat_and_less_sure(case: Case) -> None:
    seen = [_clad(case.observation(view), 6.0) for view in ViewName]
    naive = _fitted(case, seen, FitOptions(silhouette_torso_erode_px=0.0))
    aware = _fitted(case, seen, FitOptions())
    true = case.vertices()
    data = free_body(case.gender)
    a, b, c = true[data.faces].transpose(1, 0, 2)
    litres = float(np.einsum("fi,fi->", a, np.cross(b, c)) / 6)
    assert abs(_volume(case, aware) - litres) < 0.5 * abs(_volume(case, naive) - litres)
    assert np.trace(aware.covariance) > np.trace(naive.covariance)
    assert naive.wear == ()
    assert len(aware.wear) == 2


# --------------------------------------------------------------------- what keypoints mean
def test_keypoints_of_the_body_itself_are_taken_as_they_are(case: Case) -> None:
    seen = case.observation(ViewName.FRONT)
    places = seen.keypoints[:, :2].astype(np.float64)
    moved, sigma = as_the_body_means(seen, places)
    np.testing.assert_array_equal(moved, places)
    assert np.all(sigma == sigma[0, 0])


@pytest.mark.parametrize("view", ViewName)
def test_corrections_are_mirrored_with_the_photo(case: Case, view: ViewName) -> None:
    seen = replace(case.observation(view), source="blazepose-full@test")
    places = seen.keypoints[:, :2].astype(np.float64)
    other = [
        KEYPOINTS.index(name.replace("left", "?").replace("right", "left").replace("?", "right"))
        for name in KEYPOINTS
    ]
    width = seen.intrinsics.width
    mirrored = (places * (-1, 1) + (width, 0))[other]
    confidence = replace(seen, keypoints=seen.keypoints[other])
    moved, sigma = as_the_body_means(seen, places)
    moved_mirrored, sigma_mirrored = as_the_body_means(confidence, mirrored)
    np.testing.assert_allclose(moved_mirrored, (moved * (-1, 1) + (width, 0))[other])
    np.testing.assert_allclose(sigma_mirrored, sigma[other])
