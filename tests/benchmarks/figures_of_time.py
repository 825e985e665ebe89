"""How long things take beside each other on a machine that others use, too."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping

import torch


def in_turns(
    actions: Mapping[str, Callable[[], object]], rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Do each action once a round, after one round that does not count.

    What slows the machine for a while slows all of them, so that ratios within a round hold where
    times do not.

    Args:
        actions: by name.
        rounds: how many count.
        device: is waited for before the clock is read.

    Returns:
        Wall seconds of each action, a round each.
    """
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(rounds + 1):
        for name, action in actions.items():
            started = time.perf_counter()
            action()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if number > 0:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def load_average() -> float:
    """How many processes wanted to run during the last minute; of this machine."""
    return round(os.getloadavg()[0], 2)
