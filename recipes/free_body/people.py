"""Who the adults are whom the free body is fitted to: the spread of their betas.

    .venv-recipe/bin/python -m recipes.free_body.people

The shape space was made from people who vary more than any (local changes of σ 0.25), so that it
reaches everybody; taken as the prior of a fit, its standard normal betas expect too much.  With
σ 0.15, what height and weight leave open of chest, waist and hip is, on average, what they leave
open in ANSUR II (6,068 people; `recipes/free_body/README.md` has the table and what it hides).
"""

from __future__ import annotations

import numpy as np

from recipes.free_body import card
from recipes.free_body.pca import ShapeSpace
from recipes.free_body.sampling import sample_bodies
from worker.avatar.body.free import DATA_DIR, PACK_NAME, PEOPLE_NAME
from worker.avatar.body.model import People
from worker.avatar.body.pack import read_shape, write_people
from worker.avatar.types import Gender

SEED = 31557
PEOPLE_A_SEX = 1500
LOCAL_SIGMA = 0.15
EVENLY = 0.3
"""Share of the weights that is drawn evenly, as for the shape space."""

REAL_SPREAD = 0.2
"""Added in square along every direction, in betas: in the space of both sexes drawn men differ by a
fiftieth along what parts them from women, real ones do not.  All else has 0.6 to 0.9."""


def main() -> None:
    """Draw, project, and write mean and covariance beside the body."""
    women = sample_bodies(
        PEOPLE_A_SEX, Gender.FEMALE, SEED, local_sigma=LOCAL_SIGMA, weight_spread=EVENLY
    ).vertices
    men = sample_bodies(
        PEOPLE_A_SEX, Gender.MALE, SEED, local_sigma=LOCAL_SIGMA, weight_spread=EVENLY
    ).vertices
    people = {}
    for gender, sexes in {
        Gender.NEUTRAL: (women, men),
        Gender.FEMALE: (women,),
        Gender.MALE: (men,),
    }.items():
        shape = read_shape(DATA_DIR / PACK_NAME, gender)
        space = ShapeSpace(shape.v_template, shape.shapedirs, 1.0)
        betas = [space.betas_of(vertices) for vertices in sexes]
        people[gender] = People(
            np.stack([each.mean(axis=0) for each in betas]),
            np.stack([np.cov(each.T) + REAL_SPREAD**2 * np.eye(each.shape[1]) for each in betas]),
        )
    path = DATA_DIR / PEOPLE_NAME
    write_people(path, people)
    card.enter(path)


if __name__ == "__main__":
    main()
