"""PIXIE: SMPL-X shape and pose from one person's crop.

Feng et al.: Collaborative Regression of Expressive Bodies using Moderation, 3DV 2021, arXiv
2105.05301.  The code is the operator's checkout of yfeng95/PIXIE (MPI licence, non-commercial),
pinned in vendors/vendors.toml.  It only builds the networks: every file is read by us
(`pixie_files`), and its detector, visualiser and downloads are never reached.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from worker.avatar.estimate.pixie_files import PixieFiles, vendor_reads
from worker.avatar.estimate.protocol import BodyEstimate, Topology, agreement, named_keypoints
from worker.avatar.types import Float64Array, Observation, Photo
from worker.avatar.vendor_code import import_torchvision, import_vendor, quiet
from worker.avatar.weights import load_into
from worker.errors import EstimateFailed

VARIABLE: Final = "PIXIE_MODEL_DIR"
CROP_SHARE: Final = 1.1
"""Side of the square crop, in longer sides of the person's box (pixielib/datasets)."""
CROP_PX: Final = 224
CROP_HD_PX: Final = 1024
"""From which heads and hands are cut."""

_POSES: Final = ("global_pose", "body_pose", "jaw_pose", "left_hand_pose", "right_hand_pose")


@dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """A square part of a photo, in pixels; it may reach beyond the photo's edges."""

    left: float
    top: float
    side: float

    @classmethod
    def around(cls, seen: Observation) -> Crop:
        """PIXIE's own crop around the person's box."""
        x0, y0, x1, y1 = (float(edge) for edge in seen.box)
        side = CROP_SHARE * max(x1 - x0, y1 - y0)
        return cls((x0 + x1 - side) / 2, (y0 + y1 - side) / 2, side)

    def cut(self, photo: Photo, size_px: int, device: torch.device) -> Tensor:
        """(1, 3, size, size) in 0..1; what lies beyond the photo's edges is black."""
        height, width = photo.pixels.shape[:2]
        pixels = torch.tensor(photo.pixels, device=device)
        image = pixels.permute(2, 0, 1)[None].float() / 255
        steps = (torch.arange(size_px, device=device) + 0.5) / size_px * self.side
        x = 2 * (self.left + steps) / width - 1
        y = 2 * (self.top + steps) / height - 1
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None]
        # A crop that is made smaller is averaged first, else fine cloth turns into moiré.
        shrink = max(1, int(self.side / size_px))
        if shrink > 1:
            image = nn.functional.avg_pool2d(image, shrink, ceil_mode=True, count_include_pad=False)
            grid = _rescaled(grid, (width, height), shrink)
        return nn.functional.grid_sample(image, grid, align_corners=False)


def _rescaled(grid: Tensor, size: tuple[int, int], shrink: int) -> Tensor:
    """The same places on an image whose last cells reach beyond the edge of the original."""
    covered = torch.tensor([-(-side // shrink) * shrink for side in size], device=grid.device)
    share = torch.tensor(size, device=grid.device) / covered
    return (grid + 1) * share - 1


@dataclass(frozen=True, slots=True, eq=False)
class Pixie:
    """PIXIE's networks, loaded."""

    network: Any
    """`pixielib.pixie.PIXIE`, which has no types."""
    names: dict[str, int]
    """Its joints by name."""
    device: torch.device
    source: str
    digests: tuple[str, ...]

    @classmethod
    def load(cls, folder: Path, device: torch.device, *, sha256: str | None = None) -> Pixie:
        """Build the networks, put the weights in, and run them once.

        Args:
            folder: PIXIE_MODEL_DIR: the checkout, with its files in `data/`.
            device: where it computes, in float32.
            sha256: digest that `pixie_model.tar` must have, where one is known.

        Raises:
            ModelMissing: code, a package or a file is not there.
            ModelInvalid: a file is not what it should be, or the networks give no numbers.
        """
        files = PixieFiles.read(folder / "data", sha256=sha256)
        import_torchvision()
        code = import_vendor(folder, "pixielib.pixie", variable=VARIABLE)
        with quiet(), vendor_reads(files):
            network = code.PIXIE(config=files.config(code.cfg), device=str(device))
        for name, module in _modules(network).items():
            load_into(module, files.states[name], files.weights, what=name)
            module.requires_grad_(requires_grad=False)
        names: dict[str, int] = {}
        for row, name in enumerate(network.smplx.keypoint_names):
            names.setdefault(name, row)  # its list ends with names that it has twice
        digest = files.digests[0]
        pixie = cls(network, names, device, f"pixie@{digest[:8]}", files.digests)
        blank = torch.full((1, 3, CROP_PX, CROP_PX), 0.5, device=device)
        hd = torch.full((1, 3, CROP_HD_PX, CROP_HD_PX), 0.5, device=device)
        if not all(np.isfinite(array).all() for array in pixie._numbers(blank, hd).values()):
            raise files.weights.wrong("makes the network give no finite numbers")
        return pixie

    def estimate(self, photo: Photo, seen: Observation) -> BodyEstimate:
        """Propose the person's SMPL-X body.

        Raises:
            EstimateFailed: the networks gave no finite body.
        """
        crop = Crop.around(seen)
        if not crop.side > 0:
            raise EstimateFailed("PIXIE was shown no person: the box is empty.")
        found = self._numbers(
            crop.cut(photo, CROP_PX, self.device), crop.cut(photo, CROP_HD_PX, self.device)
        )
        scale, shift_x, shift_y = (float(number) for number in found["cam"][0])
        if scale <= 0 or not all(np.isfinite(array).all() for array in found.values()):
            raise EstimateFailed("PIXIE gave no finite body in front of the camera.")
        camera = seen.intrinsics
        # Weak perspective: a metre is scale/2 sides of the crop wide, whatever its depth.
        depth = camera.focal_px / (0.5 * scale * crop.side)
        middle = np.array([crop.left + crop.side / 2, crop.top + crop.side / 2])
        beside = (middle - (camera.width / 2, camera.height / 2)) * depth / camera.focal_px
        transl = np.array([shift_x + beside[0], shift_y + beside[1], depth])
        points = (found["keypoints"][0] * 0.5 + 0.5) * crop.side + (crop.left, crop.top)
        keypoints, known = named_keypoints(self.names, points.astype(np.float32))
        try:
            return BodyEstimate(
                topology=Topology.SMPLX,
                rest_vertices=found["rest"][0],
                posed_vertices=found["vertices"][0] + transl,
                focal_px=camera.focal_px,
                confidence=agreement(keypoints, known, seen),
                source=self.source,
                betas=found["shape"][0],
                pose=_axis_angle(found),
            )
        except ValueError as error:
            raise EstimateFailed(f"PIXIE gave no body: {error}.") from error

    def _numbers(self, image: Tensor, image_hd: Tensor) -> dict[str, Float64Array]:
        """Run the networks on (1, 3, 224, 224) and (1, 3, 1024, 1024) crops."""
        with torch.inference_mode(), quiet():
            encoded = self.network.encode(
                {"body": {"image": image, "image_hd": image_hd}}, threthold=True, keep_local=True
            )["body"]
            decoded = self.network.decode(encoded, "body")
            rest, _, _ = self.network.smplx(shape_params=encoded["shape"])
            found = {
                "cam": decoded["cam"],
                "keypoints": decoded["smplx_kpt"],
                "vertices": decoded["vertices"],
                "rest": rest,
                "shape": encoded["shape"],
                **{name: encoded[name] for name in _POSES},
            }
            return {name: tensor.double().cpu().numpy() for name, tensor in found.items()}


def _modules(network: Any) -> dict[str, nn.Module]:
    """The networks whose weights `pixie_model.tar` holds, by the names that it gives them."""
    return {
        f"{kind}_{key}": module
        for kind in ("Encoder", "Regressor", "Extractor", "Moderator")
        for key, module in getattr(network, kind).items()
    }


def _axis_angle(found: dict[str, Float64Array]) -> Float64Array:
    """(55, 3) in SMPL-X's order; PIXIE leaves the eyes at rest."""
    matrices = [found[name][0] for name in _POSES]
    matrices.insert(3, np.tile(np.eye(3), (2, 1, 1)))
    pose: Float64Array = Rotation.from_matrix(np.concatenate(matrices)).as_rotvec()
    return pose
