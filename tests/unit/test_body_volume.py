"""The tabulated volume against the sum over the faces, and its derivative against autograd."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from worker.avatar.body.articulated import ArticulatedShape, articulated_shape
from worker.avatar.body.free import free_body
from worker.avatar.body.model import BodyData
from worker.avatar.body.volume import RestVolume, rest_volume
from worker.avatar.types import KEYPOINTS, Gender


def _without_eyes(body: BodyData, ahead_m: float) -> BodyData:
    """A body with two holes where SMPL-X has its eyes, that stands ahead of its origin."""
    eyes = [KEYPOINTS.index(f"{side}_eye") for side in ("left", "right")]
    places = body.keypoint_regressor[eyes] @ body.v_template
    middles = body.v_template[body.faces].mean(axis=1)
    gone = (np.linalg.norm(middles[:, None] - places, axis=2) < 0.015).any(axis=1)
    assert gone.sum() > 100
    template = body.v_template + np.float32([0.0, 0.0, ahead_m])
    return replace(body, faces=body.faces[~gone], v_template=template)


@pytest.mark.parametrize("count", [0, 12])
def test_the_table_holds_the_volume_of_any_shape(count: int) -> None:
    shape = articulated_shape(free_body(Gender.FEMALE), count, torch.device("cpu"))
    generator = torch.Generator().manual_seed(5)
    betas = 3.0 * torch.randn(count, generator=generator, dtype=torch.float64)
    betas.requires_grad_()
    a, b, c = shape.shaped(betas)[shape.faces].unbind(dim=1)
    expected = (a * torch.linalg.cross(b, c)).sum() / 6.0
    found, by_betas = rest_volume(shape).at(betas.detach())
    torch.testing.assert_close(found, expected.detach(), rtol=1e-12, atol=0)
    if count:
        expected.backward()  # type: ignore[no-untyped-call]
        torch.testing.assert_close(by_betas, betas.grad, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("ahead_m", [0.0, 1.0, -2.0])
def test_holes_that_look_ahead_take_nothing_away_wherever_the_body_stands(ahead_m: float) -> None:
    closed, num_betas = free_body(Gender.FEMALE), 12
    open_eyed = ArticulatedShape(_without_eyes(closed, ahead_m), num_betas)
    whole = rest_volume(articulated_shape(closed, num_betas, torch.device("cpu")))
    generator = torch.Generator().manual_seed(6)
    volume = RestVolume(open_eyed)
    for _ in range(4):
        betas = 2.0 * torch.randn(num_betas, generator=generator, dtype=torch.float64)
        found, by_betas = volume.at(betas)
        expected, expected_by_betas = whole.at(betas)
        torch.testing.assert_close(found, expected, rtol=5e-4, atol=0)
        torch.testing.assert_close(by_betas, expected_by_betas, rtol=0, atol=1e-5)
