"""How well the fitted body explains a view."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from worker.avatar.fit.evidence import Evidence
from worker.avatar.raster import coverage


def outline_iou(uv: Tensor, faces: Tensor, view: Evidence) -> float:
    """Intersection over union of the body and the photo's mask.

    Args:
        uv: (V, 2) working pixels of the body's vertices.
        faces: (F, 3) int64.
        view: holds the mask, cropped to the person; what the body covers beyond the crop, but
            within the photo, counts against it.
    """
    scale = uv.new_tensor(view.mask_scale)
    on_mask = (uv - uv.new_tensor(view.mask_origin)) * scale
    height, width = view.mask.shape
    # Room around the crop for all of the body that the photo could show.
    photo = 2.0 * uv.new_tensor(view.centre_px) * scale
    first = torch.maximum(on_mask.amin(dim=0), -uv.new_tensor(view.mask_origin) * scale)
    last = torch.minimum(on_mask.amax(dim=0), photo - uv.new_tensor(view.mask_origin) * scale)
    left, top = (int(-value) for value in first.clamp(max=0).floor().tolist())
    right, bottom = (int(value) for value in last.ceil().tolist())
    full_width, full_height = left + max(width, right), top + max(height, bottom)
    shift = uv.new_tensor((left, top))
    # Of all faces: SMPL-X has holes, through which the body is seen from inside.
    body = coverage((on_mask + shift).float(), faces, full_height, full_width).cpu().numpy()
    seen = np.zeros_like(body)
    seen[top : top + height, left : left + width] = view.mask
    return float((body & seen).sum() / max(int((body | seen).sum()), 1))


def keypoint_rmse_px(uv: Tensor, view: Evidence) -> float:
    """Root mean square distance of the keypoints that were seen, in pixels of the photo.

    Args:
        uv: (23, 2) working pixels of the body's keypoints.
        view: the keypoints seen.
    """
    seen = view.keypoint_weight[:, 0] > 0
    apart = uv.cpu().numpy()[seen] - view.keypoints[seen]
    return float(np.sqrt((apart**2).sum(axis=1).mean()) / view.scale)
