"""People in drawn clothes, and how far those stand off their skin at every vertex."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from recipes.cases.draping import dress_from
from recipes.cases.garments import FAMILIES, Choice, Garment
from recipes.cases.subjects import WIDE, draw_subjects
from recipes.free_body.pca import ShapeSpace
from worker.avatar.body.free import DATA_DIR, PACK_NAME, free_body
from worker.avatar.body.garments import KINDS, Outfit
from worker.avatar.body.layout import JOINT_INDEX
from worker.avatar.body.model import BodyData
from worker.avatar.body.pack import read_shape
from worker.avatar.types import Float64Array, Gender, Int64Array

_SLIM: Choice = (
    (
        Garment("slim top", (0.001, 0.004), (0.05, 0.4), (0.0, 0.003), 0.025, 0.32, (0.001, 0.006)),
        Garment("slim shirt", (0.001, 0.004), (0.05, 0.4), (0.0, 0.003), 0.03, 1.0, (0.001, 0.006)),
    ),
    (Garment("slim trousers", (0.001, 0.003), (0.03, 0.18), (0.0, 0.005), -0.005),),
)
"""Our judgement of what lies between a second skin and everyday clothes; no case wears it.  Without
it the sample person was taken for everyday-dressed and too slim (docs/decisions/0027)."""

_LOOSE: Choice = (
    (
        Garment("wide top", (0.002, 0.010), (0.6, 1.0), (0.0, 0.03), 0.03, 1.0, (0.005, 0.03)),
        Garment("big T-shirt", (0.002, 0.008), (0.7, 1.0), (0.005, 0.03), 0.06, 0.35, (0.01, 0.03)),
    ),
    (Garment("wide legs", (0.002, 0.006), (0.5, 1.0), (0.01, 0.05), -0.01),),
)
"""Our judgement of what is loose.  Not the garments of the cases' family of that name, which no
development sees; the same hand drew both."""

CHOICES: dict[str, Choice] = {
    "tight": FAMILIES["tight"],
    "slim": _SLIM,
    "everyday": FAMILIES["everyday"],
    "loose": _LOOSE,
}
"""Tops and bottoms of each of `KINDS`."""

_OF_ONE_KIND = tuple((kind, kind) for kind in KINDS)
_MIXED = tuple(itertools.permutations(KINDS, 2))

_AT_ONCE = 150
_NEIGHBOURS = 24
_NEAR_M = 0.08
_LEVEL_M = 0.015
_FACING = 0.2
_NEAREST, _FARTHEST = -0.005, 0.12


@dataclass(frozen=True, slots=True, eq=False)
class Dressed:
    """One person in one set of clothes."""

    outfit: Outfit
    offset_m: np.ndarray
    """(V,) float16: how far the outside of the clothes lies from the skin, along its normal."""
    betas: dict[Gender, Float64Array]
    """In the space of their own sex and in the neutral one."""


def dressed_people(sex: Gender, count: int, seed: int) -> Iterator[Dressed]:
    """Draw people, each in a set of clothes of each kind, and in every other mixed set."""
    rig = free_body(sex)
    neighbours = _neighbours(rig)
    spaces = {gender: _space(gender) for gender in (sex, Gender.NEUTRAL)}
    for first in range(0, count, _AT_ONCE):
        rng = np.random.default_rng([seed, first])
        drawn = draw_subjects(min(_AT_ONCE, count - first), sex, seed + first, WIDE)
        for number, subject in enumerate(drawn):
            normals = _normals(rig, subject.vertices)
            betas = {
                gender: space.betas_of(subject.vertices[None])[0]
                for gender, space in spaces.items()
            }
            for top, bottom in (*_OF_ONE_KIND, *_MIXED[number % 2 :: 2]):
                choice = (CHOICES[top][0], CHOICES[bottom][1])
                worn = dress_from(rig, subject, f"{top} and {bottom}", choice, rng)
                offset_m = _offsets(subject.vertices, worn.vertices, normals, neighbours)
                yield Dressed((top, bottom), offset_m, betas)


def _space(gender: Gender) -> ShapeSpace:
    shape = read_shape(DATA_DIR / PACK_NAME, gender)
    return ShapeSpace(shape.v_template, shape.shapedirs, 1.0)


def _normals(rig: BodyData, vertices: Float64Array) -> Float64Array:
    a, b, c = vertices[rig.faces].transpose(1, 0, 2)
    across = np.cross(b - a, c - a)
    normals = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normals, rig.faces[:, corner], across)
    return np.asarray(normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12))


def _neighbours(rig: BodyData) -> Int64Array:
    """(V, n) what may be the outline in a vertex's place: of its level, near, facing alike.

    An arm's levels are along it.
    """
    points = rig.v_template.astype(np.float64)
    normals = _normals(rig, points)
    joints = [JOINT_INDEX[f"{s}_{j}"] for s in ("left", "right") for j in ("shoulder", "elbow")]
    arm = rig.lbs_weights[:, [*joints, 20, 21, *range(25, 55)]].sum(axis=1) > 0.5
    found = np.tile(np.arange(len(points))[:, None], (1, _NEIGHBOURS))
    _, near = cKDTree(points).query(points, k=220)
    for vertex, others in enumerate(near):
        away = points[others] - points[vertex]
        kept = (
            (np.abs(away[:, 0 if arm[vertex] else 1]) < _LEVEL_M)
            & (np.linalg.norm(away, axis=1) < _NEAR_M)
            & (normals[others] @ normals[vertex] > _FACING)
            & (arm[others] == arm[vertex])
        )
        chosen = others[kept][:_NEIGHBOURS]
        found[vertex, : len(chosen)] = chosen
    return found


def _offsets(
    skin: Float64Array, cloth: Float64Array, normals: Float64Array, neighbours: Int64Array
) -> np.ndarray:
    """(V,) how much farther out the outermost cloth around each vertex lies than the skin there."""
    ways = [np.full(len(skin), -np.inf) for _ in range(2)]
    for column, (way, surface) in itertools.product(
        neighbours.T, zip(ways, (skin, cloth), strict=True)
    ):
        np.maximum(way, ((surface[column] - skin) * normals).sum(axis=1), out=way)
    return np.clip(ways[1] - ways[0], _NEAREST, _FARTHEST).astype(np.float16)
