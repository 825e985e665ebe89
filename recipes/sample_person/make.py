"""Make the sample person: a front and a side photo of a dressed body of known measurements.

    python -m recipes.sample_person.make --out worker/demo/sample

Run it in the recipe's environment (anny).  The body is no member of the free body's shape space:
its local changes are drawn with a seed of their own, so a fit cannot be exact.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from recipes.sample_person.light import room
from recipes.sample_person.paint import Look
from recipes.sample_person.person import Person, draw_person, figure, stand
from recipes.sample_person.photograph import Camera, photograph, save_photo
from recipes.sample_person.wardrobe import dress
from worker.avatar.body.free import free_body
from worker.avatar.measure import Measurer
from worker.avatar.types import Gender, ViewName

SEED = 20_261_158

MAN = {  # anny's scales of 0..1: about thirty years old, of middle height
    "gender": 0.0,
    "age": 0.79,
    "muscle": 0.52,
    "weight": 0.52,
    "height": 0.40,
    "proportions": 0.60,
}
LOOK = Look(
    skin=(214, 168, 140),
    hair=(48, 34, 26),
    iris=(86, 70, 48),
    lips=(172, 104, 96),
    shirt=(44, 66, 104),
    trousers=(58, 62, 70),
    shoe=(112, 114, 118),
    stubble=0.16,
)
CAMERA = Camera(width=1200, height=1600, focal_35mm=48, height_m=1.3, distance_m=3.2, aim_m=0.92)


def main() -> None:
    """Write front.jpg, side.jpg and truth.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="a third of the size and the lamps")
    parser.add_argument("--truth-only", action="store_true", help="leave the photos as they are")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    person = draw_person(Gender.MALE, MAN, local_sigma=0.15, seed=SEED)
    for view in () if args.truth_only else ViewName:
        take(person, view, args.out / f"{view}.jpg", quick=args.quick)
    (args.out / "truth.json").write_text(json.dumps(truth(person), indent=2) + "\n")


def take(person: Person, view: ViewName, path: Path, *, quick: bool) -> None:
    """Pose, dress and photograph the person."""
    rng = np.random.default_rng([SEED, view is ViewName.SIDE])
    camera, lamps = CAMERA, room(rng)
    if quick:
        camera = Camera(400, 533, 48, camera.height_m, camera.distance_m, camera.aim_m)
    dressed = figure(person, stand(person, view))
    save_photo(
        photograph(dress(dressed), dressed, LOOK, camera, lamps=lamps, rng=rng), camera, path
    )


def truth(person: Person) -> dict[str, object]:
    """What the photos' person really measures, in the contract's names."""
    measured = Measurer(free_body(person.gender)).measure(person.tpose)
    return {
        "heightCm": round(person.height_m * 100, 1),
        "weightKg": round(person.weight_kg, 1),
        "gender": str(person.gender),
        "measurements": {name: round(value, 1) for name, value in measured.items()},
    }


if __name__ == "__main__":
    main()
