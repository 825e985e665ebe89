"""A profile is started the way it looks, or both ways where that is hidden."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.benchmarks.cases import Case
from worker.avatar.body.articulated import articulated_shape
from worker.avatar.body.free import free_body
from worker.avatar.body.jacobian import body_keypoints
from worker.avatar.fit.evidence import gather
from worker.avatar.fit.mirror import mirrored
from worker.avatar.fit.people import ShapePrior
from worker.avatar.fit.start import find_start
from worker.avatar.types import KEYPOINTS, ViewName

CASES = Path(__file__).resolve().parents[1] / "data" / "cases"
TELLING = ("nose", "eye", "ear", "toe", "heel")
"""What says which way a profile looks."""


@pytest.mark.parametrize("hidden", [False, True], ids=["plain", "face and feet hidden"])
@pytest.mark.parametrize("left", [False, True], ids=["looks right", "looks left"])
def test_a_profile_starts_the_way_it_looks(*, left: bool, hidden: bool) -> None:
    torch.set_num_threads(1)
    case = Case(CASES / "male-00")
    seen = case.observation(ViewName.SIDE)
    if left:
        seen = mirrored(seen)
    if hidden:
        keypoints = seen.keypoints.copy()
        keypoints[[name.endswith(TELLING) for name in KEYPOINTS]] = 0.0
        seen = replace(seen, keypoints=keypoints)
    body = free_body(case.gender)
    shape = articulated_shape(body, 50, torch.device("cpu"))
    prior = ShapePrior(shape, body.people, case.request["heightCm"] / 100, None)
    state, _ = find_start(shape, body_keypoints(shape), gather(seen), prior)
    looks_x = float(state.local[0, 0, 0, 2])  # the pelvis's own forward, +z, in the camera's frame
    assert looks_x == pytest.approx(-1.0 if left else 1.0, abs=0.1)
