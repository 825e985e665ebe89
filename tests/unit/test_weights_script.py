"""A TorchScript's constants are where it runs: `.to` would leave them behind."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch

from worker.avatar.weights import WeightsFile, read_script

if TYPE_CHECKING:
    from pathlib import Path


class WithConstant(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.tensor([1.0, 2.0, 3.0])


def test_constants_are_read_onto_the_device(tmp_path: Path) -> None:
    path = tmp_path / "script.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would rather have another format
        traced = torch.jit.trace(WithConstant(), torch.zeros(3))  # type: ignore[no-untyped-call] # torch has no type for it
        torch.jit.save(traced, path)
    script, _ = read_script(WeightsFile("a script", path), torch.device("meta"))
    constants = script.code_with_constants[1].const_mapping
    assert {value.device.type for value in constants.values()} == {"meta"}
