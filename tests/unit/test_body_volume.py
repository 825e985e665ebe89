"""The tabulated volume against the sum over the faces, and its derivative against autograd."""

from __future__ import annotations

import pytest
import torch

from worker.avatar.body.articulated import articulated_shape
from worker.avatar.body.free import free_body
from worker.avatar.body.volume import rest_volume
from worker.avatar.types import Gender


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
