"""The prototype of the fit, run on the same cases, the same body and the same measurer.

Its code is not part of the repository; `bench fit --peer DIR` reads `fitlib.py` from where it
lies.  That file imports numba, opencv and scikit-image for a raster and a contour: ours stand in
for them, so that nothing is installed for it.  The method is untouched.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import contourpy
import numpy as np
import torch

from tests.benchmarks.cases import Case
from worker.avatar.body.free import free_body
from worker.avatar.raster import coverage
from worker.avatar.types import KEYPOINTS, Float64Array, Gender, Observation, ViewName

COMPONENTS = 30
"""What its table was made with."""
_YAW_RAD = {ViewName.FRONT: 0.0, ViewName.SIDE: np.pi / 2}


class Prototype:
    """The prototype, holding our body.

    Args:
        folder: where `fitlib.py` lies.

    Raises:
        FileNotFoundError: there is none.
    """

    def __init__(self, folder: Path) -> None:
        source = folder / "fitlib.py"
        if not source.exists():
            raise FileNotFoundError(f"no prototype in {folder}: fitlib.py is missing")
        self._code: Any = _load(source)
        self._models = {gender: self._model(gender) for gender in (Gender.MALE, Gender.FEMALE)}

    def fit(
        self, case: Case, seen: Sequence[Observation], *, weight: bool
    ) -> tuple[Float64Array, float]:
        """Fit one case.

        Args:
            case: its true gender is told to the prototype.
            seen: front, or front and side.
            weight: whether the declared weight is told.

        Returns:
            Betas of the free body, (COMPONENTS,), and the seconds it took.
        """
        views = [self._view(observed) for observed in seen]
        started = time.perf_counter()
        betas, _ = self._code.fit(
            self._models[case.gender],
            views,
            H=case.request["heightCm"] / 100,
            weight=case.request["weightKg"] if weight else None,
        )
        return np.asarray(betas), time.perf_counter() - started

    def _view(self, observed: Observation) -> dict[str, Any]:
        camera = observed.intrinsics
        yaw_rad = _YAW_RAD[observed.view]
        if observed.view is ViewName.SIDE and _looks_left(observed):
            yaw_rad = -yaw_rad
        return {
            # The camera's frame: y down, z ahead; its tilt is for the fit to find, as for ours.
            "cam": self._code.Cam(
                camera.focal_px,
                camera.width,
                camera.height,
                np.diag([1.0, -1.0, -1.0]),
                np.zeros(3),
            ),
            "kp": observed.keypoints[:, :2].astype(np.float64),
            "conf": observed.keypoints[:, 2].astype(np.float64),
            "mask": (observed.mask > 0.5).astype(np.uint8),
            "yaw": yaw_rad,
        }

    def _model(self, gender: Gender) -> Any:
        body = free_body(gender)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "body.npz"
            np.savez(
                path,
                mu=body.v_template,
                S=body.shapedirs,
                JR=body.J_regressor,
                W=body.lbs_weights,
                f=body.faces,
                KR=body.keypoint_regressor,
                parents=body.parents,
            )
            return self._code.Model(str(path), COMPONENTS)


def _looks_left(observed: Observation) -> bool:
    """Whether the profile faces the left edge; the prototype has to be told, ours finds out."""
    nose, left, right = (
        float(observed.keypoints[KEYPOINTS.index(name), 0])
        for name in ("nose", "left_ear", "right_ear")
    )
    return nose < (left + right) / 2


def _load(source: Path) -> ModuleType:
    """Import `fitlib.py` with our raster and contours where it wants others'."""
    stand_ins = {name: ModuleType(name) for name in ("numba", "cv2", "skimage", "skimage.measure")}
    stand_ins["numba"].njit = lambda **_: lambda function: function  # type: ignore[attr-defined] # made here
    stand_ins["skimage.measure"].find_contours = _contours  # type: ignore[attr-defined] # made here
    sys.modules.update({n: module for n, module in stand_ins.items() if n not in sys.modules})
    spec = importlib.util.spec_from_file_location("fit_prototype", source)
    if spec is None or spec.loader is None:
        raise ImportError(f"{source} is no Python file")
    code = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(code)
    code.raster = _raster  # type: ignore[attr-defined] # the numba one, without numba
    return code


def _raster(
    points: Float64Array, faces: Any, height: int, width: int, scale: float
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    uv = torch.from_numpy(np.ascontiguousarray(points * scale, dtype=np.float32))
    return coverage(uv, torch.from_numpy(np.asarray(faces)), height, width).numpy().astype(np.uint8)


def _contours(image: Any, level: float) -> list[Float64Array]:
    """Lines of rows and columns, as scikit-image gives them."""
    lines = contourpy.contour_generator(z=np.asarray(image, dtype=np.float64)).lines(level)
    return [np.asarray(line, dtype=np.float64)[:, ::-1] for line in lines]
