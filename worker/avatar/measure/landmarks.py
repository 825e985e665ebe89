"""Named points of ISO 8559-1 as vertices of a body's topology.

The ids are chosen once per topology by `recipes/landmarks/choose.py`, looked at on rendered
bodies, and shipped in `worker/avatar/body/data/landmarks.json`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from worker.errors import ModelInvalid, ModelMissing


@dataclass(frozen=True, slots=True)
class Landmarks:
    """Vertex ids.  left and right are the person's."""

    vertex: int
    """Top of the head."""
    cervicale: int
    """Back neck point: the tip of the seventh cervical vertebra."""
    suprasternale: int
    """Front neck point: the notch above the breastbone."""
    neck_front: int
    """On the front midline, just below the thyroid cartilage (Adam's apple)."""
    neck_side_left: int
    neck_side_right: int
    """Side neck point: where neck and shoulder meet, at the front edge of the trapezius."""
    acromion_left: int
    acromion_right: int
    """Shoulder point: the outermost point of the acromion."""
    bust_point_left: int
    bust_point_right: int
    """The most forward point of the breast (the nipple)."""
    lowest_rib_left: int
    lowest_rib_right: int
    """The lowest point of the ribs, at the side of the body."""
    iliac_crest_left: int
    iliac_crest_right: int
    """The highest point of the hip bone, at the side of the body."""
    gluteal_left: int
    gluteal_right: int
    """The rearmost point of the buttock."""
    crotch: int
    """The lowest point of the trunk between the legs, on the template."""
    olecranon_left: int
    olecranon_right: int
    """Elbow point: the tip of the elbow, at the back of the straight arm."""
    ulnar_styloid_left: int
    ulnar_styloid_right: int
    """Wrist point: the knob at the wrist on the side of the little finger."""
    knee_left: int
    knee_right: int
    """The centre of the kneecap."""
    malleolus_left: int
    malleolus_right: int
    """The outer ankle bone."""
    heel_left: int
    heel_right: int
    """A point of the sole under the heel."""


LANDMARKS: tuple[str, ...] = tuple(field.name for field in fields(Landmarks))
"""The names, in the order of the file."""


def topology_digest(faces: NDArray[np.integer]) -> str:
    """SHA-256 of the (F, 3) triangles as little-endian int32: bodies that share vertex ids."""
    return hashlib.sha256(np.ascontiguousarray(faces, dtype="<i4").tobytes()).hexdigest()


def load_landmarks(faces: NDArray[np.integer]) -> Landmarks:
    """The landmarks that are shipped for a topology.

    Raises:
        ModelMissing: landmarks.json is not in the package.
        ModelInvalid: it names no landmarks for these triangles.
    """
    file = resources.files("worker.avatar.body").joinpath("data/landmarks.json")
    try:
        topologies = json.loads(file.read_text(encoding="utf-8"))["topologies"]
    except FileNotFoundError as error:
        raise ModelMissing("The landmarks of the body are missing: data/landmarks.json.") from error
    digest = topology_digest(faces)
    for topology in topologies:
        if topology["faces_sha256"] == digest:
            return from_mapping(topology["landmarks"], vertices=int(np.max(faces)) + 1)
    raise ModelInvalid(
        f"No landmarks are known for this body's topology ({len(faces)} triangles, "
        f"sha256 {digest[:12]}…).",
        advice="Use a body whose topology is listed in worker/avatar/body/data/landmarks.json.",
    )


def from_mapping(ids: Mapping[str, int], *, vertices: int) -> Landmarks:
    """Check names and range of landmark ids.

    Raises:
        ModelInvalid: a name is missing or unknown, or an id is no vertex.
    """
    if set(ids) != set(LANDMARKS):
        wrong = sorted(set(ids) ^ set(LANDMARKS))
        raise ModelInvalid(f"Landmarks are missing or unknown: {', '.join(wrong)}.")
    for name, vertex in ids.items():
        if not 0 <= int(vertex) < vertices:
            raise ModelInvalid(f"The landmark {name} is vertex {vertex}; there are {vertices}.")
    return Landmarks(**{name: int(ids[name]) for name in LANDMARKS})
