"""All cells of the matrix, family by family; a module each."""

from __future__ import annotations

from typing import Final

from tests.faults.cells import (
    api_outage,
    cancelled,
    clock,
    disk_full,
    engine_death,
    redis_outage,
    stall,
    storage_outage,
    two_workers,
    worker_death,
)
from tests.faults.matrix import Cell

ALL: Final[tuple[Cell, ...]] = (
    *worker_death.CELLS,
    *engine_death.CELLS,
    *redis_outage.CELLS,
    *storage_outage.CELLS,
    *api_outage.CELLS,
    *disk_full.CELLS,
    *two_workers.CELLS,
    *stall.CELLS,
    *clock.CELLS,
    *cancelled.CELLS,
)
