"""What everyday clothes let anybody know of the body: the bound of docs/reference/accuracy.md.

    python -m recipes.cases.bound

A tape around the clothes is read without error, garments and gender are known; the best linear
guess of the body from that, each person left out in turn, says how much cloth hides.
"""

from __future__ import annotations

import argparse

import numpy as np

from recipes.cases.baselines import Baseline
from recipes.cases.draping import dress
from recipes.cases.generate import BASELINE_SEED, BASELINE_SUBJECTS, GENDERS, PHOTO_STREAM
from recipes.cases.subjects import WIDE, draw_subjects
from worker.avatar.body.free import free_body
from worker.avatar.measure import Measurer
from worker.avatar.types import Float64Array

SEED = 9100
KEYS = ("chestCm", "waistCm", "hipCm", "insideLegCm")


def main() -> None:
    """Print the mean absolute errors in cm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=60, help="men, and as many women")
    parser.add_argument("--family", default="everyday")
    args = parser.parse_args()
    known, true, around, guessed = [], [], [], []
    for number, gender in enumerate(GENDERS):
        rig = free_body(gender)
        measurer = Measurer(rig)
        others = draw_subjects(BASELINE_SUBJECTS, gender, BASELINE_SEED, WIDE)
        guess = Baseline.fitted(others, with_weight=True)
        for index, subject in enumerate(draw_subjects(args.count, gender, SEED, WIDE)):
            chance = np.random.default_rng([SEED, number, index, PHOTO_STREAM, 0])
            worn = dress(rig, subject, args.family, chance)
            taken = measurer.measure(worn.vertices)
            without = guess.predict(subject.height_cm, subject.weight_kg)
            known.append([1.0, float(number), *(float(n in worn.names) for n in _NAMES)])
            true.append([subject.measurements_cm[key] for key in KEYS])
            around.append([taken[key] for key in KEYS])
            guessed.append([without[key] for key in KEYS])
    said, body, cloth, alone = (np.array(one) for one in (known, true, around, guessed))
    for j, key in enumerate(KEYS):
        ease = (cloth - body)[:, j]
        clothed = np.concatenate((said, cloth), axis=1)
        weighed = np.concatenate((clothed, alone[:, j : j + 1]), axis=1)
        print(
            f"{key}: cloth {ease.mean():.1f} ± {ease.std():.1f}; "
            f"from the clothes {_left_out(clothed, body[:, j]):.2f}, "
            f"with height and weight {_left_out(weighed, body[:, j]):.2f}, "
            f"height and weight alone {np.abs(alone - body)[:, j].mean():.2f}"
        )


_NAMES = ("shirt", "jeans", "coat", "skirt")
"""One of each pair of tops and bottoms of the families."""


def _left_out(features: Float64Array, target: Float64Array) -> float:
    """Mean absolute error of least squares on all others, person by person."""
    off = []
    for index in range(len(target)):
        others = np.arange(len(target)) != index
        solved = np.linalg.lstsq(features[others], target[others], rcond=None)[0]
        off.append(features[index] @ solved - target[index])
    return float(np.abs(off).mean())


if __name__ == "__main__":
    main()
