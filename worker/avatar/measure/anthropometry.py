"""SMPL-Anthropometry's own definitions as a second measurer, on SMPL-X's topology alone.

The code is the operator's checkout of DavidBoja/SMPL-Anthropometry (MIT), pinned in
vendors/vendors.toml.  Its landmarks are fixed vertices and its planes lie across two joints, so
its numbers are other measures than ISO 8559-1's by the same names: they are told beside ours, never
in their place.  Its constructor wants a pickled SMPL-X in the working directory; we give it faces
and places instead.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np

from worker.avatar.measure.anatomy import SkinnedBody
from worker.avatar.types import Float64Array, Int64Array
from worker.avatar.vendor_code import import_isolated
from worker.errors import FitFailed, ModelInvalid, ModelMissing

SEGMENTS: Final = Path("data") / "smplx" / "smplx_body_parts_2_faces.json"
_MODULES: Final = (
    "joint_definitions", "landmark_definitions", "measurement_definitions", "utils", "measure",
)  # fmt: skip
_VERTICES: Final = 10_475


@dataclass(frozen=True, slots=True, eq=False)
class SmplAnthropometry:
    """Its measurer, loaded."""

    code: ModuleType
    """`measure`, which has no types."""
    segments: dict[str, list[int]]
    """Triangles of SMPL-X by part of the body."""
    source: str

    @classmethod
    def load(cls, folder: Path) -> SmplAnthropometry:
        """Import its definitions.

        Raises:
            ModelMissing: the checkout or a file of it is not there.
            ModelInvalid: its table of body parts is damaged.
        """
        path = folder / SEGMENTS
        if not path.is_file():
            raise ModelMissing(
                f"{path} (SMPL-Anthropometry) is missing.", advice="Run `make vendors`."
            )
        text = path.read_bytes()
        try:
            segments = {
                str(name): [int(face) for face in faces] for name, faces in json.loads(text).items()
            }
        except (AttributeError, TypeError, ValueError) as error:
            raise ModelInvalid(f"{path} holds no table of triangles.") from error
        # `visualize` draws and `smplx` opens files; neither is wanted, and smplx is non-commercial.
        stand_ins = {"visualize": {"Visualizer": None}, "smplx": {}}
        code = import_isolated(folder, _MODULES, stand_ins)
        return cls(code, segments, f"smpl-anthropometry@{hashlib.sha256(text).hexdigest()[:8]}")

    def measure(
        self, vertices: Float64Array, joints: Float64Array, faces: Int64Array
    ) -> dict[str, float]:
        """Measure a body at rest by SMPL-Anthropometry's definitions, in centimetres.

        Args:
            vertices: (10475, 3) metres, at the person's height.
            joints: (55, 3) metres.
            faces: (20908, 3).

        Raises:
            ModelInvalid: it is no SMPL-X body.
            FitFailed: a plane misses the body.
        """
        if vertices.shape != (_VERTICES, 3):
            raise ModelInvalid(
                f"SMPL-Anthropometry measures {_VERTICES} vertices, not {len(vertices)}."
            )
        code = self.code
        definitions = code.SMPLXMeasurementDefinitions()
        measurer: Any = code.Measurer()
        measurer.verts, measurer.joints, measurer.faces = vertices, joints, faces
        measurer.face_segmentation = self.segments
        measurer.landmarks = code.SMPLX_LANDMARK_INDICES
        measurer.measurement_types = code.MEASUREMENT_TYPES
        measurer.length_definitions = definitions.LENGTHS
        measurer.circumf_definitions = definitions.CIRCUMFERENCES
        measurer.circumf_2_bodypart = definitions.CIRCUMFERENCE_TO_BODYPARTS
        measurer.all_possible_measurements = definitions.possible_measurements
        measurer.joint2ind = code.SMPLX_JOINT2IND
        try:
            measurer.measure(list(definitions.possible_measurements))
        except Exception as error:
            # Of trimesh, scipy and its own; a job does not fail for a second opinion.
            raise FitFailed(
                f"SMPL-Anthropometry cannot measure this body: {type(error).__name__}: {error}"
            ) from error
        return {name: float(value) for name, value in measurer.measurements.items()}

    def report(self, body: SkinnedBody, vertices: Float64Array) -> dict[str, Any]:
        """What `sources` tells of it: name and centimetres, or why there are none."""
        joints = np.asarray(body.J_regressor, dtype=np.float64) @ vertices
        try:
            found = self.measure(vertices, joints, np.asarray(body.faces, dtype=np.int64))
        except FitFailed as error:
            return {"name": self.source, "failure": error.message}
        # JSON has no word for a length that is not a number.
        told = {name: round(cm, 1) for name, cm in found.items() if math.isfinite(cm)}
        return {"name": self.source, "cm": told}
