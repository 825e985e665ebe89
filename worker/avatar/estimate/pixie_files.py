"""PIXIE's files, read by us, and its code kept from reading any.

Left to itself that code fetches ResNet-50 twice, unpickles, ends the process when a file is
missing, and takes an empty archive for its weights without a word (docs/reference/vendors.md).
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models_sync import pickles
from models_sync.convert import read_arrays
from models_sync.errors import SyncError
from worker.avatar.estimate.protocol import VERTICES, Topology
from worker.avatar.vendor_code import Posing, import_package, swapped
from worker.avatar.weights import State, WeightsFile, read_states

MODULES: Final = (
    *(f"Encoder_{part}" for part in ("body", "head", "hand")),
    *(f"Regressor_{part}" for part in ("head_share", "hand_share", "body", "head", "hand")),
    *(f"Extractor_{part}" for part in ("head_share", "left_hand_share", "right_hand_share")),
    *(f"Moderator_{part}" for part in ("head_share", "hand_share")),
)
"""What `pixie_model.tar` holds, by pixielib/utils/config.py."""

_FACES = 20_908
_J14 = 14
_SMPLX_SHAPES: Final[Mapping[str, tuple[int, ...]]] = {
    "v_template": (VERTICES[Topology.SMPLX], 3),
    "shapedirs": (VERTICES[Topology.SMPLX], 3, 400),
    "posedirs": (VERTICES[Topology.SMPLX], 3, 486),
    "J_regressor": (55, VERTICES[Topology.SMPLX]),
    "weights": (VERTICES[Topology.SMPLX], 55),
    "kintree_table": (2, 55),
    "f": (_FACES, 3),
    "lmk_faces_idx": (51,),
    "lmk_bary_coords": (51, 3),
    "dynamic_lmk_faces_idx": (79, 17),
    "dynamic_lmk_bary_coords": (79, 17, 3),
}
"""What PIXIE's own SMPLX module takes out of SMPLX_NEUTRAL_2020.npz."""

_EXTRA_JOINTS = 22
"""Of smplx_extra_joints.yaml: head top, toes, ears, eyes, heels, finger tips, nose."""


@dataclass(frozen=True, slots=True, eq=False)
class PixieFiles:
    """The four files that PIXIE cannot do without, read and checked."""

    weights: WeightsFile
    states: Mapping[str, State]
    smplx: Mapping[str, NDArray[Any]]
    j14_regressor: NDArray[Any]
    """(14, 10475)."""
    extra_joints: Mapping[str, Any]
    digests: tuple[str, ...]
    """SHA-256 of each; the weights' first."""

    @classmethod
    def read(cls, folder: Path, *, sha256: str | None = None) -> PixieFiles:
        """Read them from PIXIE_MODEL_DIR/data.

        Raises:
            ModelMissing, ModelInvalid: naming the file.
        """
        weights = WeightsFile("PIXIE", folder / "pixie_model.tar", sha256)
        body = WeightsFile("PIXIE's SMPL-X", folder / "SMPLX_NEUTRAL_2020.npz")
        joints = WeightsFile("PIXIE's extra joints", folder / "smplx_extra_joints.yaml")
        regressor = WeightsFile("PIXIE's joint regressor", folder / "SMPLX_to_J14.pkl")
        # The small ones first: to learn after a gigabyte that one is missing helps nobody.
        smplx, body_digest = _arrays(body)
        states = read_states(weights, MODULES)
        return cls(
            weights=weights,
            states=states,
            smplx=smplx,
            j14_regressor=_regressor(regressor),
            extra_joints=_extra(joints),
            digests=(
                states[MODULES[0]].sha256,
                body_digest,
                *(
                    hashlib.sha256(file.path.read_bytes()).hexdigest()
                    for file in (joints, regressor)
                ),
            ),
        )

    def config(self, defaults: Any) -> Any:
        """A copy of `pixielib.utils.config.cfg` without its texture model."""
        config = defaults.clone()
        config.model.use_tex = False
        folder = self.weights.path.parent
        config.model.smplx_model_path = str(folder / "SMPLX_NEUTRAL_2020.npz")
        config.model.extra_joint_path = str(folder / "smplx_extra_joints.yaml")
        config.model.j14_regressor_path = str(folder / "SMPLX_to_J14.pkl")
        config.pretrained_modelpath = str(self.weights.path)
        return config


def _arrays(file: WeightsFile) -> tuple[dict[str, NDArray[Any]], str]:
    with file.open() as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    try:
        arrays, _ = read_arrays(file.path)
    except SyncError as error:
        raise file.wrong(f"is no body model: {error.message}") from error
    for name, shape in _SMPLX_SHAPES.items():
        if name not in arrays:
            raise file.wrong(f"holds no `{name}`")
        if arrays[name].shape != shape:
            raise file.wrong(f"holds `{name}` of {arrays[name].shape}, not {shape}")
        if arrays[name].dtype.kind == "f" and not np.isfinite(arrays[name]).all():
            raise file.wrong(f"holds `{name}` with numbers that are not finite")
    return {name: arrays[name] for name in _SMPLX_SHAPES}, digest


def _regressor(file: WeightsFile) -> NDArray[Any]:
    with file.open() as opened:
        data = opened.read()
    try:
        array = pickles.as_array(pickles.load(data))
    except SyncError as error:
        raise file.wrong(f"is refused: {error.message}") from error
    expected = (_J14, VERTICES[Topology.SMPLX])
    if array is None or array.shape != expected or not np.isfinite(array).all():
        raise file.wrong(f"holds no finite array of {expected}")
    return np.ascontiguousarray(array, dtype=np.float32)


def _extra(file: WeightsFile) -> dict[str, Any]:
    yaml = import_package("yaml")
    with file.open() as opened:
        try:
            table = yaml.safe_load(opened)
        except yaml.YAMLError as error:
            raise file.wrong("is no YAML") from error
    try:
        names = {
            str(name): (int(row["face"]), [float(part) for part in row["bc"]])
            for name, row in table.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise file.wrong("names no triangles with weights") from error
    if len(names) != _EXTRA_JOINTS:
        raise file.wrong(f"names {len(names)} joints, not {_EXTRA_JOINTS}")
    if any(not 0 <= face < _FACES or len(parts) != 3 for face, parts in names.values()):
        raise file.wrong("names triangles that SMPL-X has not")
    return dict(table)


@contextmanager
def vendor_reads(files: PixieFiles) -> Iterator[None]:
    """While PIXIE is built, hand it what was read wherever it would read a file or fetch one.

    `pixielib.pixie` must have been imported.
    """
    pixie, smplx, lbs, resnet = (
        importlib.import_module(f"pixielib.{name}")
        for name in ("pixie", "models.SMPLX", "models.lbs", "models.resnet")
    )
    empty: dict[str, dict[str, Any]] = {name: {} for name in MODULES}

    def resnet50() -> Any:
        return resnet.ResNet(resnet.Bottleneck, [3, 4, 6, 3])

    with (
        swapped(resnet, load_ResNet50Model=resnet50),
        # Weights come afterwards, by us: here it shall find a file, and nothing in it.
        swapped(pixie, torch=Posing(pixie.torch, load=lambda *_, **__: empty)),
        swapped(smplx, np=Posing(smplx.np, load=lambda *_, **__: dict(files.smplx))),
        swapped(smplx, pickle=SimpleNamespace(load=lambda *_, **__: files.j14_regressor)),
        swapped(lbs, yaml=SimpleNamespace(load=lambda *_, **__: dict(files.extra_joints))),
    ):
        yield
