"""How people, their clothes and the room look: colours, patterns, walls, drawn by chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recipes.cases.garments import Garment
from recipes.sample_person.noise import noise
from recipes.sample_person.paint import Look, Paint, linear
from recipes.sample_person.surface import FloatArray, unit
from worker.avatar.types import Gender

RGB = tuple[int, int, int]

_SKINS: tuple[RGB, ...] = (
    (236, 200, 178),
    (222, 180, 152),
    (208, 160, 130),
    (184, 134, 100),
    (146, 100, 72),
    (104, 70, 50),
    (78, 52, 40),
)
_HAIRS: tuple[RGB, ...] = (
    (26, 22, 20),
    (48, 34, 26),
    (82, 58, 40),
    (128, 92, 58),
    (176, 142, 96),
    (150, 148, 146),
    (198, 196, 192),
)
_TOPS: tuple[RGB, ...] = (
    (236, 236, 232),
    (32, 32, 36),
    (44, 66, 104),
    (128, 130, 134),
    (150, 40, 46),
    (52, 92, 66),
    (206, 178, 140),
    (96, 142, 190),
    (216, 196, 72),
    (120, 76, 120),
    (226, 170, 170),
)
_BOTTOMS: tuple[RGB, ...] = (
    (36, 48, 76),
    (70, 92, 128),
    (34, 34, 38),
    (92, 94, 98),
    (170, 148, 114),
    (84, 78, 58),
    (120, 150, 184),
    (206, 202, 192),
)
_SHOES: tuple[RGB, ...] = ((228, 228, 224), (40, 40, 42), (112, 114, 118), (110, 74, 48))
_PATTERNS = ("plain", "melange", "stripes", "checks", "print")
_PATTERN_SHARES = (0.45, 0.2, 0.15, 0.1, 0.1)


@dataclass(frozen=True, slots=True)
class Cloth:
    """One garment's colours."""

    first: FloatArray
    """(3,) linear RGB."""
    second: FloatArray
    pattern: str
    period_m: float
    """Of stripes and checks."""
    gloss: float
    waves: FloatArray
    """(K, 5) wave vector in rad/m, phase, and slope of folds too fine for the mesh."""

    def paint(self, rest: FloatArray) -> Paint:
        """Colour T-pose points (N, 3)."""
        grain = noise(rest * 700.0)
        share = np.zeros(len(rest))
        if self.pattern == "stripes":
            share = (np.sin(rest[:, 1] * 2 * np.pi / self.period_m) > 0.3).astype(float)
        elif self.pattern == "checks":
            lines = np.sin(rest[:, :2] * 2 * np.pi / self.period_m) > 0.2
            share = lines.mean(axis=1)
        elif self.pattern == "melange":
            share = 0.25 * (1 + noise(rest * 260.0))
        elif self.pattern == "print":
            sign = np.hypot(rest[:, 0] / 1.2, rest[:, 1] - 0.30) < 0.075
            share = (sign & (rest[:, 2] > 0)).astype(float)
        albedo = self.first * (1 - share[:, None]) + self.second * share[:, None]
        albedo = albedo * (1 + 0.07 * grain)[:, None]
        count = len(rest)
        return Paint(albedo, np.full(count, self.gloss), np.full(count, 8.0), soft=0.12)

    def emboss(self, rest: FloatArray, normals: FloatArray) -> FloatArray:
        """Tilt the normals (N, 3) at T-pose points (N, 3) by the folds."""
        slope = np.zeros_like(rest)
        for *vector, phase, steepness in self.waves:
            wave = np.cos(rest @ np.array(vector) + phase) * steepness
            slope += wave[:, None] * unit(np.array(vector))
        slope -= (slope * normals).sum(axis=1, keepdims=True) * normals
        return unit(normals - slope)


@dataclass(frozen=True, slots=True)
class Dress:
    """What a dressed person's surfaces are painted with."""

    body: Look
    top: Cloth
    bottom: Cloth


def draw_dress(gender: Gender, garments: list[Garment], rng: np.random.Generator) -> Dress:
    """Draw skin, hair and cloth for a person in `garments` (bottom, top)."""

    def pick(colours: tuple[RGB, ...], hue: float = 8.0) -> RGB:
        base = np.array(colours[rng.integers(len(colours))]) * np.exp(rng.normal(0, 0.06))
        base = base + rng.normal(0, hue, 3)
        red, green, blue = np.clip(base, 8, 245).astype(int).tolist()
        return red, green, blue

    skin = pick(_SKINS, hue=1.5)
    lips = (min(255, int(skin[0] * 0.82) + 6), int(skin[1] * 0.62), int(skin[2] * 0.66))
    stubble = rng.uniform(0.0, 0.5) if gender is Gender.MALE else 0.0
    body = Look(
        skin=skin,
        hair=pick(_HAIRS, hue=1.5),
        iris=(86, 70, 48),
        lips=lips,
        shirt=(0, 0, 0),
        trousers=(0, 0, 0),
        shoe=pick(_SHOES),
        stubble=stubble,
    )
    cloths = []
    for garment, colours in zip(garments, (_BOTTOMS, _TOPS), strict=True):
        snug = garment.hang[1] < 0.1
        patterned = colours is _TOPS and not snug
        pattern = str(rng.choice(_PATTERNS, p=_PATTERN_SHARES)) if patterned else "plain"
        waves = np.empty((10, 5))
        length_m = rng.uniform(0.025, 0.12, 10)
        direction = unit(rng.normal(0, 1, (10, 3)) * (1.0, 1.6, 1.0))
        waves[:, :3] = direction * (2 * np.pi / length_m)[:, None]
        waves[:, 3] = rng.uniform(0, 2 * np.pi, 10)
        waves[:, 4] = rng.uniform(0.02, 0.07, 10) * (0.25 if snug else 1.0)
        period_m = float(rng.uniform(0.012, 0.06))
        cloths.append(
            Cloth(
                linear(pick(colours)),
                linear(pick(colours)),
                pattern,
                period_m,
                float(rng.uniform(0.005, 0.04)),
                waves,
            )
        )
    return Dress(body, cloths[1], cloths[0])
