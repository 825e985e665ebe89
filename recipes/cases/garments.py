"""Clothes that lie, bridge and hang: offsets that vary over the body, never a constant.

A garment is a displacement of the T-posed body's own vertices, so that it moves with the limbs
under it.  Around trunk and legs the body is read as a radius over angle and height; cloth is
never nearer than its thickness, bridges what lies hollow between neighbours, and from the
fullest place downwards falls more or less straight.  Skirts and coats also span the legs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates, maximum_filter1d

from recipes.cases.subject import Subject
from worker.avatar.body.layout import JOINT_INDEX
from worker.avatar.body.model import BodyData
from worker.avatar.types import BoolArray, Float64Array

Range = tuple[float, float]

_ANGLES, _LEVELS = 48, 90
_BRIDGE_BINS = 7
"""Angles over which cloth bridges: 52°."""


@dataclass(frozen=True, slots=True)
class Garment:
    """One kind of garment; ranges are drawn from for each wearer."""

    name: str
    thickness_m: Range
    hang: Range
    """0: follows the body; 1: falls straight from the fullest place above."""
    hem_slack_m: Range
    """Further room at the hem, growing from nothing at the top."""
    hem: float
    """Height of the hem: of tops below the hip joint, of bottoms above the ankle, in statures."""
    sleeve: float = 0.0
    """Share of the arm, shoulder to wrist, that it covers; the slack grows along it."""
    spans_legs: bool = False


TIGHT_TOP = Garment("tight top", (0.001, 0.003), (0.0, 0.05), (0.0, 0.001), 0.03, 0.3)
T_SHIRT = Garment("T-shirt", (0.002, 0.004), (0.4, 0.9), (0.0, 0.015), 0.045, 0.32)
SHIRT = Garment("shirt", (0.002, 0.005), (0.5, 0.95), (0.005, 0.02), 0.06, 1.0)
SWEATER = Garment("sweater", (0.005, 0.012), (0.5, 0.98), (0.0, 0.02), 0.05, 1.0)
COAT = Garment("coat", (0.010, 0.020), (0.8, 1.0), (0.01, 0.04), 0.22, 1.0, spans_legs=True)
LEGGINGS = Garment("leggings", (0.001, 0.002), (0.0, 0.03), (0.0, 0.001), 0.0)
JEANS = Garment("jeans", (0.002, 0.004), (0.15, 0.5), (0.003, 0.02), -0.01)
CHINOS = Garment("chinos", (0.002, 0.004), (0.3, 0.7), (0.005, 0.03), -0.01)
WIDE_TROUSERS = Garment("wide trousers", (0.002, 0.005), (0.7, 1.0), (0.02, 0.06), -0.015)
SKIRT = Garment("skirt", (0.002, 0.004), (0.8, 1.0), (0.01, 0.06), 0.22, spans_legs=True)

FAMILIES: Final[dict[str, tuple[tuple[Garment, ...], tuple[Garment, ...]]]] = {
    "tight": ((TIGHT_TOP,), (LEGGINGS,)),
    "everyday": ((T_SHIRT, SHIRT), (JEANS, CHINOS)),
    "loose": ((SWEATER, COAT), (WIDE_TROUSERS, SKIRT)),
}
"""Tops and bottoms; one of each is drawn."""
TEST_ONLY = ("loose",)
"""Families that the development split never sees."""

_SOLE_M: Range = (0.010, 0.035)
_SHOE_M: Range = (0.004, 0.010)
_HAIR_M: Range = (0.003, 0.030)


@dataclass(frozen=True, slots=True)
class Worn:
    """What a person wears."""

    top: str
    bottom: str
    vertices: Float64Array
    """(V, 3) the T-posed body with everything on it."""
    spanned: tuple[BoolArray, ...]
    """(V,) vertices whose outline in a photo has no gap between the legs."""


def dress(rig: BodyData, subject: Subject, family: str, rng: np.random.Generator) -> Worn:
    """Dress a subject.

    Args:
        rig: skinning weights, by which limbs are told from the trunk.
        subject: who.
        family: a key of `FAMILIES`.
        rng: decides garments and how they lie.
    """
    tops, bottoms = FAMILIES[family]
    top = tops[rng.integers(len(tops))]
    bottom = bottoms[rng.integers(len(bottoms))]
    body = _Regions(rig, subject)
    lift = np.zeros_like(subject.vertices)
    spanned = []
    # Outer over inner: a top covers the waistband, and the larger offset is what is seen.
    for garment, is_top in ((bottom, False), (top, True)):
        offset, covered = body.lay(garment, rng, is_top=is_top)
        larger = np.linalg.norm(offset, axis=1) > np.linalg.norm(lift, axis=1)
        lift[larger] = offset[larger]
        if garment.spans_legs:
            spanned.append(covered)
    lift += body.hair(rng)
    dressed = body.shod(subject.vertices + lift, rng)
    return Worn(top.name, bottom.name, dressed, tuple(spanned))


class _Regions:
    """The parts of a T-posed body that clothes are cut for."""

    def __init__(self, rig: BodyData, subject: Subject) -> None:
        self._vertices, self._joints = subject.vertices, subject.joints
        self._stature = subject.height_cm / 100
        weights = rig.lbs_weights
        arms = [JOINT_INDEX[f"{s}_{j}"] for s in ("left", "right") for j in ("shoulder", "elbow")]
        hands = weights[:, 25:55].sum(axis=1) + weights[:, [20, 21]].sum(axis=1)
        self._arm = weights[:, arms].sum(axis=1) > 0.5
        self._hand = hands > 0.5
        self._head = weights[:, [12, 15, 22, 23, 24]].sum(axis=1) > 0.5
        self._foot = weights[:, [7, 8, 10, 11]].sum(axis=1) > 0.5

    def lay(
        self, garment: Garment, rng: np.random.Generator, *, is_top: bool
    ) -> tuple[Float64Array, BoolArray]:
        """The offset (V, 3) of one garment, and the vertices (V,) below the hips it covers."""
        thickness, hang, slack = (
            rng.uniform(*span) for span in (garment.thickness_m, garment.hang, garment.hem_slack_m)
        )
        height = self._vertices[:, 1]
        hip = float(self._joints[JOINT_INDEX["left_hip"], 1])
        limb = self._arm | self._hand | self._head
        below = np.zeros(len(height), dtype=bool)
        offset = np.zeros_like(self._vertices)
        if is_top or garment.spans_legs:
            high = float(self._joints[JOINT_INDEX["neck"], 1]) if is_top else hip + 0.1
            low = hip - garment.hem * self._stature
            part = ~limb & (height > low) & (height < high)
            offset[part] = self._hanging(part, 0.0, (thickness, hang, slack), rng)
            below = part & (height < hip)
        else:
            ankle = float(self._joints[JOINT_INDEX["left_ankle"], 1])
            low, high = ankle + garment.hem * self._stature, hip + 0.1
            for side, sign in (("left", 1.0), ("right", -1.0)):
                bone = self._joints[[JOINT_INDEX[f"{side}_hip"], JOINT_INDEX[f"{side}_ankle"]]]
                part = ~limb & (height > low) & (height < high) & (sign * self._vertices[:, 0] >= 0)
                middle = float(bone[:, 0].mean())
                offset[part] = self._hanging(part, middle, (thickness, hang, slack), rng)
        if garment.sleeve:
            offset += self._sleeves(garment.sleeve, thickness, slack)
        return offset, below

    def _hanging(
        self,
        part: BoolArray,
        middle_x: float,
        cut: tuple[float, float, float],
        rng: np.random.Generator,
    ) -> Float64Array:
        """Offsets (P, 3), level, of cloth around an upright axis at `middle_x`.

        `cut` holds thickness in metres, hang, and slack at the hem in metres.
        """
        thickness_m, hang, slack_m = cut
        points = self._vertices[part]
        level = points[:, 1]
        place = (level.max() - level) / np.ptp(level) * (_LEVELS - 1)
        middle = _middles(points, place, middle_x)
        out = points[:, [0, 2]] - middle[place.astype(int)]
        radius = np.linalg.norm(out, axis=1)
        angle = (np.arctan2(out[:, 1], out[:, 0]) / (2 * np.pi) % 1.0) * _ANGLES
        skin = np.zeros((_LEVELS, _ANGLES))
        np.maximum.at(skin, (place.astype(int), angle.astype(int) % _ANGLES), radius)
        skin = _filled(skin)
        cloth = maximum_filter1d(skin, _BRIDGE_BINS, axis=1, mode="wrap")
        # Bridging takes half of what neighbours stand out; hanging takes the rest from above.
        cloth = np.maximum(skin, (cloth + skin) / 2 if hang > 0.1 else skin) + thickness_m
        for row in range(1, _LEVELS):
            cloth[row] = np.maximum(
                cloth[row], hang * cloth[row - 1] + (1 - hang) * (skin[row] + thickness_m)
            )
        cloth += slack_m * np.linspace(0.0, 1.0, _LEVELS)[:, None]
        folds = gaussian_filter(rng.standard_normal(cloth.shape), (9.0, 3.0), mode="wrap")
        lift = (cloth - skin) * np.clip(1.0 + 0.35 * folds / folds.std(), 0.3, 1.8)
        lift = gaussian_filter(lift, 1.0, mode=("nearest", "wrap"))
        # Angles are read between the middles of bins, round the circle.
        wrapped = np.concatenate((lift[:, -1:], lift, lift[:, :1]), axis=1)
        at = map_coordinates(wrapped, [place, angle + 0.5], order=1, mode="nearest")
        unit = out / np.maximum(radius, 1e-6)[:, None]
        return np.stack((unit[:, 0] * at, np.zeros(len(at)), unit[:, 1] * at), axis=1)

    def _sleeves(self, share: float, thickness_m: float, slack_m: float) -> Float64Array:
        offset = np.zeros_like(self._vertices)
        for side in ("left", "right"):
            shoulder, wrist = (
                self._joints[JOINT_INDEX[f"{side}_{end}"]] for end in ("shoulder", "wrist")
            )
            bone = wrist - shoulder
            from_shoulder = self._vertices - shoulder
            along = from_shoulder @ bone / (bone @ bone)
            part = self._arm & (along > -0.1) & (along < share) & (along < 0.97)
            part &= np.sign(self._vertices[:, 0]) == np.sign(shoulder[0])
            out = from_shoulder - along[:, None] * bone
            out /= np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-6)
            lift = thickness_m + slack_m * np.clip(along / max(share, 0.1), 0.0, 1.0)
            offset[part] = (out * lift[:, None])[part]
        return offset

    def hair(self, rng: np.random.Generator) -> Float64Array:
        """Offset (V, 3) of hair over the skull, above the ears."""
        length = rng.uniform(*_HAIR_M)
        middle = self._joints[JOINT_INDEX["head"]] + np.array([0.0, 0.06, 0.0])
        out = self._vertices - middle
        reach = np.linalg.norm(out, axis=1)
        grows = self._head & ((out[:, 1] > 0.04) | (out[:, 2] < -0.03)) & (reach > 0.05)
        return np.where(grows[:, None], out / np.maximum(reach, 1e-6)[:, None] * length, 0.0)

    def shod(self, vertices: Float64Array, rng: np.random.Generator) -> Float64Array:
        """The dressed body (V, 3) in shoes: feet larger, and standing on soles."""
        sole, upper = rng.uniform(*_SOLE_M), rng.uniform(*_SHOE_M)
        shod = vertices.copy()
        for side in (1.0, -1.0):
            foot = self._foot & (side * vertices[:, 0] > 0)
            low = foot & (vertices[:, 1] < vertices[foot, 1].min() + 0.08)
            out = vertices[low] - vertices[low].mean(axis=0)
            out /= np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-6)
            shod[low] += upper * out
            bottom = low & (vertices[:, 1] < vertices[foot, 1].min() + 0.03)
            shod[bottom, 1] -= sole
        return shod


def _filled(skin: Float64Array) -> Float64Array:
    """Radii over level and angle, empty cells taken from their neighbours."""
    filled = skin.copy()
    for row in filled:
        known = np.flatnonzero(row > 0)
        if len(known):
            row[:] = np.interp(np.arange(_ANGLES), known, row[known], period=_ANGLES)
    empty = ~(filled > 0).any(axis=1)
    rows = np.arange(_LEVELS)
    for column in range(_ANGLES):
        filled[:, column] = np.interp(rows, rows[~empty], filled[~empty, column])
    return np.asarray(gaussian_filter(filled, (1.0, 1.0), mode=("nearest", "wrap")))


def _middles(points: Float64Array, place: Float64Array, middle_x: float) -> Float64Array:
    """(levels, 2) x and z of the axis: in the middle of each level's depth."""
    depth = np.full(_LEVELS, np.nan)
    for row in range(_LEVELS):
        near = points[np.abs(place - row) < 2.0, 2]
        if len(near):
            depth[row] = (near.max() + near.min()) / 2
    known = np.isfinite(depth)
    depth = np.interp(np.arange(_LEVELS), np.flatnonzero(known), depth[known])
    depth = gaussian_filter(depth, 3.0, mode="nearest")
    return np.stack((np.full(_LEVELS, middle_x), depth), axis=1)
