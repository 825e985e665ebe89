"""Make the synthetic cases of `make bench`: people whose every measurement is known.

    python -m recipes.cases.generate --out build/cases --split test
    python -m recipes.cases.generate --out build/cases --split dev --wear everyday --photos

Run it in the recipe's environment (anny).  The same arguments give the same cases; `--clothes-px`
and `--wear` change the masks and nothing else, so that sets can be compared case by case.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recipes.cases.baselines import Baseline, mean_absolute_errors
from recipes.cases.draping import dress
from recipes.cases.folder import Declared, write_case
from recipes.cases.garments import FAMILIES, TEST_ONLY
from recipes.cases.photo_case import make_case, write_photo_case
from recipes.cases.subject import Subject
from recipes.cases.subjects import NARROW, WIDE, draw_subjects
from recipes.cases.views import Camera, Look, observe
from recipes.free_body.tpose import tpose_rotations
from worker.avatar.body.free import free_body
from worker.avatar.types import Gender, ViewName

SEEDS = {"dev": 501, "test": 777}
"""Of the cases.  Whoever tunes looks at dev alone."""
BASELINE_SEED = 31
BASELINE_SUBJECTS = 400
HEIGHT_SIGMA_CM = 0.7
WEIGHT_SIGMA_KG = 1.0
MORE_STREAM = 9
"""Of random numbers for clothes and lenses: poses and noise do not depend on them."""
PHOTO_STREAM = 10
"""Of everything in a photo but the person."""
GENDERS = (Gender.MALE, Gender.FEMALE)


def main() -> None:
    """Write a folder a case, and baselines.json for the set."""
    args = _arguments()
    seed = SEEDS[args.split] if args.seed is None else args.seed
    root = args.out / _name(args)
    report = {}
    for gender in GENDERS:
        rig = free_body(gender)
        spread = WIDE if args.photos else NARROW
        subjects = draw_subjects(args.count, gender, seed, spread)
        declared = [_declare(s, seed, k) for k, s in enumerate(subjects)]
        for index, (subject, said) in enumerate(zip(subjects, declared, strict=True)):
            folder = root / f"{gender}-{index:02d}"
            if args.photos:
                seeds = (seed, GENDERS.index(gender), index, PHOTO_STREAM)
                worn, photos = make_case(
                    rig,
                    subject,
                    args.wear,
                    tpose_rotations(),
                    seeds,
                    visit=args.visit,
                    turned_deg=args.turned,
                )
                write_photo_case(folder, subject, said, worn, photos)
                print(folder, flush=True)
                continue
            more = np.random.default_rng([seed, GENDERS.index(gender), index, MORE_STREAM])
            worn = None if args.wear is None else dress(rig, subject, args.wear, more)
            views = [
                observe(
                    rig,
                    subject,
                    view,
                    _rng(seed, gender, index, view),
                    Look(
                        args.clothes_px,
                        worn,
                        Camera.of_a_phone(more) if args.lens == "unknown" else Camera(),
                    ),
                )
                for view in ViewName
            ]
            write_case(folder, subject, said, views, worn=worn, half=args.half)
            print(folder, flush=True)
        # The regressions for photos are the committed ones, of recipes.cases.guesses.
        if not args.no_baselines and not args.photos:
            report[str(gender)] = _baselines(gender, subjects, declared)
    if report:
        (root / "baselines.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("build/cases"))
    parser.add_argument("--split", choices=sorted(SEEDS), default="dev")
    parser.add_argument("--count", type=int, default=20, help="men, and as many women")
    parser.add_argument("--seed", type=int, help="instead of the split's own")
    parser.add_argument("--clothes-px", type=int, default=0, help="grow the masks by clothing")
    parser.add_argument("--wear", choices=sorted(FAMILIES), help="dress them from this family")
    parser.add_argument(
        "--lens", choices=("known", "unknown"), default="known", help="what the photos say of it"
    )
    parser.add_argument(
        "--photos", action="store_true", help="rendered photos for the real observers; needs --wear"
    )
    parser.add_argument("--visit", type=int, default=0, help="1: other photos of the same people")
    parser.add_argument(
        "--turned",
        type=float,
        default=0,
        metavar="DEG",
        help="degrees by which people turn farther away from the camera in photos of their front",
    )
    parser.add_argument("--half", action="store_true", help="true vertices as float16")
    parser.add_argument("--no-baselines", action="store_true", help="skip the regressions")
    args = parser.parse_args()
    if args.photos and not args.wear:
        parser.error("--photos shows people who wear something: say what with --wear")
    if (args.turned or args.visit) and not args.photos:
        parser.error("--turned and --visit are for --photos")
    if args.wear in TEST_ONLY and args.split != "test":
        parser.error(f"{args.wear} clothes are kept from development: --split test has them")
    return args


def _name(args: argparse.Namespace) -> str:
    """The folder of a set."""
    parts = [args.split, "photos"] if args.photos else [args.split]
    if args.wear:
        parts.append(args.wear)
    if args.clothes_px:
        parts.append(f"clothes-{args.clothes_px}px")
    if args.lens == "unknown":
        parts.append("lens-unknown")
    if args.visit:
        parts.append(f"visit-{args.visit}")
    if args.turned:
        parts.append(f"turned-{args.turned:g}")
    return "-".join(parts)


def _rng(seed: int, gender: Gender, index: int, view: ViewName | None) -> np.random.Generator:
    """A stream of its own for each view, so that cases do not depend on each other."""
    stream = 0 if view is None else 1 + list(ViewName).index(view)
    return np.random.default_rng([seed, GENDERS.index(gender), index, stream])


def _declare(subject: Subject, seed: int, index: int) -> Declared:
    rng = _rng(seed, subject.gender, index, None)
    return Declared(
        round(subject.height_cm + rng.normal(0, HEIGHT_SIGMA_CM), 1),
        round(subject.weight_kg + rng.normal(0, WEIGHT_SIGMA_KG), 1),
    )


def _baselines(
    gender: Gender, subjects: Sequence[Subject], declared: Sequence[Declared]
) -> dict[str, object]:
    """Fit both regressions on other subjects and hold them to these."""
    others = draw_subjects(BASELINE_SUBJECTS, gender, BASELINE_SEED)
    result: dict[str, object] = {"subjects": BASELINE_SUBJECTS, "seed": BASELINE_SEED}
    for name, with_weight in (("height", False), ("height+weight", True)):
        baseline = Baseline.fitted(others, with_weight=with_weight)
        guesses = [baseline.predict(d.height_cm, d.weight_kg) for d in declared]
        result[name] = {
            "coefficients": dict(zip(baseline.keys, baseline.coefficients.T.tolist(), strict=True)),
            "meanAbsoluteErrorCm": mean_absolute_errors(guesses, subjects),
        }
    return result


if __name__ == "__main__":
    main()
