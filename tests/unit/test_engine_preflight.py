"""Why there is no GPU to compute on, from what nvidia-smi and the installed torch say."""

from __future__ import annotations

import sys

import pytest
import torch

from worker.engine.preflight import look, torch_cuda
from worker.errors import EngineUnavailable


def says(text: str, code: int = 0) -> tuple[str, ...]:
    return (sys.executable, "-c", f"import sys; print({text!r}); sys.exit({code})")


def test_the_cuda_of_torch_is_read_without_importing_it() -> None:
    assert torch_cuda() == torch.version.cuda


def test_a_good_host_is_good() -> None:
    assert look(cuda="13.0", command=says("580.65.06, 8.9, NVIDIA GeForce RTX 4090")) is None
    # Of two GPUs one is enough.
    two = "590.10, 6.1, NVIDIA GeForce GTX 1080\n590.10, 9.0, NVIDIA H200"
    assert look(cuda="13.0", command=says(two)) is None
    assert look(cuda="12.8", command=says("550.54.15, 7.0, Tesla V100")) is None


@pytest.mark.parametrize(
    ("cuda", "command", "part"),
    [
        ("13.0", says("570.86.15, 8.9, NVIDIA L4"), "570.86.15, is too old"),
        ("13.0", says("580.65.06, 7.0, Tesla V100"), "Tesla V100 (compute capability 7)"),
        ("13.0", says(""), "no GPU"),
        ("13.0", says("No devices were found", 6), "No devices were found"),
        ("13.0", ("/no/such/nvidia-smi",), "no NVIDIA driver"),
        (None, says("580.65.06, 8.9, NVIDIA L4"), "without CUDA"),
    ],
)
def test_what_is_wrong_is_said_with_advice(
    cuda: str | None, command: tuple[str, ...], part: str
) -> None:
    trouble = look(cuda=cuda, command=command)
    assert isinstance(trouble, EngineUnavailable)
    assert part in trouble.message
    assert trouble.advice != EngineUnavailable().advice
