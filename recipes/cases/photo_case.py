"""Make one case of photos: a person, two photos of them, and what is true of both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recipes.cases.draping import Worn, dress
from recipes.cases.folder import Declared, write_person
from recipes.cases.looks import draw_dress
from recipes.cases.photos import LAYERS, Scene, Taken, take
from recipes.cases.stance import bend, draw_stance
from recipes.cases.studio import draw_studio
from recipes.cases.subject import Subject
from worker.avatar.body.model import BodyData
from worker.avatar.types import KEYPOINTS, Float64Array, ViewName

JPEG_QUALITY = (70, 95)
_STREAMS_A_VISIT = 100


def make_case(
    rig: BodyData,
    subject: Subject,
    family: str,
    to_tpose: Float64Array,
    seeds: Sequence[int],
    *,
    visit: int = 0,
    turned_deg: float = 0.0,
) -> tuple[Worn, list[Taken]]:
    """Dress the subject from a family of garments and photograph it from the front and the side.

    Args:
        rig: skinning weights, faces and keypoints.
        subject: who.
        family: a key of `garments.FAMILIES`.
        to_tpose: (55, 3, 3) global turns from anny's pose to the T-pose.
        seeds: decide everything else.
        visit: another one has the same person in the same clothes in another room, before another
            phone, standing otherwise.
        turned_deg: how much farther they turn away from the photo of their front.
    """

    def chance(about: int) -> np.random.Generator:
        """A stream of its own for each thing, so that none depends on how others are drawn."""
        return np.random.default_rng([*seeds, about])

    worn = dress(rig, subject, family, chance(0))
    look = draw_dress(subject.gender, [layer.garment for layer in worn.layers], chance(1))
    later = _STREAMS_A_VISIT * visit
    studio = draw_studio(chance(later + 2))
    quality = int(chance(3).integers(*JPEG_QUALITY))
    photos = []
    for number, view in enumerate(ViewName):
        stance = draw_stance(view, chance(later + 10 + number), turned_deg)
        rng = chance(later + 20 + number)
        bent = bend(subject, rig.lbs_weights, to_tpose, stance)
        scene = Scene(look, studio, quality)
        photos.append(take(rig, subject, worn, bent, scene, name=view, stance=stance.name, rng=rng))
    return worn, photos


def write_photo_case(
    folder: Path, subject: Subject, declared: Declared, worn: Worn, photos: Sequence[Taken]
) -> None:
    """Write one case; docs/reference/bench-cases.md describes it."""
    write_person(folder, subject, declared, worn=worn)
    arrays: dict[str, np.ndarray] = {}
    said: dict[str, object] = {"layers": LAYERS, "keypoints": KEYPOINTS}
    for photo in photos:
        (folder / f"{photo.name}.jpg").write_bytes(photo.jpeg)
        arrays |= {
            f"{photo.name}_cover": photo.cover,
            f"{photo.name}_layers": photo.layers,
            f"{photo.name}_bare": photo.bare,
            f"{photo.name}_keypoints": photo.keypoints,
        }
        phone = photo.phone
        said[str(photo.name)] = {
            "stance": photo.stance,
            "focalPx": round(phone.focal_px, 1),
            "lensHeightM": round(float(phone.place[1]), 3),
            "distanceM": round(float(phone.place[2]), 3),
            "pitchDeg": round(float(np.degrees(phone.pitch_rad)), 2),
            "rollDeg": round(float(np.degrees(phone.roll_rad)), 2),
        }
    (folder / "photos.json").write_text(json.dumps(said, indent=1) + "\n", "utf-8")
    np.savez_compressed(folder / "photos_truth.npz", **arrays)  # type: ignore[arg-type] # numpy's stub takes the names for its own arguments
