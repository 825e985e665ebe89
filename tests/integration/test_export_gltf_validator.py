"""Khronos' own validator reads what we write: no error, no warning, and nothing to remark."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from worker.avatar.body.free import display_topology, free_body
from worker.avatar.body.poses import a_pose, t_pose
from worker.avatar.export.glb import write_glb
from worker.avatar.export.gltfpack import optimise
from worker.avatar.export.skinned import skinned_body
from worker.avatar.types import Gender

NODE_PACKAGES = Path(__file__).resolve().parents[1] / "node" / "node_modules"
SCRIPT = """
import { validateBytes } from 'gltf-validator';
import { readFileSync } from 'node:fs';
const reports = {};
for (const file of process.argv.slice(1)) {
  const { issues, info } = await validateBytes(new Uint8Array(readFileSync(file)));
  reports[file] = { issues, info };
}
console.log(JSON.stringify(reports));
"""

needs_validator = pytest.mark.skipif(
    shutil.which("node") is None or not (NODE_PACKAGES / "gltf-validator").is_dir(),
    reason="needs node and the packages of tests/node (npm ci)",
)


def validate(*files: Path) -> dict[str, dict]:
    done = subprocess.run(
        ["node", "--input-type=module", "-e", SCRIPT, *map(str, files)],
        cwd=NODE_PACKAGES.parent,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return json.loads(done.stdout)


def fitted_like_pose() -> np.ndarray:
    """What a fit gives: small turns in every joint, the root upright."""
    pose = np.random.default_rng(3).normal(0.0, 0.15, (55, 3))
    pose[0] = 0.0
    return pose


@needs_validator
def test_every_gender_and_display_pose_is_valid_without_a_remark(tmp_path: Path) -> None:
    poses = {"apose": a_pose(25.0), "tpose": t_pose(), "pixie": fitted_like_pose()}
    for gender in Gender:
        for name, pose in poses.items():
            body = skinned_body(
                free_body(gender), display_topology(), betas=np.zeros(10), pose=pose, scale=1.03
            )
            path = tmp_path / f"{gender.value}-{name}.glb"
            write_glb(path, body, skin=(120, 80, 60), extras={"gender": gender.value})
    reports = validate(*sorted(tmp_path.glob("*.glb")))
    assert len(reports) == 9
    for path, report in reports.items():
        assert report["issues"]["messages"] == [], path
        assert report["info"]["totalTriangleCount"] <= 10_000
        assert report["info"]["hasSkins"]


@needs_validator
def test_the_validator_would_tell(tmp_path: Path) -> None:
    body = skinned_body(
        free_body(Gender.NEUTRAL), display_topology(), betas=np.zeros(10), pose=t_pose()
    )
    body.joint_weight[:, 0] -= 9
    write_glb(tmp_path / "bad.glb", body, skin=(120, 80, 60), extras={})
    (report,) = validate(tmp_path / "bad.glb").values()
    assert report["issues"]["numErrors"] > 0


@needs_validator
@pytest.mark.skipif(
    not (NODE_PACKAGES / ".bin" / "gltfpack").exists(),
    reason="needs gltfpack in the packages of tests/node",
)
def test_what_gltfpack_leaves_is_valid_and_plain(tmp_path: Path) -> None:
    body = skinned_body(
        free_body(Gender.NEUTRAL), display_topology(), betas=np.zeros(10), pose=a_pose(25.0)
    )
    path = tmp_path / "avatar.glb"
    write_glb(path, body, skin=(120, 80, 60), extras={})
    done = optimise(path, tool=NODE_PACKAGES / ".bin" / "gltfpack", required=True)
    assert done.tool == "gltfpack"
    (report,) = validate(path).values()
    assert report["issues"]["numErrors"] == report["issues"]["numWarnings"] == 0
    assert "extensionsUsed" not in report["info"]
