"""Work that was kept is used by nobody whose maps or estimators are others."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from worker.avatar import pipeline
from worker.avatar.body.choice import load_bodies
from worker.avatar.estimate.load import EstimatorConfig


def test_the_maps_and_the_estimators_switches_are_part_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu = torch.device("cpu")
    bodies = load_bodies(None, cpu)
    observer: Any = None

    def key(*, use_mask: bool = True) -> str:
        estimators = EstimatorConfig(sam3d_use_mask=use_mask)
        config = pipeline.PipelineConfig(estimators=estimators)
        return pipeline.Pipeline(config, cpu, observer, bodies).fingerprint

    first = key()
    assert key() == first
    assert key(use_mask=False) != first
    monkeypatch.setattr(pipeline, "mhr_digest", lambda: "other maps")
    assert key() != first
