"""How long a child may be silent or busy, and when it is replaced though it works."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Self

from worker.engine.messages import HEARTBEAT_INTERVAL_S

STAGE_SHARES: Final[Mapping[str, float]] = MappingProxyType(
    {"photo": 0.25, "observe": 0.4, "fit": 0.7, "measure": 0.25, "export": 0.4}
)
"""The most of PROCESSING_TIMEOUT that one stage may take.  They add up to more than 1 on purpose:
each is many times what the stage needs, so that only a stage that hangs is cut short, and a hung
decoder is noticed after a minute instead of five."""

SHORTEST_STAGE_S: Final = 30.0
"""No stage gets less, unless the whole job does: the shares are meant for minutes."""

GIB: Final = 1024**3


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """Limits of one child process; times in seconds, memory in bytes."""

    setup_timeout_s: float = 300.0
    """Longest time for loading the models."""
    setup_retry_s: tuple[float, ...] = (5.0, 15.0, 60.0)
    """Pauses after failed attempts at loading the models, and after jobs that were lost one after
    another; the last one repeats."""
    heartbeat_timeout_s: float = 30.0
    """Silence after which the child is killed.  Not while it loads: importing a CUDA library from
    a slow volume holds the interpreter for tens of seconds, and the set-up has its own limit."""
    stage_timeout_s: Mapping[str, float] = field(default_factory=dict)
    """Longest time in one stage, by the stage's name; a stage that is not named has none."""
    jobs_per_child: int = 500
    """A child that has done so many jobs is replaced, before leaks that nobody found matter."""
    rss_growth_bytes: int = 2 * GIB
    """A child whose resident memory has grown by more since its first avatar is replaced."""
    cuda_growth_bytes: int = 8 * GIB
    """The same for the CUDA memory that torch reserves."""

    def __post_init__(self) -> None:
        if self.heartbeat_timeout_s < 2 * HEARTBEAT_INTERVAL_S:
            raise ValueError(
                f"heartbeat_timeout_s must be at least {2 * HEARTBEAT_INTERVAL_S:g}: "
                f"a beat comes every {HEARTBEAT_INTERVAL_S:g} s"
            )
        if not self.setup_retry_s or self.jobs_per_child < 1:
            raise ValueError("setup_retry_s needs a pause, jobs_per_child at least 1")

    @classmethod
    def for_jobs_of(cls, timeout_s: float) -> Self:
        """Derive the stages' limits from PROCESSING_TIMEOUT, in seconds."""
        least_s = min(SHORTEST_STAGE_S, timeout_s)
        return cls(
            stage_timeout_s={
                stage: max(share * timeout_s, least_s) for stage, share in STAGE_SHARES.items()
            }
        )
