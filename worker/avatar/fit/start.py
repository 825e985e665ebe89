"""Where the solver starts: the way the person faces, the limbs as they hang, the distance.

Everything here is rough on purpose.  It only has to lie in the valley of the right solution; a
few steps against the keypoints choose between the candidates.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from worker.avatar.body.articulated import ArticulatedShape
from worker.avatar.body.jacobian import SkinnedPoints
from worker.avatar.fit import priors, rotation
from worker.avatar.fit.cloth import NO_CLOTH, REGIONS
from worker.avatar.fit.evidence import Evidence
from worker.avatar.fit.mirror import ahead
from worker.avatar.fit.people import ShapePrior
from worker.avatar.fit.solver import Solver
from worker.avatar.fit.state import FitState
from worker.avatar.types import KEYPOINTS, Float64Array, InitialGuess, ViewName

_CLEARLY_AHEAD = 0.03
"""Share of the person's height that face and toes lie ahead of ears and heels, together, where it
is plain which way a profile looks; usual are 0.2."""

_LIMBS: tuple[tuple[int, int, str, str], ...] = (
    (1, 4, "left_hip", "left_knee"),
    (4, 7, "left_knee", "left_ankle"),
    (2, 5, "right_hip", "right_knee"),
    (5, 8, "right_knee", "right_ankle"),
    (16, 18, "left_shoulder", "left_elbow"),
    (18, 20, "left_elbow", "left_wrist"),
    (17, 19, "right_shoulder", "right_elbow"),
    (19, 21, "right_elbow", "right_wrist"),
)
"""Joint, the joint at the bone's end, and the keypoints nearest to the two; parents first."""

_KEYPOINT_STEPS = 8
_SETTLED = 1e-3


def find_start(
    shape: ArticulatedShape,
    keypoints: SkinnedPoints,
    view: Evidence,
    shape_prior: ShapePrior,
    initial: InitialGuess | None = None,
) -> tuple[FitState, Tensor]:
    """Fit one view's keypoints from each likely direction, and from a guess, and keep the best.

    Returns:
        The state, one view, and the pose (1, 22, 3, 3) around which its pose is spread.
    """
    best: tuple[float, FitState, Tensor] | None = None
    for yaw_deg in _yaws_deg(view):
        mean = _facing(shape, yaw_deg)
        for begin in _beginnings(shape, keypoints, view, mean, initial):
            # Damping is the solver's own, so each beginning has a fresh one.
            solver = Solver.of(shape, keypoints, [view], mean, shape_prior)
            state = begin
            for _ in range(_KEYPOINT_STEPS):
                state, saved = solver.improve(state, None)
                if saved < _SETTLED:
                    break
            loss = solver.loss(state, None)
            if best is None or loss < best[0]:
                best = (loss, state, mean)
    if best is None:
        raise AssertionError(view.view)
    return best[1], best[2]


def _yaws_deg(view: Evidence) -> tuple[float, ...]:
    """Turns about the body's own vertical to try; +90 looks to the right of the image."""
    if view.view is ViewName.FRONT:
        return (0.0,)
    px = ahead(view.keypoints[:, 0], view.keypoint_weight[:, 0] > 0)
    if abs(px) < _CLEARLY_AHEAD * priors.PERSON_HEIGHT_PX:
        return (90.0, -90.0)
    return (90.0,) if px > 0 else (-90.0,)


def _beginnings(
    shape: ArticulatedShape,
    keypoints: SkinnedPoints,
    view: Evidence,
    mean: Tensor,
    initial: InitialGuess | None,
) -> list[FitState]:
    """Where one direction is tried from: the limbs as they hang, and the guess, if there is one."""
    rough = _rough(shape, keypoints, view, mean)
    if initial is None or view.view not in initial.poses:
        return [rough]
    like = shape.template
    local = rotation.exp(like.new_tensor(initial.poses[view.view]))[None]
    betas = rough.betas if initial.betas is None else like.new_tensor(initial.betas)
    at_origin = replace(rough, betas=betas, local=local, transl=torch.zeros_like(rough.transl))
    body = keypoints.points(at_origin.posed(shape))[0]
    return [rough, replace(at_origin, transl=_distance(body, view).unsqueeze(0))]


def _facing(shape: ArticulatedShape, yaw_deg: float) -> Tensor:
    """(1, 22, 3, 3) standing pose, turned into the camera's frame.

    Half a turn about x brings y down and lets the body, which looks along its +z, face the
    camera.
    """
    like = shape.template
    pose = priors.standing_pose(dtype=like.dtype, device=like.device)
    pose[0] = rotation.about(0, 180.0, like=like) @ rotation.about(1, yaw_deg, like=like)
    return pose.unsqueeze(0)


def _rough(
    shape: ArticulatedShape, keypoints: SkinnedPoints, view: Evidence, mean: Tensor
) -> FitState:
    like = shape.template
    betas = like.new_zeros(shape.num_betas)
    local = mean.clone()
    for joint, end, here, there in _LIMBS:
        direction = _seen_direction(view, here, there)
        if direction is None:
            continue
        rotations = shape.global_rotations(local)
        bone = rotations[0, joint] @ (shape.joint_template[end] - shape.joint_template[joint])
        # Turn the limb within the image until it points where the photo's does.
        turn = torch.atan2(like.new_tensor(direction[1]), like.new_tensor(direction[0]))
        turn = turn - torch.atan2(bone[1], bone[0])
        about_axis = rotation.exp(torch.stack((turn * 0, turn * 0, turn)))
        above = rotations[0, shape.parents[joint]]
        local[0, joint] = above.mT @ about_axis @ above @ local[0, joint]
    log_focal = like.new_tensor([view.focal_px]).log()
    cloth = like.new_full((1, len(REGIONS)), NO_CLOTH)
    nothing = like.new_zeros(0)
    at_origin = FitState(betas, local, like.new_zeros((1, 3)), log_focal, cloth, nothing)
    body = keypoints.points(at_origin.posed(shape))[0]
    return replace(at_origin, transl=_distance(body, view).unsqueeze(0))


def _seen_direction(view: Evidence, here: str, there: str) -> Float64Array | None:
    start, end = KEYPOINTS.index(here), KEYPOINTS.index(there)
    if not (view.keypoint_weight[[start, end]] > 0).all():
        return None
    direction: Float64Array = view.keypoints[end] - view.keypoints[start]
    # A limb that points at the camera has no direction on the image.
    if (direction**2).sum() < (0.04 * priors.PERSON_HEIGHT_PX) ** 2:
        return None
    return direction


def _distance(body: Tensor, view: Evidence) -> Tensor:
    """(3,) translation under which the keypoints (23, 3) spread as wide as the photo's."""
    seen = torch.as_tensor(view.keypoint_weight[:, 0] > 0, device=body.device)
    image = body.new_tensor(view.keypoints)[seen]
    points = body[seen]
    middle, middle_px = points.mean(dim=0), image.mean(dim=0)
    wide = (points - middle)[:, :2].norm()
    depth = view.focal_px * wide / (image - middle_px).norm()
    from_axis = (middle_px - body.new_tensor(view.centre_px)) * depth / view.focal_px
    return torch.cat((from_axis, depth[None])) - middle
