"""Take a photo of a dressed subject whose outline, joints and layers are known to the pixel."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import distance_transform_edt

from recipes.cases.draping import Worn
from recipes.cases.hair import long_hair
from recipes.cases.looks import Dress
from recipes.cases.phone import Phone, draw_phone
from recipes.cases.stance import Bent
from recipes.cases.studio import Grid, Studio, backdrop, casters_of
from recipes.cases.subject import Subject
from recipes.sample_person.light import Casters, Received, receive
from recipes.sample_person.paint import paint
from recipes.sample_person.photograph import develop
from recipes.sample_person.surface import FloatArray, Surface, unit
from recipes.sample_person.wardrobe import Figure, canvas_shoe, short_hair
from worker.avatar.body.layout import JOINT_INDEX, JOINT_NAMES
from worker.avatar.body.model import BodyData
from worker.avatar.raster import coverage, rasterise
from worker.avatar.types import BoolArray, ByteArray, Float64Array, ViewName

LAYERS = ("background", "skin", "top", "bottom", "hair", "shoes")
"""What a pixel of a photo's true layers shows, by number."""
_LAYER_OF = {
    "skin": 1,
    "eye_left": 1,
    "eye_right": 1,
    "top": 2,
    "hanging top": 2,
    "bottom": 3,
    "hanging bottom": 3,
    "hair": 4,
    "long hair": 4,
    "shoe_left": 5,
    "shoe_right": 5,
}
_EDGE_SAMPLES = 3
"""Samples of a pixel across and down that tell how much of it the person covers."""
_COVERED_M = 0.03
"""Skin is left out this far inside a garment, so that none can poke through."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A photo and what is true of it."""

    name: ViewName
    jpeg: bytes
    phone: Phone
    stance: str
    cover: ByteArray
    """(H, W) share of each pixel that the dressed person covers, 0..255."""
    layers: ByteArray
    """(H, W) which of `LAYERS` is in front."""
    bare: BoolArray
    """(H, W) what the undressed body covers."""
    keypoints: Float64Array
    """(23, 2) pixels."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything one photo needs but the person."""

    dress: Dress
    studio: Studio
    quality: int
    """Of the JPEG."""


def take(
    rig: BodyData,
    subject: Subject,
    worn: Worn,
    bent: Bent,
    scene: Scene,
    *,
    name: ViewName,
    stance: str,
    rng: np.random.Generator,
) -> Taken:
    """Photograph the subject."""
    surfaces, posed = _surfaces(rig, subject, worn, bent)
    names = list(surfaces)
    starts = np.cumsum([0] + [len(surfaces[n].points) for n in names])
    points = np.concatenate([surfaces[n].points for n in names])
    ground = np.array([0.0, points[:, 1].min(), 0.0])
    points, posed = points - ground, posed - ground
    rest = np.concatenate([surfaces[n].rest for n in names])
    faces = np.concatenate([surfaces[n].faces + s for n, s in zip(names, starts, strict=False)])
    owner = np.concatenate([np.full(len(surfaces[n].faces), k) for k, n in enumerate(names)])
    normals = np.concatenate([surfaces[n].normals() for n in names])
    phone = draw_phone(points, rng)

    grid = Grid.of(scene.studio, phone)
    casters = casters_of(points, faces, rng)
    lit, behind = _received(scene.studio, casters, phone, grid, points=points, normals=normals)
    image = backdrop(scene.studio, phone, grid.enlarged(behind, phone), rng)
    uv, depth = phone.see(points)
    raster = rasterise(
        torch.from_numpy(uv),
        torch.from_numpy(depth),
        torch.from_numpy(faces),
        phone.height,
        phone.width,
    )
    face = raster.face_index.numpy()
    hit = face >= 0
    corners = faces[face[hit]]
    bary = raster.bary.numpy()[hit]
    figure = Figure(
        surfaces["skin"],
        {n: surfaces[n] for n in ("eye_left", "eye_right")},
        dict(zip(JOINT_NAMES, subject.joints, strict=True)),
        (points, points),
    )

    def at_pixels(values: FloatArray) -> FloatArray:
        return np.asarray((values[corners] * bary[..., None]).sum(axis=1))

    material = owner[face[hit]]
    colour = _shaded(
        names,
        material,
        figure,
        scene,
        rest=at_pixels(rest),
        normals=unit(at_pixels(normals)),
        diffuse=at_pixels(lit.diffuse.astype(np.float64)),
        wrapped=at_pixels(lit.wrapped.astype(np.float64)),
        gloss=at_pixels(lit.gloss.astype(np.float64)),
    )
    person = np.zeros_like(image)
    person[hit] = colour
    fine = coverage(
        torch.from_numpy(uv * _EDGE_SAMPLES),
        torch.from_numpy(faces),
        phone.height * _EDGE_SAMPLES,
        phone.width * _EDGE_SAMPLES,
    ).numpy()
    shape = (phone.height, _EDGE_SAMPLES, phone.width, _EDGE_SAMPLES)
    cover = fine.reshape(shape).mean(axis=(1, 3))
    # Where only a part of the pixel is covered, its colour is that of the nearest inside.
    nearest = distance_transform_edt(~hit, return_distances=False, return_indices=True)
    image = image * (1 - cover)[..., None] + person[tuple(nearest)] * cover[..., None]
    layers = np.zeros(hit.shape, dtype=np.uint8)
    layers[hit] = np.array([_LAYER_OF[n] for n in names], dtype=np.uint8)[material]
    body_uv, _ = phone.see(posed)
    bare = coverage(
        torch.from_numpy(body_uv), torch.tensor(rig.faces), phone.height, phone.width
    ).numpy()
    keypoints, _ = phone.see(rig.keypoint_regressor @ posed)
    exposed = image * (scene.studio.exposure * scene.studio.tint)
    return Taken(
        name,
        _jpeg(develop(exposed, rng, grain=scene.studio.grain, glow=False), scene.quality),
        phone,
        stance,
        (cover * 255 + 0.5).astype(np.uint8),
        layers,
        bare,
        keypoints,
    )


def _received(
    studio: Studio,
    casters: Casters,
    phone: Phone,
    grid: Grid,
    *,
    points: FloatArray,
    normals: FloatArray,
) -> tuple[Received, FloatArray]:
    """Light at the vertices, and (N, 3) at the grid behind them: one set of shadow maps."""
    both = np.concatenate((points, grid.points.reshape(-1, 3)))
    got = receive(
        studio.lamps,
        casters,
        points=both.astype(np.float32),
        normals=np.concatenate((normals, grid.normals.reshape(-1, 3))).astype(np.float32),
        toward_eye=unit(phone.place - both).astype(np.float32),
        exponent=np.full(len(both), 12.0, np.float32),
    )
    count = len(points)
    at_vertices = Received(got.diffuse[:count], got.wrapped[:count], got.gloss[:count])
    return at_vertices, np.asarray(got.diffuse[count:])


def _surfaces(
    rig: BodyData, subject: Subject, worn: Worn, bent: Bent
) -> tuple[dict[str, Surface], Float64Array]:
    """What is seen of the person, by material, and the undressed body's vertices in the pose."""
    posed = bent(subject.vertices)
    whole = Surface(posed, subject.vertices, np.asarray(rig.faces, dtype=np.int64))
    *balls, skin = whole.parts()
    balls.sort(key=lambda part: float(part.rest[:, 0].mean()))
    ankle = subject.joints[JOINT_INDEX["left_ankle"], 1]
    inside = np.maximum.reduce([layer.inside for layer in worn.layers])
    kept = _COVERED_M - inside
    if worn.sole_m:
        kept = np.minimum(kept, subject.vertices[:, 1] - (ankle - 0.03))
    weights = rig.lbs_weights
    surfaces = {"skin": whole.cut(kept), "eye_right": balls[0], "eye_left": balls[1]}
    bottom, top = worn.layers
    hidden = np.minimum(bottom.inside, _COVERED_M - top.inside)
    for label, layer, inside in (("bottom", bottom, hidden), ("top", top, top.inside)):
        surfaces[label] = whole.moved(bent(layer.vertices)).cut(inside)
        # A skirt under a coat is not seen.
        if layer.sheet is not None and (layer is top or top.sheet is None):
            carriers = [
                int(np.argmax(weights[:, JOINT_INDEX[joint]]))
                for joint in ("pelvis", "left_hip", "right_hip")
            ]
            hanging = layer.sheet.bent(bent.linear[carriers], bent.shift[carriers])
            surfaces[f"hanging {label}"] = Surface(hanging, layer.sheet.points, layer.sheet.faces)
    joints = dict(zip(JOINT_NAMES, subject.joints, strict=True))
    head = Figure(skin, {"eye_left": balls[1], "eye_right": balls[0]}, joints, (posed, posed))
    surfaces["hair"] = short_hair(head, worn.hair_m / 0.02)
    if worn.hair_down_m:
        sheet, triangles = long_hair(subject, weights, worn.hair_down_m, 0.5 * worn.hair_m)
        # It turns with the head: with the vertex on its top.
        crown = int(np.argmax(subject.vertices[:, 1]))
        hanging = sheet @ bent.linear[crown].T + bent.shift[crown]
        surfaces["long hair"] = Surface(hanging, sheet, triangles)
    for side in ("left", "right") if worn.sole_m else ():
        columns = [JOINT_INDEX[f"{side}_ankle"], JOINT_INDEX[f"{side}_foot"]]
        foot = posed[weights[:, columns].sum(axis=1) > 0.5]
        floor = float(foot[:, 1].min())
        surfaces[f"shoe_{side}"] = canvas_shoe(foot, floor, sole_m=worn.sole_m, room_m=worn.upper_m)
    return surfaces, posed


def _shaded(
    names: list[str],
    material: np.ndarray,
    figure: Figure,
    scene: Scene,
    *,
    rest: FloatArray,
    normals: FloatArray,
    diffuse: FloatArray,
    wrapped: FloatArray,
    gloss: FloatArray,
) -> FloatArray:
    """Linear colours (N, 3) of pixels."""
    window = unit(np.sum([lamp.toward for lamp in scene.studio.lamps if lamp.mirrored], axis=0))
    colour = np.zeros_like(rest)
    for k, name in enumerate(names):
        mine = material == k
        if not mine.any():
            continue
        cloth = {"top": scene.dress.top, "bottom": scene.dress.bottom}.get(name.split()[-1])
        here = rest[mine]
        folds = np.ones(len(here))
        if cloth is None:
            painted = paint(name.split()[-1], here, figure, scene.dress.body)
        else:
            painted = cloth.paint(here)
            tilted = cloth.emboss(here, normals[mine])
            folds = 1 + 1.1 * (tilted - normals[mine]) @ window
        warm = painted.soft * np.array([1.0, 0.55, 0.42])
        light = diffuse[mine] * (1 - warm) + wrapped[mine] * warm
        shine = gloss[mine] * painted.gloss[:, None] * 0.55
        colour[mine] = painted.albedo * light * folds[:, None] + shine
    return colour


def _jpeg(pixels: ByteArray, quality: int) -> bytes:
    """Encode without any metadata, as photos arrive from browsers."""
    held = BytesIO()
    Image.fromarray(pixels).save(held, "JPEG", quality=quality)
    return held.getvalue()
