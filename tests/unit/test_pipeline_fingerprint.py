"""Work that was kept is used by nobody whose maps, estimators or vendors' code are others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from worker.avatar import loaded
from worker.avatar.body.choice import load_bodies
from worker.avatar.config import PipelineConfig
from worker.avatar.estimate.load import EstimatorConfig


def test_the_maps_and_the_estimators_switches_are_part_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu = torch.device("cpu")
    bodies = load_bodies(None, cpu)
    observer: Any = None

    def key(*, use_mask: bool = True) -> str:
        estimators = EstimatorConfig(sam3d_use_mask=use_mask)
        config = PipelineConfig(estimators=estimators)
        return loaded.LoadedModels(cpu, observer, bodies).fingerprint(config)

    first = key()
    assert key() == first
    assert key(use_mask=False) != first
    monkeypatch.setattr(loaded, "mhr_digest", lambda: "other maps")
    assert key() != first


def test_every_file_of_vendors_code_that_is_run_is_part_of_it(tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    bodies = load_bodies(None, cpu)
    observer: Any = None
    code = (
        tmp_path / "sam-3d-body" / "sam_3d_body" / "head.py",
        tmp_path / "dinov3" / "dinov3" / "hub" / "backbones.py",
        tmp_path / "PIXIE" / "pixielib" / "pixie.py",
    )
    weights = tmp_path / "PIXIE" / "data" / "pixie_model.tar"
    for path in (*code, weights):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a")

    def key(*, sam3d: bool = True) -> str:
        estimators = EstimatorConfig(
            pixie_dir=str(tmp_path / "PIXIE"),
            sam3d_enabled=sam3d,
            sam3d_repo_dir=str(tmp_path / "sam-3d-body"),
        )
        config = PipelineConfig(estimators=estimators)
        return loaded.LoadedModels(cpu, observer, bodies).fingerprint(config)

    keys = [key(), key(sam3d=False)]
    for path in code:
        path.write_text("b")
        keys.append(key())
    assert len(set(keys)) == len(keys)
    weights.write_text("b")  # a loaded estimator tells the digests of its weights itself
    assert key() == keys[-1]
