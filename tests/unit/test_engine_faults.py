"""What torch's errors mean for the job and for the process."""

from __future__ import annotations

import pytest

from worker.engine import faults
from worker.errors import EngineError, GpuLost, NoPerson, OutOfMemory

# Torch's classes, by their names; the texts are those of torch 2.13 and CUDA 13.
AcceleratorError = type("AcceleratorError", (RuntimeError,), {})
TorchOutOfMemoryError = type("OutOfMemoryError", (RuntimeError,), {})

OUT_OF_MEMORY = [
    MemoryError(),
    TorchOutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has…"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be asynchronous"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate "
        "memory: you tried to allocate 80000000000 bytes. Error code 12 (Cannot allocate memory)"
    ),
]
LOST = [
    AcceleratorError("CUDA error: an illegal memory access was encountered\nSearch for …"),
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("CUDA error: uncorrectable ECC error encountered"),
    RuntimeError("CUDA error: unspecified launch failure"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(…)`"),
]
OTHERS = [
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (3x4 and 5x6)"),
    ValueError(""),
    RuntimeError("Expected all tensors to be on the same device, but found cuda:0 and cpu!"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: str(error)[:40])
def test_lack_of_memory_is_known_in_all_its_forms(error: Exception) -> None:
    named, leaving = faults.name(error)
    assert isinstance(named, OutOfMemory)
    assert not leaving


@pytest.mark.parametrize("error", LOST, ids=lambda error: str(error)[:40])
def test_after_a_cuda_error_the_process_must_go(error: Exception) -> None:
    named, leaving = faults.name(error)
    assert isinstance(named, GpuLost)
    assert leaving
    assert "\n" not in named.message


@pytest.mark.parametrize("error", OTHERS, ids=lambda error: str(error)[:40])
def test_other_errors_cost_the_job_only(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    named, leaving = faults.name(error)
    assert type(named) is EngineError
    assert not leaving
    assert type(error).__name__ in capsys.readouterr().err  # the trace is for the log


def test_our_own_errors_stay_what_they_are() -> None:
    error = NoPerson()
    assert faults.name(error) == (error, False)


def test_torchs_names_are_what_we_look_for() -> None:
    torch = pytest.importorskip("torch")
    assert torch.OutOfMemoryError.__name__ == "OutOfMemoryError"
    assert torch.AcceleratorError.__name__ == "AcceleratorError"
    assert issubclass(torch.AcceleratorError, RuntimeError)


def test_torchs_own_allocator_says_what_we_look_for() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert isinstance(faults.name(caught.value)[0], OutOfMemory)
