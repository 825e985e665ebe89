"""The GPU's memory: is there enough for what is enabled, and what did each part take?"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import torch

from worker.errors import OutOfMemory

HEADROOM_BYTES: Final = 2 << 30
"""For activations, CUDA's own context and the fit.  Assumed: no GPU was there to measure it on."""
MB: Final = 1e6

log = logging.getLogger(__name__)


class DeviceMemory:
    """What models take on a device; on the CPU there is nothing to say.

    Attributes:
        taken: bytes by name, of what was loaded.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.taken: dict[str, int] = {}

    def require(self, files: Sequence[Path]) -> None:
        """Refuse to start where these files' weights will not fit.

        Raises:
            OutOfMemory: the free memory is less than the files' sizes and `HEADROOM_BYTES`.
        """
        weights = sum(path.stat().st_size for path in files if path.is_file())
        free = self._free_bytes()
        if not weights or free is None or free >= weights + HEADROOM_BYTES:
            return
        raise OutOfMemory(
            f"{free / MB:,.0f} MB of the GPU's memory are free; the enabled models need "
            f"{(weights + HEADROOM_BYTES) / MB:,.0f} MB.",
            advice="Free the GPU, take a larger one, or enable fewer models.",
        )

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Log what is allocated inside."""
        before = self._allocated_bytes()
        yield
        self.taken[name] = self._allocated_bytes() - before
        if self._device.type == "cuda":
            log.info("%s take %.0f MB of %s", name, self.taken[name] / MB, self._device)

    def _free_bytes(self) -> int | None:
        """None where there is no such number."""
        if self._device.type != "cuda":
            return None
        return int(torch.cuda.mem_get_info(self._device)[0])

    def _allocated_bytes(self) -> int:
        if self._device.type != "cuda":
            return 0
        return int(torch.cuda.memory_allocated(self._device))
