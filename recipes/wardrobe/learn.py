"""How clothes lie on people: the modes, and how they go with betas (`free_garments.npz`).

    .venv-recipe/bin/python -m recipes.wardrobe.learn

The prior of the fit for what is worn; docs/decisions/0023, 0026 and 0027 say what it is for, and
what it cannot know.  900 women and 900 men take a quarter of an hour on two cores.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from recipes.free_body import card
from recipes.wardrobe.offsets import Dressed, dressed_people
from worker.avatar.body.free import DATA_DIR, GARMENTS_NAME, free_body
from worker.avatar.body.garments import (
    KINDS,
    OUTFITS,
    Cut,
    Garments,
    sexes_of,
    write_garments,
)
from worker.avatar.types import BoolArray, Float32Array, Float64Array, Gender

SEED = 81000
PEOPLE_A_SEX = 900
MODES_ABOVE_HIPS, MODES_BELOW_HIPS = 16, 8
"""24 and 12 were no better."""
EMPHASIS = {"tight": 1.0, "slim": 0.5, "everyday": 1.0, "loose": 0.5}
"""How much each kind counts in the choice of modes, once all are of one size."""
RIDGE = 0.02
"""Of the number of people: a thousand people do not tell 50 slopes exactly."""
_SAMPLES = 900
_BELOW_HIPS_M = 0.05
"""Where bottoms take over from tops: about where tops end."""


def main() -> None:
    """Draw, learn, and write beside the body."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=PEOPLE_A_SEX, help="women, and as many men")
    count = parser.parse_args().count
    sexes = (Gender.FEMALE, Gender.MALE)
    with ProcessPoolExecutor(len(sexes)) as pool:
        drawn = dict(zip(sexes, pool.map(_drawn, sexes, (count, count)), strict=True))
    path = DATA_DIR / GARMENTS_NAME
    write_garments(path, _garments(drawn))
    card.enter(path)


def _drawn(sex: Gender, count: int) -> list[Dressed]:
    return list(dressed_people(sex, count, SEED))


def _joints(*joints: int) -> Float64Array:
    weights = free_body(Gender.NEUTRAL).lbs_weights
    return np.asarray(weights[:, list(joints)].sum(axis=1), dtype=np.float64)


def _cover() -> Float64Array:
    """(V,) 1 where garments lie, 0 on heads, hands and feet, which the fit knows otherwise."""
    hands, head = _joints(20, 21, *range(25, 55)), _joints(12, 15, 22, 23, 24)
    foot = ((_joints(7, 8, 10, 11) - 0.6) / 0.3).clip(0.0, 1.0)
    ends = [((part - 0.3) / 0.4).clip(0.0, 1.0) for part in (hands, head)]
    return np.asarray((1.0 - ends[0] - ends[1] - foot).clip(0.0, 1.0))


def _below_hips() -> BoolArray:
    body = free_body(Gender.NEUTRAL)
    hips = (body.J_regressor @ body.v_template)[[1, 2], 1].mean()
    legs = _joints(0, 1, 2, 4, 5, 7, 8, 10, 11) > 0.5
    return np.asarray(legs & (body.v_template[:, 1] < hips - _BELOW_HIPS_M))


def _garments(drawn: Mapping[Gender, Sequence[Dressed]]) -> Garments:
    everybody = [one for people in drawn.values() for one in people]
    of_sex = np.array([sex for sex, people in drawn.items() for _ in people])
    worn = [np.flatnonzero([one.outfit == outfit for one in everybody]) for outfit in OUTFITS]
    cover, legs = _cover(), _below_hips()
    fields = np.stack([one.offset_m for one in everybody]).astype(np.float32)
    fields *= cover
    tops, bottoms = zip(*(one.outfit for one in everybody), strict=True)
    modes = np.concatenate(
        (
            _modes(fields, tops, ~legs, MODES_ABOVE_HIPS),
            _modes(fields, bottoms, legs, MODES_BELOW_HIPS),
        ),
        axis=1,
    )
    coefficients = fields @ modes / (modes**2).sum(axis=0)
    left = fields - coefficients @ modes.T
    cuts = {}
    for (outfit, those), gender in itertools.product(zip(OUTFITS, worn, strict=True), Gender):
        for sex in sexes_of(gender):
            chosen = those[of_sex[those] == sex]
            betas = np.stack([everybody[index].betas[gender] for index in chosen])
            cuts[outfit, gender, sex] = _cut(betas, coefficients[chosen].astype(np.float64))
    folds_m = {
        outfit: np.sqrt((left[those] ** 2).mean(axis=0))
        for outfit, those in zip(OUTFITS, worn, strict=True)
    }
    return Garments(modes, folds_m, cuts)


def _modes(fields: Float32Array, kinds: Sequence[str], part: BoolArray, count: int) -> Float32Array:
    """(V, M) orthogonal, what explains most of fields (n, V), not centred, on a part (V,).

    A coefficient is the root mean square of what its mode stands off where it does.
    """
    rng = np.random.default_rng(SEED)
    covered = np.flatnonzero(part & (fields != 0.0).any(axis=0))
    rows = []
    for kind in KINDS:
        there = np.flatnonzero(np.asarray(kinds) == kind)
        some = fields[np.ix_(rng.choice(there, min(_SAMPLES, len(there)), replace=False), covered)]
        rows.append(some * (EMPHASIS[kind] / np.sqrt((some**2).mean())))
    samples = np.concatenate(rows)
    _, vectors = np.linalg.eigh(samples @ samples.T)
    modes = vectors[:, : -count - 1 : -1].T @ samples
    modes *= np.sqrt(len(covered)) / np.linalg.norm(modes, axis=1, keepdims=True)
    # Cloth stands off: the sign that says so, so that a rerun gives the same.
    modes *= np.where(modes.sum(axis=1, keepdims=True) < 0, -1.0, 1.0)
    whole = np.zeros((fields.shape[1], count), np.float32)
    whole[covered] = modes.T
    return whole


def _cut(betas: Float64Array, coefficients: Float64Array) -> Cut:
    """Ridge regression of coefficients (n, M) on betas (n, K)."""
    known = np.concatenate((np.ones((len(betas), 1)), betas), axis=1)
    ridge = np.eye(known.shape[1]) * RIDGE * len(betas)
    ridge[0, 0] = 0.0
    slopes = np.linalg.solve(known.T @ known + ridge, known.T @ coefficients)
    left = coefficients - known @ slopes
    freedom = len(betas) - known.shape[1]
    return Cut(slopes[0], slopes[1:].T, left.T @ left / freedom)


if __name__ == "__main__":
    main()
