"""One shape that explains every photo: keypoints first, then outlines that close in.

The method is iterated closest points between outlines within damped least squares.  A dozen steps
of it reach what hundreds of steps of Adam reach (`avatar-worker bench speed --adam`).

Outlines are matched anew at each step, and other edges of the body are then its outline: what a
step aims at moves, by up to a centimetre of hip, however many steps are taken.  So the last steps
shrink as 1/2, 1/3, 1/4 and so on, which is the mean of what they aim at (Robbins and Monro, "A
stochastic approximation method", 1951).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from worker.avatar.body.articulated import ArticulatedShape, articulated_shape
from worker.avatar.body.jacobian import SkinnedPoints, body_keypoints
from worker.avatar.body.model import BodyModel
from worker.avatar.fit import priors, rotation
from worker.avatar.fit.agreement import keypoint_rmse_px, outline_iou
from worker.avatar.fit.camera import project
from worker.avatar.fit.cloth import ClothPrior, dressed_vertices, skin_regions
from worker.avatar.fit.evidence import Evidence, gather
from worker.avatar.fit.mirror import all_one_way, as_seen
from worker.avatar.fit.options import FitOptions
from worker.avatar.fit.outline import match, outline_finder
from worker.avatar.fit.people import ShapePrior
from worker.avatar.fit.residuals import Clothing, ImageTargets, dressed_outline, outline_targets
from worker.avatar.fit.solver import Solver
from worker.avatar.fit.start import find_start
from worker.avatar.fit.state import FitState, stack
from worker.avatar.fit.wardrobe import Wardrobe, wardrobe
from worker.avatar.types import BodyFit, FittedView, InitialGuess, Intrinsics, Observation
from worker.errors import BodyHidden, FitFailed, OutOfRange

_JOINT_STEPS = 4
"""Steps against the keypoints of all views together."""
OUTLINE_STEPS = 8
"""Steps against outlines that are matched anew each time; 6, 10 and 14 are as right
(docs/decisions/0026)."""
_SETTLING_STEPS = 6
"""More of them, each shorter than the one before."""
_STILL = 0.03
"""A step that moves betas less than this, if it were taken whole, is the last one."""
_WEIGH_AT = (4, 6)
"""Steps at which it is decided who it may be and what is worn: not before the body roughly fits."""
_FIRST_RADIUS_PX, _LAST_RADIUS_PX = 40.0, 10.0
"""How far apart paired outline points may lie, from the first step to the last."""
_SETTLED = 1e-3
"""A step that saves less than this share of the loss is the last one."""

WEIGHT_DISAGREES = (
    "The declared weight does not go with the photos and the height: please check all three."
)

HOPELESS_IOU = 0.6
"""Below this the body explains nothing of the photo, and publishing it would be a lie."""


def fit_body(
    body: BodyModel,
    observations: Sequence[Observation],
    *,
    height_m: float,
    weight_kg: float | None = None,
    progress: Callable[[float], None] | None = None,
    options: FitOptions | None = None,
    initial: InitialGuess | None = None,
) -> BodyFit:
    """Find the shape, and a pose and camera for each view, that explain the observations.

    Args:
        body: the model that is fitted; the solver works on its device, in float64.
        observations: one or more views of one person.
        height_m: declared stature.
        weight_kg: declared weight, if any.
        progress: called with how much is done, 0..1.
        options: the operator's choices.
        initial: where an estimator would start; it is taken where it explains a view's keypoints
            better than our own start does.

    Returns:
        The fit.  Its body has the declared height only to within what the photos say; whoever
        measures it scales it first.

    Raises:
        BodyHidden: no outline, too few keypoints, or no body explains what was seen.
        OutOfRange: no adult has this height, or the shape that explains the photos.
        FitFailed: the computation gave no numbers.
    """
    tell = progress or (lambda _: None)
    options = options or FitOptions()
    seen, initial = all_one_way(tuple(observations), initial)
    views = [gather(observation) for observation in seen]
    shape = articulated_shape(body.data, body.num_betas, body.device)
    with torch.inference_mode():
        prior = ShapePrior(shape, body.data.people, height_m, weight_kg)
        prior.check_height()
        closet = None
        if options.dressed and options.silhouette_refine:
            closet = wardrobe(shape, body.data.gender, options.cloth_scale)
        try:
            solved = _solve(shape, views, prior, options, closet, initial=initial, tell=tell)
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]  # documented, but not in its stubs
            raise FitFailed(f"the fit met equations without an answer: {error}") from error
        _check_shape(solved.state.betas)
        fit = as_seen(_report(shape, body, views, seen, solved), tuple(observations))
        return replace(fit, warnings=_disagreements(prior, solved.state.betas))


def _check_shape(betas: Tensor) -> None:
    """Refuse a shape that hardly anybody has, rather than call it somebody's.

    Raises:
        OutOfRange: said so.
    """
    length = float(betas.norm())
    if length > priors.FARTHEST_SHAPE:
        raise OutOfRange(
            f"The shape that explains the photos lies {length:.1f} standard deviations from the "
            f"mean; {priors.FARTHEST_SHAPE:.0f} are the most that is believed."
        )


def _disagreements(prior: ShapePrior, betas: Tensor) -> tuple[str, ...]:
    apart = prior.weight_disagreement(betas)
    if apart is None or abs(apart) < priors.WEIGHT_DISAGREES_SIGMAS:
        return ()
    return (WEIGHT_DISAGREES,)


@dataclass(frozen=True, slots=True)
class _Solved:
    state: FitState
    covariance: Tensor
    keypoints: SkinnedPoints
    iterations: int
    wear: tuple[str, ...]
    worn_m: Tensor | None
    """(V,) how far garments stand off; None: nobody wears anything."""


@dataclass(frozen=True, slots=True)
class _Refined:
    state: FitState
    outline: ImageTargets
    wear: tuple[str, ...]
    steps: int


def _solve(
    shape: ArticulatedShape,
    views: Sequence[Evidence],
    shape_prior: ShapePrior,
    options: FitOptions,
    closet: Wardrobe | None,
    *,
    initial: InitialGuess | None,
    tell: Callable[[float], None],
) -> _Solved:
    keypoints = body_keypoints(shape)
    starts = [find_start(shape, keypoints, view, shape_prior, initial) for view in views]
    tell(0.2)
    state = stack([found for found, _ in starts])
    mean_pose = torch.cat([mean for _, mean in starts])
    solver = Solver.of(shape, keypoints, views, mean_pose, shape_prior)
    iterations = 0
    if len(views) > 1:
        for _ in range(_JOINT_STEPS):
            iterations += 1
            state, saved = solver.improve(state, None)
            if saved < _SETTLED:
                break
    outline: ImageTargets | None = None
    wear: tuple[str, ...] = ()
    if options.silhouette_refine:
        refined = _refine(shape, solver, state, views, closet, tell=tell)
        state, outline, wear = refined.state, refined.outline, refined.wear
        iterations += refined.steps
    covariance = solver.linearise(state, outline).covariance_of(len(state.betas))
    if not bool(torch.isfinite(covariance).all() & torch.isfinite(state.betas).all()):
        raise FitFailed("the fit ended in numbers that are not finite")
    worn_m = None
    if closet is not None and len(state.worn):
        worn_m = closet.modes @ state.worn
    return _Solved(state, covariance, keypoints, iterations, wear, worn_m)


def _refine(
    shape: ArticulatedShape,
    solver: Solver,
    state: FitState,
    views: Sequence[Evidence],
    closet: Wardrobe | None,
    *,
    tell: Callable[[float], None],
) -> _Refined:
    """Close in on the outlines, find out on the way who it is and what is worn, come to rest."""
    prior = solver.shape_prior
    clothing: Clothing | None = None
    if closet is not None:
        prior.dress(closet)
        solver.cloth_prior = ClothPrior.of([view.view for view in views], state.betas)
        state = replace(
            state, cloth=solver.cloth_prior.mean.clone(), worn=prior.usual[len(state.betas) :]
        )
        folds_m = closet.folds_m(prior.outfits)
        clothing = Clothing(skin_regions(shape), closet, folds_m)
    radii = np.geomspace(_FIRST_RADIUS_PX, _LAST_RADIUS_PX, OUTLINE_STEPS)
    for step, radius_px in enumerate(radii):
        outline = _matched(shape, solver, state, views, clothing, radius_px=radius_px)
        if step in _WEIGH_AT:
            solver.find_people(state, outline)
            if clothing is not None:
                folds_m = clothing.wardrobe.folds_m(prior.outfits)
                clothing = replace(clothing, folds_m=folds_m)
        state, _ = solver.improve(state, outline)
        tell(0.2 + 0.6 * (step + 1) / OUTLINE_STEPS)
    for step in range(1, _SETTLING_STEPS + 1):
        outline = _matched(shape, solver, state, views, clothing, radius_px=_LAST_RADIUS_PX)
        state, moved = solver.settle(state, outline, 1.0 / (step + 1))
        if moved < _STILL:
            break
    tell(0.9)
    outfits = prior.outfits
    wear = max(outfits, key=outfits.__getitem__, default=())
    return _Refined(state, outline, wear, OUTLINE_STEPS + step)


def _matched(
    shape: ArticulatedShape,
    solver: Solver,
    state: FitState,
    views: Sequence[Evidence],
    clothing: Clothing | None,
    *,
    radius_px: float,
) -> ImageTargets:
    """Where the outline of what is worn belongs, as the body stands now."""
    finder = outline_finder(shape.faces)
    posed = shape.vertices(solver.posed(state))
    uv = project(posed, state.log_focal, solver.centre).uv
    matches = []
    for index, view in enumerate(views):
        found = finder.find(uv[index])
        if clothing is not None:
            per_metre = float(state.log_focal[index].exp() / posed[index, :, 2].mean())
            found = dressed_outline(clothing, found, state.only(index), view.view, per_metre)
        matches.append(match(found, view.contour, radius_px))
    return outline_targets(shape, matches, state, [view.view for view in views], clothing)


def _report(
    shape: ArticulatedShape,
    body: BodyModel,
    views: Sequence[Evidence],
    observations: Sequence[Observation],
    solved: _Solved,
) -> BodyFit:
    state = solved.state
    posed = state.posed(shape)
    centre = state.betas.new_tensor([view.centre_px for view in views])
    dressed = shape.vertices(posed)
    if solved.worn_m is not None:
        dressed = dressed_vertices(shape, skin_regions(shape), dressed, state.cloth, solved.worn_m)
    uv = project(dressed, state.log_focal, centre).uv
    keypoints_uv = project(solved.keypoints.points(posed), state.log_focal, centre).uv
    fitted = []
    for index, (view, observation) in enumerate(zip(views, observations, strict=True)):
        iou = outline_iou(uv[index], shape.faces, view)
        if iou < HOPELESS_IOU:
            raise BodyHidden(
                f"no body explains the {view.view.value} photo: overlap {iou:.2f} of 1"
            )
        pose = np.zeros((55, 3))
        pose[: len(shape.parents)] = rotation.log(state.local[index]).cpu().numpy()
        camera = observation.intrinsics
        fitted.append(
            FittedView(
                view=view.view,
                intrinsics=Intrinsics(
                    focal_px=float(state.log_focal[index].exp()) / view.scale,
                    width=camera.width,
                    height=camera.height,
                    known=camera.known,
                ),
                pose=pose,
                transl=state.transl[index].cpu().numpy(),
                iou=iou,
                keypoint_rmse_px=keypoint_rmse_px(keypoints_uv[index], view),
            )
        )
    return BodyFit(
        gender=body.data.gender,
        betas=state.betas.cpu().numpy(),
        covariance=solved.covariance.cpu().numpy(),
        views=tuple(fitted),
        iterations=solved.iterations,
        wear=solved.wear,
    )
