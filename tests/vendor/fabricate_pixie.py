"""PIXIE's files, made by us: its own shapes, random numbers."""

from __future__ import annotations

import json  # what is JSON is YAML, too
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from tests.vendor.fabricate_body import smplx_arrays
from worker.avatar.estimate import pixie
from worker.avatar.estimate.pixie_files import MODULES, PixieFiles, vendor_reads
from worker.avatar.types import Gender
from worker.avatar.vendor_code import import_torchvision, import_vendor, quiet

EXTRA_JOINTS = (
    "head_top", "left_big_toe", "left_ear", "left_eye", "left_heel", "left_index", "left_middle",
    "left_pinky", "left_ring", "left_small_toe", "left_thumb", "nose", "right_big_toe", "right_ear",
    "right_eye", "right_heel", "right_index", "right_middle", "right_pinky", "right_ring",
    "right_small_toe", "right_thumb",
)  # fmt: skip


def write_small_files(data: Path) -> None:
    """All but the weights."""
    data.mkdir(parents=True, exist_ok=True)
    arrays = dict(smplx_arrays(Gender.NEUTRAL))
    # Landmarks all over the head: from where they are PIXIE cuts out its crop.
    on_head = np.flatnonzero(arrays["weights"][arrays["f"][:, 0], 15] > 0.9)
    rng = np.random.default_rng(0)
    for name in ("lmk_faces_idx", "dynamic_lmk_faces_idx"):
        arrays[name] = rng.choice(on_head, arrays[name].shape)
    # As published: names of joints lie beside the numbers, as an object.
    names: Any = np.array({"pelvis": 0}, dtype=object)
    np.savez(data / "SMPLX_NEUTRAL_2020.npz", joint2num=names, **arrays)
    joints = {
        name: {"face": 100 * row, "bc": [0.2, 0.3, 0.5]} for row, name in enumerate(EXTRA_JOINTS)
    }
    (data / "smplx_extra_joints.yaml").write_text(json.dumps(joints))
    regressor = np.zeros((14, 10_475), dtype=np.float32)
    regressor[np.arange(14), 700 * np.arange(14)] = 1.0
    (data / "SMPLX_to_J14.pkl").write_bytes(pickle.dumps(regressor, protocol=2))


def states(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Random weights of all of PIXIE's networks, always the same, in the format of its tar.

    The last layer of each regressor is small, as a trained one's is, so that poses and shape
    stay those of a body.
    """
    import_torchvision()
    code = import_vendor(folder, "pixielib.pixie", variable=pixie.VARIABLE)
    data = folder / "data"
    (data / "pixie_model.tar").touch()
    from models_sync.convert import read_arrays

    empty: Any = SimpleNamespace(path=data / "pixie_model.tar")
    files = PixieFiles(
        weights=empty,
        states={},
        smplx=read_arrays(data / "SMPLX_NEUTRAL_2020.npz")[0],
        j14_regressor=pickle.loads((data / "SMPLX_to_J14.pkl").read_bytes()),
        extra_joints=json.loads((data / "smplx_extra_joints.yaml").read_text()),
        digests=(),
    )
    torch.manual_seed(0)
    with quiet(), vendor_reads(files):
        network = code.PIXIE(config=files.config(code.cfg), device="cpu")
    found = {}
    for name, module in pixie._modules(network).items():
        state = {key: tensor.clone() for key, tensor in module.state_dict().items()}
        if name.startswith("Regressor"):
            last = max(key for key in state if key.endswith("weight"))
            state[last] *= 0.01
        found[name] = state
    _upright(found)
    assert set(found) == set(MODULES)
    return found


def _upright(found: dict[str, dict[str, torch.Tensor]]) -> None:
    """Let the last layers' biases say: in front of the camera, facing it, joints at rest."""
    rest, turned = torch.tensor([1.0, 0, 0, 1, 0, 0]), torch.tensor([1.0, 0, 0, -1, 0, 0])

    def bias(name: str) -> torch.Tensor:
        state = found[f"Regressor_{name}"]
        return state[max(key for key in state if key.endswith("bias"))]

    bias("body")[:] = torch.cat([torch.tensor([0.9, 0.0, 0.3]), turned, rest.repeat(18)])
    bias("head_share")[200:250] = 0
    bias("head_share")[250:] = torch.cat([turned, torch.zeros(3)])
    bias("hand_share")[:] = torch.cat([turned, rest.repeat(15)])
