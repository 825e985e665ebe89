"""The published body as a binary glTF 2.0 file.

One mesh, one skin.  Every part is a primitive of its own with its own material; all share one
set of vertices.  The file holds no extension, no texture and no compression, so that every
viewer, and every clothing tool, reads it as it is.  The nodes' rotations carry the display
pose; with all of them removed the body stands in its T-pose.

Specification: https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pygltflib as gltf
from numpy.typing import NDArray

from worker.avatar.body.layout import JOINT_NAMES
from worker.avatar.export.colour import Rgb, linear_from_srgb
from worker.avatar.export.dress import Part
from worker.avatar.export.skinned import SkinnedBody

CLOTHES: Mapping[Part, Rgb] = {
    Part.TOP: (184, 189, 197),
    Part.SHORTS: (70, 76, 88),
    Part.EYE_WHITE: (236, 234, 230),
    Part.IRIS: (78, 62, 52),
}
"""sRGB of all that is not skin."""

_ROUGHNESS: Mapping[Part, float] = {
    Part.SKIN: 0.75,
    Part.TOP: 0.95,
    Part.SHORTS: 0.95,
    Part.EYE_WHITE: 0.35,
    Part.IRIS: 0.25,
}


def write_glb(path: Path, body: SkinnedBody, *, skin: Rgb, extras: Mapping[str, Any]) -> int:
    """Write `body` to `path`; the same body gives the same bytes.

    Args:
        path: where to write; an existing file is replaced.
        body: what to write.
        skin: sRGB of the skin.
        extras: JSON-able facts about the file (`asset.extras`).

    Returns:
        The number of bytes written.
    """
    return path.write_bytes(glb_bytes(body, skin=skin, extras=extras))


def glb_bytes(body: SkinnedBody, *, skin: Rgb, extras: Mapping[str, Any]) -> bytes:
    """Return the file that `write_glb` writes."""
    buffer = _Buffer()
    attributes = gltf.Attributes(
        POSITION=buffer.vertex_data(body.positions, bounds=True),
        NORMAL=buffer.vertex_data(body.normals),
        JOINTS_0=buffer.vertex_data(body.joint_index),
        WEIGHTS_0=buffer.vertex_data(body.joint_weight, normalised=True),
    )
    parts = list(body.faces)
    primitives = [
        gltf.Primitive(
            attributes=attributes, indices=buffer.index_data(body.faces[part]), material=number
        )
        for number, part in enumerate(parts)
    ]
    # Node 0 is the mesh; joint j is node j + 1.  The mesh stands beside the skeleton at the
    # scene's root: a skinned mesh takes its place from its joints alone.
    joint_nodes = [_joint_node(body, joint, name) for joint, name in enumerate(JOINT_NAMES)]
    document = gltf.GLTF2(
        asset=gltf.Asset(generator="avatar-worker", version="2.0", extras=dict(extras)),
        scene=0,
        scenes=[gltf.Scene(name="avatar", nodes=[0, 1])],
        nodes=[gltf.Node(name="body", mesh=0, skin=0), *joint_nodes],
        meshes=[gltf.Mesh(name="body", primitives=primitives)],
        skins=[
            gltf.Skin(
                name="skeleton",
                skeleton=1,
                joints=list(range(1, len(joint_nodes) + 1)),
                inverseBindMatrices=buffer.inverse_bind_matrices(body.joints),
            )
        ],
        materials=[_material(part, skin if part is Part.SKIN else CLOTHES[part]) for part in parts],
        accessors=buffer.accessors,
        bufferViews=buffer.views,
        buffers=[gltf.Buffer(byteLength=len(buffer.data))],
    )
    document.set_binary_blob(bytes(buffer.data))
    return b"".join(document.save_to_bytes())


def _joint_node(body: SkinnedBody, joint: int, name: str) -> gltf.Node:
    parent = body.parents[joint]
    place = body.root if parent < 0 else body.joints[joint] - body.joints[parent]
    rotation = body.rotations[joint]
    children = [child + 1 for child, of in enumerate(body.parents) if of == joint]
    return gltf.Node(
        name=name,
        translation=[float(value) for value in place],
        rotation=None if abs(rotation[3]) > 1 - 1e-12 else [float(value) for value in rotation],
        children=children,
    )


def _material(part: Part, colour: Rgb) -> gltf.Material:
    red, green, blue = linear_from_srgb(np.array(colour) / 255.0)
    return gltf.Material(
        name=part.value,
        # Metallic 0: without an environment map a metal renders black.
        pbrMetallicRoughness=gltf.PbrMetallicRoughness(
            baseColorFactor=[float(red), float(green), float(blue), 1.0],
            metallicFactor=0.0,
            roughnessFactor=_ROUGHNESS[part],
        ),
        alphaMode="OPAQUE",
        alphaCutoff=None,
        doubleSided=False,
    )


_COMPONENT: Mapping[np.dtype[Any], int] = {
    np.dtype(np.float32): gltf.FLOAT,
    np.dtype(np.uint8): gltf.UNSIGNED_BYTE,
    np.dtype(np.uint16): gltf.UNSIGNED_SHORT,
}
_SHAPE: Mapping[tuple[int, ...], str] = {(3,): "VEC3", (4,): "VEC4", (16,): "MAT4", (): "SCALAR"}


class _Buffer:
    """The binary chunk, with the views and accessors into it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[gltf.BufferView] = []
        self.accessors: list[gltf.Accessor] = []

    def vertex_data(
        self, array: NDArray[Any], *, bounds: bool = False, normalised: bool = False
    ) -> int:
        return self._add(array, gltf.ARRAY_BUFFER, bounds=bounds, normalised=normalised)

    def index_data(self, faces: NDArray[np.int64]) -> int:
        return self._add(faces.reshape(-1).astype(np.uint16), gltf.ELEMENT_ARRAY_BUFFER)

    def inverse_bind_matrices(self, joints: NDArray[np.float64]) -> int:
        # Joints of the bind pose are not turned, so the inverse only moves them to the origin.
        matrices = np.tile(np.eye(4, dtype=np.float32), (len(joints), 1, 1))
        matrices[:, :3, 3] = -joints
        return self._add(matrices.transpose(0, 2, 1).reshape(-1, 16), None)

    def _add(
        self,
        array: NDArray[Any],
        target: int | None,
        *,
        bounds: bool = False,
        normalised: bool = False,
    ) -> int:
        self.data.extend(b"\0" * (-len(self.data) % 4))
        raw = np.ascontiguousarray(array).tobytes()
        self.views.append(
            gltf.BufferView(buffer=0, byteOffset=len(self.data), byteLength=len(raw), target=target)
        )
        self.data.extend(raw)
        self.accessors.append(
            gltf.Accessor(
                bufferView=len(self.views) - 1,
                componentType=_COMPONENT[array.dtype],
                normalized=normalised,
                count=len(array),
                type=_SHAPE[array.shape[1:]],
                min=array.min(axis=0).tolist() if bounds else None,
                max=array.max(axis=0).tolist() if bounds else None,
            )
        )
        return len(self.accessors) - 1
