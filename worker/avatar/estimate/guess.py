"""Estimates as a place where the fit may start: betas and poses of the very body that is fitted.

An estimator's vertices are brought to that body's topology, and its shape and joints are found on
them in closed form, alternately: each joint's rotation is the one that turns the shaped body's part
onto the given vertices (Kabsch, "A solution for the best rotation to relate two sets of vectors",
1976), and betas are linear once rotations are known.  A body of our own comes back to half a
centimetre: enough for a start, and the fit decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from worker.avatar.body.articulated import BODY_JOINTS, ArticulatedShape
from worker.avatar.body.mhr import SurfaceMap
from worker.avatar.estimate.protocol import BodyEstimate, Topology
from worker.avatar.fit import rotation
from worker.avatar.types import BoolArray, Float64Array, Gender, InitialGuess, ViewName

ROUNDS: Final = 10
"""After which neither moves any more."""
SPREAD_M: Final = 0.01
"""How far an estimator's surface may stand off a body of ours, for the prior to weigh against."""
INDEPENDENT_POINTS: Final = 100.0
"""Neighbouring vertices err alike: however many are used, they count as these."""
POINTS: Final = 3000
"""Of the vertices that betas are found on."""
RIGID: Final = 0.6
"""Of a vertex that follows one joint: beside a bend two models' skins fold differently."""
LARGEST_BETA: Final = 4.0
_EXTREMITIES: Final = (15, 20, 21)
"""Head and hands: most of the vertices, hardly any of the shape, and fingers are stiff here."""


@dataclass(frozen=True, slots=True, eq=False)
class OnBody:
    """An estimate in the fitted body's own terms."""

    betas: Float64Array
    """(K,)."""
    pose: Float64Array
    """(22, 3) axis-angle, row 0 into the frame of the vertices."""
    rms_mm: float
    """Of what the body does not follow."""


def to_body(
    shape: ArticulatedShape,
    target: Float64Array,
    trusted: BoolArray | None = None,
    betas: Float64Array | None = None,
) -> OnBody:
    """Find the pose of a body on vertices of its topology, and its shape where it is not known.

    Args:
        shape: the body.
        target: (V, 3) posed vertices, metres.
        trusted: (V,) which of them mean something; None: all.
        betas: (K,) of the shape, when that is known; None: it is found, too.
    """
    like = shape.template
    with torch.inference_mode():
        use = torch.ones(len(like), dtype=torch.bool, device=like.device)
        if trusted is not None:
            use = torch.as_tensor(trusted, device=like.device)
        firm = use & (shape.weights.max(dim=1).values > RIGID)
        firm = firm & (shape.weights[:, list(_EXTREMITIES)].sum(dim=1) < 1 - RIGID)
        index = firm.nonzero().squeeze(1)
        index = index[:: max(1, len(index) // POINTS)]
        goal = like.new_tensor(target)
        found = like.new_zeros(shape.num_betas) if betas is None else like.new_tensor(betas)
        rotations = _rotations(shape, shape.shaped(found), goal, use)
        for _ in range(ROUNDS if betas is None else 0):
            found = _shape_of(shape, rotations, goal, index)
            rotations = _rotations(shape, shape.shaped(found), goal, use)
        posed = shape.posed(found, rotations, like.new_zeros((1, 3)))
        apart = (shape.vertices(posed)[0] - goal)[index]
        apart = apart - apart.mean(dim=0)
        local = shape.parent_rotations(rotations).mT @ rotations
        pose = rotation.log(local[0])
    return OnBody(
        found.cpu().numpy(),
        pose.cpu().numpy(),
        1000 * float((apart * apart).sum(dim=1).mean().sqrt()),
    )


def initial_guess(
    shape: ArticulatedShape,
    gender: Gender,
    estimates: Mapping[ViewName, BodyEstimate],
    maps: Mapping[Topology, SurfaceMap | None],
    height_m: float,
) -> InitialGuess:
    """Bring the estimates of one person's views together.

    Shape is the mean of the views', each weighed by its confidence.  It is found on the rest body,
    where no skin is folded, and the pose on the posed one; PIXIE's own are taken as they are where
    they mean this very body: poses on any, betas on the neutral SMPL-X alone.

    Args:
        shape: the body that will be fitted.
        gender: of that body.
        estimates: by view.
        maps: how each topology comes over to the body's; None: it is the body's own.  A topology
            that is not named cannot be brought over, and lends its pose alone.
        height_m: declared; estimators do not know how far away a person stands.
    """
    poses: dict[ViewName, Float64Array] = {}
    shapes: list[tuple[float, Float64Array]] = []
    for view, estimate in estimates.items():
        known_here = estimate.topology in maps
        over = maps.get(estimate.topology)
        scale = height_m / float(np.ptp(estimate.rest_vertices[:, 1]))
        betas: Float64Array | None = None
        if known_here and over is None and estimate.betas is not None and gender is Gender.NEUTRAL:
            betas = _cut(estimate.betas, shape.num_betas)
        elif known_here:
            betas = _found(shape, estimate.rest_vertices, over, scale).betas
        if betas is not None:
            shapes.append((max(estimate.confidence, 1e-3), betas))
        if estimate.pose is not None:
            poses[view] = estimate.pose[:BODY_JOINTS]
        elif known_here:
            posed = _found(shape, estimate.posed_vertices, over, scale, betas)
            poses[view] = posed.pose
    if not shapes:
        return InitialGuess(None, poses)
    weights = np.array([weight for weight, _ in shapes])
    mean = np.average(np.stack([betas for _, betas in shapes]), axis=0, weights=weights)
    return InitialGuess(mean.clip(-LARGEST_BETA, LARGEST_BETA), poses)


def _found(
    shape: ArticulatedShape,
    vertices: Float64Array,
    over: SurfaceMap | None,
    scale: float,
    betas: Float64Array | None = None,
) -> OnBody:
    """Find the body on an estimate's vertices, at the declared height."""
    scaled = scale * vertices
    if over is None:
        return to_body(shape, scaled, betas=betas)
    return to_body(shape, over.carry(scaled), over.trusted, betas)


def _cut(betas: Float64Array, count: int) -> Float64Array:
    taken = np.zeros(count)
    taken[: min(count, len(betas))] = betas[:count]
    return taken


def _rotations(shape: ArticulatedShape, rest: Tensor, goal: Tensor, use: Tensor) -> Tensor:
    """(1, 22, 3, 3) global rotations that turn each joint's part of the body onto the goal.

    A joint with few vertices of its own turns with its parent.
    """
    turned: list[Tensor] = []
    for joint in range(BODY_JOINTS):
        weight = shape.weights[:, joint] * use
        # Vertices that another joint moves as well say less about this one.
        weight = weight * (weight > 0.3)
        if weight.sum() < 20:
            turned.append(turned[shape.parents[joint]])
            continue
        weight = weight / weight.sum()
        ours, theirs = rest - weight @ rest, goal - weight @ goal
        u, _, vt = torch.linalg.svd((ours * weight[:, None]).mT @ theirs)
        flip = torch.ones(3, dtype=rest.dtype, device=rest.device)
        flip[2] = torch.sign(torch.linalg.det(u @ vt))
        turned.append(vt.mT @ torch.diag(flip) @ u.mT)
    return torch.stack(turned)[None]


def _shape_of(shape: ArticulatedShape, rotations: Tensor, goal: Tensor, index: Tensor) -> Tensor:
    """Betas (K,) by linear least squares, wherever the body stands, with the prior on betas."""
    zero = goal.new_zeros((1, 3))
    at_zero = shape.posed(goal.new_zeros(shape.num_betas), rotations, zero)
    start = shape.vertices(at_zero)[0, index]
    weights = shape.weights[index]
    blended = (weights @ rotations[0].flatten(1)).view(-1, 3, 3)
    joint_part = at_zero.joints_by_betas[0] - torch.einsum(
        "jac,jck->jak", rotations[0], shape.joint_shapedirs
    )
    by_betas = blended @ shape.shapedirs[index] + torch.einsum("vj,jak->vak", weights, joint_part)
    middle = by_betas.mean(dim=0, keepdim=True)
    apart = goal[index] - start
    rows = (by_betas - middle).flatten(0, 1)
    right = (apart - apart.mean(dim=0)).flatten()
    weight = SPREAD_M**2 * len(index) / INDEPENDENT_POINTS
    prior = weight * torch.eye(shape.num_betas, dtype=goal.dtype, device=goal.device)
    betas: Tensor = torch.linalg.solve(rows.mT @ rows + prior, rows.mT @ right)
    return betas
