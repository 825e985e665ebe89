"""Girths and lengths of a body, by the definitions of ISO 8559-1, in centimetres."""

from __future__ import annotations

from worker.avatar.measure.anatomy import SkinnedBody
from worker.avatar.measure.landmarks import LANDMARKS, Landmarks, topology_digest
from worker.avatar.measure.measurer import Measurer
from worker.avatar.measure.record import MEASUREMENT_KEYS, Measurements

__all__ = [
    "LANDMARKS",
    "MEASUREMENT_KEYS",
    "Landmarks",
    "Measurements",
    "Measurer",
    "SkinnedBody",
    "topology_digest",
]
