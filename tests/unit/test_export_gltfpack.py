import stat
from pathlib import Path

import pygltflib as gltf
import pytest

from worker.avatar.export.gltfpack import optimise
from worker.errors import EngineError, ToolMissing


def tool(folder: Path, script: str) -> Path:
    path = folder / "gltfpack-double"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def glb(tmp_path: Path) -> Path:
    path = tmp_path / "avatar.glb"
    document = gltf.GLTF2(
        scenes=[gltf.Scene(nodes=[0])],
        nodes=[gltf.Node(name="pelvis")],
        skins=[gltf.Skin(joints=[0])],
    )
    document.set_binary_blob(b"\0" * 4)
    document.save_binary(str(path))
    return path


def test_nothing_runs_unless_it_is_asked_for(
    glb: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tool(tmp_path, "exit 9").parent))
    assert optimise(glb, tool=None, required=False).tool is None


def test_a_required_tool_that_is_missing_is_named(
    glb: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match="gltfpack on PATH"):
        optimise(glb, tool=None, required=True)
    with pytest.raises(ToolMissing, match="/nowhere/gltfpack"):
        optimise(glb, tool=Path("/nowhere/gltfpack"), required=True)


def test_a_missing_tool_that_is_only_wished_for_costs_nothing(glb: Path) -> None:
    before = glb.read_bytes()
    done = optimise(glb, tool=Path("/nowhere/gltfpack"), required=False)
    assert done.tool is None
    assert done.note is not None
    assert "/nowhere/gltfpack" in done.note
    assert glb.read_bytes() == before


def test_the_result_replaces_the_file(glb: Path, tmp_path: Path) -> None:
    double = tool(tmp_path, 'cp "$2" "$4"; echo "$@" > "$(dirname "$0")/called"')
    assert optimise(glb, tool=double, required=True).tool == "gltfpack-double"
    flags = (tmp_path / "called").read_text().split()
    assert {"-noq", "-kn", "-km", "-ke"} <= set(flags)
    assert sorted(path.name for path in tmp_path.glob("*.glb")) == ["avatar.glb"]


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo 'no such mesh' >&2; exit 3", "ended with 3: no such mesh"),
        ("exit 0", "wrote no file"),
        ('echo rubbish > "$4"', "no GLB"),
        ("exec sleep 30", "within 0.2 s"),
    ],
)
def test_a_tool_that_fails_leaves_the_file_and_says_why(
    glb: Path, tmp_path: Path, script: str, why: str
) -> None:
    before = glb.read_bytes()
    double = tool(tmp_path, script)
    with pytest.raises(EngineError, match=why):
        optimise(glb, tool=double, required=True, timeout_s=0.2 if "sleep" in script else 20)
    done = optimise(glb, tool=double, required=False, timeout_s=0.2 if "sleep" in script else 20)
    assert done.note is not None
    assert why in done.note
    assert glb.read_bytes() == before
    assert not list(tmp_path.glob("*.packed.glb"))


def test_a_tool_that_drops_a_joint_is_found_out(glb: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.glb"
    document = gltf.GLTF2().load_binary(str(glb))
    document.nodes[0].name = "hips"
    document.save_binary(str(other))
    with pytest.raises(EngineError, match="changed"):
        optimise(glb, tool=tool(tmp_path, f'cp {other} "$4"'), required=True)
