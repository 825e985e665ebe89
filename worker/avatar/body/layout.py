"""The SMPL-X skeleton and vertex conventions that files, poses and the recipe share.

Joint names, their order and their parents are those of the SMPL-X model (Pavlakos et al., CVPR
2019).  The first 22 joints are the body, then jaw and eyes, then 15 joints of each hand.
"""

from __future__ import annotations

_FINGERS = ("index", "middle", "pinky", "ring", "thumb")

JOINT_NAMES: tuple[str, ...] = (
    "pelvis",
    "left_hip",
    "right_hip",
    "spine1",
    "left_knee",
    "right_knee",
    "spine2",
    "left_ankle",
    "right_ankle",
    "spine3",
    "left_foot",
    "right_foot",
    "neck",
    "left_collar",
    "right_collar",
    "head",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "jaw",
    "left_eye_smplhf",
    "right_eye_smplhf",
    *(
        f"{side}_{finger}{n}"
        for side in ("left", "right")
        for finger in _FINGERS
        for n in (1, 2, 3)
    ),
)
"""The 55 joints, in the order of `J_regressor` and `lbs_weights`."""

JOINT_INDEX: dict[str, int] = {name: index for index, name in enumerate(JOINT_NAMES)}
"""From a joint's name to its row."""


def _hand_parents(wrist: int, first: int) -> list[int]:
    return [
        wrist if n == 0 else first + 3 * finger + n - 1
        for finger in range(len(_FINGERS))
        for n in range(3)
    ]


PARENTS: tuple[int, ...] = (
    *(-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 15, 15, 15),
    *_hand_parents(20, 25),
    *_hand_parents(21, 40),
)
"""(55,) the joint that each joint hangs on; -1 at the pelvis."""

SMPLX_VERTEX_IDS: dict[str, int] = {
    "nose": 9120,
    "reye": 9929,
    "leye": 9448,
    "rear": 616,
    "lear": 6,
    "rthumb": 8079,
    "rindex": 7669,
    "rmiddle": 7794,
    "rring": 7905,
    "rpinky": 8022,
    "lthumb": 5361,
    "lindex": 4933,
    "lmiddle": 5058,
    "lring": 5169,
    "lpinky": 5286,
    "LBigToe": 5770,
    "LSmallToe": 5780,
    "LHeel": 8846,
    "RBigToe": 8463,
    "RSmallToe": 8474,
    "RHeel": 8635,
}
"""Vertices of the SMPL-X mesh that readers of the format address by number.

The `smplx` package takes them as extra joints whatever the file holds, so the free body's vertices
are ordered such that the same numbers name the same places.
"""

NUM_JOINTS = len(JOINT_NAMES)
