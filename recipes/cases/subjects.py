"""Draw bodies that the fit has never seen, and measure them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recipes.cases.subject import Subject, weight_of
from recipes.free_body.sampling import sample_bodies
from recipes.free_body.source import load_source
from worker.avatar.body.free import free_body
from worker.avatar.measure import Measurer
from worker.avatar.types import Gender

LOCAL_SIGMA = 0.15
"""Of anny's local changes.  The shape space is made with more, so that these lie inside it; with
this much, height and weight leave, on average, as much open of chest, waist and hip as among the
people of ANSUR II, but less of the waist (recipes/free_body/README.md)."""

BMI_KG_M2 = (17.0, 40.0)


@dataclass(frozen=True, slots=True)
class Spread:
    """How widely people are drawn."""

    local_sigma: float
    """Standard deviation of anny's local changes."""
    evenly: float
    """Share of people whose weight is drawn evenly, so that thin and heavy ones are not rare."""


NARROW = Spread(LOCAL_SIGMA, 0.0)
"""As anny distributes adults: the sets of observations made directly."""
WIDE = Spread(LOCAL_SIGMA, 0.35)
"""The sets of photos, where heavy and thin people are not to be rare."""


def draw_subjects(count: int, gender: Gender, seed: int, spread: Spread = NARROW) -> list[Subject]:
    """Draw `count` adults of 18 to 75 years."""
    # More than are wanted, because those beyond BMI_KG_M2 are left out.
    drawn = count if spread is NARROW else 2 * count + 8
    bodies = sample_bodies(
        drawn, gender, seed, local_sigma=spread.local_sigma, weight_spread=spread.evenly
    )
    faces = load_source().faces
    measurer = Measurer(free_body(gender))
    subjects = []
    for vertices, joints in zip(bodies.vertices, bodies.joints, strict=True):
        body = (vertices - joints[0]).astype(np.float64)
        height_cm, weight_kg = float(np.ptp(body[:, 1])) * 100, weight_of(body, faces)
        bmi = weight_kg / (height_cm / 100) ** 2
        if spread is not NARROW and not BMI_KG_M2[0] <= bmi <= BMI_KG_M2[1]:
            continue
        subjects.append(
            Subject(
                gender,
                body,
                (joints - joints[0]).astype(np.float64),
                height_cm,
                weight_kg,
                dict(measurer.measure(body)),
            )
        )
        if len(subjects) == count:
            break
    return subjects
