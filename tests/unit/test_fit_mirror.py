"""Whoever looks into a mirror has the same measurements."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.benchmarks.cases import Case
from tests.benchmarks.consistency import GIRTHS, mirror_observation
from worker.avatar.body.free import free_body
from worker.avatar.body.model import BodyModel
from worker.avatar.fit import FitOptions, fit_body
from worker.avatar.measure import Measurer
from worker.avatar.types import Observation, ViewName

CASES = Path(__file__).resolve().parents[1] / "data" / "cases"
BOUND_CM = 0.6
"""Two steps of chance in matching; a side taken for the other moves girths by centimetres."""


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
    mirrored = girths_cm([mirror_observation(each) for each in seen])
    np.testing.assert_allclose(mirrored, girths_cm(seen), rtol=0, atol=BOUND_CM)
