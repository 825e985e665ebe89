"""SAM 3D Body in a small configuration with random weights, and a stand-in for MHR."""

from __future__ import annotations

import json  # what is JSON is YAML, too
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from torch import Tensor, nn

from worker.avatar.body.mhr import MHR_VERTICES
from worker.avatar.estimate import sam3d_code
from worker.avatar.vendor_code import quiet

SIZE_PX = 256
CONFIG: dict[str, Any] = {
    "MODEL": {
        "IMAGE_SIZE": [SIZE_PX, SIZE_PX],
        "IMAGE_MEAN": [0.485, 0.456, 0.406],
        "IMAGE_STD": [0.229, 0.224, 0.225],
        "BACKBONE": {"TYPE": "dinov3_vits16", "DROP_PATH_RATE": 0.0},
        "PERSON_HEAD": {"POSE_TYPE": "mhr", "CAMERA_TYPE": "perspective"},
        "MHR_HEAD": {"MHR_MODEL_PATH": ""},
        "CAMERA_HEAD": {},
        "PROMPT_ENCODER": {
            "ENABLE": True,
            "MAX_NUM_CLICKS": 1,
            "PROMPT_KEYPOINTS": "mhr70",
            "MASK_EMBED_TYPE": "v1",
            "MASK_PROMPT": "v1",
        },
        "DECODER": {
            "TYPE": "sam",
            "DIM": 128,
            "DEPTH": 2,
            "HEADS": 4,
            "DIM_HEAD": 32,
            "MLP_DIM": 128,
            "LAYER_SCALE_INIT": 0.0,
            "DROP_RATE": 0.0,
            "ATTN_DROP_RATE": 0.0,
            "DROP_PATH_RATE": 0.0,
            "FFN_TYPE": "origin",
            "ENABLE_TWOWAY": False,
            "REPEAT_PE": True,
            "FROZEN": False,
            "CONDITION_TYPE": "cliff",
            "DO_INTERM_PREDS": True,
            "DO_KEYPOINT_TOKENS": True,
            "KEYPOINT_TOKEN_UPDATE": True,
            "DO_HAND_DETECT_TOKENS": True,
            "DO_KEYPOINT3D_TOKENS": True,
        },
    },
    "TRAIN": {"USE_FP16": False, "FP16_TYPE": "bfloat16"},
}


class StandIn(nn.Module):
    """Has MHR's template, inputs and outputs; shape 0 makes it wider, the root alone turns it."""

    def __init__(self, template_cm: Tensor) -> None:
        super().__init__()
        self.register_buffer("template", template_cm)
        self.register_buffer("joints", template_cm[:: template_cm.shape[0] // 127][:127].clone())

    def forward(self, shape: Tensor, params: Tensor, expression: Tensor) -> tuple[Tensor, Tensor]:
        wide = torch.stack(
            (1 + 0.05 * shape[:, 0], torch.ones_like(shape[:, 0]), 1 + 0.05 * shape[:, 0]), dim=1
        )
        x, y, z = params[:, 3], params[:, 4], params[:, 5]
        one, zero = torch.ones_like(x), torch.zeros_like(x)
        turn_x = torch.stack(
            (one, zero, zero, zero, x.cos(), -x.sin(), zero, x.sin(), x.cos()), dim=1
        ).view(-1, 3, 3)
        turn_y = torch.stack(
            (y.cos(), zero, y.sin(), zero, one, zero, -y.sin(), zero, y.cos()), dim=1
        ).view(-1, 3, 3)
        turn_z = torch.stack(
            (z.cos(), -z.sin(), zero, z.sin(), z.cos(), zero, zero, zero, one), dim=1
        ).view(-1, 3, 3)
        turn = turn_z @ turn_y @ turn_x
        vertices = (self.template[None] * wide[:, None]) @ turn.transpose(1, 2)
        joints = (self.joints[None] * wide[:, None]) @ turn.transpose(1, 2)
        batch = joints.shape[0]
        unit = torch.zeros(batch, joints.shape[1], 5, dtype=joints.dtype)
        unit[:, :, 3] = 1.0
        unit[:, :, 4] = 1.0
        return vertices + 0 * expression.sum(), torch.cat((joints, unit.to(joints)), dim=2)


def template_cm(mhr_checkout: Path) -> np.ndarray:
    """MHR's template (18439, 3), from the tools of facebookresearch/MHR."""
    path = mhr_checkout / "tools/mhr_smpl_conversion/assets/mhr_face_mask.ply"
    vertices = np.asarray(trimesh.load(path, process=False).vertices, dtype=np.float32)
    assert vertices.shape == (MHR_VERTICES, 3)
    return vertices


def write(folder: Path, code: Path, dino: Path, mhr_checkout: Path) -> None:
    """Write `model.ckpt`, `model_config.yaml` and `assets/mhr_model.pt`, as they are published."""
    (folder / "assets").mkdir(parents=True)
    mhr = folder / "assets" / "mhr_model.pt"
    with quiet():
        torch.jit.script(StandIn(torch.tensor(template_cm(mhr_checkout)))).save(str(mhr))
    (folder / "model_config.yaml").write_text(
        "".join(f"{section}: {json.dumps(values)}\n" for section, values in CONFIG.items())
    )
    module = sam3d_code.import_sam3d(code)
    torch.manual_seed(0)
    with quiet():
        config, _ = sam3d_code.read_config(folder / "model.ckpt", mhr, bfloat16=False)
        network = sam3d_code.build(module, config, dino, torch.jit.load(str(mhr)))
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    _plausible(network, state)
    torch.save({"state_dict": state, "epoch": 7}, folder / "model.ckpt")


def _plausible(network: Any, state: dict[str, Tensor]) -> None:
    """Let the network say: upright, facing the camera, about as large as the box."""
    state["init_pose.weight"] = network.head_pose.get_zero_pose_init()
    # `pred_cam[0]` is the negative scale; 0.7 of half the box's width is a metre.
    state["init_camera.weight"] = torch.tensor([[-0.7, 0.0, 0.9]])
    for name in list(state):
        if name.startswith(("head_pose.proj", "head_camera.proj")) and state[name].ndim == 2:
            state[name] *= 0.01
    for name, tensor in state.items():
        # It starts at zero, so that training begins without the mask.
        if "mask_downscaling" in name and not tensor.any():
            state[name] = 0.5 * torch.randn_like(tensor)
    rows = torch.zeros_like(state["head_pose.keypoint_mapping"])
    rows[torch.arange(len(rows)), 50 * torch.arange(len(rows))] = 1.0
    state["head_pose.keypoint_mapping"] = rows
