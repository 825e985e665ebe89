"""What the outline of clothes lets anybody know of the body: for docs/reference/accuracy.md.

    .venv-recipe/bin/python -m recipes.cases.bound

Widths and depths of the clothes are read off standing people at many heights, a little wrongly,
and the best linear guess of the body from them is learnt from four fifths of the people and tried
on the rest.  Pose, lens and observers are left out: no fit of photos can be expected to do better.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from recipes.cases.draping import dress
from recipes.cases.generate import GENDERS
from recipes.cases.subject import Subject
from recipes.cases.subjects import WIDE, draw_subjects
from worker.avatar.body.free import free_body
from worker.avatar.body.layout import JOINT_INDEX
from worker.avatar.body.model import BodyData
from worker.avatar.types import Float64Array

SEED = 9100
KEYS = ("chestCm", "waistCm", "hipCm", "insideLegCm")
_TRUNK = (0, 1, 2, 3, 6, 9, 13, 14)
_LIMBS = (("hip", "knee", 1), ("knee", "ankle", 1), ("shoulder", "elbow", 0), ("elbow", "wrist", 0))
_TRUNK_LEVELS, _LIMB_LEVELS = 24, 6
_X, _Y, _Z = range(3)
WIDTH_NOISE_CM, JOINT_NOISE_CM, HEIGHT_NOISE_CM, WEIGHT_NOISE_KG = 0.4, 1.5, 0.7, 1.0
RIDGE = 3.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What can be read off one person; centimetres."""

    front: list[float]
    """Widths."""
    side: list[float]
    """Depths."""
    joints: list[float]
    """Heights of hips, knees and shoulders."""


def main() -> None:
    """Print mean absolute errors in cm."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=1600, help="men, and as many women")
    parser.add_argument("--family", default="everyday")
    args = parser.parse_args()
    rng = np.random.default_rng(SEED)
    rows: list[tuple[Seen, Subject, float]] = []
    for number, gender in enumerate(GENDERS):
        rig = free_body(gender)
        for index, subject in enumerate(draw_subjects(args.count, gender, SEED, WIDE)):
            worn = dress(rig, subject, args.family, np.random.default_rng([SEED, number, index]))
            rows.append((_read(rig, subject, worn.vertices), subject, float(number)))
    front, side, joints = (
        np.array([getattr(seen, name) for seen, _, _ in rows])
        for name in ("front", "side", "joints")
    )
    front, side = (_filled(w + rng.normal(0, WIDTH_NOISE_CM, w.shape)) for w in (front, side))
    joints = joints + rng.normal(0, JOINT_NOISE_CM, joints.shape)
    height = np.array([[s.height_cm + rng.normal(0, HEIGHT_NOISE_CM)] for _, s, _ in rows])
    weight = np.array([[s.weight_kg + rng.normal(0, WEIGHT_NOISE_KG)] for _, s, _ in rows])
    sex = np.array([[sex] for _, _, sex in rows])
    true = np.array([[s.measurements_cm[key] for key in KEYS] for _, s, _ in rows])
    last = rng.permutation(len(rows)) < len(rows) // 5
    for name, known in {
        "height, sex": (height, sex),
        "height, weight, sex": (height, weight, sex),
        "front+side": (front, side, joints, height, sex),
        "front+side, sex not told": (front, side, joints, height),
        "front+side+weight": (front, side, joints, height, weight, sex),
        "front+weight": (front, joints, height, weight, sex),
        "front, sex not told": (front, joints, height),
        "trunk, two sides": (front[:, :_TRUNK_LEVELS], side[:, :_TRUNK_LEVELS], height, sex),
        "limbs, two sides": (front[:, _TRUNK_LEVELS:], side[:, _TRUNK_LEVELS:], height, sex),
    }.items():
        errors = np.abs(_guessed(np.concatenate(known, axis=1), true, last) - true[last]).mean(0)
        listed = ", ".join(f"{key} {cm:.2f}" for key, cm in zip(KEYS, errors, strict=True))
        print(f"{name}: {errors[:3].mean():.2f} ({listed})")


def _read(rig: BodyData, subject: Subject, cloth: Float64Array) -> Seen:
    """Read the dressed, T-posed body (V, 3) from the front and in profile."""
    weights, joints = rig.lbs_weights, subject.joints
    place = {name: joints[index] for name, index in JOINT_INDEX.items()}
    hip, shoulder = place["left_hip"][_Y], place["left_shoulder"][_Y]
    trunk = cloth[weights[:, list(_TRUNK)].sum(axis=1) > 0.5]
    front = _extents(trunk, _Y, _X, (hip - 0.1, shoulder - 0.08), _TRUNK_LEVELS)
    side = _extents(trunk, _Y, _Z, (hip - 0.1, shoulder), _TRUNK_LEVELS)
    for upper, lower, is_leg in _LIMBS:
        part = cloth[weights[:, JOINT_INDEX[f"left_{upper}"]] > 0.5]
        along, across = (_Y, _X) if is_leg else (_X, _Y)
        ends = place[f"left_{upper}"][along], place[f"left_{lower}"][along]
        front += _extents(part, along, across, ends, _LIMB_LEVELS)
        if is_leg:
            side += _extents(part, along, _Z, ends, _LIMB_LEVELS)
    floor = cloth[:, _Y].min()
    heights = [100.0 * (place[f"left_{name}"][_Y] - floor) for name in ("hip", "knee", "shoulder")]
    return Seen(front, side, heights)


def _extents(
    points: Float64Array, along: int, across: int, span: tuple[float, float], count: int
) -> list[float]:
    """How far points (N, 3) reach along one axis, in `count` slices of another; cm."""
    first, last = span
    place = (points[:, along] - first) / (last - first) * count
    found = []
    for level in range(count):
        near = points[(place >= level - 0.25) & (place < level + 1.25), across]
        found.append(100.0 * float(np.ptp(near)) if len(near) > 2 else np.nan)
    return found


def _filled(widths: Float64Array) -> Float64Array:
    return np.where(np.isnan(widths), np.nanmean(widths, axis=0), widths)


def _guessed(known: Float64Array, true: Float64Array, last: Float64Array) -> Float64Array:
    """Ridge regression learnt where `last` is false, for those where it is true."""
    first = ~last
    middle, spread = known[first].mean(axis=0), known[first].std(axis=0)
    scaled = np.concatenate((np.ones((len(known), 1)), (known - middle) / spread), axis=1)
    ridge = RIDGE * np.eye(scaled.shape[1])
    slopes = np.linalg.solve(scaled[first].T @ scaled[first] + ridge, scaled[first].T @ true[first])
    return np.asarray(scaled[last] @ slopes)


if __name__ == "__main__":
    main()
