"""Which part of the display mesh is skin, which is clothing, which is eye.

The body that a shopper sees is a mannequin, not a nude: it wears a fitted grey T-shirt and
dark shorts.  They have no thickness; they are the body's own surface in another material, so
that the shape and every measurement stay what they were.

The hems are drawn as level lines of scalar fields on the template in T-pose, placed by the
body's own joints, so they sit alike on every SMPL-X-format body.  Where a triangle straddles a
hem, its nearer vertex slides along an edge onto the line: the hem is crisp, the surface is kept
to the chord of an edge, and not one triangle is added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from worker.avatar.body.layout import JOINT_INDEX
from worker.avatar.types import Float64Array, Int64Array

if TYPE_CHECKING:
    from worker.avatar.body.model import BodyData, DisplayMesh


class Part(StrEnum):
    """What a triangle of the display mesh is made of."""

    SKIN = "skin"
    TOP = "top"
    SHORTS = "shorts"
    EYE_WHITE = "eye_white"
    IRIS = "iris"


@dataclass(frozen=True, slots=True)
class DressedMesh:
    """A display mesh whose vertices may lie on edges of the body, cut into parts.

    Display vertex i is `(1 - slide[i]) * body[start[i]] + slide[i] * body[end[i]]`, for any
    quantity that the body has per vertex.
    """

    start: Int64Array
    """(N,) body vertices."""
    end: Int64Array
    """(N,) body vertices; equal to `start` where nothing slid."""
    slide: Float64Array
    """(N,) 0..0.5."""
    faces: Mapping[Part, Int64Array]
    """(F, 3) each, into the N display vertices; parts without a triangle are left out."""

    def sample(self, per_vertex: NDArray[np.floating]) -> Float64Array:
        """Take a quantity (V, …) of the body to the display vertices (N, …)."""
        blend = self.slide.reshape(-1, *[1] * (per_vertex.ndim - 1))
        result: Float64Array = (1.0 - blend) * per_vertex[self.start] + blend * per_vertex[self.end]
        return result


_EYES = [JOINT_INDEX["left_eye_smplhf"], JOINT_INDEX["right_eye_smplhf"]]

_LEG_HEM = 0.38
"""How far down the thigh the shorts reach, from hip joint to knee."""
_SLEEVE_HEM = 0.36
"""How far down the upper arm the sleeve reaches, from shoulder joint to elbow."""
_WAIST = 0.45
"""Where the shirt ends, from pelvis joint up to the first spine joint."""
_NECK_DROP_M = 0.005
"""How far below the neck joint the collar passes the middle of the neck."""
_NECK_TILT = np.deg2rad(28.0)
"""The collar is lower in front than behind."""
_IRIS = np.cos(np.deg2rad(27.0))
"""Half angle of the iris, seen from the eye's centre: 11.7 mm of a 24 mm eyeball."""


def dress(data: BodyData, display: DisplayMesh) -> DressedMesh:
    """Cut the display mesh of a body into its parts.

    Args:
        data: the body; its template must be the T-pose.
        display: vertices (N,) of the body and triangles (F, 3) between them.
    """
    template = np.asarray(data.v_template, dtype=np.float64)
    joints = np.asarray(data.J_regressor, dtype=np.float64) @ template
    weights = np.asarray(data.lbs_weights)
    mesh = _Sliding(np.asarray(display.vertex_index, dtype=np.int64), np.asarray(display.faces))

    eye = weights[:, _EYES].sum(axis=1) > 0.5
    on_eye = mesh.faces_where(np.where(eye, 1.0, -1.0))
    # Each hem moves the vertices before the next one is judged; the hems do not meet.
    wearing = mesh.cut(_covered(template, joints), allowed=~on_eye)
    below_waist = mesh.cut(_below_waist(template, joints), allowed=wearing)
    in_iris = mesh.cut(_iris(template, eye), allowed=on_eye)

    if not _looks_out_of_both(mesh, in_iris, template):
        # A statue's eye is less eerie than a white one: too coarse an eyeball stays skin.
        on_eye, in_iris = np.zeros_like(on_eye), np.zeros_like(in_iris)

    part_of_face = {
        Part.SKIN: ~on_eye & ~wearing,
        Part.TOP: wearing & ~below_waist,
        Part.SHORTS: wearing & below_waist,
        Part.EYE_WHITE: on_eye & ~in_iris,
        Part.IRIS: on_eye & in_iris,
    }
    return DressedMesh(
        start=mesh.start,
        end=mesh.end,
        slide=mesh.slide,
        faces={part: mesh.faces[chosen] for part, chosen in part_of_face.items() if chosen.any()},
    )


class _Sliding:
    """A mesh whose vertices can slide along its edges, once each."""

    def __init__(self, vertex_index: Int64Array, faces: NDArray[np.integer]) -> None:
        self.faces = faces.astype(np.int64)
        self.start = vertex_index.copy()
        self.end = vertex_index.copy()
        self.slide = np.zeros(len(vertex_index))
        pairs = np.sort(self.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
        self._edges = np.unique(pairs, axis=0)

    def value(self, level: Float64Array) -> Float64Array:
        """Take a quantity of the body (V,) to the display vertices (N,)."""
        result: Float64Array = (1 - self.slide) * level[self.start] + self.slide * level[self.end]
        return result

    def faces_where(self, level: Float64Array) -> NDArray[np.bool_]:
        """Tell (F,) which faces lie where a level (V,) is positive, by their mean."""
        positive: NDArray[np.bool_] = self.value(level)[self.faces].sum(axis=1) > 0
        return positive

    def cut(self, level: Float64Array, allowed: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Bring edges that cross level 0 onto it; tell (F,) which faces are above it.

        Only vertices whose every face is `allowed` (F,) and that did not slide before move.
        """
        fixed = self.slide > 0
        fixed[self.faces[~allowed]] = True
        value = self.value(level)
        edges = np.concatenate((self._edges, self._edges[:, ::-1]))
        here, there = value[edges[:, 0]], value[edges[:, 1]]
        crossing = (here * there < 0) & ~fixed[edges[:, 0]]
        # Of each crossing edge the nearer end moves; an end on several takes the shortest way.
        way = np.divide(here, here - there, out=np.ones_like(here), where=crossing)
        order = np.argsort(-way[crossing & (way <= 0.5)], kind="stable")
        moves = np.flatnonzero(crossing & (way <= 0.5))[order]
        vertex, towards = edges[moves, 0], edges[moves, 1]
        self.end[vertex] = self.start[towards]
        self.slide[vertex] = way[moves]
        moved = self.value(level)
        moved[self.slide > 0] = np.where(
            np.abs(moved[self.slide > 0]) < 1e-9, 0.0, moved[self.slide > 0]
        )
        above: NDArray[np.bool_] = (moved[self.faces].sum(axis=1) > 0) & allowed
        return above


def _covered(template: Float64Array, joints: Float64Array) -> Float64Array:
    """Metres (V,) inside the clothes: above the leg hems, inside the sleeves, below the collar."""
    x, y = np.abs(template[:, 0]), template[:, 1]
    leg_hem = _between(joints, "left_hip", "left_knee", _LEG_HEM)[1]
    sleeve_hem = _between(joints, "left_shoulder", "left_elbow", _SLEEVE_HEM)[0]
    collar = joints[JOINT_INDEX["neck"]] - (0.0, _NECK_DROP_M, 0.0)
    normal = np.array([0.0, np.cos(_NECK_TILT), np.sin(_NECK_TILT)])
    # The collar only bounds what is near the neck: the chin and chest are ahead of its plane.
    below_collar = -(template - collar) @ normal
    result: Float64Array = np.minimum.reduce((y - leg_hem, sleeve_hem - x, below_collar))
    return result


def _below_waist(template: Float64Array, joints: Float64Array) -> Float64Array:
    waist = _between(joints, "pelvis", "spine1", _WAIST)[1]
    result: Float64Array = waist - template[:, 1]
    return result


def _iris(template: Float64Array, eye: NDArray[np.bool_]) -> Float64Array:
    """Positive (V,) on the front cap of each eyeball, looking straight ahead."""
    level = np.full(len(template), -1.0)
    for side in (template[:, 0] > 0, template[:, 0] <= 0):
        ball = eye & side
        if ball.any():
            centre = (template[ball].min(axis=0) + template[ball].max(axis=0)) / 2
            ray = template[ball] - centre
            level[ball] = ray[:, 2] / np.linalg.norm(ray, axis=1) - _IRIS
    return level


def _looks_out_of_both(mesh: _Sliding, in_iris: NDArray[np.bool_], template: Float64Array) -> bool:
    """Tell whether the left and the right eye have an iris."""
    x = mesh.value(template[:, 0])[mesh.faces[in_iris]]
    return bool((x > 0).any() and (x < 0).any())


def _between(joints: Float64Array, start: str, end: str, share: float) -> Float64Array:
    """Return the place (3,) that lies `share` of the way from one joint to another."""
    first, second = joints[JOINT_INDEX[start]], joints[JOINT_INDEX[end]]
    result: Float64Array = first + share * (second - first)
    return result
