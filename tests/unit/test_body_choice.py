"""Which body is fitted when SMPLX_MODEL_DIR holds only a part of what it should."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from worker.avatar.body.choice import load_bodies
from worker.avatar.checkup import checks
from worker.avatar.config import PipelineConfig
from worker.doctor import examine
from worker.errors import ModelMissing

if TYPE_CHECKING:
    from pathlib import Path


def test_a_gendered_smplx_without_the_neutral_one_is_no_silent_free_body(tmp_path: Path) -> None:
    (tmp_path / "SMPLX_FEMALE.npz").touch()
    with pytest.raises(ModelMissing, match=r"SMPLX_NEUTRAL\.npz is missing, beside SMPLX_FEMALE"):
        load_bodies(tmp_path, torch.device("cpu"))
    look = dict(checks(PipelineConfig(smplx_dir=str(tmp_path))))["body"]
    assert not examine("body", look).good


def test_a_check_that_breaks_is_a_finding() -> None:
    def broken() -> str:
        raise PermissionError(13, "Permission denied", "/models")

    found = examine("body", broken)
    assert (found.good, "PermissionError" in found.detail) == (False, True)
