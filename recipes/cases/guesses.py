"""What one would say of the people in the photos without looking: regressions, and who they are.

    python -m recipes.cases.guesses --out tests/benchmarks/baselines.json

Least squares of every measurement on height, and on height and weight, of people drawn as the
photos' people are: of men, of women, and of both together for those who do not say.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from recipes.cases.baselines import Baseline
from recipes.cases.generate import BASELINE_SEED, BASELINE_SUBJECTS
from recipes.cases.subject import Subject
from recipes.cases.subjects import WIDE, draw_subjects
from worker.avatar.types import Gender

_STEPS = (17, 18.5, 20, 22.5, 25, 27.5, 30, 35, 40)


def main() -> None:
    """Write the coefficients and how the people are spread."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    people = {
        gender: draw_subjects(BASELINE_SUBJECTS, gender, BASELINE_SEED, WIDE)
        for gender in (Gender.MALE, Gender.FEMALE)
    }
    people[Gender.NEUTRAL] = people[Gender.MALE] + people[Gender.FEMALE]
    report = {str(gender): _report(subjects) for gender, subjects in people.items()}
    args.out.write_text(json.dumps(report, indent=1) + "\n", "utf-8")


def _report(subjects: list[Subject]) -> dict[str, object]:
    bmi = np.array([s.weight_kg / (s.height_cm / 100) ** 2 for s in subjects])
    heights = np.array([s.height_cm for s in subjects])
    found: dict[str, object] = {
        "subjects": len(subjects),
        "seed": BASELINE_SEED,
        "heightCm": {"mean": round(heights.mean(), 1), "sd": round(heights.std(), 1)},
        "bmi": {
            "steps": list(_STEPS),
            "people": np.histogram(bmi, _STEPS)[0].tolist(),
        },
        "sdCm": {
            key: round(float(np.std([s.measurements_cm[key] for s in subjects])), 1)
            for key in sorted(subjects[0].measurements_cm)
        },
    }
    for name, with_weight in (("height", False), ("height+weight", True)):
        baseline = Baseline.fitted(subjects, with_weight=with_weight)
        found[name] = {
            "coefficients": {
                key: [float(f"{value:.7g}") for value in column]
                for key, column in zip(baseline.keys, baseline.coefficients.T, strict=True)
            }
        }
    return found


if __name__ == "__main__":
    main()
