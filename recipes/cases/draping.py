"""Clothes that lie, bridge and hang: offsets that vary over the body, never a constant.

A garment is a displacement of the T-posed body's own vertices, so that it moves with the limbs
under it.  Around trunk and legs the body is read as a radius over angle and height; cloth is
never nearer than its thickness, bridges what lies hollow between neighbours, and from the
fullest place downwards falls more or less straight.  Skirts and coats also span the legs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial import ConvexHull

from recipes.cases.garments import FAMILIES, Choice, Garment, Range
from recipes.cases.subject import Subject
from recipes.sample_person.surface import Surface, smoothed
from worker.avatar.body.layout import JOINT_INDEX
from worker.avatar.body.model import BodyData
from worker.avatar.types import BoolArray, Float64Array, Gender, Int64Array

_ANGLES, _LEVELS = 48, 90
_SHEET_M = 0.03
"""Skin of one level and direction that lies farther apart belongs to two limbs."""

_SOLE_M: Range = (0.010, 0.035)
_SHOE_M: Range = (0.004, 0.010)
_HAIR_M: Range = (0.003, 0.030)
_LONG_HAIR = {Gender.FEMALE: 0.65, Gender.MALE: 0.05}
"""Share of people whose hair falls over neck or back."""
_HAIR_DOWN_M: Range = (-0.02, 0.20)
_HANG_M = 0.10
"""Over this height cloth keeps the share `hang` of what it stands off."""
_HIDES_M = 0.015
"""The deepest hollow of the skin that cloth passes straight over."""
_OVER_M = 0.002
"""How far a top stands off what is under it."""
_EASING = 2
"""Passes of averaging with the neighbours."""


_MARGIN_M = 0.04
"""Cloth is laid this far beyond its hem, so that the hem can be cut clean."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """Cloth around both legs that follows neither's skin."""

    points: Float64Array
    """(N, 3) around the T-posed body."""
    faces: Int64Array
    """(F, 3)."""
    shares: Float64Array
    """(N, 3) how much pelvis, left and right thigh carry each point."""

    def bent(self, linear: Float64Array, shift: Float64Array) -> Float64Array:
        """Points (N, 3) where pelvis and thighs take them by maps (3, 3, 3) and (3, 3)."""
        moved = np.einsum("jab,nb->nja", linear, self.points) + shift
        return np.asarray(np.einsum("nj,nja->na", self.shares, moved))


@dataclass(frozen=True, slots=True)
class Layer:
    """One garment on a person."""

    garment: Garment
    vertices: Float64Array
    """(V, 3) the T-posed body under it, moved out to the cloth."""
    inside: Float64Array
    """(V,) metres from the nearest hem, positive where there is cloth."""
    sheet: Sheet | None = None
    """What hangs in one piece around both legs, if anything does."""


@dataclass(frozen=True, slots=True)
class Worn:
    """What a person wears."""

    family: str
    layers: tuple[Layer, ...]
    """Bottom and top."""
    vertices: Float64Array
    """(V, 3) the T-posed body with everything on it, hair and shoes too."""
    spanned: tuple[BoolArray, ...]
    """(V,) vertices whose outline in a photo has no gap between the legs."""
    hair_m: float
    """Length over the skull."""
    hair_down_m: float
    """How far it falls below the neck; 0: it does not."""
    sole_m: float
    """Thickness of the soles; 0: barefoot."""
    upper_m: float
    """How far the shoes stand off the feet."""

    @property
    def names(self) -> list[str]:
        """Top and bottom."""
        return [layer.garment.name for layer in reversed(self.layers)]


def dress(rig: BodyData, subject: Subject, family: str, rng: np.random.Generator) -> Worn:
    """Dress a subject.

    Args:
        rig: skinning weights, by which limbs are told from the trunk, and faces.
        subject: who.
        family: a key of `FAMILIES`.
        rng: decides garments and how they lie.
    """
    return dress_from(rig, subject, family, FAMILIES[family], rng)


def dress_from(
    rig: BodyData, subject: Subject, family: str, choice: Choice, rng: np.random.Generator
) -> Worn:
    """Dress a subject in one of the tops and one of the bottoms of `choice`."""
    tops, bottoms = choice
    top = tops[rng.integers(len(tops))]
    bottom = bottoms[rng.integers(len(bottoms))]
    body = _Regions(rig, subject)
    lift = np.zeros_like(subject.vertices)
    layers, spanned = [], []
    under = np.zeros_like(lift)
    for garment, is_top in ((bottom, False), (top, True)):
        offset, inside, sheet = body.lay(garment, rng, is_top=is_top)
        offset = body.over(offset, under, inside)
        layers.append(Layer(garment, subject.vertices + offset, inside, sheet))
        covered = inside > 0
        lift[covered] = offset[covered]
        under = np.where((inside > -_MARGIN_M)[:, None], offset, 0.0)
        if garment.spans_legs:
            spanned.append(covered & body.below_hips)
    hair_m, sole_m, upper_m = (rng.uniform(*span) for span in (_HAIR_M, _SOLE_M, _SHOE_M))
    if bottom.legless:
        sole_m = upper_m = 0.0
    falls = rng.random() < _LONG_HAIR[subject.gender]
    hair_down_m = rng.uniform(*_HAIR_DOWN_M) if falls else 0.0
    lift += body.hair(hair_m)
    dressed = body.shod(subject.vertices + lift, sole_m, upper_m)
    return Worn(
        family, tuple(layers), dressed, tuple(spanned), hair_m, hair_down_m, sole_m, upper_m
    )


@dataclass(frozen=True, slots=True)
class _Tube:
    """Cloth around an upright axis."""

    level_m: Float64Array
    """(levels,) heights, falling."""
    middle: Float64Array
    """(levels, 2) x and z of the axis."""
    radius_m: Float64Array
    """(levels, angles)."""


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
        self._limb = self._arm | self._hand | self._head
        surface = Surface(subject.vertices, subject.vertices, rig.faces)
        self._normals, self._averaging = surface.normals(), surface.averaging()

    @property
    def below_hips(self) -> BoolArray:
        """(V,) below the hip joints, but for the arms."""
        return ~self._limb & (self._vertices[:, 1] < self._joint("left_hip")[1])

    def lay(
        self, garment: Garment, rng: np.random.Generator, *, is_top: bool
    ) -> tuple[Float64Array, Float64Array, Sheet | None]:
        """The offset (V, 3) of one garment, how far inside its hems (V,) each vertex lies, a sheet.

        The sheet is there for garments that span the legs.
        """
        thickness, hang, slack = (
            rng.uniform(*span) for span in (garment.thickness_m, garment.hang, garment.hem_slack_m)
        )
        inside = self._top(garment) if is_top else self._bottom(garment)
        part = ~self._limb & (inside > -_MARGIN_M)
        offset = np.zeros_like(self._vertices)
        cut = (thickness, hang, slack)
        if is_top or garment.spans_legs or garment.legless:
            offset[part], tube = self._hanging(part, 0.0, cut, rng)
        else:
            for side, sign in (("left", 1.0), ("right", -1.0)):
                middle_x = (self._joint(f"{side}_hip")[0] + self._joint(f"{side}_ankle")[0]) / 2
                leg = part & (sign * self._vertices[:, 0] >= 0)
                offset[leg], tube = self._hanging(leg, float(middle_x), cut, rng)
        if garment.sleeve:
            offset += self._sleeves(garment.sleeve, thickness, rng.uniform(*garment.sleeve_slack_m))
        sheet = self._sheet(tube, garment, is_top=is_top) if garment.spans_legs else None
        return self._settled(offset, inside, thickness), inside, sheet

    def _sheet(self, tube: _Tube, garment: Garment, *, is_top: bool) -> Sheet:
        """The part of a tube of cloth that hangs below the hips, down to the hem."""
        hip = float(self._joint("left_hip")[1])
        hem = hip - garment.hem * self._stature
        rows = np.flatnonzero(tube.level_m < hip + (0.0 if is_top else 0.05))
        rows = rows[tube.level_m[rows] > hem]
        turn = (np.arange(_ANGLES) + 0.5) * 2 * np.pi / _ANGLES
        ring = np.stack((np.cos(turn), np.sin(turn)), axis=1)
        flat = tube.middle[rows, None] + ring * tube.radius_m[rows][..., None]
        height = np.broadcast_to(tube.level_m[rows, None], flat.shape[:2])
        points = np.stack((flat[..., 0], height, flat[..., 1]), axis=-1).reshape(-1, 3)
        index = np.arange(len(points)).reshape(len(rows), _ANGLES)
        a, c = index[:-1], index[1:]
        b, d = np.roll(a, -1, axis=1), np.roll(c, -1, axis=1)
        faces = np.concatenate(
            [np.stack(corner, -1).reshape(-1, 3) for corner in ((a, b, c), (b, d, c))]
        )
        leg = np.clip((hip - points[:, 1]) / 0.15, 0.0, 1.0)
        left = np.clip(points[:, 0] / 0.20 + 0.5, 0.0, 1.0)
        shares = np.stack((1 - leg, leg * left, leg * (1 - left)), axis=1)
        return Sheet(points, faces, shares)

    def over(self, offset: Float64Array, under: Float64Array, inside: Float64Array) -> Float64Array:
        """Offsets (V, 3) of cloth that falls over other cloth: nowhere nearer than that."""
        apart = (offset * self._normals).sum(axis=1)
        least = (under * self._normals).sum(axis=1)
        short = np.where(least > 0, np.maximum(least + _OVER_M - apart, 0.0), 0.0)
        short = np.where(inside > -_MARGIN_M, short, 0.0)
        eased = np.maximum(smoothed(self._averaging, short, 3), short)
        return np.asarray(offset + eased[:, None] * self._normals)

    def _settled(
        self, offset: Float64Array, inside: Float64Array, thickness_m: float
    ) -> Float64Array:
        """Ease the seams between parts, and lift the cloth off the skin everywhere."""
        near = inside > -_MARGIN_M
        eased = smoothed(self._averaging, offset, _EASING)
        eased[~near] = 0.0
        apart = (eased * self._normals).sum(axis=1)
        eased[near] += (np.maximum(thickness_m - apart, 0.0)[:, None] * self._normals)[near]
        return eased

    def _joint(self, name: str) -> Float64Array:
        return np.asarray(self._joints[JOINT_INDEX[name]])

    def _top(self, garment: Garment) -> Float64Array:
        """(V,) metres inside a top: hem, sleeves' ends and collar."""
        points = self._vertices
        shoulder, wrist = self._joint("left_shoulder"), self._joint("left_wrist")
        arm_m = float(wrist[0] - shoulder[0])
        sleeve = shoulder[0] + garment.sleeve * 0.97 * arm_m - np.abs(points[:, 0])
        sleeve = np.where(points[:, 1] > shoulder[1] - 0.2, sleeve, 1.0)
        hem = points[:, 1] - (self._joint("left_hip")[1] - garment.hem * self._stature)
        neck = self._joint("neck")
        centre = neck + np.array([0.0, 0.035, 0.022])
        collar = np.linalg.norm((points - centre) / np.array([1.05, 1.0, 1.12]), axis=1) - 0.096
        # The head lies outside that ball too; the chin hangs low in front.
        chin = neck[1] + 0.03 - points[:, 1]
        chin = chin - 1.2 * np.clip(points[:, 2] - neck[2] - 0.075, 0, None)
        return np.minimum.reduce([sleeve, hem, collar, chin])

    def _bottom(self, garment: Garment) -> Float64Array:
        """(V,) metres inside a bottom: waistband and hem."""
        height = self._vertices[:, 1]
        hip = self._joint("left_hip")[1]
        waist = hip + garment.waist * self._stature - height
        waist = np.where(self._arm | self._hand, -1.0, waist)
        if garment.legless:
            # Cut high on the thigh: the leg's opening rises outwards.
            opening = height - (hip - 0.10 + 0.55 * np.abs(self._vertices[:, 0]))
            return np.minimum(waist, opening)
        ankle = self._joint("left_ankle")[1]
        low = hip - garment.hem * self._stature if garment.spans_legs else None
        hem = height - (ankle + garment.hem * self._stature if low is None else low)
        return np.minimum(waist, hem)

    def _hanging(
        self,
        part: BoolArray,
        middle_x: float,
        cut: tuple[float, float, float],
        rng: np.random.Generator,
    ) -> tuple[Float64Array, _Tube]:
        """Offsets (P, 3), level, of cloth around an upright axis at `middle_x`, and that cloth.

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
        skin = _filled(_outermost(place.astype(int), angle.astype(int) % _ANGLES, radius))
        # Cloth spans hollows; hanging takes the rest from above.
        cloth = skin + (0.8 * (_spanned(skin) - skin) if hang > 0.1 else 0.0) + thickness_m
        row_m = float(np.ptp(level)) / _LEVELS
        kept = hang ** (row_m / _HANG_M) if hang > 0 else 0.0
        for row in range(1, _LEVELS):
            cloth[row] = np.maximum(
                cloth[row], kept * cloth[row - 1] + (1 - kept) * (skin[row] + thickness_m)
            )
        cloth += slack_m * np.linspace(0.0, 1.0, _LEVELS)[:, None]
        folds = gaussian_filter(rng.standard_normal(cloth.shape), (9.0, 3.0), mode="wrap")
        lift = (cloth - skin) * np.clip(1.0 + 0.35 * folds / folds.std(), 0.3, 1.8)
        lift = gaussian_filter(lift, 1.0, mode=("nearest", "wrap"))

        def read(grid: Float64Array) -> Float64Array:
            # Angles are read between the middles of bins, round the circle.
            wrapped = np.concatenate((grid[:, -1:], grid, grid[:, :1]), axis=1)
            return np.asarray(
                map_coordinates(wrapped, [place, angle + 0.5], order=1, mode="nearest")
            )

        at = read(lift)
        smooth = gaussian_filter(skin + lift, (1.5, 1.0), mode=("nearest", "wrap"))
        if hang > 0.1:
            # Cloth that hangs does not show the navel: it has a radius of its own.
            own = np.clip(read(smooth) - radius, thickness_m, at + _HIDES_M)
            armpit = float(self._joint("left_shoulder")[1]) - 0.12
            share = np.clip((armpit - level) / 0.06, 0.0, 1.0)
            at = at + share * (own - at)
        unit = out / np.maximum(radius, 1e-6)[:, None]
        offset = np.stack((unit[:, 0] * at, np.zeros(len(at)), unit[:, 1] * at), axis=1)
        return offset, _Tube(np.linspace(level.max(), level.min(), _LEVELS), middle, smooth)

    def _sleeves(self, share: float, thickness_m: float, slack_m: float) -> Float64Array:
        offset = np.zeros_like(self._vertices)
        for side in ("left", "right"):
            shoulder, wrist = (
                self._joints[JOINT_INDEX[f"{side}_{end}"]] for end in ("shoulder", "wrist")
            )
            bone = wrist - shoulder
            from_shoulder = self._vertices - shoulder
            along = from_shoulder @ bone / (bone @ bone)
            reach = min(share, 0.97) + _MARGIN_M / float(np.linalg.norm(bone))
            part = (self._arm | self._hand) & (along > -0.1) & (along < reach)
            part &= np.sign(self._vertices[:, 0]) == np.sign(shoulder[0])
            out = from_shoulder - along[:, None] * bone
            out /= np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-6)
            lift = thickness_m + slack_m * np.clip(along / max(share, 0.1), 0.0, 1.0)
            offset[part] = (out * lift[:, None])[part]
        return offset

    def hair(self, length: float) -> Float64Array:
        """Offset (V, 3) of hair over the skull, above the ears."""
        middle = self._joints[JOINT_INDEX["head"]] + np.array([0.0, 0.06, 0.0])
        out = self._vertices - middle
        reach = np.linalg.norm(out, axis=1)
        grows = self._head & ((out[:, 1] > 0.04) | (out[:, 2] < -0.03)) & (reach > 0.05)
        return np.where(grows[:, None], out / np.maximum(reach, 1e-6)[:, None] * length, 0.0)

    def shod(self, vertices: Float64Array, sole: float, upper: float) -> Float64Array:
        """The dressed body (V, 3) in shoes: feet larger, and standing on soles."""
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


def _outermost(level: Int64Array, angle: Int64Array, radius: Float64Array) -> Float64Array:
    """(levels, angles) radius of the outermost skin, 0 where there is none."""
    most, total, count = (np.zeros((_LEVELS, _ANGLES)) for _ in range(3))
    np.maximum.at(most, (level, angle), radius)
    np.add.at(total, (level, angle), radius)
    np.add.at(count, (level, angle), 1.0)
    mean = total / np.maximum(count, 1.0)
    # The mean of one sheet of skin is where it lies; of two, as of both thighs, it is nowhere.
    return np.where(most - mean > _SHEET_M, most, mean)


def _spanned(skin: Float64Array) -> Float64Array:
    """Radii over level and angle of the convex outline of each level."""
    turn = (np.arange(_ANGLES) + 0.5) * 2 * np.pi / _ANGLES
    rays = np.stack((np.cos(turn), np.sin(turn)), axis=1)
    reach = np.empty_like(skin)
    for row, radius in enumerate(skin):
        sides = ConvexHull(rays * radius[:, None]).equations
        # A ray leaves the hull through the side that it meets first.
        rate = rays @ sides[:, :2].T
        way = np.where(rate > 1e-9, -sides[:, 2] / np.maximum(rate, 1e-9), np.inf)
        reach[row] = way.min(axis=1)
    return reach


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
