"""The ways in which a case is fitted: which photos, and what is told of the person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from worker.avatar.types import ViewName


@dataclass(frozen=True)
class Setup:
    """One way to be fitted."""

    name: str
    views: tuple[ViewName, ...]
    weight: bool = False
    neutral: bool = False
    """The gender is not told."""
    outlines: bool = True
    """False: keypoints alone."""


_FRONT, _BOTH = (ViewName.FRONT,), (ViewName.FRONT, ViewName.SIDE)

SETUPS: Final = (
    Setup("front+side+weight", _BOTH, weight=True),
    Setup("front+side", _BOTH),
    Setup("front+weight", _FRONT, weight=True),
    Setup("front", _FRONT),
    Setup("front+side/neutral", _BOTH, neutral=True),
    Setup("front/neutral", _FRONT, neutral=True),
    Setup("front/keypoints", _FRONT, outlines=False),
)

TARGETS_CM: Final = {
    "front+side+weight/tight": 1.0,
    "front+side+weight/everyday": 1.8,
    "front+side/everyday": 2.3,
    "front+weight/everyday": 2.3,
    "front+side/neutral/everyday": 2.5,
    "front/neutral/everyday": 3.0,
}
"""Mean absolute error over chest, waist and hip to reach; each may be 1.3 times that."""
INSEAM_TARGET_CM: Final = 0.9
EXCESS: Final = 1.3
GIRTHS: Final = ("chest", "waist", "hip")
INSEAM: Final = "inseam"

_SHORT = {"insideLegCm": INSEAM}


def short(name: str) -> str:
    """A measurement of the contract in the bench's words: chest, waist, hip, inseam, …"""
    return _SHORT.get(name, name.removesuffix("Cm"))
