"""Whoever looks into a mirror has the same measurements."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.benchmarks.cases import Case
from tests.benchmarks.consistency import GIRTHS
from worker.avatar.body.free import free_body
from worker.avatar.body.layout import JOINT_NAMES
from worker.avatar.body.model import BodyModel
from worker.avatar.fit import FitOptions, fit_body
from worker.avatar.fit.mirror import all_one_way, looks_left, mirrored, mirrored_pose
from worker.avatar.measure import Measurer
from worker.avatar.types import KEYPOINTS, InitialGuess, Observation, ViewName

CASES = Path(__file__).resolve().parents[1] / "data" / "cases"
HIDDEN = [("left", "elbow"), ("left", "wrist"), ("left", "small_toe"), ("right", "small_toe")]
OTHER = {"left": "right", "right": "left"}
BOUND_CM = 0.01
"""Both are fitted looking one way: what differs is the rounding of mirrored pixels."""


@pytest.mark.parametrize("erode_px", [0.0, 8.0], ids=["bare", "cloth unknown"])
def test_a_mirrored_observation_gives_the_same_girths(erode_px: float) -> None:
    torch.set_num_threads(1)
    case = Case(CASES / "male-00")
    body = BodyModel(free_body(case.gender), dtype=torch.float64)
    height_m = case.request["heightCm"] / 100
    measurer = Measurer(body.data)

    def girths_cm(seen: list[Observation]) -> list[float]:
        options = FitOptions(silhouette_torso_erode_px=erode_px)
        fit = fit_body(body, seen, height_m=height_m, options=options)
        vertices = body.shaped(torch.as_tensor(fit.betas)[None])[0].numpy()
        measured = measurer.measure(vertices * (height_m / np.ptp(vertices[:, 1])))
        return [measured[key] for key in GIRTHS]

    seen = [case.observation(view) for view in ViewName]
    turned = girths_cm([mirrored(each) for each in seen])
    np.testing.assert_allclose(turned, girths_cm(seen), rtol=0, atol=BOUND_CM)


def test_a_mirrored_observation_mirrored_again_is_itself() -> None:
    seen = Case(CASES / "male-00").observation(ViewName.FRONT)
    mirror = mirrored(seen)
    left, right = KEYPOINTS.index("left_wrist"), KEYPOINTS.index("right_wrist")
    assert mirror.keypoints[left, 0] == seen.intrinsics.width - seen.keypoints[right, 0]
    again = mirrored(mirror)
    np.testing.assert_allclose(again.keypoints, seen.keypoints, atol=1e-3)
    np.testing.assert_array_equal(again.mask, seen.mask)
    np.testing.assert_array_equal(again.box, seen.box)


@pytest.mark.parametrize("view", list(ViewName))
def test_an_observation_and_its_mirror_image_never_look_the_same_way(view: ViewName) -> None:
    seen = Case(CASES / "male-00").observation(view)
    assert looks_left(seen) is not looks_left(mirrored(seen))


@pytest.mark.parametrize("view", list(ViewName))
def test_what_is_not_seen_says_nothing_of_where_a_person_looks(view: ViewName) -> None:
    seen = Case(CASES / "male-00").observation(view)
    hidden = [KEYPOINTS.index(f"{side}_{name}") for side, name in HIDDEN]
    keypoints = seen.keypoints.copy()
    keypoints[hidden] = 0.0  # as observers write what they did not see
    partly = replace(seen, keypoints=keypoints)
    other = mirrored(seen).keypoints.copy()
    other[[KEYPOINTS.index(f"{OTHER[side]}_{name}") for side, name in HIDDEN]] = 0.0
    turned = replace(mirrored(seen), keypoints=other)
    assert looks_left(partly) is looks_left(seen)
    assert looks_left(turned) is looks_left(mirrored(seen))


def test_the_mirrored_pose_gives_the_mirror_image_of_the_body() -> None:
    body = BodyModel(free_body(Case(CASES / "male-00").gender), dtype=torch.float64)
    generator = np.random.default_rng(3)
    pose = np.zeros((55, 3))
    pose[:22] = generator.normal(0, 0.2, (22, 3))
    betas = torch.zeros((2, body.num_betas), dtype=torch.float64)
    poses = torch.as_tensor(np.stack([pose, mirrored_pose(pose)]))
    posed = body(betas, poses, torch.zeros((2, 3), dtype=torch.float64)).joints.numpy()
    left = [index for index, name in enumerate(JOINT_NAMES) if name.startswith("left_")]
    right = [JOINT_NAMES.index(JOINT_NAMES[index].replace("left_", "right_")) for index in left]
    # The rest of the skeleton is symmetric to half a millimetre.
    np.testing.assert_allclose(
        posed[1, right], posed[0, left] * np.array([-1.0, 1.0, 1.0]), rtol=0, atol=1e-3
    )


def test_a_view_that_is_turned_takes_its_guess_with_it() -> None:
    front = Case(CASES / "male-00").observation(ViewName.FRONT)
    away = mirrored(front) if not looks_left(front) else front
    pose = np.random.default_rng(4).normal(0, 0.2, (22, 3))
    (turned,), guess = all_one_way((away,), InitialGuess(None, {ViewName.FRONT: pose}))
    assert not looks_left(turned)
    assert guess is not None
    np.testing.assert_array_equal(guess.poses[ViewName.FRONT], mirrored_pose(pose))
    np.testing.assert_array_equal(mirrored_pose(mirrored_pose(pose)), pose)
