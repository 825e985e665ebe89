"""gltfpack on the written GLB, only where the operator asks for it.

The file is small without it: the display topology is simplified once per body model, and the
writer stores nothing twice.  gltfpack reorders vertices for the GPU's cache.  Its quantisation
and its meshopt compression stay off, for they need extensions that plain viewers lack; names
and extras are kept, because clothing tools look joints up by name.

Source of the flags: `gltfpack -h`, version 1.3 (https://github.com/zeux/meshoptimizer).
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pygltflib as gltf

from worker.errors import EngineError, ToolMissing

TIMEOUT_S = 60.0

_FLAGS = ("-noq", "-kn", "-km", "-ke")
"""No quantisation; keep named nodes, named materials and extras."""

_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, OSError, struct.error)
"""What pygltflib raises on a file that is no GLB."""


@dataclass(frozen=True, slots=True)
class Optimisation:
    """What became of the request to optimise the GLB."""

    tool: str | None
    """The program, or None when none ran."""
    note: str | None = None
    """Why none ran although one was named."""


def optimise(
    glb: Path, *, tool: Path | None, required: bool, timeout_s: float = TIMEOUT_S
) -> Optimisation:
    """Run gltfpack on `glb` in place, if a path is given or it is required.

    A tool that is named but not required must not cost a job: whatever it does wrong, the file
    stays as it was and the result says why.

    Args:
        glb: the file; its folder is written to.
        tool: GLTFPACK_PATH.
        required: REQUIRE_GLTFPACK; without a path, `gltfpack` is looked for on PATH.
        timeout_s: how long it may run.

    Raises:
        ToolMissing: it is required and not there.
        EngineError: it is required and failed, ran too long or broke the file.
    """
    if tool is None and not required:
        return Optimisation(tool=None)
    found = shutil.which(str(tool) if tool else "gltfpack")
    if found is None:
        name = f"GLTFPACK_PATH={tool}" if tool else "gltfpack on PATH"
        if required:
            raise ToolMissing(f"REQUIRE_GLTFPACK is set, but there is no program at {name}")
        return Optimisation(tool=None, note=f"no program at {name}")
    packed = glb.with_name(glb.stem + ".packed.glb")
    try:
        _run(Path(found), glb, packed, timeout_s)
        _check(glb, packed)
        packed.replace(glb)
    except EngineError as broken:
        if required:
            raise
        return Optimisation(tool=None, note=broken.message)
    finally:
        packed.unlink(missing_ok=True)
    return Optimisation(tool=Path(found).name)


def _run(tool: Path, source: Path, target: Path, timeout_s: float) -> None:
    command = [str(tool), "-i", str(source), "-o", str(target), *_FLAGS]
    try:
        done = subprocess.run(  # noqa: S603 - the operator names the program; no shell, our paths
            command, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as late:
        raise EngineError(f"gltfpack did not end within {timeout_s:g} s") from late
    except OSError as unusable:
        raise EngineError(f"gltfpack cannot be run: {unusable}") from unusable
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise EngineError(f"gltfpack ended with {done.returncode}: {' '.join(last)}")


def _check(before: Path, after: Path) -> None:
    """Hold the result to what matters: a readable file, the same triangles, all joints."""
    if not after.is_file():
        raise EngineError("gltfpack wrote no file")
    try:
        facts = [_facts(path) for path in (before, after)]
    except _UNREADABLE as unreadable:
        raise EngineError("gltfpack wrote a file that is no GLB") from unreadable
    if facts[0] != facts[1]:
        raise EngineError(f"gltfpack changed (joints, triangles) from {facts[0]} to {facts[1]}")


def _facts(path: Path) -> tuple[list[str], int]:
    """Names of the joints, and the number of triangles."""
    document = gltf.GLTF2().load_binary(str(path))
    joints = [document.nodes[node].name for skin in document.skins for node in skin.joints]
    indices = [part.indices for mesh in document.meshes for part in mesh.primitives]
    return sorted(joints), sum(document.accessors[index].count for index in indices) // 3
