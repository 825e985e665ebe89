"""What the solver makes small: distances in standard deviations, with their derivatives.

Image distances go through the Geman-McClure loss ``c² r² / (c² + r²)`` (Geman and McClure,
"Statistical methods for tomographic image reconstruction", 1987), so that a wrong keypoint or a
bag in the outline pulls no harder than c standard deviations do, and in the end not at all.

What belongs on the photo's outline is the body's, moved out by what is worn: garments
(`worker.avatar.fit.wardrobe`), and hair, collars, hands and shoes (`worker.avatar.fit.cloth`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from worker.avatar.body.articulated import ArticulatedShape, PosedSkeleton
from worker.avatar.body.jacobian import SkinnedPoints, VertexMixtures
from worker.avatar.fit import priors, rotation
from worker.avatar.fit.camera import Projection, project
from worker.avatar.fit.cloth import REGIONS, cloth_folds, region_shares, undressed
from worker.avatar.fit.evidence import Evidence
from worker.avatar.fit.outline import Matches, Outline
from worker.avatar.fit.state import FOCAL, TURNS, VIEW_UNKNOWNS, FitState
from worker.avatar.fit.wardrobe import Wardrobe
from worker.avatar.types import ViewName


@dataclass(frozen=True, slots=True)
class ViewRows:
    """Residuals of each view, R of them, linearised."""

    residual: Tensor
    """(B, R) in standard deviations, times the root of the robust weight."""
    loss: Tensor
    """Their (robust) sum of squares, a scalar."""
    by_shared: Tensor
    """(B, R, K + W)."""
    by_view: Tensor
    """(B, R, VIEW_UNKNOWNS)."""


@dataclass(frozen=True, slots=True)
class ShapeRows:
    """Residuals that speak of what all views share: the shape, and what is worn."""

    residual: Tensor
    """(R,) in standard deviations."""
    by_shared: Tensor
    """(R, K + W)."""

    @property
    def loss(self) -> Tensor:
        """Their sum of squares, a scalar."""
        return (self.residual**2).sum()


@dataclass(frozen=True, slots=True)
class ImageTargets:
    """Where points of the body should appear in each of B views."""

    points: SkinnedPoints
    target: Tensor
    """(B, M, 2) working pixels."""
    normal: Tensor | None
    """(B, M, 2): distance counts along it; None: in both directions."""
    weight: Tensor
    """(B, M, n) one over the standard deviation of each of n residuals; 0 where not seen."""
    outlier: float
    """Scale c of the robust loss, standard deviations."""
    share: Tensor | None = None
    """(B, M) how much of an independent observation each is; None: all of one."""
    cloth: Tensor | None = None
    """(B, M, R) how much of each point lies in each region of cloth; None: in none."""
    worn: Tensor | None = None
    """(B, M, W) how far each mode of what is worn stands off at each point; None: nothing does."""
    uncorrelated: Tensor | None = None
    """(B, M·n, M·n) what makes the residuals of a view independent; None: they are.

    Robust weights come first, point by point, so that a wrong keypoint pulls what errs with it a
    little, too; the other way round was no better (docs/decisions/0023)."""

    marked: Tensor | None = None
    """(B, M·2, M·2) from where points are, one after the other, to where an observer marks them;
    None: there."""

    def loss(self, state: FitState, posed: PosedSkeleton, centre: Tensor) -> Tensor:
        """Robust sum of squares, a scalar."""
        seen = project(self.points.points(posed), state.log_focal, centre)
        residual = self._residual(seen.uv, self._away_px(state, seen))
        return self._robust(residual)

    def rows(
        self, state: FitState, posed: PosedSkeleton, centre: Tensor, turned: Tensor
    ) -> ViewRows:
        """Linearise, with the weights of iteratively reweighted least squares."""
        placed = self.points.at(posed)
        seen = project(placed.points(), state.log_focal, centre)
        residual = self._residual(seen.uv, self._away_px(state, seen))
        square = (residual * residual).sum(dim=-1, keepdim=True)
        robust = 1.0 / (1.0 + square / self.outlier**2)
        if self.share is not None:
            robust = robust * self.share.sqrt().unsqueeze(-1)
        by_point, by_focal = seen.by_point, seen.by_log_focal
        if self.normal is not None:
            by_point = self.normal.unsqueeze(-2) @ by_point
            by_focal = (self.normal * by_focal).sum(dim=-1, keepdim=True)
        moving = placed.rows(turned, by_point)
        by_view = torch.cat(
            (
                moving.by_turns.flatten(3),
                by_point,
                by_focal.unsqueeze(-1),
                self._by_cloth(state, seen, by_focal),
            ),
            dim=-1,
        )
        by_shared = torch.cat((moving.by_betas, self._by_worn(state, seen, by_focal)), dim=-1)
        if self.marked is not None:
            by_shared, by_view = (
                (self.marked @ by.flatten(1, 2)).view_as(by) for by in (by_shared, by_view)
            )
        factor = (self.weight * robust).unsqueeze(-1)
        return ViewRows(
            residual=self._apart((residual * robust).flatten(1).unsqueeze(-1)).squeeze(-1),
            loss=self._robust(residual),
            by_shared=self._apart((factor * by_shared).flatten(1, 2)),
            by_view=self._apart((factor * by_view).flatten(1, 2)),
        )

    def _apart(self, rows: Tensor) -> Tensor:
        """Make the rows (B, M·n, k) of residuals that err together independent."""
        return rows if self.uncorrelated is None else self.uncorrelated @ rows

    def _robust(self, residual: Tensor) -> Tensor:
        """Robust sum of squares of residuals (B, M, n), a scalar."""
        square = (residual * residual).sum(dim=-1, keepdim=True)
        scale_sq = self.outlier**2
        bent = residual * (scale_sq / (scale_sq + square)).sqrt()
        if self.share is not None:
            bent = bent * self.share.sqrt().unsqueeze(-1)
        return (self._apart(bent.flatten(1).unsqueeze(-1)) ** 2).sum()

    def _away_px(self, state: FitState, seen: Projection) -> Tensor | None:
        """(B, M) how far what is worn stands off at each point, pixels."""
        away = None
        if self.cloth is not None:
            away = (self.cloth * state.cloth.exp()[:, None]).sum(dim=-1)
        if self.worn is not None:
            worn = self.worn @ state.worn
            away = worn if away is None else away + worn
        return None if away is None else away * seen.per_metre

    def _by_cloth(self, state: FitState, seen: Projection, like: Tensor) -> Tensor:
        """(B, M, n, R) derivative by the logarithms of cloth."""
        if self.cloth is None:
            return like.new_zeros((*like.shape, len(REGIONS)))
        cloth = self.cloth * state.cloth.exp()[:, None]
        return (cloth * seen.per_metre.unsqueeze(-1)).unsqueeze(-2)

    def _by_worn(self, state: FitState, seen: Projection, like: Tensor) -> Tensor:
        """(B, M, n, W) derivative by the coefficients of what is worn."""
        if self.worn is None:
            return like.new_zeros((*like.shape, len(state.worn)))
        return (self.worn * seen.per_metre.unsqueeze(-1)).unsqueeze(-2)

    def _residual(self, uv: Tensor, away_px: Tensor | None) -> Tensor:
        """(B, M, 2), or (B, M, 1) along the normal."""
        if self.marked is not None:
            uv = (self.marked @ uv.flatten(1).unsqueeze(-1)).view_as(uv)
        apart = uv - self.target
        if self.normal is not None:
            apart = (apart * self.normal).sum(dim=-1, keepdim=True)
        if away_px is not None:
            apart = apart + away_px.unsqueeze(-1)
        return apart * self.weight


def keypoint_targets(
    keypoints: SkinnedPoints, views: Sequence[Evidence], like: Tensor
) -> ImageTargets:
    """The body's 23 keypoints belong where an observer would have marked them in the photo."""
    target = torch.stack([like.new_tensor(view.keypoints_marked) for view in views])
    marked = torch.stack([like.new_tensor(view.keypoint_marking) for view in views])
    weight = torch.stack([like.new_tensor(view.keypoint_weight) for view in views])
    root = torch.stack([like.new_tensor(view.keypoint_root) for view in views])
    return ImageTargets(
        keypoints,
        target,
        None,
        weight,
        priors.KEYPOINT_OUTLIER_SIGMAS,
        uncorrelated=root,
        marked=marked,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Clothing:
    """What stands between skin and outline."""

    regions: Tensor
    """(V, R) `skin_regions` of the body."""
    wardrobe: Wardrobe
    folds_m: Tensor
    """(V,) what the wardrobe's modes leave out of what is likely worn."""


def dressed_outline(
    clothing: Clothing,
    outline: Outline,
    state: FitState,
    view: ViewName,
    px_per_metre: float,
) -> Outline:
    """The outline of what is worn: the body's, moved outwards.

    Args:
        clothing: what stands between.
        outline: of the skin, in one view.
        state: how much of it there is; of this view.
        view: which it is.
        px_per_metre: at the body's distance.
    """
    edges = torch.as_tensor(outline.edges, device=state.cloth.device)[None]
    normal = state.cloth.new_tensor(outline.normals)[None]
    away = region_shares(clothing.regions, edges, normal)[0] @ state.cloth[0].exp()
    away = (away + clothing.wardrobe.shown(edges, normal, [view])[0] @ state.worn) * px_per_metre
    return replace(outline, points=outline.points + outline.normals * away.cpu().numpy()[:, None])


def outline_targets(
    shape: ArticulatedShape,
    matches: Sequence[Matches],
    state: FitState,
    views: Sequence[ViewName],
    clothing: Clothing | None,
) -> ImageTargets:
    """The outline of what is worn belongs on the photo's.

    Noise is of two kinds: the mask's own, the same everywhere, and folds.  Neighbouring points err
    together; each counts as a share of an independent one, in proportion to its length.

    Args:
        shape: the body.
        matches: of each view.
        state: how far things stand off now: the size of the folds of hair and collars hangs on it.
        views: their names.
        clothing: None: nobody wears anything.
    """
    like = shape.template
    longest = max(1, *(len(found.edges) for found in matches))
    edges = torch.zeros((len(matches), longest, 2), dtype=torch.int64, device=like.device)
    target, normal = like.new_zeros((2, len(matches), longest, 2)).unbind(0)
    valid, bare, part = like.new_zeros((3, len(matches), longest)).unbind(0)
    for view, found in enumerate(matches):
        count = len(found.edges)
        if count == 0:
            continue
        edges[view, :count] = torch.as_tensor(found.edges, device=like.device)
        target[view, :count] = like.new_tensor(found.points)
        normal[view, :count] = like.new_tensor(found.normals)
        valid[view, :count] = 1.0
        bare[view, :count] = like.new_tensor(found.bare)
        part[view, :count] = like.new_tensor(found.weight / 2.0)
    middle = VertexMixtures(shape, edges, torch.full_like(edges, 0.5, dtype=like.dtype))
    skin_sigma, outlier = priors.CONTOUR_SIGMA_PX, priors.CONTOUR_OUTLIER_SIGMAS
    share = priors.CONTOUR_INDEPENDENT_POINTS * part
    if clothing is None:
        weight = (valid / skin_sigma).unsqueeze(-1)
        return ImageTargets(middle, target, normal, weight, outlier, share)
    worn = region_shares(clothing.regions, edges, normal)
    # The body's hands are flat; people's hang half closed, and say nothing of the arm.
    share = share * (1.0 - worn[..., REGIONS.index("hand")]).clamp(min=0.0)
    regions = undressed(worn, bare)
    arms = clothing.wardrobe.may_be_bare[edges].mean(dim=2)
    modes = clothing.wardrobe.shown(edges, normal, views) * (1.0 - bare * arms).unsqueeze(-1)
    # Its size is needed roughly: the scale of a person of usual height will do.
    per_metre = priors.PERSON_HEIGHT_PX / priors.USUAL_HEIGHT_M
    hanging = (regions * state.cloth.exp()[:, None] * cloth_folds(like)).sum(dim=-1)
    folds = torch.hypot(hanging * priors.FOLDS, clothing.folds_m[edges].mean(dim=2)) * per_metre
    weight = (valid / (folds**2 + skin_sigma**2).sqrt()).unsqueeze(-1)
    regions, modes = (each * valid.unsqueeze(-1) for each in (regions, modes))
    return ImageTargets(middle, target, normal, weight, outlier, share, regions, modes)


class PosePrior:
    """People stand: rotations spread around a standing pose, focal lengths around the photo's."""

    def __init__(self, shape: ArticulatedShape, views: Sequence[Evidence], mean: Tensor) -> None:
        like = shape.template
        self._joints = list(priors.FITTED_JOINTS)
        self._mean = mean[:, self._joints]
        self._sigma = torch.stack(
            [priors.pose_sigma(view.view, dtype=like.dtype, device=like.device) for view in views]
        )
        self._log_focal = like.new_tensor([view.focal_px for view in views]).log()
        self._focal_sigma = like.new_tensor([view.focal_sigma for view in views])

    def residual(self, state: FitState) -> Tensor:
        """(B, 3A + 1) in standard deviations."""
        return self._residual(state, self._turn(state))

    def _residual(self, state: FitState, turn: Tensor) -> Tensor:
        focal = (state.log_focal - self._log_focal) / self._focal_sigma
        return torch.cat(((turn / self._sigma).flatten(1), focal[:, None]), dim=1)

    def rows(self, state: FitState, posed: PosedSkeleton) -> ViewRows:
        """Linearise: log(R₀ᵀ L) moves by J_l⁻¹ R₀ᵀ G_parentᵀ ω."""
        turn = self._turn(state)
        above = posed.carriers[:, self._joints]
        by_turn = (rotation.left_jacobian_inverse(turn) @ self._mean.mT @ above.mT) / self._sigma[
            ..., None
        ]
        views, count = turn.shape[:2]
        by_view = turn.new_zeros((views, 3 * count + 1, VIEW_UNKNOWNS))
        # A joint's turn moves its own three residuals: blocks along the diagonal.
        at = torch.arange(3 * count, device=turn.device).view(count, 3)
        by_view[:, at[:, :, None], at[:, None]] = by_turn
        by_view[:, -1, FOCAL] = 1.0 / self._focal_sigma
        by_shared = turn.new_zeros((views, TURNS + 1, len(state.shared)))
        residual = self._residual(state, turn)
        return ViewRows(residual, (residual**2).sum(), by_shared, by_view)

    def _turn(self, state: FitState) -> Tensor:
        return rotation.log(self._mean.mT @ state.local[:, self._joints])
