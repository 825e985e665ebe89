"""Everything that one avatar publishes, written into the job's folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial.transform import Rotation

from worker.avatar.body.poses import a_pose, t_pose
from worker.avatar.export.appearance import SkinTone, skin_tone
from worker.avatar.export.documents import (
    measurements_document,
    quality_document,
    targets_document,
    write_json,
)
from worker.avatar.export.dress import Part
from worker.avatar.export.glb import CLOTHES, write_glb
from worker.avatar.export.gltfpack import Optimisation, optimise
from worker.avatar.export.overlay import mask_png, overlay_png
from worker.avatar.export.preview import preview_png
from worker.avatar.export.skinned import SkinnedBody, skinned_body
from worker.avatar.types import (
    BodyFit,
    BoolArray,
    DisplayPose,
    Float64Array,
    Observation,
    Photo,
    QualityReport,
    ViewName,
)
from worker.errors import EngineError

if TYPE_CHECKING:
    from worker.avatar.body.model import BodyData, DisplayMesh

MAX_TRIANGLES = 10_000
MAX_GLB_BYTES = 2_000_000


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What the operator decides about the output, by the settings' names."""

    display_pose: DisplayPose = DisplayPose.APOSE
    """AVATAR_DISPLAY_POSE."""
    arm_down_deg: float = 25.0
    """AVATAR_APOSE_ARM_DOWN_DEG."""
    gltfpack_path: Path | None = None
    """GLTFPACK_PATH."""
    require_gltfpack: bool = False
    """REQUIRE_GLTFPACK."""


@dataclass(frozen=True, slots=True)
class ExportInputs:
    """What the earlier stages found out.  Sequences and mappings are by view."""

    body: BodyData
    display: DisplayMesh
    fit: BodyFit
    scale: float
    """Brings the shaped body to the declared height."""
    photos: Sequence[Photo]
    observations: Sequence[Observation]
    coverage: Mapping[ViewName, BoolArray]
    """(H, W) of each photo: where the fitted body covers it."""
    measurements_cm: Mapping[str, float]
    quality: QualityReport
    facts: Mapping[str, Any] = field(default_factory=dict)
    """JSON-able: what made this avatar; goes into the GLB's `asset.extras`."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    files: tuple[str, ...]
    """Names in the folder, in the order of the contract."""
    inspection_files: frozenset[str]
    """Those that show the person or where they stood."""
    skin: SkinTone
    optimisation: Optimisation
    glb_bytes: int
    triangles: int


def write_outputs(
    folder: Path,
    inputs: ExportInputs,
    options: ExportOptions,
    progress: Callable[[float], None] = lambda _: None,
) -> Exported:
    """Write the GLB, the pictures and the documents.

    Args:
        folder: an existing folder.
        inputs: the measured body and what was seen.
        options: how it is shown.
        progress: called with 0..1; 0.3 when the GLB is written, 0.5 when it is optimised.

    Raises:
        ToolMissing: gltfpack is required and not there.
        EngineError: the display mesh is larger than promised, or required gltfpack failed.
    """
    skin = skin_tone(inputs.photos[0], inputs.observations[0])
    body = skinned_body(
        inputs.body,
        inputs.display,
        betas=inputs.fit.betas,
        pose=display_pose(options, inputs.fit),
        scale=inputs.scale,
    )
    glb = folder / "avatar.glb"
    write_glb(glb, body, skin=skin.rgb, extras=_extras(inputs, options))
    progress(0.3)
    optimisation = optimise(glb, tool=options.gltfpack_path, required=options.require_gltfpack)
    _hold_to_limits(glb, body)
    progress(0.5)

    (folder / "preview.png").write_bytes(preview_png(body, {**CLOTHES, Part.SKIN: skin.rgb}))
    documents = {
        "measurements.json": measurements_document(inputs.measurements_cm),
        "quality_report.json": quality_document(inputs.quality, inputs.fit),
        "appearance.json": skin.document(),
    }
    for name, document in documents.items():
        write_json(folder / name, document)
    inspection = _write_inspection(folder, inputs)
    progress(1.0)
    return Exported(
        files=(glb.name, *documents, "preview.png", *inspection),
        inspection_files=frozenset(inspection),
        skin=skin,
        optimisation=optimisation,
        glb_bytes=glb.stat().st_size,
        triangles=body.triangles,
    )


def display_pose(options: ExportOptions, fit: BodyFit) -> Float64Array:
    """Return the pose (55, 3) in which the body is shown, upright and facing +z."""
    if options.display_pose is DisplayPose.TPOSE:
        return t_pose()
    if options.display_pose is DisplayPose.APOSE:
        return a_pose(options.arm_down_deg)
    # As the person stood in the front photo, seen by a level camera, but turned to face +z.
    front = next(view for view in fit.views if view.view is ViewName.FRONT)
    pose = np.array(front.pose, dtype=np.float64)
    pose[0] = _facing_us(pose[0])
    return pose


def _facing_us(orient: Float64Array) -> Float64Array:
    """Take a root's turn (3,) from the camera's frame to y up, without its turn about y.

    What is left is how the pelvis leans; without it a walking person would topple.
    """
    upright = Rotation.from_euler("x", np.pi) * Rotation.from_rotvec(orient)
    ahead = upright.apply((0.0, 0.0, 1.0))
    yaw = Rotation.from_euler("y", np.arctan2(ahead[0], ahead[2]))
    result: Float64Array = (yaw.inv() * upright).as_rotvec()
    return result


def _extras(inputs: ExportInputs, options: ExportOptions) -> dict[str, Any]:
    return {
        "displayPose": options.display_pose.value,
        "gender": inputs.fit.gender.value,
        "body": inputs.body.name,
        "bodyDigest": inputs.body.digest,
        "measurementsCm": measurements_document(inputs.measurements_cm),
        **inputs.facts,
    }


def _hold_to_limits(glb: Path, body: SkinnedBody) -> None:
    size = glb.stat().st_size
    if body.triangles > MAX_TRIANGLES or size > MAX_GLB_BYTES:
        raise EngineError(f"the display file has {body.triangles} triangles and {size} bytes")


def _write_inspection(folder: Path, inputs: ExportInputs) -> list[str]:
    """Write the files that show the person; return their names."""
    pictures: dict[str, bytes] = {}
    for photo, seen in zip(inputs.photos, inputs.observations, strict=True):
        view = photo.view
        pictures[f"mask_{view.value}.png"] = mask_png(seen.mask)
        pictures[f"overlay_{view.value}.png"] = overlay_png(photo, inputs.coverage[view])
    for name, data in pictures.items():
        (folder / name).write_bytes(data)
    targets = "silhouette_targets.json"
    write_json(folder / targets, targets_document(inputs.observations, inputs.fit), indent=None)
    return [*pictures, targets]
