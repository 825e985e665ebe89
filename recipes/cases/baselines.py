"""What one would guess without a photo: linear regression on height, or height and weight.

A fit that does not beat these has not looked at the photo.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recipes.cases.subject import Subject
from worker.avatar.types import Float64Array


@dataclass(frozen=True, slots=True)
class Baseline:
    """Least squares of every measurement on the same few features."""

    with_weight: bool
    keys: tuple[str, ...]
    coefficients: Float64Array
    """(features, keys)."""

    @classmethod
    def fitted(cls, subjects: Sequence[Subject], *, with_weight: bool) -> Baseline:
        """Fit on `subjects` of one gender."""
        keys = tuple(sorted(subjects[0].measurements_cm))
        design = np.stack([features(s.height_cm, s.weight_kg, with_weight) for s in subjects])
        target = np.array([[s.measurements_cm[key] for key in keys] for s in subjects])
        return cls(with_weight, keys, np.linalg.lstsq(design, target, rcond=None)[0])

    def predict(self, height_cm: float, weight_kg: float) -> dict[str, float]:
        """Guess the measurements, in cm."""
        guess = features(height_cm, weight_kg, self.with_weight) @ self.coefficients
        return dict(zip(self.keys, guess.tolist(), strict=True))


def features(height_cm: float, weight_kg: float, with_weight: bool) -> Float64Array:
    """One and the height; with weight also that, and the girth of a cylinder of both."""
    if not with_weight:
        return np.array([1.0, height_cm])
    return np.array([1.0, height_cm, weight_kg, np.sqrt(weight_kg / height_cm)])


def mean_absolute_errors(
    guesses: Sequence[dict[str, float]], subjects: Sequence[Subject]
) -> dict[str, float]:
    """Mean absolute error of each measurement, in cm."""
    return {
        key: round(
            float(
                np.mean(
                    [
                        abs(g[key] - s.measurements_cm[key])
                        for g, s in zip(guesses, subjects, strict=True)
                    ]
                )
            ),
            3,
        )
        for key in sorted(subjects[0].measurements_cm)
    }
