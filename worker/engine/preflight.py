"""Is there a GPU that torch can compute on?  Told within seconds of the start, without torch.

A host with an old driver, or none, costs as much as a good one while the work falls to the CPU or
waits; and torch itself says only that it "sees no CUDA device".  So nvidia-smi is asked for the
driver and the GPUs, and the installed torch for the CUDA that it was built for.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from worker.errors import EngineUnavailable

QUERY: Final = (
    "nvidia-smi",
    "--query-gpu=driver_version,compute_cap,name",
    "--format=csv,noheader",
)
QUERY_TIMEOUT_S: Final = 10.0
NEEDS: Final[dict[int, tuple[int, float]]] = {12: (525, 5.0), 13: (580, 7.5)}
"""CUDA's major version: oldest driver and oldest compute capability that it works with (CUDA
Toolkit release notes, "CUDA Toolkit and Minimum Required NVIDIA Driver Version"; CUDA 13 dropped
Maxwell, Pascal and Volta)."""

_OTHER_HOST: Final = (
    "Choose a host with a newer driver: on RunPod create the pod with allowedCudaVersions "
    "(docs/howto/runpod.md)."
)


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, as nvidia-smi tells of it."""

    driver: str
    """`580.65.06`"""
    capability: float
    """Compute capability, `8.9`."""
    name: str


def look(*, cuda: str | None, command: Sequence[str] = QUERY) -> EngineUnavailable | None:
    """Say why torch will find no GPU here; None when it should.

    Args:
        cuda: what torch was built for, as `torch_cuda` tells it.
        command: asks for the GPUs; tests give their own.
    """
    if cuda is None:
        return EngineUnavailable(
            "The installed torch is built without CUDA.",
            advice="Use the image with CUDA (TORCH_VARIANT=cu130), or set WORKER_DEVICE=cpu.",
        )
    gpus = _ask(command)
    if isinstance(gpus, EngineUnavailable):
        return gpus
    if not gpus:
        return EngineUnavailable(
            "The driver shows no GPU to this container.",
            advice="Give it one (docker: --gpus all), or set WORKER_DEVICE=cpu.",
        )
    return _compare(gpus, cuda)


def torch_cuda() -> str | None:
    """Return the version of CUDA that the installed torch was built for, without importing it."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return None
    text = Path(found.origin).with_name("version.py").read_text(encoding="utf-8")
    stated = re.search(r"^cuda\b[^=\n]*=\s*['\"]([\d.]+)['\"]", text, flags=re.MULTILINE)
    return stated[1] if stated else None


def _ask(command: Sequence[str]) -> list[Gpu] | EngineUnavailable:
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command, looked up in PATH on purpose
            command, capture_output=True, text=True, timeout=QUERY_TIMEOUT_S, check=False
        )
    except FileNotFoundError:
        return EngineUnavailable(
            "There is no NVIDIA driver in this container: nvidia-smi is not there.",
            advice="Run it on a GPU host with the NVIDIA container runtime, or set "
            "WORKER_DEVICE=cpu.",
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return EngineUnavailable(f"nvidia-smi did not answer: {error}", advice=_OTHER_HOST)
    if done.returncode != 0:
        said = (done.stdout or done.stderr).strip().splitlines()
        return EngineUnavailable(
            f"nvidia-smi failed: {said[0] if said else done.returncode}", advice=_OTHER_HOST
        )
    return [gpu for line in done.stdout.splitlines() if (gpu := _read(line))]


def _read(line: str) -> Gpu | None:
    parts = [part.strip() for part in line.split(",", 2)]
    if len(parts) != 3 or not re.fullmatch(r"\d+\.\d+", parts[1]):
        return None
    return Gpu(parts[0], float(parts[1]), parts[2])


def _compare(gpus: Sequence[Gpu], cuda: str) -> EngineUnavailable | None:
    needs = NEEDS.get(int(cuda.partition(".")[0]))
    if needs is None:
        return None  # nothing is known of it: torch has the last word
    driver, capability = needs
    number = gpus[0].driver.partition(".")[0]
    if number.isdigit() and int(number) < driver:
        return EngineUnavailable(
            f"The driver of this host, {gpus[0].driver}, is too old: torch's CUDA {cuda} needs "
            f"{driver} or newer.",
            advice=_OTHER_HOST,
        )
    if all(gpu.capability < capability for gpu in gpus):
        return EngineUnavailable(
            f"{gpus[0].name} (compute capability {gpus[0].capability:g}) is too old: torch's "
            f"CUDA {cuda} needs {capability:g} or newer.",
            advice="Choose another GPU.",
        )
    return None
