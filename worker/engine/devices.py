"""Which GPUs there are and which of them we use, found without torch: the parent never imports it.

`nvidia-smi -L` is asked, which comes with the driver in every container that may use a GPU
(NVIDIA_DRIVER_CAPABILITIES=utility).  Each child gets one GPU through CUDA_VISIBLE_DEVICES, by its
UUID: CUDA orders GPUs by speed and nvidia-smi by slot, so their numbers may differ.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

from worker.errors import SettingsError
from worker.observability.logs import get_logger

log = get_logger("worker.engine")

VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
LIST_COMMAND: Final = ("nvidia-smi", "-L")
LIST_TIMEOUT_S: Final = 20.0
"""It loads the driver when nothing else has, which takes seconds."""

_LINE: Final = re.compile(
    r"^(?P<part>[ \t]*)(?:GPU|MIG)\b.*\(UUID: (?P<uuid>[^)\s]+)\)[ \t]*$", re.MULTILINE
)


def list_gpus(command: Sequence[str] = LIST_COMMAND) -> tuple[str, ...]:
    """Return the UUIDs of all GPUs, in nvidia-smi's order; none when there is no driver.

    A GPU that is divided (MIG) counts as its parts: CUDA computes on those alone.
    """
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command, looked up in PATH on purpose
            command, capture_output=True, text=True, timeout=LIST_TIMEOUT_S, check=False
        )
    except FileNotFoundError:
        return ()
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("gpu.list_failed", why=str(error))
        return ()
    if done.returncode != 0:
        log.warning("gpu.list_failed", why=(done.stderr or done.stdout).strip()[:500])
        return ()
    return parse_list(done.stdout)


def parse_list(text: str) -> tuple[str, ...]:
    """Read the output of `nvidia-smi -L`, in which a GPU's parts follow it, indented."""
    found: list[str] = []
    whole: str | None = None
    for line in _LINE.finditer(text):
        if not line["part"]:
            whole = line["uuid"]
            found.append(whole)
        else:
            if whole in found:
                found.remove(whole)
            found.append(line["uuid"])
    return tuple(found)


def child_environments(
    base: Mapping[str, str],
    device: str,
    gpus: str,
    *,
    found: Sequence[str] | None = None,
) -> list[dict[str, str]]:
    """Return one environment for each child: one child per GPU, one in all without GPUs.

    Args:
        base: what all of them get.  A CUDA_VISIBLE_DEVICES in it is respected: it says which GPUs
            there are, and `gpus` counts in it, as it does for every CUDA program.
        device: WORKER_DEVICE: auto, cuda or cpu.
        gpus: WORKER_GPUS: all, or numbers such as 0,1.
        found: the GPUs' UUIDs; None: ask nvidia-smi.

    Raises:
        SettingsError: WORKER_GPUS names a GPU that is not there.
    """
    if device == "cpu":
        return [dict(base) | {VISIBLE: ""}]
    there = tuple(list_gpus() if found is None else found)
    if VISIBLE in base:
        there = _visible(base[VISIBLE], there)
    if gpus != "all":
        there = _chosen(gpus, there, device)
    if not there:
        # Torch has the last word: with WORKER_DEVICE=cuda it refuses by name, with auto the CPU
        # computes.
        return [dict(base)]
    return [dict(base) | {VISIBLE: gpu} for gpu in there]


def _visible(listed: str, there: Sequence[str]) -> tuple[str, ...]:
    """Return what CUDA would see: the list up to its first entry that is no GPU.

    (CUDA C++ Programming Guide, "CUDA Environment Variables".)  Numbers stay numbers, since only
    CUDA knows the order in which it counts.
    """
    seen: list[str] = []
    for entry in (word.strip() for word in listed.split(",")):
        is_number = entry.isdecimal()
        if is_number and int(entry) >= len(there):
            break
        if not is_number and not (entry and any(uuid.startswith(entry) for uuid in there)):
            break
        seen.append(entry)
    return tuple(seen)


def _chosen(gpus: str, there: Sequence[str], device: str) -> tuple[str, ...]:
    numbers = [int(word) for word in gpus.split(",")]
    if len(set(numbers)) < len(numbers):
        raise SettingsError(f"WORKER_GPUS={gpus} names a GPU twice.")
    if not there and device == "auto":
        return ()
    if missing := [number for number in numbers if number >= len(there)]:
        raise SettingsError(
            f"WORKER_GPUS={gpus} names GPU {missing[0]}, but there are {len(there)}.",
            advice="Run `nvidia-smi -L` in the container to see the GPUs, and correct WORKER_GPUS.",
        )
    return tuple(there[number] for number in numbers)
