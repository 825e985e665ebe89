"""What `avatar-worker bench speed` and `bench consistency` measure, on a committed person."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.benchmarks import consistency
from tests.benchmarks.adam import Adam, in_place_of_the_solver
from tests.benchmarks.cases import Case
from tests.benchmarks.consistency import Difference, document
from tests.benchmarks.speed import STAGES, Fits, stages
from worker.avatar.fit.solver import Solver

CASES = Path(__file__).resolve().parents[1] / "data" / "cases"


@pytest.fixture(scope="module")
def fits() -> Fits:
    torch.set_num_threads(1)
    return Fits([Case(CASES / "male-00")])


def test_adam_takes_the_solver_s_place_and_gives_it_back(fits: Fits) -> None:
    own, case = Solver.improve, fits.cases[0]
    expected = fits.fit(case)
    with in_place_of_the_solver(Adam(rate=0.02, steps=24)) as watch:
        assert Solver.improve is not own
        assert torch.is_inference_mode_enabled() is False
        found = fits.fit(case)
    assert Solver.improve is own
    assert watch.steps == 24
    assert not np.allclose(found.betas, expected.betas)
    assert min(view.iou for view in found.views) > 0.8
    np.testing.assert_array_equal(fits.fit(case).betas, expected.betas)


def test_every_stage_of_a_fit_is_found_in_its_profile(fits: Fits) -> None:
    shares = stages(fits)
    assert set(shares) == set(STAGES)
    assert all(0 < share < 1 for share in shares.values())


@pytest.mark.parametrize("check", consistency.CHECKS, ids=lambda check: check.name)
def test_a_change_keeps_a_picture_a_picture(check: consistency.Check) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (120, 80, 3), dtype=np.uint8)
    assert check.change is not None
    changed = check.change(pixels)
    assert changed.dtype == np.uint8
    assert changed.ndim == 3
    assert changed.flags.c_contiguous
    assert not np.array_equal(changed, pixels)


def test_what_exceeds_its_bound_is_not_counted_as_within() -> None:
    keys = (*consistency.GIRTHS, "insideLegCm")
    small, large = (dict.fromkeys(keys, size) for size in (0.2, -0.4))
    report = document(
        [
            Difference("a", "mirrored", small),
            Difference("b", "mirrored", large),
            Difference("c", "mirrored", {}, "NO_PERSON"),
        ],
        Path("set"),
    )
    mirrored = report["checks"]["mirrored"]
    assert (mirrored["within"], mirrored["n"], mirrored["refused"]) == (1, 2, ["NO_PERSON"])
    assert mirrored["changeCm"]["chestCm"] == {"median": 0.3, "p90": 0.38, "max": 0.4, "mean": -0.1}
