"""A person of whom everything is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from worker.avatar.types import Float64Array, Gender, Int64Array

DENSITY_KG_M3 = 985.0
"""Of a living body with air in its lungs: what the table in facts/fitting.md was made with."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One undressed body."""

    gender: Gender
    vertices: Float64Array
    """(V, 3) metres, T-pose, in the free body's vertex order, pelvis at the origin."""
    joints: Float64Array
    """(55, 3) its own joints, not those that a regressor would find."""
    height_cm: float
    weight_kg: float
    measurements_cm: dict[str, float]
    """By the contract's names."""


def weight_of(vertices: Float64Array, faces: Int64Array) -> float:
    """Weight in kg of a closed body (V, 3) in metres, by the divergence theorem."""
    a, b, c = vertices[faces].transpose(1, 0, 2)
    return float(np.einsum("fi,fi->", a, np.cross(b, c)) / 6) * DENSITY_KG_M3
