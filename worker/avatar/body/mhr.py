"""MHR's surface in other meshes' vertices: how SAM 3D Body's people come over to our bodies.

`recipes/mhr` registers the free body with MHR's template; for SMPL-X the places are those that
facebookresearch/MHR publishes.  Each vertex is three weights on three vertices of MHR, so it holds
for any shape and pose.  `data/mhr_maps.json` says from what, and how far off the registration is.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np

from worker.avatar.body.free import DATA_DIR
from worker.avatar.body.model import DisplayMesh
from worker.avatar.types import KEYPOINTS, BoolArray, Float32Array, Float64Array, Int64Array
from worker.errors import ModelInvalid, ModelMissing

MHR_VERTICES: Final = 18_439
"""Of level of detail 1, which SAM 3D Body uses."""
MAPS_NAME: Final = "mhr_maps.npz"
CARD_NAME: Final = "mhr_maps.json"


@dataclass(frozen=True, slots=True, eq=False)
class SurfaceMap:
    """Another mesh's vertices on the surface of MHR."""

    corners: Int64Array
    """(V, 3) vertices of MHR."""
    weights: Float64Array
    """(V, 3), rows sum to one."""
    trusted: BoolArray
    """(V,) those that have a partner there; the inside of a mouth has none."""

    def carry(self, mhr_vertices: Float64Array) -> Float64Array:
        """Bring MHR's vertices (18439, 3), in any shape and pose, over: (V, 3).

        Raises:
            ValueError: they are not MHR's.
        """
        if mhr_vertices.shape != (MHR_VERTICES, 3):
            raise ValueError(f"{mhr_vertices.shape} is not {(MHR_VERTICES, 3)}")
        carried: Float64Array = np.einsum("nkc,nk->nc", mhr_vertices[self.corners], self.weights)
        return carried


def mhr_card() -> dict[str, Any]:
    """Where the maps come from, and how far off they are."""
    card: dict[str, Any] = json.loads((DATA_DIR / CARD_NAME).read_text("utf-8"))
    return card


def mhr_digest() -> str:
    """SHA-256 of the card, which names the maps' own and holds SMPL-X's landmarks."""
    return hashlib.sha256((DATA_DIR / CARD_NAME).read_bytes()).hexdigest()


@cache
def mhr_to_free() -> SurfaceMap:
    """The free body's vertices, by our own registration.

    Raises:
        ModelMissing, ModelInvalid: the maps are not in the package, or are not those of the card.
    """
    arrays = _arrays()
    return _map(arrays, "free", arrays["free_trusted"])


@cache
def mhr_to_smplx() -> SurfaceMap:
    """SMPL-X's 10,475 vertices, by facebookresearch/MHR.

    Raises:
        ModelMissing, ModelInvalid: as `mhr_to_free`.
    """
    arrays = _arrays()
    return _map(arrays, "smplx", np.ones(len(arrays["smplx_corners"]), dtype=np.bool_))


@cache
def smplx_display() -> DisplayMesh:
    """The free body's display mesh on SMPL-X's vertices.

    Raises:
        ModelMissing, ModelInvalid: as `mhr_to_free`.
    """
    arrays = _arrays()
    return DisplayMesh(
        arrays["smplx_display_vertices"].astype(np.int64),
        arrays["smplx_display_faces"].astype(np.int64),
    )


@cache
def smplx_keypoints() -> Float32Array:
    """The free body's keypoint regressor on SMPL-X's vertices: (23, 10475), rows sum to one.

    Raises:
        ModelMissing, ModelInvalid: as `mhr_to_free`.
    """
    arrays = _arrays()
    regressor = np.zeros((len(KEYPOINTS), len(arrays["smplx_corners"])), dtype=np.float32)
    at = arrays["smplx_keypoint_rows"], arrays["smplx_keypoint_columns"]
    regressor[at] = arrays["smplx_keypoint_values"]
    return regressor


def _map(arrays: dict[str, Any], name: str, trusted: BoolArray) -> SurfaceMap:
    weights = arrays[f"{name}_weights"].astype(np.float64)
    return SurfaceMap(
        corners=arrays[f"{name}_corners"].astype(np.int64),
        weights=weights / weights.sum(axis=1, keepdims=True),  # they are kept in half precision
        trusted=trusted,
    )


@cache
def _arrays() -> dict[str, Any]:
    path = DATA_DIR / MAPS_NAME
    if not path.is_file():
        raise ModelMissing(f"{MAPS_NAME} is not in the package")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != mhr_card()["files"][MAPS_NAME]["sha256"]:
        raise ModelInvalid(f"{MAPS_NAME} has the digest {found[:12]}…, not the one of its card")
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
