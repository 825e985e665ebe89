"""What the measurer returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from worker.avatar.types import Float64Array

MEASUREMENT_KEYS: tuple[str, ...] = (
    "chestCm",
    "waistCm",
    "hipCm",
    "shoulderCm",
    "sleeveCm",
    "lengthCm",
    "neckCm",
    "bicepCm",
    "forearmCm",
    "wristCm",
    "thighCm",
    "calfCm",
    "ankleCm",
    "insideLegCm",
    "shoulderBreadthCm",
    "heightCm",
)
"""The names of the contract with the API, in its order."""


class Measurements(Mapping[str, float]):
    """The contract's measurements in centimetres, and where on the body each was taken.

    A read-only mapping from `MEASUREMENT_KEYS`, in that order, to centimetres.

    Attributes:
        curves: by the same keys, the (N, 3) polyline in metres that was measured, for
            pictures.  The first point of a girth is repeated at its end.
    """

    __slots__ = ("_values_cm", "curves")

    def __init__(self, values_cm: Mapping[str, float], curves: Mapping[str, Float64Array]) -> None:
        self._values_cm = {key: float(values_cm[key]) for key in MEASUREMENT_KEYS}
        self.curves: Mapping[str, Float64Array] = MappingProxyType(
            {key: curves[key] for key in MEASUREMENT_KEYS}
        )

    def __getitem__(self, key: str) -> float:
        return self._values_cm[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values_cm)

    def __len__(self) -> int:
        return len(self._values_cm)

    def __repr__(self) -> str:
        return f"Measurements({', '.join(f'{k}={v:.1f}' for k, v in self._values_cm.items())})"
