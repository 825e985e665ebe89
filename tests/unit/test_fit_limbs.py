"""What speaks of arms and legs: where shoes end, what folds, and which way elbows turn."""

import numpy as np
import torch

from worker.avatar.body.articulated import ArticulatedShape, articulated_shape
from worker.avatar.body.free import free_body
from worker.avatar.body.model import BodyModel
from worker.avatar.fit import priors, rotation
from worker.avatar.fit.cloth import NO_CLOTH, REGIONS, cloth_folds, skin_regions
from worker.avatar.fit.outline import Matches
from worker.avatar.fit.residuals import Clothing, outline_targets
from worker.avatar.fit.state import FitState
from worker.avatar.fit.wardrobe import wardrobe
from worker.avatar.types import Gender, ViewName

LEFT_KNEE, LEFT_ANKLE, LEFT_WRIST = 4, 7, 20
LEFT_ELBOW_TURN = priors.FITTED_JOINTS.index(18)


def _shape() -> ArticulatedShape:
    body = BodyModel(free_body(Gender.NEUTRAL), dtype=torch.float64)
    return articulated_shape(body.data, body.num_betas, body.device)


def test_shoes_end_at_the_ankle_and_cover_the_foot() -> None:
    shape = _shape()
    shoe = skin_regions(shape)[:, REGIONS.index("shoe")]
    height, joints = shape.template[:, 1], shape.joint_template[:, 1]
    ankle = float(joints[LEFT_ANKLE])
    leg = (shape.weights[:, [LEFT_KNEE, LEFT_ANKLE, 10]].sum(dim=1) > 0.9) & (
        height < joints[LEFT_KNEE] - 0.05
    )
    assert float(shoe[leg & (height > ankle + 0.04)].max()) == 0.0
    assert float(shoe[leg & (height < ankle - 0.03)].min()) == 1.0


def test_what_is_stiff_does_not_fold() -> None:
    folds = dict(zip(REGIONS, cloth_folds(torch.zeros(1)).tolist(), strict=True))
    assert [name for name, factor in folds.items() if factor == 0.0] == [
        "shoe",
        "hand",
        "sole",
    ]


def test_hands_say_nothing_of_the_arm() -> None:
    """Of two edges, one at the finger tips and one at the shin, only that of the shin counts."""
    shape = _shape()
    closet = wardrobe(shape, Gender.NEUTRAL, 1.0)
    tip = int(shape.template[:, 0].argmax())
    shin = int((shape.template - shape.joint_template[LEFT_KNEE]).norm(dim=1).argmin())
    ends = np.array([[tip, tip], [shin, shin]], dtype=np.int64)
    nowhere = np.zeros((2, 2))
    found = Matches(ends, nowhere, np.tile([1.0, 0.0], (2, 1)), np.zeros(2), np.ones(2))
    like = shape.template
    state = FitState(
        like.new_zeros(shape.num_betas),
        torch.eye(3, dtype=like.dtype).repeat(1, 22, 1, 1),
        like.new_tensor([[0.0, 0.0, 3.0]]),
        like.new_tensor([7.0]),
        like.new_full((1, len(REGIONS)), NO_CLOTH),
        like.new_zeros(closet.modes.shape[1]),
    )
    clothing = Clothing(skin_regions(shape), closet, like.new_zeros(len(like)))
    share = outline_targets(shape, [found], state, [ViewName.FRONT], clothing).share
    assert share is not None
    assert float(share[0, 0]) < 0.01 * float(share[0, 1])
    bare = outline_targets(shape, [found], state, [ViewName.FRONT], None).share
    assert bare is not None
    assert float(bare[0, 0]) == float(bare[0, 1]) > 0.0


def test_elbows_are_bent_forwards_and_turn_like_hinges() -> None:
    shape = _shape()
    like = shape.template
    bend = priors.standing_pose(dtype=like.dtype, device=like.device)
    bend[16] = torch.eye(3, dtype=like.dtype)
    turns = shape.global_rotations(bend[None])[0]
    forearm = turns[18] @ (shape.joint_template[LEFT_WRIST] - shape.joint_template[18])
    assert float(forearm[2]) > 0.15 * float(forearm.norm()), "ahead of the upper arm"
    sigma = priors.pose_sigma(ViewName.FRONT, dtype=like.dtype, device=like.device)[LEFT_ELBOW_TURN]
    about_itself, forwards, sideways = sigma.tolist()
    assert sideways < 0.5 * forwards < 0.5 * about_itself
    hinge = rotation.log(priors.standing_pose(dtype=like.dtype, device=like.device)[None, 18:20])
    assert float(hinge[..., [0, 2]].abs().max()) == 0.0
