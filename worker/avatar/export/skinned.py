"""The body as it is published: shaped, scaled, grounded, posed by its joints.

One record, `SkinnedBody`, holds exactly what the GLB says, and `posed()` does with it what a
viewer does, so that the preview shows what the file shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from worker.avatar.export.dress import Part, dress
from worker.avatar.types import Float32Array, Float64Array

if TYPE_CHECKING:
    from worker.avatar.body.model import BodyData, DisplayMesh

INFLUENCES = 4
"""Joints that move one vertex: what every glTF viewer must support."""
WEIGHT_ONE = 65535
"""glTF's normalised unsigned short."""


@dataclass(frozen=True, slots=True)
class SkinnedBody:
    """A mesh in its bind pose (T-pose), its skeleton, and the pose it is shown in.

    Metres, y up, facing +z; in the bind pose the soles are at y = 0.
    """

    positions: Float32Array
    """(N, 3) bind pose."""
    normals: Float32Array
    """(N, 3) unit length, bind pose."""
    joint_index: NDArray[np.uint8]
    """(N, 4); 0 where the weight is 0."""
    joint_weight: NDArray[np.uint16]
    """(N, 4) in 65535ths, adding up to 65535."""
    faces: Mapping[Part, NDArray[np.int64]]
    """(F, 3) of each part, counter-clockwise seen from outside."""
    joints: Float64Array
    """(55, 3) bind pose."""
    parents: tuple[int, ...]
    """(55,) with -1 for the root."""
    rotations: Float64Array
    """(55, 4) quaternions x, y, z, w of the display pose, each in its parent's frame."""
    root: Float64Array
    """(3,) where the root joint stands in the display pose: soles at y = 0."""

    @property
    def triangles(self) -> int:
        """How many triangles all parts have together."""
        return sum(len(faces) for faces in self.faces.values())

    def posed(self) -> tuple[Float64Array, Float64Array]:
        """Skin the mesh as glTF 2.0 §3.7.3.3 says.

        Returns:
            vertices (N, 3) and unit normals (N, 3) in the display pose.
        """
        rotation, origin = _world(self.joints, self.parents, self.rotations, self.root)
        weights = self.joint_weight.astype(np.float64) / WEIGHT_ONE
        blended = np.einsum("nk,nkij->nij", weights, rotation[self.joint_index])
        offset = origin - np.einsum("jab,jb->ja", rotation, self.joints)
        moved = np.einsum("nk,nki->ni", weights, offset[self.joint_index])
        vertices = np.einsum("nij,nj->ni", blended, self.positions) + moved
        normals = np.einsum("nij,nj->ni", blended, self.normals)
        return vertices, normals / np.linalg.norm(normals, axis=1, keepdims=True)


def skinned_body(
    data: BodyData,
    display: DisplayMesh,
    *,
    betas: Float64Array,
    pose: Float64Array,
    scale: float = 1.0,
) -> SkinnedBody:
    """Shape, scale, dress and pose a body for display.

    Pose correctives, which only the licensed SMPL-X has, are left out: plain skinning, which
    is all that a GLB can hold without morph targets, shows the T-pose shape moved by joints.

    Args:
        data: the body in SMPL-X layout.
        display: the simplified topology, vertex indices (N,) and faces (F, 3).
        betas: (K,) shape.
        pose: (55, 3) axis-angle of the display pose; row 0 turns the whole body.
        scale: multiplies the shaped body, so that it has the declared height.
    """
    betas = np.asarray(betas, dtype=np.float64)
    shaped = data.v_template + np.asarray(data.shapedirs)[:, :, : len(betas)] @ betas
    shaped = np.asarray(shaped, dtype=np.float64) * scale
    joints = np.asarray(data.J_regressor, dtype=np.float64) @ shaped
    dressed = dress(data, display)

    positions = dressed.sample(shaped)
    # Normals of the full mesh: the simplified one shades as smoothly as the body itself.
    normals = dressed.sample(vertex_normals(shaped, np.asarray(data.faces)))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    used = np.unique(np.concatenate(list(dressed.faces.values())))
    ground = np.array([0.0, positions[used, 1].min(), 0.0])
    index, weight = strongest_influences(dressed.sample(np.asarray(data.lbs_weights)))

    parents = tuple(int(parent) for parent in data.parents)
    lying = SkinnedBody(
        positions=(positions - ground).astype(np.float32),
        normals=normals.astype(np.float32),
        joint_index=index,
        joint_weight=weight,
        faces=dressed.faces,
        joints=joints - ground,
        parents=(-1, *parents[1:]),
        rotations=Rotation.from_rotvec(np.asarray(pose, dtype=np.float64)).as_quat(),
        root=joints[0] - ground,
    )
    return _standing(lying, used)


def _standing(body: SkinnedBody, used: NDArray[np.int64]) -> SkinnedBody:
    """Move the root so that the lowest visible vertex of the display pose is at y = 0."""
    vertices, _ = body.posed()
    root = body.root - (0.0, vertices[used, 1].min(), 0.0)
    return SkinnedBody(
        **{name: getattr(body, name) for name in body.__slots__ if name != "root"}, root=root
    )


def vertex_normals(vertices: Float64Array, faces: NDArray[np.integer]) -> Float64Array:
    """Area-weighted unit normals (V, 3) of a closed mesh; +y for a vertex without a face."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    face_normal = np.cross(b - a, c - a)
    normals = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], face_normal)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    up = np.array([0.0, 1.0, 0.0])
    result: Float64Array = np.where(length > 1e-20, normals / np.maximum(length, 1e-20), up)
    return result


def strongest_influences(
    weights: NDArray[np.floating],
) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Keep the four strongest joints of each vertex, in whole 65535ths that add up to 65535.

    Args:
        weights: (N, J) skinning weights, J ≤ 256, each row with a positive sum.

    Returns:
        indices (N, 4), 0 where the weight is 0, and weights (N, 4), strongest first.
    """
    index = np.argsort(-weights, axis=1, kind="stable")[:, :INFLUENCES]
    kept = np.take_along_axis(np.asarray(weights, dtype=np.float64), index, axis=1)
    kept = np.clip(kept, 0.0, None)
    whole = np.floor(kept / kept.sum(axis=1, keepdims=True) * WEIGHT_ONE).astype(np.int64)
    # At most three 65535ths are lost to rounding; the strongest joint takes them.
    whole[:, 0] += WEIGHT_ONE - whole.sum(axis=1)
    index = np.where(whole > 0, index, 0)
    return index.astype(np.uint8), whole.astype(np.uint16)


def _world(
    joints: Float64Array, parents: tuple[int, ...], rotations: Float64Array, root: Float64Array
) -> tuple[Float64Array, Float64Array]:
    """Forward kinematics: rotation (J, 3, 3) and origin (J, 3) of each joint."""
    local = Rotation.from_quat(rotations).as_matrix()
    rotation, origin = np.empty_like(local), np.empty_like(joints)
    for joint, parent in enumerate(parents):
        if parent < 0:
            rotation[joint], origin[joint] = local[joint], root
        else:
            rotation[joint] = rotation[parent] @ local[joint]
            origin[joint] = origin[parent] + rotation[parent] @ (joints[joint] - joints[parent])
    return rotation, origin
