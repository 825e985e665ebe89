"""Draw bodies that the fit has never seen, and measure them."""

from __future__ import annotations

import numpy as np

from recipes.cases.subject import Subject, weight_of
from recipes.free_body.sampling import sample_bodies
from recipes.free_body.source import load_source
from worker.avatar.body.free import free_body
from worker.avatar.measure import Measurer
from worker.avatar.types import Gender

LOCAL_SIGMA = 0.15
"""Of anny's local changes.  The shape space is made with more, so that these lie inside it."""


def draw_subjects(count: int, gender: Gender, seed: int) -> list[Subject]:
    """Draw `count` adults as anny distributes them, without the recipe's extra heavy and thin."""
    bodies = sample_bodies(count, gender, seed, local_sigma=LOCAL_SIGMA, weight_spread=0.0)
    faces = load_source().faces
    measurer = Measurer(free_body(gender))
    subjects = []
    for vertices, joints in zip(bodies.vertices, bodies.joints, strict=True):
        body = (vertices - joints[0]).astype(np.float64)
        subjects.append(
            Subject(
                gender,
                body,
                (joints - joints[0]).astype(np.float64),
                float(np.ptp(body[:, 1])) * 100,
                weight_of(body, faces),
                dict(measurer.measure(body)),
            )
        )
    return subjects
