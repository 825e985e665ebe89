"""Who stands there: a body of anny's that no principal components know, in a natural pose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from recipes.cases.subject import weight_of
from recipes.free_body.sampling import sampled_local_changes
from recipes.free_body.source import Source, load_source
from recipes.free_body.tpose import to_tpose, tpose_rotations
from recipes.sample_person.surface import FloatArray, Surface
from recipes.sample_person.wardrobe import Figure
from worker.avatar.body.layout import JOINT_INDEX, JOINT_NAMES, PARENTS
from worker.avatar.types import Gender, ViewName

_ARM = {"shoulder", "elbow", "wrist", "thumb", "index", "middle", "ring", "pinky"}


@dataclass(frozen=True, slots=True)
class Person:
    """One body, undressed."""

    gender: Gender
    native: FloatArray
    """(V, 3) in anny's own pose, arms half down: posing from there bends shoulders least."""
    native_joints: FloatArray
    """(55, 3)."""
    tpose: FloatArray
    """(V, 3) in T-pose, pelvis at the origin: what is measured."""
    tpose_joints: FloatArray
    """(55, 3)."""
    source: Source

    @property
    def height_m(self) -> float:
        """Stature: from the soles to the crown."""
        return float(np.ptp(self.tpose[:, 1]))

    @property
    def weight_kg(self) -> float:
        """Volume times density."""
        return weight_of(self.tpose, self.source.faces)


def draw_person(
    gender: Gender, phenotypes: dict[str, float], local_sigma: float, seed: int
) -> Person:
    """Evaluate anny at `phenotypes` with random local changes, the same left and right."""
    source = load_source()
    known = sampled_local_changes(source)
    rng = np.random.default_rng(seed)
    strength = {name: float(rng.normal(0, local_sigma)) for name in known}
    for name in known:
        if name.startswith("r-"):
            strength[name] = strength["l-" + name[2:]]
    vertices, joints = source.bodies(
        {name: torch.tensor([value]) for name, value in phenotypes.items()},
        {name: torch.tensor([value]).clamp(-1, 1) for name, value in strength.items()},
    )
    tpose, tpose_joints = to_tpose(source, vertices, joints)
    pelvis = tpose_joints[:, :1]
    return Person(
        gender,
        *(
            array[0].astype(np.float64)
            for array in (vertices, joints, tpose - pelvis, tpose_joints - pelvis)
        ),
        source,
    )


def stand(person: Person, view: ViewName) -> FloatArray:
    """Vertices (V, 3) of the person standing relaxed, turned for the view.

    In front the arms hang 38° off the vertical; from the side both reach a little forward, so
    that waist and seat stay in sight.  Turns are relative to anny's own pose, and forearms and
    hands keep theirs: no skin is wrung.
    """
    turns = tpose_rotations().copy()
    joints = person.native_joints

    def turn(axes: str, *degrees: float) -> FloatArray:
        return np.asarray(Rotation.from_euler(axes, degrees, degrees=True).as_matrix())

    for side, out in (("left", 1.0), ("right", -1.0)):
        shoulder, elbow = JOINT_INDEX[f"{side}_shoulder"], JOINT_INDEX[f"{side}_elbow"]
        if view is ViewName.FRONT:
            down, forward = 52 + 1.5 * out, 4.0
        else:
            down, forward = 80.0, 41.0 + 3 * out
        # First down from the side, then forward about the line through both shoulders.
        aim = turn("x", -forward) @ turn("z", -out * down) @ np.array([out, 0.0, 0.0])
        arm = _shortest_turn(joints[elbow] - joints[shoulder], aim)
        for name, joint in JOINT_INDEX.items():
            arm_joint = name.split("_")[-1].rstrip("123")
            if name.startswith(side) and arm_joint in _ARM:
                turns[joint] = arm
        leg = turn("zy", -out * 1.5, out * 5)
        for name in ("hip", "knee", "ankle", "foot"):
            joint = JOINT_INDEX[f"{side}_{name}"]
            turns[joint] = leg @ turns[joint]
    for name in ("head", "jaw", "left_eye_smplhf", "right_eye_smplhf"):
        turns[JOINT_INDEX[name]] = turn("xy", 2, -2)
    turns = turn("y", 3 if view is ViewName.FRONT else 90) @ turns

    placed = joints.copy()
    for joint, parent in enumerate(PARENTS):
        if parent >= 0:
            placed[joint] = placed[parent] + turns[parent] @ (joints[joint] - joints[parent])
    weights = person.source.lbs_weights
    turned = np.einsum("vj,jab->vab", weights, turns)
    shift = weights @ (placed - np.einsum("jab,jb->ja", turns, joints))
    return np.einsum("vab,vb->va", turned, person.native) + shift


def _shortest_turn(start: FloatArray, end: FloatArray) -> FloatArray:
    """(3, 3) rotation of the direction `start` to `end`."""
    start, end = start / np.linalg.norm(start), end / np.linalg.norm(end)
    axis = np.cross(start, end)
    sine, cosine = np.linalg.norm(axis), start @ end
    return np.asarray(Rotation.from_rotvec(axis / sine * np.arctan2(sine, cosine)).as_matrix())


def figure(person: Person, posed: FloatArray) -> Figure:
    """Split the posed body into skin and eyeballs, ready to dress."""
    parts = Surface(posed, person.tpose, person.source.faces).parts()
    *balls, skin = parts
    if len(balls) != 2:
        raise ValueError(f"expected a skin and two eyeballs, found {len(parts)} parts")
    balls.sort(key=lambda part: part.rest[:, 0].mean())
    weights = person.source.lbs_weights
    feet = [
        posed[weights[:, [JOINT_INDEX[f"{s}_ankle"], JOINT_INDEX[f"{s}_foot"]]].sum(axis=1) > 0.5]
        for s in ("left", "right")
    ]
    return Figure(
        skin.subdivided(),
        {"eye_right": balls[0].subdivided(), "eye_left": balls[1].subdivided()},
        dict(zip(JOINT_NAMES, person.tpose_joints, strict=True)),
        (feet[0], feet[1]),
    )
