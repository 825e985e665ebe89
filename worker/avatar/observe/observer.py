"""`Observer`: from a photo to the one person's keypoints and outline."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from worker.avatar.observe import assets, gate
from worker.avatar.observe.detector import Detector
from worker.avatar.observe.keypoints import to_keypoints
from worker.avatar.observe.landmarks import LandmarkNetwork
from worker.avatar.observe.looks import look_closely
from worker.avatar.observe.mask import MaskRefiner, box_of
from worker.avatar.observe.mirrored import BothWays
from worker.avatar.observe.people import PeopleFinder
from worker.avatar.observe.posture import Posture
from worker.avatar.observe.skin import find_skin
from worker.avatar.photo.exif import DIAGONAL_35MM_MM
from worker.avatar.types import Intrinsics, Observation, Photo

ASSUMED_FOCAL_35MM_MM = 26.0
"""Main cameras of phones lie between 24 and 28 mm of 35 mm film, by the diagonal."""


@dataclass(frozen=True, slots=True)
class Observer:
    """The networks that see people, loaded."""

    finder: PeopleFinder
    refiner: MaskRefiner
    source: str
    """Name and digest of the landmark network, for `sources`."""

    @classmethod
    def load(cls, models_dir: Path, *, threads: int = 2) -> Observer:
        """Load the models from a folder that `assets.fetch` filled.

        Raises:
            ModelMissing, ModelInvalid: a file is missing or is not the pinned one.
        """
        assets.verify(models_dir)
        return cls(
            finder=PeopleFinder(
                Detector.of_people(models_dir / assets.PEOPLE.name, threads=threads),
                Detector.of_faces(models_dir / assets.FACES.name, threads=threads),
                LandmarkNetwork(models_dir / assets.LANDMARKS.name, threads=threads),
            ),
            refiner=MaskRefiner(models_dir / assets.SEGMENTER.name, threads=threads),
            source=f"blazepose-full@{assets.LANDMARKS.sha256[:8]}",
        )

    def observe(self, photo: Photo) -> Observation:
        """Find the one person of a photo, or say why the photo cannot be used.

        Raises:
            NoPerson, SeveralPeople: of whom?
            LegsNotVisible, FeetNotVisible, HeadNotVisible, PersonTooSmall: step back or closer.
            NotStanding, WrongView: stand or turn differently.
            PhotoTooDark, BodyHidden: the outline cannot be seen.
        """
        image = Image.fromarray(photo.pixels)
        both = BothWays.of(image)
        people = self.finder.find(both)
        person = gate.choose_person(people, photo.pixels)
        person = look_closely(self.finder.network, both, person)
        mask = self.refiner.refine(both, person)
        gate.check_frame(person, mask, shrunk=photo.shrunk)
        posture = Posture.of(person)
        gate.check_posture(posture, photo.view)
        gate.check_neighbours(people)
        gate.check_light(photo.pixels, mask)
        box = box_of(mask > 0.5)
        keypoints = to_keypoints(person, image.width, image.height)
        return Observation(
            view=photo.view,
            intrinsics=intrinsics_of(photo),
            box=box if box is not None else np.zeros(4, dtype=np.float32),
            keypoints=keypoints,
            mask=mask,
            warnings=gate.warnings_for(people, person, posture, mask, photo.view),
            source=self.source,
            skin=find_skin(photo.pixels, keypoints),
        )


def intrinsics_of(photo: Photo) -> Intrinsics:
    """Return the camera: from the photo's own focal length, else that of a usual phone."""
    height, width = photo.pixels.shape[:2]
    assumed_px = ASSUMED_FOCAL_35MM_MM / DIAGONAL_35MM_MM * math.hypot(width, height)
    return Intrinsics(
        focal_px=photo.focal_px if photo.focal_px is not None else assumed_px,
        width=width,
        height=height,
        known=photo.focal_px is not None,
    )
