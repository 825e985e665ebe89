"""What the build measured, as a page beside the recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recipes.free_body.pca import ShapeSpace
from recipes.free_body.regressors import JointErrors
from recipes.free_body.sampling import Bodies, height_and_bmi
from recipes.free_body.source import Source
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


def describe_space(gender: Gender, space: ShapeSpace, unseen: Bodies) -> SpaceReport:
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


@dataclass(frozen=True)
class PeopleReport:
    """Who was drawn: 5th, 50th and 95th percentile."""

    who: str
    count: int
    height_m: np.ndarray
    bmi: np.ndarray


def describe_people(who: str, source: Source, bodies: Bodies) -> PeopleReport:
    """Measure the bodies that a space was made from."""
    height, bmi = height_and_bmi(source, bodies.vertices)
    percentiles = (5, 50, 95)
    return PeopleReport(
        who, len(bodies), np.percentile(height, percentiles), np.percentile(bmi, percentiles)
    )


@dataclass(frozen=True)
class Report:
    """All that a build says about itself."""

    drawn: Sequence[PeopleReport]
    spaces: Sequence[SpaceReport]
    joints: JointErrors
    """From the unseen bodies themselves."""
    joints_of_projections: JointErrors
    """From the same bodies as the neutral space's betas tell them."""
    topology: PackedTopology
    pack_bytes: int


def write_report(path: Path, report: Report) -> None:
    """Write the numbers of a build as Markdown, and print them."""
    topology = report.topology
    shown = len(topology.display_vertices), len(topology.display_faces)
    lines = [
        "# What the build measured",
        "",
        "Written by `build.py`.  Errors are of bodies that the build did not learn from.",
        "",
        f"Pack: {report.pack_bytes / 1e6:.1f} MB.",
        f"Body: {len(topology.lbs_weights)} vertices, {len(topology.faces)} triangles.",
        f"Shown: {shown[0]} vertices, {shown[1]} triangles.",
        "",
        "## Bodies drawn",
        "",
        "who | count | height, m: 5 %, 50 %, 95 % | BMI, kg/m²: 5 %, 50 %, 95 %",
        "---|---|---|---",
        *(
            f"{p.who} | {p.count} | {_three(p.height_m, 2)} | {_three(p.bmi, 1)}"
            for p in report.drawn
        ),
        "",
        "## Shape",
        "",
        "Mean distance of vertices in mm after projecting on the first components.",
        "",
        f"space | {' | '.join(map(str, COUNTS))} | worst body | std of betas | variance explained",
        "---|" * (len(COUNTS) + 3) + "---",
    ]
    for space in report.spaces:
        errors = " | ".join(f"{space.error_mm[count]:.2f}" for count in COUNTS)
        lines.append(
            f"{space.gender}, {space.unseen} bodies | {errors} | {space.worst_mm:.2f} | "
            f"{space.beta_std[0]:.2f}–{space.beta_std[1]:.2f} | {space.explained:.4f}"
        )
    own, projected = report.joints, report.joints_of_projections
    lines += [
        "",
        "## Joints",
        "",
        "In mm: from the vertices of 200 bodies, and from their projections on the neutral space.",
        "",
        "joint | mean | max | mean, projected | max, projected",
        "---|---|---|---|---",
    ]
    summary = (own.mean_mm.mean(), own.max_mm.max(), projected.mean_mm.mean())
    lines.append(" | ".join(["all", *(f"{x:.2f}" for x in (*summary, projected.max_mm.max()))]))
    for row, name in enumerate(JOINT_NAMES):
        figures = (own.mean_mm, own.max_mm, projected.mean_mm, projected.max_mm)
        lines.append(" | ".join([name, *(f"{figure[row]:.2f}" for figure in figures)]))
    path.write_text("\n".join(lines) + "\n", "utf-8")
    print("\n".join(lines))


def _three(values: np.ndarray, digits: int) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values)
