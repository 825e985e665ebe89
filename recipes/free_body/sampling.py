"""Draw adults from anny, T-posed and in the free body's vertex order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from anny.shape_distribution import SimpleShapeDistribution

from recipes.free_body.source import Source, load_source
from recipes.free_body.tpose import to_tpose
from worker.avatar.types import Gender

AGE_YEARS = (18.0, 75.0)
BMI_KG_M2 = (16.0, 42.0)
HEIGHT_M = {Gender.MALE: (1.48, 2.08), Gender.FEMALE: (1.38, 1.95)}
"""Bodies outside are drawn again."""

DENSITY_KG_M3 = 980.0
"""anny's own, for the whole body with air in its lungs."""

_BATCH = 64

_PARTS = ("measure-", "torso-", "hip-", "stomach-", "pelvis", "buttocks", "breast", "bulge")
_HEADS = ("head-scale", "head-fat", "neck-scale", "neck-double")
_LIMBS = ("upperarm", "lowerarm", "upperleg", "lowerleg", "valgus", "hand-scale", "foot-scale")
_LOPSIDED = ("torso-trans-out", "hip-trans-out")


@dataclass(frozen=True)
class Bodies:
    """T-posed bodies in SMPL-X's frame, pelvis at the origin, metres."""

    vertices: np.ndarray
    """(n, V, 3) float32, in the free body's vertex order."""
    joints: np.ndarray
    """(n, 55, 3) float32."""

    def __len__(self) -> int:
        """Count the bodies."""
        return len(self.vertices)


def sampled_local_changes(source: Source) -> list[str]:
    """Name those of anny's local changes that vary what clothes are cut for."""
    return [
        label
        for label in source.model.local_change_labels
        if label not in _LOPSIDED
        and (label.startswith(_PARTS + _HEADS) or any(limb in label for limb in _LIMBS))
    ]


def sample_bodies(
    n: int, gender: Gender, seed: int, *, local_sigma: float = 0.25, weight_spread: float = 0.3
) -> Bodies:
    """Draw adults of 18 to 75 years, both sides of a body alike.

    Height, weight, muscle and proportions follow anny's distributions, which are calibrated on the
    WHO's heights; a share of the weights is drawn evenly, so that thin and heavy people are not
    rare.  Local changes add what those few numbers cannot say.

    Args:
        n: how many bodies.
        gender: male or female; neutral draws half of each, women first.
        seed: the same seed gives the same bodies.
        local_sigma: standard deviation of the local changes, whose range is -1..1.
        weight_spread: share of bodies whose weight parameter is uniform in 0..1.
    """
    if gender is Gender.NEUTRAL:
        women = sample_bodies(
            n // 2, Gender.FEMALE, seed, local_sigma=local_sigma, weight_spread=weight_spread
        )
        men = sample_bodies(
            n - n // 2, Gender.MALE, seed, local_sigma=local_sigma, weight_spread=weight_spread
        )
        return join(women, men)
    source = load_source()
    drawn: list[tuple[np.ndarray, np.ndarray]] = []
    # anny draws from torch's global generator: seed it here and leave it as it was found.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2 * seed + (gender is Gender.FEMALE))
        while sum(len(vertices) for vertices, _ in drawn) < n:
            drawn.append(_draw(source, gender, local_sigma, weight_spread))
    return Bodies(
        np.concatenate([vertices for vertices, _ in drawn])[:n],
        np.concatenate([joints for _, joints in drawn])[:n],
    )


def join(first: Bodies, second: Bodies) -> Bodies:
    """Put two sets of bodies into one."""
    return Bodies(
        np.concatenate([first.vertices, second.vertices]),
        np.concatenate([first.joints, second.joints]),
    )


def _draw(
    source: Source, gender: Gender, local_sigma: float, weight_spread: float
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one batch and keep the plausible ones."""
    phenotypes = _phenotypes(source, gender, weight_spread)
    vertices, joints = source.bodies(phenotypes, _local_changes(source, local_sigma))
    height, bmi = height_and_bmi(source, vertices)
    shortest, tallest = HEIGHT_M[gender]
    keep = (height > shortest) & (height < tallest) & (bmi > BMI_KG_M2[0]) & (bmi < BMI_KG_M2[1])
    return to_tpose(source, vertices[keep], joints[keep])


def _phenotypes(source: Source, gender: Gender, weight_spread: float) -> dict[str, torch.Tensor]:
    distribution = SimpleShapeDistribution(
        source.model,
        morphological_age_distribution=torch.distributions.Uniform(*map(torch.tensor, AGE_YEARS)),
    )
    _, phenotypes = distribution.sample(_BATCH)
    # anny's gender runs from 0, male, to 1, female; its distributions are named by children.
    prefix = "boys" if gender is Gender.MALE else "girls"
    for name in ("height", "weight", "muscle", "proportions"):
        conditional = getattr(distribution, f"{prefix}_conditional_{name}_distribution")
        phenotypes[name] = conditional.get_torch_distribution(phenotypes["age"]).sample()
    evenly = torch.rand(_BATCH) < weight_spread
    phenotypes["weight"] = torch.where(evenly, torch.rand(_BATCH), phenotypes["weight"])
    phenotypes["gender"] = torch.full((_BATCH,), 0.0 if gender is Gender.MALE else 1.0)
    return {name: value.to(torch.float32) for name, value in phenotypes.items()}


def _local_changes(source: Source, sigma: float) -> dict[str, torch.Tensor]:
    changes: dict[str, torch.Tensor] = {}
    for label in sampled_local_changes(source):
        twin = "l-" + label.removeprefix("r-")
        if label.startswith("r-") and twin in changes:
            changes[label] = changes[twin]
        else:
            changes[label] = (torch.randn(_BATCH) * sigma).clamp(-1, 1)
    return changes


def height_and_bmi(source: Source, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Measure standing height (n,) in m, and body mass index (n,) in kg/m²."""
    height = vertices[..., 1].max(axis=1) - vertices[..., 1].min(axis=1)
    a, b, c = (vertices[:, source.faces[:, k]] for k in range(3))
    volume = np.einsum("nfc,nfc->n", np.cross(a, b), c) / 6
    return height, np.abs(volume) * DENSITY_KG_M3 / height**2
