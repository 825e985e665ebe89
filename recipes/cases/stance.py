"""How people stand for a photo, and what that does to their skin.

Bodies are bent from anny's own pose, arms half down, not from the T-pose: shoulders turn half as
far, so that the armpit keeps its flesh.  The fit bends from the T-pose; what the two disagree
about is part of what it is held against.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from recipes.cases.subject import Subject
from worker.avatar.body.layout import JOINT_INDEX, JOINT_NAMES, PARENTS
from worker.avatar.types import Float64Array, ViewName


@dataclass(frozen=True, slots=True)
class Arm:
    """One arm.  Angles in degrees."""

    out: float
    """How far the upper arm stands off the side of the trunk; 0 hangs, 90 is the T-pose."""
    ahead: float
    """How far it is swung forwards."""
    bend: float
    """Of the elbow."""
    on_hip: bool = False
    """Hand on the hip: the other angles follow from that."""


@dataclass(frozen=True, slots=True)
class Stance:
    """What a person does with the body for one photo."""

    name: str
    local: Float64Array
    """(55, 3, 3) rotations of trunk, legs and head from the T-pose; arms are taken from below."""
    left: Arm
    right: Arm


@dataclass(frozen=True, slots=True)
class Bent:
    """Where a stance takes everything that was in T-pose: one affine map a vertex."""

    linear: Float64Array
    """(V, 3, 3)."""
    shift: Float64Array
    """(V, 3)."""

    def __call__(self, vertices: Float64Array) -> Float64Array:
        """Take T-posed points (V, 3), skin or cloth on it, to the pose."""
        return np.asarray(np.einsum("vab,vb->va", self.linear, vertices) + self.shift)


def draw_stance(view: ViewName, rng: np.random.Generator, turned_deg: float = 0.0) -> Stance:
    """Draw how someone stands: as told, relaxed, weight on one leg, or hands on hips.

    Args:
        view: from which side the photo is meant to be.
        rng: decides.
        turned_deg: how much farther people turn away from a photo of their front.
    """
    names, shares = _KINDS[view]
    name = str(rng.choice(names, p=shares))
    local = np.tile(np.eye(3), (len(JOINT_NAMES), 1, 1))
    for joint in ("spine1", "spine2", "spine3", "neck", "head"):
        local[JOINT_INDEX[joint]] = _turn(*rng.normal(0, 2.0, 3))
    apart = abs(rng.normal(0, 3.0)) if rng.random() < 0.75 else rng.uniform(4.0, 9.0)
    for side, out in (("left", 1.0), ("right", -1.0)):
        toes_out = rng.normal(8.0, 6.0)
        lift, knee = rng.normal(0, 2.5), abs(rng.normal(0, 4.0))
        _set_leg(local, side, out=out, apart=apart, toes=toes_out, lift=lift + knee / 2, knee=knee)
    if name == "weight on one leg":
        _shift_weight(local, rng)
    yaw = rng.normal(0, 5.0) if rng.random() < 0.7 else rng.normal(0, 12.0)
    yaw += np.copysign(turned_deg, yaw)
    if view is ViewName.SIDE:
        yaw = (90.0 if rng.random() < 0.5 else -90.0) + rng.normal(0, 7.0)
    pelvis = _turn(rng.normal(0, 2.0), 0, rng.normal(0, 1.0))
    local[0] = _turn(0, yaw, 0) @ local[0] @ pelvis
    return Stance(name, local, *_arms(name, view, rng))


def bend(subject: Subject, weights: Float64Array, to_tpose: Float64Array, stance: Stance) -> Bent:
    """Work out the stance for one body.

    Args:
        subject: in T-pose, with joints of its own.
        weights: (V, 55) skinning weights.
        to_tpose: (55, 3, 3) global turns from anny's pose to the T-pose.
        stance: how to stand.
    """
    joints = subject.joints
    native = joints.copy()
    for joint, parent in enumerate(PARENTS):
        if parent >= 0:
            native[joint] = native[parent] + to_tpose[parent].T @ (joints[joint] - joints[parent])
    world = np.tile(np.eye(3), (len(JOINT_NAMES), 1, 1))
    for joint, parent in enumerate(PARENTS):
        world[joint] = stance.local[joint] if parent < 0 else world[parent] @ stance.local[joint]
    world = world @ to_tpose
    for side, out, arm in (("left", 1.0, stance.left), ("right", -1.0, stance.right)):
        _turn_arm(world, native, joints, side=side, out=out, arm=arm, to_tpose=to_tpose)
    placed = native.copy()
    for joint, parent in enumerate(PARENTS):
        if parent >= 0:
            placed[joint] = placed[parent] + world[parent] @ (native[joint] - native[parent])
    into, into_shift = _blend(weights, to_tpose, native, joints)
    onward, onward_shift = _blend(weights, world, native, placed)
    linear = onward @ np.linalg.inv(into)
    return Bent(linear, onward_shift - np.einsum("vab,vb->va", linear, into_shift))


_KINDS: dict[ViewName, tuple[tuple[str, ...], tuple[float, ...]]] = {
    ViewName.FRONT: (
        ("arms away", "relaxed", "weight on one leg", "hands on hips", "one hand on hip"),
        (0.35, 0.30, 0.15, 0.12, 0.08),
    ),
    ViewName.SIDE: (("relaxed", "arms ahead", "arms back"), (0.60, 0.30, 0.10)),
}


def _arms(name: str, view: ViewName, rng: np.random.Generator) -> tuple[Arm, Arm]:
    arms = []
    for _ in range(2):
        if view is ViewName.SIDE:
            ahead = {"relaxed": (0, 18), "arms ahead": (30, 75), "arms back": (-30, -12)}[name]
            arms.append(Arm(rng.uniform(8, 18), rng.uniform(*ahead), rng.uniform(4, 22)))
        elif name == "arms away":
            arms.append(Arm(rng.uniform(28, 50), rng.normal(0, 5), rng.uniform(4, 20)))
        else:
            arms.append(Arm(rng.uniform(10, 24), rng.normal(4, 6), rng.uniform(4, 22)))
    if name in ("hands on hips", "one hand on hip"):
        arms[0] = Arm(0, 0, 0, on_hip=True)
        if name == "hands on hips":
            arms[1] = Arm(0, 0, 0, on_hip=True)
        elif rng.random() < 0.5:
            arms.reverse()
    return arms[0], arms[1]


def _turn(*rotvec_deg: float) -> Float64Array:
    return np.asarray(Rotation.from_rotvec(rotvec_deg, degrees=True).as_matrix())


def _set_leg(
    local: Float64Array,
    side: str,
    *,
    out: float,
    apart: float,
    toes: float,
    lift: float,
    knee: float,
) -> None:
    """Place one leg, angles in degrees; the ankle takes back what hip and knee tilt the foot."""
    hip, shin, foot = (JOINT_INDEX[f"{side}_{name}"] for name in ("hip", "knee", "ankle"))
    local[hip] = _turn(0, 0, out * apart) @ _turn(-lift, 0, 0) @ _turn(0, out * toes, 0)
    local[shin] = _turn(knee, 0, 0)
    local[foot] = _turn(lift - knee, 0, 0) @ _turn(0, 0, -out * apart)


def _shift_weight(local: Float64Array, rng: np.random.Generator) -> None:
    """Contrapposto: the hip rises over the standing leg, the other knee gives, the spine bends."""
    sign = 1.0 if rng.random() < 0.5 else -1.0
    """Positive: the left leg carries."""
    roll = sign * rng.uniform(3.0, 7.0)
    carries, gives = ("left", "right") if sign > 0 else ("right", "left")
    local[0] = _turn(0, 0, roll)
    for side in (carries, gives):
        hip = JOINT_INDEX[f"{side}_hip"]
        local[hip] = _turn(0, 0, -roll) @ local[hip]
    knee = rng.uniform(8.0, 26.0)
    _set_leg(
        local, gives, out=-sign, apart=rng.uniform(3, 9), toes=15.0, lift=0.6 * knee, knee=knee
    )
    hip = JOINT_INDEX[f"{gives}_hip"]
    local[hip] = _turn(0, 0, -roll) @ local[hip]
    for joint, share in (("spine1", 0.4), ("spine2", 0.4), ("spine3", 0.4), ("neck", -0.2)):
        index = JOINT_INDEX[joint]
        local[index] = _turn(0, 0, -share * roll) @ local[index]


def _turn_arm(
    world: Float64Array,
    native: Float64Array,
    joints: Float64Array,
    *,
    side: str,
    out: float,
    arm: Arm,
    to_tpose: Float64Array,
) -> None:
    """Aim upper arm and forearm by the shortest turns, so that no skin is wrung."""
    shoulder, elbow, wrist, collar = (
        JOINT_INDEX[f"{side}_{name}"] for name in ("shoulder", "elbow", "wrist", "collar")
    )
    trunk = world[collar] @ to_tpose[collar].T
    if arm.on_hip:
        upper, fore = _reach_hip(joints, side, out)
    else:
        swung = _turn(-arm.ahead, 0, 0) @ _turn(0, 0, -out * (90.0 - arm.out))
        upper = swung @ np.array([out, 0.0, 0.0])
        hinge = np.array([-1.0, 0.0, 0.0])
        hinge -= (hinge @ upper) * upper
        hinge /= max(float(np.linalg.norm(hinge)), 1e-9)
        fore = Rotation.from_rotvec(np.radians(arm.bend) * hinge).as_matrix() @ upper
    for first, last, aim, members in (
        (shoulder, elbow, upper, ("shoulder",)),
        (elbow, wrist, fore, ("elbow", "wrist", "thumb", "index", "middle", "ring", "pinky")),
    ):
        turn = _shortest_turn(native[last] - native[first], trunk @ aim)
        if first == elbow:
            # The forearm goes with the upper arm, and bends from there.
            carried = world[shoulder] @ (native[last] - native[first])
            turn = _shortest_turn(carried, trunk @ aim) @ world[shoulder]
        for name, joint in JOINT_INDEX.items():
            if name.startswith(side) and name.split("_")[-1].rstrip("123") in members:
                world[joint] = turn


def _reach_hip(joints: Float64Array, side: str, out: float) -> tuple[Float64Array, Float64Array]:
    """Directions of upper arm and forearm with the hand on the hip, elbow out and a little back."""
    shoulder, elbow, wrist, hip = (
        joints[JOINT_INDEX[f"{side}_{name}"]] for name in ("shoulder", "elbow", "wrist", "hip")
    )
    upper_m, fore_m = np.linalg.norm(elbow - shoulder), np.linalg.norm(wrist - elbow)
    target = np.array([out * (abs(hip[0]) + 0.13), hip[1] + 0.13, hip[2] + 0.04])
    way = target - shoulder
    span = min(float(np.linalg.norm(way)), 0.98 * float(upper_m + fore_m))
    along = way / np.linalg.norm(way)
    pole = np.array([out, 0.0, -0.35])
    pole -= (pole @ along) * along
    pole /= np.linalg.norm(pole)
    cosine = np.clip((upper_m**2 + span**2 - fore_m**2) / (2 * upper_m * span), -1, 1)
    upper = cosine * along + np.sqrt(1 - cosine**2) * pole
    fore = span * along - upper_m * upper
    return np.asarray(upper), np.asarray(fore / np.linalg.norm(fore))


def _shortest_turn(start: Float64Array, end: Float64Array) -> Float64Array:
    """(3, 3) rotation of the direction `start` to `end`."""
    start, end = start / np.linalg.norm(start), end / np.linalg.norm(end)
    axis = np.cross(start, end)
    sine, cosine = np.linalg.norm(axis), start @ end
    if sine < 1e-9:
        return np.eye(3)
    return np.asarray(Rotation.from_rotvec(axis / sine * np.arctan2(sine, cosine)).as_matrix())


def _blend(
    weights: Float64Array, turns: Float64Array, start: Float64Array, end: Float64Array
) -> tuple[Float64Array, Float64Array]:
    """Linear blend skinning from joints `start` to `end` (55, 3), as a map for each vertex."""
    linear = np.einsum("vj,jab->vab", weights, turns)
    shift = weights @ (end - np.einsum("jab,jb->ja", turns, start))
    return np.asarray(linear), np.asarray(shift)
