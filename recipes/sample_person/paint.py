"""Colour of every material, point by point, from where the point lies on the T-pose body."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recipes.sample_person.noise import layered, noise
from recipes.sample_person.surface import FloatArray
from recipes.sample_person.wardrobe import HEM_M, Figure, eye_centres

_MOUTH_M = 0.077
"""The line of the mouth below the eyes."""


@dataclass(frozen=True, slots=True)
class Paint:
    """What a material does with light, per point."""

    albedo: FloatArray
    """(N, 3) linear RGB."""
    gloss: FloatArray
    """(N,) strength of the highlight."""
    exponent: FloatArray
    """(N,) sharpness of the highlight."""
    soft: float = 0.0
    """How much of the light has passed through the material, as in skin."""


@dataclass(frozen=True, slots=True)
class Look:
    """The person's and the clothes' colours, sRGB 0..255."""

    skin: tuple[int, int, int]
    hair: tuple[int, int, int]
    iris: tuple[int, int, int]
    lips: tuple[int, int, int]
    shirt: tuple[int, int, int]
    trousers: tuple[int, int, int]
    shoe: tuple[int, int, int]
    stubble: float
    """0..1 shade of the beard."""


def linear(rgb: tuple[int, int, int]) -> FloatArray:
    """SRGB 0..255 to linear 0..1."""
    value = np.array(rgb) / 255.0
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def paint(material: str, rest: FloatArray, figure: Figure, look: Look) -> Paint:
    """The paint of `material` at T-pose points `rest` (N, 3)."""
    if material.startswith("shoe"):
        return _shoe(rest, look)
    if material.startswith("eye"):
        return _eye(rest, material, figure, look)
    return {"skin": _skin, "hair": _hair, "shirt": _shirt, "trousers": _jeans}[material](
        rest, figure, look
    )


def relief(material: str, rest: FloatArray) -> FloatArray:
    """Height in metres of detail too fine for the mesh, (N,)."""
    if material == "shirt":
        drawn = layered(rest * np.array([26.0, 48.0, 26.0]), 3)
        return 0.0011 * drawn + 0.00010 * noise(rest * 900.0)
    if material == "trousers":
        drawn = layered(rest * np.array([38.0, 30.0, 38.0]) + 3.0, 3)
        return 0.0010 * drawn + 0.00010 * noise(rest * 900.0)
    if material == "hair":
        return 0.0011 * layered(rest * np.array([420.0, 90.0, 200.0]), 2)
    if material == "skin":
        return 0.00013 * layered(rest * 260.0, 2)
    return np.zeros(len(rest))


def _constant(count: int, value: float) -> FloatArray:
    return np.full(count, value)


def _mix(base: FloatArray, over: FloatArray, share: FloatArray) -> FloatArray:
    share = np.clip(share, 0, 1)[:, None]
    return base * (1 - share) + over * share


def _step(edge0: float, edge1: float, value: FloatArray) -> FloatArray:
    t = np.clip((value - edge0) / (edge1 - edge0), 0, 1)
    return t * t * (3 - 2 * t)


def _skin(rest: FloatArray, figure: Figure, look: Look) -> Paint:
    count = len(rest)
    tone, hair, lip = linear(look.skin), linear(look.hair), linear(look.lips)
    mottled = layered(rest * 60.0, 3)[:, None]
    albedo = tone * (1 + 0.05 * mottled * np.array([0.5, 1.0, 1.0]))
    eyes = eye_centres(figure)
    middle = eyes.mean(axis=0)
    head = rest[:, 1] > middle[1] - 0.16
    x, y, z = np.abs(rest[:, 0] - middle[0]), rest[:, 1] - middle[1], rest[:, 2] - middle[2]
    front = _step(-0.03, 0.0, z) * head
    mouth_y = -_MOUTH_M
    # Cheeks, nose and ears are redder.
    red = np.exp(-(((x - 0.045) / 0.022) ** 2) - ((y + 0.045) / 0.022) ** 2) * front
    red += 0.8 * np.exp(-((x / 0.014) ** 2) - ((y + 0.042) / 0.014) ** 2) * front
    red += 0.7 * _step(0.068, 0.078, x) * head * (np.abs(y + 0.012) < 0.05)
    albedo = albedo * (1 + red[:, None] * np.array([0.02, -0.09, -0.07]))
    # The beard's shadow around mouth, chin and jaw.
    fine = 0.75 + 0.5 * noise(rest * 700.0)
    jaw = _step(-0.038, -0.060, y) * _step(-0.175, -0.135, y) * _step(-0.10, -0.055, z) * head
    jaw *= 1 - np.exp(-(((x - 0.045) / 0.02) ** 2) - ((y + 0.050) / 0.016) ** 2)
    albedo = _mix(albedo, tone * 0.40 + hair * 0.35, look.stubble * jaw * fine)
    # Lips: an almond around the line of the mouth.
    bow = np.clip(1 - (x / 0.0265) ** 2, 0, None)
    upper = (y - mouth_y) / (0.0088 * bow + 1e-4)
    lower = (mouth_y - y) / (0.0105 * bow + 1e-4)
    lips = 1 - _step(0.75, 1.05, np.maximum(upper, lower))
    lips = lips * (x < 0.0265) * front
    albedo = _mix(albedo, lip, 0.75 * lips)
    albedo = albedo * (1 - 0.45 * np.exp(-(((y - mouth_y) / 0.0012) ** 2)) * lips)[:, None]
    # Brows arch over the eyes, strand by strand.
    along = x - np.abs(eyes[0, 0] - middle[0])
    arch = 0.0215 - 7.0 * (along - 0.004) ** 2
    width = np.interp(along, [-0.022, -0.017, 0.006, 0.024], [0.0022, 0.0056, 0.0050, 0.0010])
    brow = np.exp(-(((y - arch) / width) ** 4)) * (np.abs(along - 0.001) < 0.0235) * front
    hairs = 0.65 + 0.5 * noise(np.stack((rest[:, 0] * 900, rest[:, 1] * 350, z * 300), axis=1))
    albedo = _mix(albedo, hair, 1.0 * brow * hairs)
    # Lashes and the shade of the lids lie close around the eyeballs.
    for centre, ball in zip(eyes, ("eye_left", "eye_right"), strict=True):
        radius = np.linalg.norm(figure.insides[ball].rest - centre, axis=1).max()
        gap = np.linalg.norm(rest - centre, axis=1) / radius - 1
        lash = 1 - _step(0.01, 0.10, gap)
        lash = lash * np.where(rest[:, 1] > centre[1] - 0.002, 0.85, 0.25)
        albedo = _mix(albedo, hair * 0.5, lash)
    gloss = 0.10 + 0.10 * front + 0.12 * lips
    return Paint(albedo, gloss, _constant(count, 22.0), soft=0.6)


def _eye(rest: FloatArray, name: str, figure: Figure, look: Look) -> Paint:
    ball = figure.insides[name].rest
    centre = ball.mean(axis=0)
    offset = rest - centre
    radius = np.linalg.norm(ball - centre, axis=1).max()
    side = np.linalg.norm(offset[:, :2] - np.array([0.0, -0.0004]), axis=1) / radius
    white = np.array([0.60, 0.56, 0.53]) * (1 - 0.25 * _step(0.55, 0.95, side))[:, None]
    iris = linear(look.iris) * (0.8 + 0.5 * noise(rest * 1500.0))[:, None]
    albedo = _mix(white, iris, 1 - _step(0.40, 0.46, side))
    albedo = albedo * (1 - 0.6 * np.exp(-(((side - 0.43) / 0.03) ** 2)))[:, None]
    albedo = _mix(albedo, np.full(3, 0.004), 1 - _step(0.17, 0.21, side))
    return Paint(albedo, _constant(len(rest), 0.5), _constant(len(rest), 160.0))


def _hair(rest: FloatArray, figure: Figure, look: Look) -> Paint:
    del figure
    strands = layered(rest * np.array([520.0, 110.0, 240.0]), 2)
    albedo = linear(look.hair) * np.clip(1 + 0.55 * strands, 0.3, 2.0)[:, None]
    return Paint(albedo, 0.05 + 0.05 * np.clip(strands, 0, 1), _constant(len(rest), 16.0))


def _shirt(rest: FloatArray, figure: Figure, look: Look) -> Paint:
    joints = figure.joints
    knit = noise(rest * 1100.0) + 0.5 * noise(rest * 350.0)
    albedo = linear(look.shirt) * (1 + 0.06 * knit + 0.03 * layered(rest * 14.0, 2))[:, None]
    # Double-stitched hem and sleeves: a slightly darker line above each edge.
    hem = rest[:, 1] - (joints["left_hip"][1] - HEM_M)
    reach = np.abs(rest[:, 0]) - abs(joints["left_shoulder"][0])
    arm = abs(joints["left_elbow"][0]) - abs(joints["left_shoulder"][0])
    sleeve = (0.58 - reach / arm) * arm
    neck = rest - (joints["neck"] + np.array([0.0, 0.035, 0.022]))
    collar = np.linalg.norm(neck / np.array([1.05, 1.0, 1.12]), axis=1) - 0.096
    seam = sum(
        np.exp(-(((edge - at) / 0.0011) ** 2))
        for edge, at in ((hem, 0.020), (sleeve, 0.018), (collar, 0.019))
    )
    albedo = albedo * (1 - 0.32 * np.clip(seam, 0, 1))[:, None]
    rib = (collar < 0.018) & (collar > 0)
    albedo = (
        albedo * np.where(rib, 0.90 + 0.06 * np.sin(np.arctan2(*neck[:, ::2].T) * 260), 1)[:, None]
    )
    return Paint(albedo, _constant(len(rest), 0.015), _constant(len(rest), 6.0), soft=0.15)


def _jeans(rest: FloatArray, figure: Figure, look: Look) -> Paint:
    joints = figure.joints
    twill = noise(rest * np.array([800.0, 1500.0, 800.0])) + 0.4 * noise(rest * 300.0)
    base = linear(look.trousers)
    albedo = base * (1 + 0.14 * twill)[:, None]
    # Washed lighter on the front of the thighs and over the knees.
    knee = joints["left_knee"]
    thigh = (knee[1] + joints["left_hip"][1]) / 2
    x = np.abs(rest[:, 0])
    worn = np.exp(-(((rest[:, 1] - thigh) / 0.16) ** 2) - ((x - abs(knee[0])) / 0.055) ** 2)
    worn = worn * _step(-0.01, 0.05, rest[:, 2])
    albedo = albedo * (1 + 0.55 * worn + 0.10 * layered(rest * 11.0, 3))[:, None]
    # Outer and inner seams.
    leg = np.interp(rest[:, 1], [knee[1] - 0.4, knee[1], 0.0], [0.15, abs(knee[0]), 0.115])
    seam = np.exp(-((rest[:, 2] / 0.0016) ** 2)) * (x > leg)
    albedo = albedo * (1 - 0.35 * seam)[:, None]
    return Paint(albedo, _constant(len(rest), 0.02), _constant(len(rest), 8.0), soft=0.1)


def _shoe(rest: FloatArray, look: Look) -> Paint:
    height = rest[:, 1]
    albedo = np.tile(linear(look.shoe), (len(rest), 1))
    albedo = albedo * (1 + 0.08 * noise(rest * 900.0))[:, None]
    sole = 1 - _step(0.021, 0.0225, height)
    albedo = _mix(albedo, np.array([0.62, 0.60, 0.56]), sole)
    line = np.exp(-(((height - 0.0225) / 0.0010) ** 2))
    albedo = albedo * (1 - 0.5 * line)[:, None]
    return Paint(albedo, _constant(len(rest), 0.04), _constant(len(rest), 14.0))
