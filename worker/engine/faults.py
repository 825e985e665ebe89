"""What a failed job means: which of our errors it is, and whether the process can go on.

Torch's errors are known by name and text, so that this can be read and tested without torch.
"""

from __future__ import annotations

import re
import traceback
from typing import Final

from worker.errors import AvatarError, EngineError, GpuLost, OutOfMemory

_OUT_OF_MEMORY: Final = re.compile(
    r"CUDA out of memory|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED"
    r"|CUDNN_STATUS_ALLOC_FAILED|DefaultCPUAllocator: can't allocate memory"
)
"""Besides `MemoryError` and `torch.OutOfMemoryError`: what cuBLAS, cuDNN and torch's allocator of
host memory raise as a plain `RuntimeError`."""

_LOST: Final = re.compile(
    r"CUDA error: |CUDA driver error: |device-side assert|illegal memory access"
    r"|unspecified launch failure|uncorrectable ECC error|CUDNN_STATUS_EXECUTION_FAILED"
    r"|CUDNN_STATUS_INTERNAL_ERROR"
)
"""Every CUDA error but the lack of memory is taken for one that sticks to the context.  Some do
not (an invalid argument), but which ones is not said by the message, and a start costs seconds."""


def name(error: Exception) -> tuple[AvatarError, bool]:
    """Give any error one of our names, and say whether this process must end.

    The traceback goes to the log through stderr.
    """
    if isinstance(error, AvatarError):
        return error, False
    traceback.print_exception(error)
    kind, text = type(error).__name__, str(error)
    if isinstance(error, MemoryError) or kind == "OutOfMemoryError" or _OUT_OF_MEMORY.search(text):
        return OutOfMemory(f"{kind}: {_first_line(text) or 'no memory is left.'}"), False
    if kind == "AcceleratorError" or _LOST.search(text):
        return GpuLost(f"{kind}: {_first_line(text)}"), True
    return EngineError(f"{kind}: {text}"), False


def _first_line(text: str) -> str:
    """Leave out the lines in which torch explains how to debug kernels."""
    return text.strip().splitlines()[0] if text.strip() else ""
