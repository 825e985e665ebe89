"""Cloth between skin and outline: its prior, what is worn, and what the fit makes of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from tests.benchmarks.cases import Case
from worker.avatar.body.articulated import ArticulatedShape, articulated_shape
from worker.avatar.body.free import free_body, free_garments
from worker.avatar.body.garments import (
    OUTFITS,
    Outfit,
    read_garments,
    sexes_of,
    write_garments,
)
from worker.avatar.body.jacobian import body_keypoints
from worker.avatar.body.layout import JOINT_INDEX
from worker.avatar.body.model import BodyModel
from worker.avatar.fit import FitOptions, definitions, fit_body, priors
from worker.avatar.fit.cloth import REGIONS, skin_regions, undressed
from worker.avatar.fit.definitions import blazepose_noise, keypoint_noise
from worker.avatar.fit.evidence import gather
from worker.avatar.fit.mirror import mirrored_keypoints
from worker.avatar.fit.outline import Matches
from worker.avatar.fit.people import ShapePrior
from worker.avatar.fit.residuals import Clothing, ImageTargets, keypoint_targets, outline_targets
from worker.avatar.fit.state import FitState
from worker.avatar.fit.wardrobe import Possible, Wardrobe, wardrobe
from worker.avatar.types import KEYPOINTS, BodyFit, Gender, Observation, ViewName
from worker.errors import ModelInvalid, ModelMissing

CASES = Path(__file__).resolve().parents[1] / "data" / "cases"
CPU = torch.device("cpu")


def _shape(gender: Gender) -> ArticulatedShape:
    return articulated_shape(free_body(gender), 50, CPU)


def _prior(gender: Gender) -> ShapePrior:
    return ShapePrior(_shape(gender), free_body(gender).people, 1.72, None)


def _possible(gender: Gender, scale: float = 1.0) -> list[Possible]:
    people = free_body(gender).people
    assert people is not None
    undressed_people = [
        Possible(torch.as_tensor(mean), torch.as_tensor(spread), 1.0)
        for mean, spread in zip(people.means, people.covariances, strict=True)
    ]
    return wardrobe(_shape(gender), gender, scale).dress(undressed_people)


# --------------------------------------------------------------------- what may be worn
@pytest.mark.parametrize("gender", Gender)
def test_everything_that_may_be_worn_is_a_proper_gaussian(gender: Gender) -> None:
    possible = _possible(gender)
    assert len(possible) == len(OUTFITS) * len(sexes_of(gender))
    assert sum(each.chance for each in possible) == pytest.approx(1.0)
    for each in possible:
        assert bool((torch.linalg.eigvalsh(each.covariance) > 0).all())


def test_looser_clothes_stand_off_farther_and_vary_more() -> None:
    closet, possible = wardrobe(_shape(Gender.MALE), Gender.MALE, 1.0), _possible(Gender.MALE)
    waist = _waist(Gender.MALE)
    off, spread = {}, {}
    for each in possible:
        if each.outfit is None or len(set(each.outfit)) > 1:
            continue
        kind, _ = each.outfit
        off[kind] = float((closet.modes[waist] @ each.mean[50:]).mean())
        varies = closet.modes[waist] @ each.covariance[50:, 50:] @ closet.modes[waist].mT
        spread[kind] = float(varies.diagonal().mean().sqrt())
    assert 0.001 < off["tight"] < 0.006 < off["slim"] < off["everyday"] < off["loose"] < 0.06
    assert spread["tight"] < spread["slim"] < spread["everyday"] < spread["loose"]


def test_cloth_hangs_farther_off_a_waist_that_lies_hollow() -> None:
    """What is worn goes with who wears it: from the chest cloth falls, and passes the waist by."""
    gender = Gender.MALE
    shape, closet, waist = _shape(gender), wardrobe(_shape(gender), gender, 1.0), _waist(gender)
    everyday = next(e for e in _possible(gender) if e.outfit == ("everyday", "everyday"))
    # The beta under which the waist's vertices move in, against those of the chest.
    out = shape.template[:, [0, 2]] / shape.template[:, [0, 2]].norm(dim=1, keepdim=True)
    moves = (shape.shapedirs[:, [0, 2]] * out[..., None]).sum(dim=1)
    chest = _level(gender, "spine3")
    hollow = moves[chest].mean(dim=0) - moves[waist].mean(dim=0)
    hollow /= hollow.norm()
    by_betas = torch.linalg.solve(everyday.covariance[:50, :50], everyday.covariance[:50, 50:]).mT
    assert float((closet.modes[waist] @ by_betas @ hollow).mean()) > 5e-4, "metres a deviation"


def _level(gender: Gender, joint: str) -> torch.Tensor:
    """(V,) the trunk within 2 cm of a joint's height."""
    shape, at = _shape(gender), JOINT_INDEX[joint]
    trunk = shape.weights[:, [0, 3, 6, 9]].sum(dim=1) > 0.7
    near = (shape.template[:, 1] - shape.joint_template[at, 1]).abs() < 0.02
    return torch.nonzero(trunk & near)[:, 0]


def _waist(gender: Gender) -> torch.Tensor:
    return _level(gender, "spine1")


def test_heads_hands_and_feet_wear_no_garments() -> None:
    shape, closet = _shape(Gender.NEUTRAL), wardrobe(_shape(Gender.NEUTRAL), Gender.NEUTRAL, 1.0)
    ends = shape.weights[:, [15, 20, 21, 10, 11]].sum(dim=1) > 0.95
    assert float(closet.modes[ends].abs().max()) == 0.0
    assert float(closet.folds_m({("loose", "loose"): 1.0})[ends].max()) == 0.0


def test_twice_the_allowance_is_twice_the_cloth() -> None:
    usual, double = (_possible(Gender.FEMALE, scale)[0] for scale in (1.0, 2.0))
    torch.testing.assert_close(double.mean[50:], 2 * usual.mean[50:])
    torch.testing.assert_close(double.mean[:50], usual.mean[:50])


def test_the_crotch_is_where_thighs_look_down_and_differs_by_view() -> None:
    shape, closet = _shape(Gender.MALE), wardrobe(_shape(Gender.MALE), Gender.MALE, 1.0)
    thigh = int((shape.weights[:, 1] > 0.95).nonzero()[0, 0])
    edges = torch.full((2, 2, 2), thigh)
    normal = shape.template.new_tensor([[[1.0, 0.0], [0.0, 1.0]]]).expand(2, -1, -1)
    shown = closet.shown(edges, normal, list(ViewName))
    across, down = shown[:, 0], shown[:, 1]
    assert float(across[:, -2:].abs().max()) == 0.0
    assert float(down[:, :-2].abs().max()) < 1e-6
    np.testing.assert_allclose(down[:, -2:], np.eye(2), atol=0.1)


@pytest.mark.parametrize("worn", OUTFITS, ids=" over ".join)
def test_what_is_worn_is_found_when_the_cloth_itself_is_seen(worn: Outfit) -> None:
    prior = _prior(Gender.FEMALE)
    prior.dress(wardrobe(_shape(Gender.FEMALE), Gender.FEMALE, 1.0))
    true = next(e.mean for e in _possible(Gender.FEMALE) if e.outfit == worn)
    rows = prior.rows(prior.usual)
    seen = torch.zeros(len(true), dtype=true.dtype)
    seen[50:] = 1e6  # to a millimetre
    matrix = rows.by_shared.mT @ rows.by_shared + torch.diag(seen)
    gradient = rows.by_shared.mT @ rows.residual + seen * (prior.usual - true)
    prior.weigh(prior.usual, matrix, gradient)
    assert sum(prior.outfits.values()) == pytest.approx(1.0)
    assert prior.outfits[worn] > 0.9


def test_the_garments_come_over_to_another_body() -> None:
    """A body of other vertices, in another order, as SMPL-X is: cloth lies where it lay."""
    free = free_body(Gender.NEUTRAL)
    count = len(free.v_template)
    kept = np.append(np.random.default_rng(3).permutation(count), np.arange(10))
    place = np.empty(count, dtype=np.int64)
    place[kept[:count]] = np.arange(count)
    regressor = free.J_regressor[:, kept]
    regressor[:, count:] = 0.0
    other = replace(
        free,
        v_template=free.v_template[kept],
        shapedirs=free.shapedirs[kept],
        J_regressor=regressor,
        lbs_weights=free.lbs_weights[kept],
        keypoint_regressor=free.keypoint_regressor[:, kept],
        faces=place[free.faces],
        people=None,
    )
    shape = articulated_shape(other, 20, CPU)
    carried = Wardrobe(shape, Gender.NEUTRAL, 1.0)
    own = wardrobe(_shape(Gender.NEUTRAL), Gender.NEUTRAL, 1.0)
    covered = shape.weights[:, [20, 21]].sum(dim=1) < 0.05  # thin fingers have other neighbours
    torch.testing.assert_close(carried.modes[covered], own.modes[kept][covered])
    nobody = Possible(torch.zeros(20).double(), torch.eye(20).double(), 1.0)
    for theirs, ours in zip(carried.dress([nobody]), own.dress(_people()), strict=True):
        off = carried.modes @ theirs.mean[20:]
        expected = own.modes[kept] @ ours.mean[50:]
        assert float((off - expected).abs().mean()) < 0.002
        assert float(theirs.covariance[:20, 20:].abs().max()) == 0.0


def _people() -> list[Possible]:
    people = free_body(Gender.NEUTRAL).people
    assert people is not None
    return [
        Possible(torch.as_tensor(mean), torch.as_tensor(spread), 0.5)
        for mean, spread in zip(people.means, people.covariances, strict=True)
    ]


@pytest.mark.parametrize("wrong", [b"no archive", b"", b"PK\x03\x04cut short"])
def test_what_holds_no_garments_is_named(tmp_path: Path, wrong: bytes) -> None:
    path = tmp_path / "free_garments.npz"
    path.write_bytes(wrong)
    with pytest.raises(ModelInvalid, match="free_garments"):
        read_garments(path)


def test_garments_are_read_as_they_were_written(tmp_path: Path) -> None:
    garments = free_garments()
    write_garments(tmp_path / "again.npz", garments)
    again = read_garments(tmp_path / "again.npz")
    np.testing.assert_array_equal(again.modes, garments.modes)
    for key, cut in garments.cuts.items():
        np.testing.assert_array_equal(again.cuts[key].by_betas, cut.by_betas)
    for outfit, folds_m in garments.folds_m.items():
        np.testing.assert_array_equal(again.folds_m[outfit], folds_m)


@pytest.mark.parametrize("gender", [Gender.FEMALE, Gender.MALE])
def test_what_is_under_a_top_is_known_by_the_bottoms(gender: Gender) -> None:
    """Around the hips a tight top lies on what is worn below: leggings, or wide trousers."""
    closet, hips = wardrobe(_shape(gender), gender, 1.0), _level(gender, "left_hip")
    modes = closet.modes[hips]

    def stands_off_mm(outfit: Outfit) -> tuple[float, float]:
        worn = next(each for each in _possible(gender) if each.outfit == outfit)
        spread = torch.einsum("vm,mn,vn->v", modes, worn.covariance[50:, 50:], modes)
        return 1e3 * float((modes @ worn.mean[50:]).mean()), 1e3 * float(spread.mean().sqrt())

    middle, spread = stands_off_mm(("tight", "tight"))
    assert 2.0 < middle < 5.0
    assert spread < 2.0
    assert stands_off_mm(("tight", "loose"))[0] > 2 * middle


def test_skin_takes_hair_and_gloves_off_but_never_shoes() -> None:
    shares = torch.full((1, 1, len(REGIONS)), 1 / len(REGIONS), dtype=torch.float64)
    left = undressed(shares, torch.ones((1, 1), dtype=torch.float64))[0, 0]
    assert left[REGIONS.index("hand")] == 0
    at = REGIONS.index("shoe")  # brown shoes
    assert left[at] == shares[0, 0, at] > 0


def test_skin_takes_sleeves_off_arms_but_never_anything_off_trunk_and_legs() -> None:
    shape, closet = _shape(Gender.MALE), wardrobe(_shape(Gender.MALE), Gender.MALE, 1.0)
    assert float(closet.may_be_bare[shape.weights[:, 18] > 0.95].min()) > 0.9
    legs_and_trunk = shape.weights[:, [0, 1, 2, 3, 4, 5, 6, 9]].sum(dim=1) > 0.95
    assert float(closet.may_be_bare[legs_and_trunk].max()) < 0.06


def _outline(bare: float) -> tuple[ImageTargets, FitState, torch.Tensor]:
    """Edges down an arm, and a state in which something is worn."""
    shape, closet = _shape(Gender.MALE), wardrobe(_shape(Gender.MALE), Gender.MALE, 1.0)
    arm = torch.nonzero(shape.weights[:, 18] > 0.95)[:40, 0].numpy()
    edges = np.stack((arm, arm), axis=1)
    count = len(arm)
    matches = Matches(
        edges,
        np.full((count, 2), 400.0),
        np.tile([0.6, 0.8], (count, 1)),
        np.full(count, bare),
        np.ones(count),
    )
    like = shape.template
    state = FitState(
        torch.linspace(-0.5, 0.5, 50, dtype=like.dtype),
        torch.eye(3, dtype=like.dtype).repeat(1, 22, 1, 1),
        like.new_tensor([[0.0, 0.0, 3.0]]),
        like.new_tensor([7.0]),
        like.new_full((1, len(REGIONS)), -6.0),
        torch.linspace(0.0, 0.02, closet.modes.shape[1], dtype=like.dtype),
    )
    clothing = Clothing(skin_regions(shape), closet, closet.folds_m({}))
    targets = outline_targets(shape, [matches], state, [ViewName.FRONT], clothing)
    return targets, state, like.new_tensor([[400.0, 400.0]])


def test_bare_arms_wear_nothing() -> None:
    dressed, _, _ = _outline(0.0)
    bare, _, _ = _outline(1.0)
    assert dressed.worn is not None
    assert bare.worn is not None
    assert float(dressed.worn.abs().max()) > 0.1
    assert float(bare.worn.abs().max()) < 0.05 * float(dressed.worn.abs().max())


def test_derivatives_by_what_is_worn_are_those_of_the_residuals() -> None:
    targets, state, centre = _outline(0.0)
    targets = replace(targets, outlier=1e9)  # no robust weights: those are held still in a step
    shape = _shape(Gender.MALE)
    turned = torch.tensor(priors.FITTED_JOINTS)
    rows = targets.rows(state, state.posed(shape), centre, turned)
    ours = (2.0 * rows.by_shared.mT @ rows.residual.unsqueeze(-1))[0, 50:, 0]
    worn = state.worn.clone().requires_grad_(True)
    moved = replace(state, worn=worn)
    targets.loss(moved, moved.posed(shape), centre).backward()  # type: ignore[no-untyped-call]
    assert worn.grad is not None
    torch.testing.assert_close(ours, worn.grad, rtol=1e-6, atol=1e-6)


def test_keypoints_that_err_together_count_once(case: Case) -> None:
    """Two hips that are both too low are hardly more surprising than one."""
    seen = replace(case.observation(ViewName.FRONT), source="blazepose-full@test")
    shape = _shape(case.gender)
    keypoints = body_keypoints(shape)
    targets = keypoint_targets(keypoints, [gather(seen)], shape.template)
    assert targets.uncorrelated is not None
    low = torch.zeros((1, 23, 2), dtype=torch.float64)
    hips = [KEYPOINTS.index("left_hip"), KEYPOINTS.index("right_hip")]
    low[0, hips[0], 1] = 1.0
    one = (targets.uncorrelated[0] @ low.flatten()).square().sum()
    low[0, hips[1], 1] = 1.0
    both = (targets.uncorrelated[0] @ low.flatten()).square().sum()
    assert float(both) < 1.2 * float(one)


def test_errors_that_go_with_where_keypoints_are_do_not_go_with_where_the_person_is() -> None:
    for noise in blazepose_noise().values():
        aside = np.tile([30.0, -20.0], 23)
        np.testing.assert_allclose(noise.slope @ aside, 0.0, atol=1e-4)
        where = noise.usual.reshape(23, 2)
        marked = (noise.marking @ noise.usual).reshape(23, 2) - noise.expected_at_usual
        np.testing.assert_allclose(marked, where, atol=1e-9)
        # Who has high hips gets them marked lower than they are, and never on the other side.
        hip = 2 * KEYPOINTS.index("right_hip") + 1
        assert -1.0 < noise.slope[hip, hip] < 0.0


def test_derivatives_of_marked_keypoints_are_those_of_the_residuals(case: Case) -> None:
    seen = replace(case.observation(ViewName.SIDE), source="blazepose-full@test")
    evidence, shape = gather(seen), _shape(case.gender)
    targets = keypoint_targets(body_keypoints(shape), [evidence], shape.template)
    assert targets.marked is not None
    assert not torch.equal(targets.marked[0], torch.eye(46, dtype=torch.float64))
    targets = replace(targets, outlier=1e9)  # no robust weights: those are held still in a step
    _, state, _ = _outline(0.0)
    centre = shape.template.new_tensor([evidence.centre_px])
    turned = torch.tensor(priors.FITTED_JOINTS)
    rows = targets.rows(state, state.posed(shape), centre, turned)
    by_shared = (2.0 * rows.by_shared.mT @ rows.residual.unsqueeze(-1))[0, :50, 0]
    by_place = (2.0 * rows.by_view.mT @ rows.residual.unsqueeze(-1))[0, 3 * len(turned) :, 0]
    betas, transl = (each.clone().requires_grad_(True) for each in (state.betas, state.transl))
    moved = replace(state, betas=betas, transl=transl)
    targets.loss(moved, moved.posed(shape), centre).backward()  # type: ignore[no-untyped-call]
    assert betas.grad is not None
    assert transl.grad is not None
    torch.testing.assert_close(by_shared, betas.grad, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(by_place[:3], transl.grad[0], rtol=1e-6, atol=1e-6)


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
    noise = keypoint_noise(case.observation(ViewName.FRONT))
    assert not noise.offset.any()
    np.testing.assert_array_equal(noise.covariance, np.eye(46) * noise.covariance[0, 0])


@pytest.mark.parametrize("view", ViewName)
def test_an_observers_keypoints_err_together(case: Case, view: ViewName) -> None:
    noise = keypoint_noise(replace(case.observation(view), source="blazepose-full@test"))
    assert np.linalg.eigvalsh(noise.covariance).min() > 0
    spread = np.sqrt(np.diag(noise.covariance))
    together = noise.covariance / np.outer(spread, spread)
    left, right = (2 * KEYPOINTS.index(f"{side}_hip") + 1 for side in ("left", "right"))
    assert together[left, right] > 0.5, "both hips too low"
    assert abs(together[left, 2 * KEYPOINTS.index("nose") + 1]) < 0.5


def test_from_the_front_left_and_right_err_alike(case: Case) -> None:
    noise = keypoint_noise(replace(case.observation(ViewName.FRONT), source="blazepose-full@test"))
    both = mirrored_keypoints(noise.offset, 0)
    np.testing.assert_allclose(both, noise.offset, atol=0.05)
    spread = np.sqrt(np.diag(noise.covariance)).reshape(23, 2)
    np.testing.assert_allclose(np.abs(mirrored_keypoints(spread, 0)), spread, rtol=0.05, atol=0.1)


def test_keypoints_are_taken_to_where_the_bodys_own_lie(case: Case) -> None:
    seen = replace(case.observation(ViewName.FRONT), source="blazepose-full@test")
    evidence = gather(seen)
    lower = KEYPOINTS.index("left_knee")
    offset = keypoint_noise(seen).offset
    assert offset[lower, 1] > 5.0, "BlazePose marks knees lower than the body has them"
    np.testing.assert_allclose(
        evidence.keypoints + offset, seen.keypoints[:, :2] * evidence.scale, rtol=1e-5
    )


@pytest.mark.parametrize("content", [None, b"", b"no archive", b"PK\x03\x04cut short"])
def test_a_missing_or_broken_file_of_errors_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    path = tmp_path / "blazepose.npz"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr(definitions, "NOISE_PATH", path)
    blazepose_noise.cache_clear()
    with pytest.raises(ModelMissing if content is None else ModelInvalid, match="blazepose"):
        blazepose_noise()
    monkeypatch.undo()
    assert set(blazepose_noise()) == set(ViewName)


def test_what_is_not_seen_says_nothing_and_the_rest_is_independent(case: Case) -> None:
    seen = replace(case.observation(ViewName.SIDE), source="blazepose-full@test")
    hidden = seen.keypoints.copy()
    hidden[KEYPOINTS.index("left_hip"), 2] = 0.0
    evidence = gather(replace(seen, keypoints=hidden))
    noise = keypoint_noise(seen).covariance
    there = np.repeat(hidden[:, 2] > 0.2, 2)
    root = evidence.keypoint_root
    spread = np.sqrt(np.diag(noise))
    together = (noise / np.outer(spread, spread))[np.ix_(there, there)]
    whitened = root[np.ix_(there, there)] @ together @ root[np.ix_(there, there)].T
    np.testing.assert_allclose(whitened, np.eye(there.sum()), atol=1e-8)
    np.testing.assert_allclose(root[np.ix_(~there, there)], 0.0, atol=1e-12)
    assert not evidence.keypoint_weight[~there.reshape(23, 2)[:, 0]].any()
