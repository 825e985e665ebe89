"""Which body is fitted, by gender: the operator's SMPL-X where it lies, else the free one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from worker.avatar.body.free import display_topology, free_body
from worker.avatar.body.mhr import SurfaceMap, mhr_to_free, mhr_to_smplx, smplx_display
from worker.avatar.body.model import BodyModel, DisplayMesh
from worker.avatar.body.smplx import NUM_BETAS, load_smplx, smplx_genders, smplx_landmarks
from worker.avatar.measure import Measurer
from worker.avatar.types import Gender


@dataclass(frozen=True, slots=True, eq=False)
class FittedBody:
    """A body, ready to be fitted, measured and shown."""

    model: BodyModel
    measurer: Measurer
    display: DisplayMesh
    from_mhr: SurfaceMap
    """How SAM 3D Body's people come over to it."""
    is_smplx: bool
    """Whether its vertices are SMPL-X's; else the free body's."""


def load_bodies(smplx_dir: Path | None, device: torch.device) -> dict[Gender, FittedBody]:
    """Load a body for each gender.

    Args:
        smplx_dir: SMPLX_MODEL_DIR; where it holds SMPLX_NEUTRAL.npz, bodies are SMPL-X's, and a
            gender that it lacks is fitted on the neutral one.
        device: where they compute, in float64.

    Raises:
        ModelMissing: a gender's SMPL-X is there, and the neutral one is not.
        ModelInvalid: a file is not what it should be; it is named.
    """
    there = smplx_genders(smplx_dir)
    if smplx_dir is None or not there:
        return {gender: _free(gender, device) for gender in Gender}
    neutral = _smplx(smplx_dir, Gender.NEUTRAL, device)
    return {
        gender: _smplx(smplx_dir, gender, device)
        if gender is not Gender.NEUTRAL and gender in there
        else neutral
        for gender in Gender
    }


def _free(gender: Gender, device: torch.device) -> FittedBody:
    data = free_body(gender)
    model = BodyModel(data, dtype=torch.float64).to(device)
    return FittedBody(model, Measurer(data), display_topology(), mhr_to_free(), is_smplx=False)


def _smplx(folder: Path, gender: Gender, device: torch.device) -> FittedBody:
    data = load_smplx(folder, gender)
    betas = min(NUM_BETAS, data.shapedirs.shape[2])
    model = BodyModel(data, num_betas=betas, dtype=torch.float64).to(device)
    measurer = Measurer(data, smplx_landmarks())
    return FittedBody(model, measurer, smplx_display(), mhr_to_smplx(), is_smplx=True)
