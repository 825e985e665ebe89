"""SAM 3D Body: an MHR body from one photo, with our box, our mask and our camera.

Meta, "SAM 3D Body: Robust Full-Body Human Mesh Recovery", 2025.  The code is the operator's
checkout of facebookresearch/sam-3d-body (SAM License), pinned in vendors/vendors.toml.  It runs in
`body` mode: `full` adds two passes over the hands and an inverse kinematics that no measurement
needs.  Giving it box and camera leaves out its detector and its field-of-view network altogether.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from worker.avatar.body.mhr import MHR_VERTICES
from worker.avatar.estimate import sam3d_code
from worker.avatar.estimate.protocol import BodyEstimate, Topology, agreement, named_keypoints
from worker.avatar.types import ByteArray, Float32Array, Float64Array, Observation, Photo
from worker.avatar.vendor_code import quiet
from worker.avatar.weights import WeightsFile, load_into, read_script, read_state
from worker.avatar.weights.checkpoint import State
from worker.errors import EstimateFailed

_MASK_THRESHOLD: Final = 0.5
_BLANK_PX: Final = 96
KEYPOINTS_OF_MHR70: Final = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle", "left_big_toe", "left_small_toe", "left_heel", "right_big_toe",
    "right_small_toe", "right_heel",
)  # fmt: skip
"""Rows 0 … 20 of the 70, as the vendor's metadata/mhr70.py names them."""
_WRISTS: Final = {"right_wrist": 41, "left_wrist": 62}
_NAMES: Final = {name: row for row, name in enumerate(KEYPOINTS_OF_MHR70)} | _WRISTS
_MHR_BUFFERS: Final = "head_pose.mhr.", "head_pose_hand.mhr."
"""MHR's own tensors come from its TorchScript; checkpoints may or may not repeat them."""


@dataclass(frozen=True, slots=True, eq=False)
class Sam3dBody:
    """SAM 3D Body's network, loaded."""

    network: Any
    """`sam_3d_body.models.meta_arch.SAM3DBody`, which has no types."""
    device: torch.device
    use_mask: bool
    """SAM3DBODY_USE_MASK: whether it is given the person's mask."""
    source: str
    digests: tuple[str, ...]

    @classmethod
    def load(
        cls,
        folder: Path,
        checkpoint: Path,
        mhr: Path,
        device: torch.device,
        *,
        use_mask: bool = True,
        dino_folder: Path | None = None,
        sha256: str | None = None,
    ) -> Sam3dBody:
        """Build the network, put the weights in, and run it once.

        Args:
            folder: SAM3DBODY_REPO_DIR, the checkout.
            checkpoint: SAM3DBODY_CHECKPOINT_PATH; `model_config.yaml` beside it or one folder up.
            mhr: SAM3DBODY_MHR_PATH, a TorchScript.
            device: where it computes: the backbone in bfloat16 on CUDA, all in float32 elsewhere.
            use_mask: SAM3DBODY_USE_MASK.
            dino_folder: checkout of DINOv3; None: beside `folder`.
            sha256: the digest that the checkpoint must have, where one is known.

        Raises:
            ModelMissing: code, a package or a file is not there.
            ModelInvalid: a file is not what it should be, or the network gives no numbers.
        """
        weights = WeightsFile("SAM 3D Body", checkpoint, sha256)
        body = WeightsFile("MHR", mhr)
        script, mhr_digest = read_script(body, device)
        state = read_state(
            weights, at=("state_dict",), or_bare=True, harmless=sam3d_code.config_classes()
        )
        code = sam3d_code.import_sam3d(folder)
        bfloat16 = device.type == "cuda"
        with quiet():
            config, config_path = sam3d_code.read_config(checkpoint, mhr, bfloat16=bfloat16)
            dino = dino_folder or folder.parent / "dinov3"
            network = sam3d_code.build(code, config, dino, script)
            load_into(network, _with_own_mhr(state, network), weights)
            network = network.to(device).eval()
            network.requires_grad_(requires_grad=False)
        digests = (
            state.sha256,
            mhr_digest,
            hashlib.sha256(config_path.read_bytes()).hexdigest(),
        )
        loaded = cls(network, device, use_mask, f"sam3d-body@{state.sha256[:8]}", digests)
        blank: ByteArray = np.full((_BLANK_PX, _BLANK_PX, 3), 127, dtype=np.uint8)
        edge = float(_BLANK_PX)
        box = np.array([edge / 4, 0, 3 * edge / 4, edge], dtype=np.float32)
        found = loaded._numbers(blank, box, np.ones(blank.shape[:2], np.uint8), edge)
        if found["vertices"].shape != (MHR_VERTICES, 3):
            raise body.wrong(f"has {len(found['vertices'])} vertices, not {MHR_VERTICES}")
        if not all(np.isfinite(array).all() for array in found.values()):
            raise weights.wrong("makes the network give no finite numbers")
        return loaded

    def estimate(self, photo: Photo, seen: Observation) -> BodyEstimate:
        """Propose the person's MHR body.

        Raises:
            EstimateFailed: the network gave no finite body in front of the camera.
        """
        if not (seen.box[2:] > seen.box[:2]).all():
            raise EstimateFailed("SAM 3D Body was shown no person: the box is empty.")
        mask = (seen.mask > _MASK_THRESHOLD).astype(np.uint8)
        found = self._numbers(photo.pixels, seen.box, mask, seen.intrinsics.focal_px)
        if not all(np.isfinite(array).all() for array in found.values()):
            raise EstimateFailed("SAM 3D Body gave numbers that are not finite.")
        posed = found["vertices"] + found["camera"]
        if posed[:, 2].min() <= 0:
            raise EstimateFailed("SAM 3D Body put the person behind the camera.")
        keypoints, known = named_keypoints(_NAMES, found["keypoints"].astype(np.float32))
        try:
            return BodyEstimate(
                topology=Topology.MHR,
                rest_vertices=found["rest"],
                posed_vertices=posed,
                focal_px=float(found["focal"]),
                confidence=agreement(keypoints, known, seen),
                source=self.source,
            )
        except ValueError as error:
            raise EstimateFailed(f"SAM 3D Body gave no body: {error}.") from error

    def _numbers(
        self, pixels: ByteArray, box: Float32Array, mask: ByteArray, focal_px: float
    ) -> dict[str, Float64Array]:
        """Run the network on one person, as the vendor's `process_one_image` does in body mode."""
        height, width = pixels.shape[:2]
        parts, prepare_batch, to_tensor = sam3d_code.transforms()
        transform = parts.Compose(
            [
                parts.GetBBoxCenterScale(),
                parts.TopdownAffine(input_size=self.network.cfg.MODEL.IMAGE_SIZE, use_udp=False),
                parts.VisionTransformWrapper(to_tensor()),
            ]
        )
        camera = torch.tensor(
            [[[focal_px, 0, width / 2], [0, focal_px, height / 2], [0, 0, 1]]],
            dtype=torch.float32,
        )
        masks = mask.reshape(1, height, width, 1) if self.use_mask else None
        score = np.ones(1, dtype=np.float32) if self.use_mask else None
        with torch.no_grad(), quiet(), sam3d_code.staying_on(self.device):
            batch = prepare_batch(
                np.array(pixels), transform, box.reshape(1, 4), masks, score, cam_int=camera
            )
            batch = {
                name: value.to(self.device) if isinstance(value, torch.Tensor) else value
                for name, value in batch.items()
            }
            self.network._initialize_batch(batch)  # noqa: SLF001 - as its estimator does
            out = self.network.run_inference(pixels, batch, inference_type="body")["mhr"]
            found = {
                "vertices": out["pred_vertices"][0],
                "camera": out["pred_cam_t"][0],
                "focal": out["focal_length"][0],
                "keypoints": out["pred_keypoints_2d"][0],
                "rest": self._rest(out["shape"], out["scale"])[0],
            }
            return {name: value.double().cpu().numpy() for name, value in found.items()}

    def _rest(self, shape: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """(1, V, 3) the body at rest, y up, of the shape (1, 45) and the bones (1, 28)."""
        head = self.network.head_pose
        zero = shape.new_zeros((1, 3))
        rest: torch.Tensor = head.mhr_forward(
            global_trans=zero,
            global_rot=zero,
            body_pose_params=shape.new_zeros((1, 133)),
            hand_pose_params=None,
            scale_params=scale,
            shape_params=shape,
            expr_params=shape.new_zeros((1, head.num_face_comps)),
        )
        return rest


def _with_own_mhr(state: State, network: Any) -> State:
    """Complete a checkpoint that leaves MHR's own tensors to MHR's file."""
    ours = {
        name: tensor
        for name, tensor in network.state_dict().items()
        if name.startswith(_MHR_BUFFERS) and name not in state.tensors
    }
    return State({**state.tensors, **ours}, state.sha256)
