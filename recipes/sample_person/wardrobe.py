"""Dress a body: cloth that lies over it, shoes, and hair as a shell on the scalp.

Everything is cut out of the body's own surface with fields of its T-pose coordinates, then
moved outwards.  Cloth does not follow the body into hollows: it takes the smoothed surface
where that lies outside, and never comes nearer to the skin than its own thickness.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import trimesh

from recipes.sample_person.noise import layered, noise
from recipes.sample_person.surface import FloatArray, Surface, smoothed, unit

HEM_M = 0.055
"""The shirt's hem below the hip joint."""
SOLE_M = 0.010
"""The shoes' soles below the bare foot."""

Field = Callable[[FloatArray], FloatArray]
"""From T-pose positions (V, 3) to a number for each (V,)."""


@dataclass(frozen=True, slots=True)
class Figure:
    """The body to dress."""

    skin: Surface
    """Subdivided body without its eyes, posed."""
    insides: Mapping[str, Surface]
    """Surfaces that are shown as they are: eye_left and eye_right."""
    joints: Mapping[str, FloatArray]
    """T-pose joints by SMPL-X name."""
    feet: tuple[FloatArray, FloatArray]
    """Posed vertices of the left and the right foot."""

    @property
    def floor(self) -> float:
        """Height of the bare soles in the posed body."""
        return min(float(foot[:, 1].min()) for foot in self.feet)


@dataclass(frozen=True, slots=True)
class Drape:
    """How a garment lies on the body."""

    near_m: float
    """Least distance from the skin."""
    far_m: float
    """Most that it may bridge."""
    smoothing: int
    """Passes of neighbour averaging: more bridges wider hollows."""
    folds_m: float
    """Height of the folds."""


SHIRT = Drape(near_m=0.004, far_m=0.030, smoothing=160, folds_m=0.0024)
TROUSERS = Drape(near_m=0.004, far_m=0.020, smoothing=50, folds_m=0.0022)


def dress(figure: Figure) -> dict[str, Surface]:
    """All surfaces of the dressed person, by material."""
    shirt, trousers = _shirt(figure), _trousers(figure)
    rest = figure.skin.rest
    # Skin well inside a garment is left out, so that none can poke through.
    covered = np.maximum(shirt(rest), trousers(rest)) - 0.03
    above_shoe = rest[:, 1] - (figure.joints["left_ankle"][1] - 0.03)
    return {
        "skin": figure.skin.cut(np.minimum(-covered, above_shoe)),
        "shirt": _cloth(figure.skin, shirt, SHIRT, _shirt_slack(figure)),
        "trousers": _cloth(figure.skin, trousers, TROUSERS, _trouser_slack(figure)),
        "hair": short_hair(figure),
        "shoe_left": canvas_shoe(figure.feet[0], figure.floor),
        "shoe_right": canvas_shoe(figure.feet[1], figure.floor),
        **figure.insides,
    }


def eye_centres(figure: Figure) -> FloatArray:
    """(2, 3) centres of the left and the right eyeball in T-pose."""
    return np.stack([figure.insides[n].rest.mean(axis=0) for n in ("eye_left", "eye_right")])


def _arm_reach(figure: Figure, rest: FloatArray) -> FloatArray:
    """Where along the upper arm a vertex lies: 0 at the shoulder, 1 at the elbow."""
    shoulder = abs(figure.joints["left_shoulder"][0])
    elbow = abs(figure.joints["left_elbow"][0])
    return (np.abs(rest[:, 0]) - shoulder) / (elbow - shoulder)


def _shirt(figure: Figure) -> Field:
    """Positive where the T-shirt is, in metres from its hems."""
    joints = figure.joints

    def field(rest: FloatArray) -> FloatArray:
        arm = (0.58 - _arm_reach(figure, rest)) * 0.28
        hem = rest[:, 1] - (joints["left_hip"][1] - HEM_M)
        neck = rest - (joints["neck"] + np.array([0.0, 0.035, 0.022]))
        collar = np.linalg.norm(neck / np.array([1.05, 1.0, 1.12]), axis=1) - 0.096
        # The head lies outside that ball too; the chin hangs low in front.
        below_chin = joints["neck"][1] + 0.03 - rest[:, 1]
        below_chin = below_chin - 1.2 * np.clip(rest[:, 2] - joints["neck"][2] - 0.075, 0, None)
        return np.minimum.reduce([arm, hem, collar, below_chin])

    return field


def _trousers(figure: Figure) -> Field:
    """Positive where the trousers are."""
    joints = figure.joints

    def field(rest: FloatArray) -> FloatArray:
        waist = joints["pelvis"][1] + 0.055 - rest[:, 1]
        ankle = rest[:, 1] - (joints["left_ankle"][1] - 0.012)
        not_arm = abs(joints["left_shoulder"][0]) + 0.1 - np.abs(rest[:, 0])
        return np.minimum.reduce([waist, ankle, not_arm])

    return field


def _shirt_slack(figure: Figure) -> Field:
    """Extra room: the shirt hangs freely at the hem and in the sleeves."""

    def field(rest: FloatArray) -> FloatArray:
        hang = np.clip((figure.joints["spine2"][1] - rest[:, 1]) / 0.28, 0, 1)
        sleeve = np.clip(_arm_reach(figure, rest) / 0.55, 0, 1)
        return 0.004 * hang**1.5 + 0.007 * sleeve

    return field


def _trouser_slack(figure: Figure) -> Field:
    """Extra room: wider below the knee, to pass over the shoe."""

    def field(rest: FloatArray) -> FloatArray:
        below = np.clip((figure.joints["left_knee"][1] - rest[:, 1]) / 0.42, 0, 1)
        return 0.012 * below**1.3

    return field


def _cloth(skin: Surface, where: Field, drape: Drape, slack: Field) -> Surface:
    """Cut the garment out and lay it over the skin."""
    # A margin around the hems keeps the smoothing from drawing them together.
    surface = skin.cut(where(skin.rest) + 0.05)
    normals, averaging = surface.normals(), surface.averaging()
    loose = smoothed(averaging, surface.points, drape.smoothing)
    bridge = ((loose - surface.points) * normals).sum(axis=1)
    lift = np.clip(bridge, 0.0, drape.far_m) + drape.near_m + slack(surface.rest)
    lift = np.maximum(smoothed(averaging, lift, 14), drape.near_m)
    folds = noise(surface.rest * np.array([16.0, 30.0, 16.0]))
    folds = folds + 0.6 * noise(surface.rest * np.array([40.0, 22.0, 40.0]) + 7.0)
    lift = lift + drape.folds_m * np.clip(folds, -0.6, 1.4) * np.clip(lift / 0.01, 0.6, 1.6)
    direction = unit(smoothed(averaging, normals, 4))
    lift = np.maximum(lift, 0.6 * drape.near_m)
    return surface.moved(surface.points + direction * lift[:, None]).cut(where(surface.rest))


def short_hair(figure: Figure, length: float = 1.0) -> Surface:
    """Short hair: longest on the crown, running out towards the hairline.

    Args:
        figure: whose; its joints are not used.
        length: 1 is two centimetres on the crown.
    """
    eyes = eye_centres(figure)
    middle = eyes.mean(axis=0)
    crown = float(figure.skin.rest[:, 1].max() - middle[1])
    scale = crown / 0.114

    def hairline(rest: FloatArray) -> FloatArray:
        local = (rest - middle) / scale
        x, y, z = local.T
        # Lowest height of hair by depth, from the brow (z > 0) over the ear to the nape.
        line = np.interp(
            z,
            [-0.22, -0.17, -0.135, -0.115, -0.10, -0.085, -0.06, -0.03, 0.0, 0.03],
            [-0.075, -0.075, -0.055, -0.03, -0.018, -0.022, 0.022, 0.050, 0.062, 0.072],
        )
        line = line + 0.008 * np.cos(x / 0.028) * (z > -0.03)
        ears = np.linalg.norm(
            (np.stack((np.abs(x), y, z), axis=1) - np.array([0.082, -0.012, -0.098]))
            / np.array([1.0, 1.2, 0.85]),
            axis=1,
        )
        rough = 0.004 * noise(rest * np.array([160.0, 40.0, 160.0]))
        return np.minimum(y - line, ears - 0.026) * scale + rough

    surface = figure.skin.cut(hairline(figure.skin.rest) + 0.004).subdivided()
    depth = hairline(surface.rest)
    full = np.clip((surface.rest[:, 1] - middle[1]) / crown, 0, 1)
    lift = (0.004 + 0.016 * full) * (1 - np.exp(-np.clip(depth, 0, None) / 0.012))
    strands = layered(surface.rest * np.array([230.0, 60.0, 120.0]), 2)
    lift = lift * length * (1 + 0.20 * strands) + 0.0008
    averaging = surface.averaging()
    direction = unit(smoothed(averaging, surface.normals(), 10))
    points = surface.points + direction * lift[:, None]
    return surface.moved(points).cut(depth)


def canvas_shoe(
    foot: FloatArray, floor: float, *, sole_m: float = SOLE_M, room_m: float = 0.003
) -> Surface:
    """A low canvas shoe: the convex hull of the foot, a little larger, on a flat sole.

    Its `rest` is (x, height above the ground, z): what its paint needs.
    """
    ground = floor - sole_m
    low = foot[foot[:, 1] < floor + 0.088]
    sole = low[low[:, 1] < floor + 0.028]
    sole = np.stack((sole[:, 0], np.full(len(sole), ground), sole[:, 2]), axis=1)
    middle = low.mean(axis=0)
    wider = middle + (np.concatenate((low, sole)) - middle) * np.array([1.06, 1.0, 1.03])
    hull = trimesh.convex.convex_hull(wider)
    points, faces = trimesh.remesh.subdivide_to_size(hull.vertices, hull.faces, 0.008)
    welded = trimesh.Trimesh(points, faces)
    surface = Surface(
        np.asarray(welded.vertices), np.asarray(welded.vertices), np.asarray(welded.faces)
    )
    rounded = smoothed(surface.averaging(), surface.points, 4)
    rounded = rounded + unit(surface.moved(rounded).normals()) * room_m
    rounded[:, 1] = np.maximum(rounded[:, 1], ground)
    height = np.stack((rounded[:, 0], rounded[:, 1] - ground, rounded[:, 2]), axis=1)
    return Surface(rounded, height, surface.faces)
