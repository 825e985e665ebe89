"""The free body: CC0 data in the SMPL-X file format, shipped with the package.

`recipes/free_body` derives it; `data/free_body.json` says from what, and holds the digest that the
pack is checked against before it is used.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from worker.avatar.body.garments import Garments, read_garments
from worker.avatar.body.layout import PARENTS
from worker.avatar.body.model import BodyData, DisplayMesh
from worker.avatar.body.pack import PackedTopology, read_people, read_shape, read_topology
from worker.avatar.types import Gender
from worker.errors import ModelInvalid, ModelMissing

DATA_DIR = Path(str(resources.files("worker.avatar.body"))) / "data"
PACK_NAME = "free_body.npz"
PEOPLE_NAME = "free_people.npz"
GARMENTS_NAME = "free_garments.npz"
CARD_NAME = "free_body.json"
"""Where the body comes from, under which licence, and the digests of its files."""


def _card() -> dict[str, Any]:
    card: dict[str, Any] = json.loads((DATA_DIR / CARD_NAME).read_text("utf-8"))
    return card


def free_body_digest() -> str:
    """Give the SHA-256 that the pack must have, from its card."""
    return _digest(PACK_NAME)


def people_digest() -> str:
    """Give the SHA-256 that the file of the people expected must have, from the card."""
    return _digest(PEOPLE_NAME)


def garments_digest() -> str:
    """Give the SHA-256 that the file of garments must have, from the card."""
    return _digest(GARMENTS_NAME)


def _digest(name: str) -> str:
    return str(_card()["files"][name]["sha256"])


@cache
def _verified(name: str) -> Path:
    """Give a file's path once its digest was seen to be right."""
    path = DATA_DIR / name
    if not path.is_file():
        raise ModelMissing(f"{name} is not in the package")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != _digest(name):
        raise ModelInvalid(f"{name} has the digest {found[:12]}…, not the one of its card")
    return path


@cache
def _topology() -> PackedTopology:
    return read_topology(_verified(PACK_NAME))


@cache
def free_body(gender: Gender) -> BodyData:
    """Unfold the free body of one gender; its arrays are shared and must not be written to.

    Args:
        gender: neutral is the shape space of both sexes together.

    Raises:
        ModelMissing: the pack is not in the package.
        ModelInvalid: the pack is not the one that its card names.
    """
    topology, shape = _topology(), read_shape(_verified(PACK_NAME), gender)
    data = BodyData(
        gender=gender,
        name=str(_card()["name"]),
        digest=free_body_digest(),
        v_template=shape.v_template,
        shapedirs=shape.shapedirs,
        expressiondirs=topology.expressiondirs,
        posedirs=None,
        J_regressor=topology.J_regressor,
        lbs_weights=topology.lbs_weights,
        parents=np.array(PARENTS, dtype=np.int64),
        faces=topology.faces,
        keypoint_regressor=topology.keypoint_regressor,
        people=read_people(_verified(PEOPLE_NAME), gender),
    )
    for array in (
        *(data.v_template, data.shapedirs, data.expressiondirs, data.J_regressor),
        *(data.lbs_weights, data.parents, data.faces, data.keypoint_regressor),
    ):
        array.setflags(write=False)
    return data


@cache
def free_garments() -> Garments:
    """Read how clothes lie on the free body.

    Raises:
        ModelMissing: the file is not in the package.
        ModelInvalid: it is not the one that the card names.
    """
    return read_garments(_verified(GARMENTS_NAME))


@cache
def display_topology() -> DisplayMesh:
    """Give the simplification in which the free body is shown; all genders share it."""
    topology = _topology()
    return DisplayMesh(topology.display_vertices, topology.display_faces)


FREE_BODY_DIGEST = free_body_digest()
"""SHA-256 of the shipped pack."""
