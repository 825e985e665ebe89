"""What the build measured, as a page beside the recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recipes.free_body.pca import ShapeSpace
from recipes.free_body.regressors import JointErrors
from recipes.free_body.sampling import Bodies
from worker.avatar.body.layout import JOINT_NAMES
from worker.avatar.body.pack import PackedTopology
from worker.avatar.types import Gender

COUNTS = (10, 20, 30, 40, 50)


@dataclass(frozen=True)
class SpaceReport:
    """One gender's shape space against bodies that it has not seen."""

    gender: Gender
    unseen: int
    explained: float
    error_mm: dict[int, float]
    """Mean distance of vertices after projecting on so many components."""
    worst_mm: float
    """The worst body's mean distance with all components."""
    beta_std: tuple[float, float]
    """Smallest and largest standard deviation of the unseen bodies' betas."""


def describe(gender: Gender, space: ShapeSpace, unseen: Bodies) -> SpaceReport:
    """Project unseen bodies on a shape space."""
    betas = space.betas_of(unseen.vertices)
    errors = {}
    for count in COUNTS:
        distance = np.linalg.norm(space.reconstruct(betas[:, :count]) - unseen.vertices, axis=2)
        errors[count] = distance.mean() * 1000.0
    worst = distance.mean(axis=1).max() * 1000.0
    spread = betas.std(axis=0)
    return SpaceReport(
        gender, len(unseen), space.explained, errors, worst, (spread.min(), spread.max())
    )


def write_report(
    path: Path,
    spaces: Sequence[SpaceReport],
    joints: JointErrors,
    topology: PackedTopology,
    pack_bytes: int,
) -> None:
    """Write the numbers of this build as Markdown, and say the worst of them."""
    shown = len(topology.display_vertices), len(topology.display_faces)
    heads = " | ".join(f"{count}" for count in COUNTS)
    lines = [
        "# What the build measured",
        "",
        "Written by `build.py`.  All figures are of bodies that the build did not learn from.",
        "",
        f"Pack: {pack_bytes / 1e6:.1f} MB.",
        f"Body: {len(topology.lbs_weights)} vertices, {len(topology.faces)} triangles.",
        f"Shown: {shown[0]} vertices, {shown[1]} triangles.",
        "",
        "## Shape",
        "",
        f"Mean vertex error, mm, by K | {heads} | worst body | std of betas | variance explained",
        "---|" * (len(COUNTS) + 3) + "---",
    ]
    for space in spaces:
        errors = " | ".join(f"{space.error_mm[count]:.2f}" for count in COUNTS)
        lines.append(
            f"{space.gender} ({space.unseen} bodies) | {errors} | {space.worst_mm:.2f} | "
            f"{space.beta_std[0]:.2f}–{space.beta_std[1]:.2f} | {space.explained:.4f}"
        )
    lines += [
        "",
        "## Joints",
        "",
        f"Over all: mean {joints.mean_mm.mean():.2f} mm, worst {joints.max_mm.max():.1f} mm.",
        "",
        "joint | mean mm | max mm",
        "---|---|---",
        *(
            f"{name} | {joints.mean_mm[row]:.2f} | {joints.max_mm[row]:.2f}"
            for row, name in enumerate(JOINT_NAMES)
        ),
    ]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    print("\n".join(lines))
