"""How a subject stands before a camera, and what an observer would see of it.

The poses, cameras and noises are those of the table in facts/fitting.md: near the A-pose, a phone
held at 1 to 1.5 m, 2.3 mm a pixel, keypoints 4 px off, the outline wandering by 2 px.  Clothes and
a camera of unknown focal length can be added; they change neither pose nor noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy.ndimage import binary_dilation, distance_transform_edt, gaussian_filter
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

from recipes.cases.draping import Worn
from recipes.cases.subject import Subject
from worker.avatar.body.layout import JOINT_INDEX, JOINT_NAMES, PARENTS
from worker.avatar.body.model import BodyData
from worker.avatar.raster import coverage
from worker.avatar.types import BoolArray, Float64Array, Intrinsics, ViewName

WIDTH, HEIGHT, FOCAL_PX = 768, 1024, 1100.0
KEYPOINT_SIGMA_PX = 4.0
OUTLINE_SIGMA_PX = 2.0
OUTLINE_WAVE_PX = 12.0
"""Smoothing of the field that moves the outline: errors of a mask come in stretches."""

DIAGONAL_PX = float(np.hypot(WIDTH, HEIGHT))
DIAGONAL_35MM_MM = 43.27
PHONE_LENSES_MM = (23.0, 34.0)
"""35 mm equivalents of phones' main cameras, slightly cropped ones included."""
ASSUMED_LENS_MM = 26.0
"""What an observer takes for a photo that does not say."""

_LOOSE = ("hip", "knee", "ankle", "shoulder", "elbow")
_STIFF = ("spine1", "spine2", "spine3", "neck", "head", "left_collar", "right_collar")


@dataclass(frozen=True, slots=True)
class View:
    """One noisy observation of a subject."""

    name: ViewName
    intrinsics: Intrinsics
    mask: BoolArray
    """(H, W)."""
    keypoints: Float64Array
    """(23, 3) x, y, confidence."""


@dataclass(frozen=True, slots=True)
class Camera:
    """With which lens a photo is taken, and what is known of it."""

    focal_px: float = FOCAL_PX
    known: bool = True

    @classmethod
    def of_a_phone(cls, rng: np.random.Generator) -> Camera:
        """Draw the lens of a phone that left no EXIF data."""
        lens_mm = rng.uniform(*PHONE_LENSES_MM)
        return cls(lens_mm / DIAGONAL_35MM_MM * DIAGONAL_PX, known=False)

    def reported(self) -> Intrinsics:
        """What the observer says of it."""
        assumed_px = ASSUMED_LENS_MM / DIAGONAL_35MM_MM * DIAGONAL_PX
        focal_px = self.focal_px if self.known else assumed_px
        return Intrinsics(focal_px, WIDTH, HEIGHT, known=self.known)


@dataclass(frozen=True, slots=True)
class Look:
    """What is between a subject and its silhouette."""

    clothes_px: int = 0
    """Dilation of the mask, a crude stand-in for clothes."""
    worn: Worn | None = None
    camera: Camera = Camera()


def observe(
    rig: BodyData, subject: Subject, name: ViewName, rng: np.random.Generator, look: Look
) -> View:
    """Pose the subject, photograph it and spoil what is seen.

    Args:
        rig: whose faces, skinning weights and keypoints the subject shares.
        subject: who.
        name: front, or side: the left side away from the camera.
        rng: decides pose, place of the camera and noise; the same for any look.
        look: clothes and lens.
    """
    focal_px = look.camera.focal_px
    local = _local_rotations(name, rng)
    posed = _pose(rig, subject, local)
    dressed = posed
    if look.worn is not None:
        dressed = _pose(rig, replace(subject, vertices=look.worn.vertices), local)
    to_camera = _place_camera(subject, posed, rng, focal_px)
    uv = _image(to_camera(dressed), focal_px)
    mask = coverage(torch.from_numpy(uv), torch.tensor(rig.faces), HEIGHT, WIDTH).numpy()
    for spanned in () if look.worn is None else look.worn.spanned:
        mask |= _hull(uv[spanned])
    mask = _wander(mask, rng)
    if look.clothes_px:
        mask = binary_dilation(mask, iterations=look.clothes_px)
    places = _image(rig.keypoint_regressor @ to_camera(posed), focal_px)
    places = places + rng.normal(0, KEYPOINT_SIGMA_PX, places.shape)
    keypoints = np.concatenate((places, np.ones((len(places), 1))), axis=1)
    return View(name, look.camera.reported(), mask, keypoints)


def _image(seen: Float64Array, focal_px: float) -> Float64Array:
    """(N, 2) pixels of points (N, 3) in the camera's frame."""
    return np.asarray(seen[:, :2] / seen[:, 2:] * focal_px + np.array([WIDTH, HEIGHT]) / 2)


def _hull(uv: Float64Array) -> BoolArray:
    """(H, W) the convex hull of points (N, 2): cloth that spans both legs."""
    picture = Image.new("1", (WIDTH, HEIGHT))
    corners = uv[ConvexHull(uv).vertices]
    ImageDraw.Draw(picture).polygon([(float(x), float(y)) for x, y in corners], fill=1)
    return np.array(picture)


def _turn(*rotvec_deg: float) -> Float64Array:
    return np.asarray(Rotation.from_rotvec(rotvec_deg, degrees=True).as_matrix())


def _local_rotations(name: ViewName, rng: np.random.Generator) -> Float64Array:
    """(55, 3, 3) from the T-pose: arms 35 to 60° down, a little of everything everywhere."""
    local = np.tile(np.eye(3), (len(JOINT_NAMES), 1, 1))
    arm_deg = rng.uniform(35, 60)
    for side, out in (("left", 1.0), ("right", -1.0)):
        local[JOINT_INDEX[f"{side}_shoulder"]] = _turn(0, 0, -out * arm_deg)
        for joint in _LOOSE:
            index = JOINT_INDEX[f"{side}_{joint}"]
            local[index] = local[index] @ _turn(*rng.normal(0, 6, 3))
        local[JOINT_INDEX[f"{side}_hip"]] = _turn(
            rng.normal(0, 3), rng.normal(0, 6), out * rng.uniform(1, 7)
        )
        local[JOINT_INDEX[f"{side}_knee"]] = _turn(abs(rng.normal(0, 6)), 0, 0)
        local[JOINT_INDEX[f"{side}_elbow"]] = _turn(0, -out * rng.uniform(5, 25), 0)
    for joint in _STIFF:
        local[JOINT_INDEX[joint]] = _turn(*rng.normal(0, 2.4, 3))
    yaw_deg = (90.0 if name is ViewName.SIDE else 0.0) + rng.normal(0, 6)
    local[0] = _turn(0, yaw_deg, 0) @ _turn(*rng.normal(0, 2, 3))
    return local


def _pose(rig: BodyData, subject: Subject, local: Float64Array) -> Float64Array:
    """Skin the subject (V, 3) about its own joints."""
    world, placed = local.copy(), subject.joints.copy()
    for joint, parent in enumerate(PARENTS):
        if parent >= 0:
            world[joint] = world[parent] @ local[joint]
            bone = subject.joints[joint] - subject.joints[parent]
            placed[joint] = placed[parent] + world[parent] @ bone
    weights = rig.lbs_weights
    turned = np.einsum("vj,jab->vab", weights, world)
    shift = weights @ (placed - np.einsum("jab,jb->ja", world, subject.joints))
    return np.asarray(np.einsum("vab,vb->va", turned, subject.vertices) + shift)


def _place_camera(
    subject: Subject, posed: Float64Array, rng: np.random.Generator, focal_px: float
) -> Callable[[Float64Array], Float64Array]:
    """What takes points (N, 3) to the frame of a camera that has the body in view."""
    height_m = subject.height_cm / 100
    lens_m = rng.uniform(1.0, 1.5)
    distance_m = focal_px * height_m / (0.8 * HEIGHT) * rng.uniform(1.0, 1.1)
    pitch = np.arctan2(lens_m - height_m / 2, distance_m)
    cos, sin = np.cos(pitch), np.sin(pitch)
    # Rows: right, down, forward.  It looks along -z and down.
    axes = np.array([[1, 0, 0], [0, -cos, sin], [0, -sin, -cos]])
    position = np.array([0.0, posed[:, 1].min() + lens_m, distance_m])
    return lambda points: np.asarray((points - position) @ axes.T)


def _wander(mask: BoolArray, rng: np.random.Generator) -> BoolArray:
    """Move the outline in and out by a smooth random field."""
    distance = distance_transform_edt(mask) - distance_transform_edt(~mask)
    field = gaussian_filter(rng.standard_normal(mask.shape), OUTLINE_WAVE_PX)
    return np.asarray(distance + field * (OUTLINE_SIGMA_PX / field.std()) > 0)
