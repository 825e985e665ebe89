"""What the solver makes small: distances in standard deviations, with their derivatives.

Image distances go through the Geman-McClure loss ``c² r² / (c² + r²)`` (Geman and McClure,
"Statistical methods for tomographic image reconstruction", 1987), so that a wrong keypoint or a
bag in the outline pulls no harder than c standard deviations do, and in the end not at all.

Cloth lies on a body, never inside it: what belongs on the photo's outline is the body's, moved
out by what is worn (`worker.avatar.fit.cloth`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from worker.avatar.body.jacobian import (
    ArticulatedShape,
    PosedSkeleton,
    SkinnedPoints,
    VertexMixtures,
)
from worker.avatar.body.model import People
from worker.avatar.fit import priors, rotation
from worker.avatar.fit.camera import Projection, project
from worker.avatar.fit.cloth import REGIONS, cloth_folds, region_shares, undressed
from worker.avatar.fit.evidence import Evidence
from worker.avatar.fit.laplace import log_evidence, shares
from worker.avatar.fit.outline import Matches, Outline
from worker.avatar.fit.state import FOCAL, TURNS, VIEW_UNKNOWNS, FitState
from worker.errors import OutOfRange


@dataclass(frozen=True, slots=True)
class ViewRows:
    """Residuals of each view, R of them, linearised."""

    residual: Tensor
    """(B, R) in standard deviations, times the root of the robust weight."""
    loss: Tensor
    """Their (robust) sum of squares, a scalar."""
    by_betas: Tensor
    """(B, R, K)."""
    by_view: Tensor
    """(B, R, VIEW_UNKNOWNS)."""


@dataclass(frozen=True, slots=True)
class ShapeRows:
    """Residuals that speak of the shape alone."""

    residual: Tensor
    """(R,) in standard deviations."""
    by_betas: Tensor
    """(R, K)."""

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

    def loss(self, state: FitState, posed: PosedSkeleton, centre: Tensor) -> Tensor:
        """Robust sum of squares, a scalar."""
        seen = project(self.points.points(posed), state.log_focal, centre)
        residual = self._residual(seen.uv, self._cloth_px(state, seen))
        return self._robust((residual * residual).sum(dim=-1))

    def rows(
        self, state: FitState, posed: PosedSkeleton, centre: Tensor, turned: Tensor
    ) -> ViewRows:
        """Linearise, with the weights of iteratively reweighted least squares."""
        seen = project(self.points.points(posed), state.log_focal, centre)
        cloth_px = self._cloth_px(state, seen)
        residual = self._residual(seen.uv, cloth_px)
        square = (residual * residual).sum(dim=-1, keepdim=True)
        robust = 1.0 / (1.0 + square / self.outlier**2)
        if self.share is not None:
            robust = robust * self.share.sqrt().unsqueeze(-1)
        by_point, by_focal = seen.by_point, seen.by_log_focal
        if self.normal is not None:
            by_point = self.normal.unsqueeze(-2) @ by_point
            by_focal = (self.normal * by_focal).sum(dim=-1, keepdim=True)
        moving = self.points.rows(posed, turned, by_point)
        if cloth_px is None:
            cloth = by_focal.new_zeros((*by_focal.shape, len(REGIONS)))
        else:
            cloth = cloth_px.unsqueeze(-2)
        by_view = torch.cat(
            (moving.by_turns.flatten(3), by_point, by_focal.unsqueeze(-1), cloth), dim=-1
        )
        factor = (self.weight * robust).unsqueeze(-1)
        return ViewRows(
            residual=(residual * robust).flatten(1),
            loss=self._robust(square.squeeze(-1)),
            by_betas=(factor * moving.by_betas).flatten(1, 2),
            by_view=(factor * by_view).flatten(1, 2),
        )

    def _robust(self, square: Tensor) -> Tensor:
        """Robust sum of squared residuals (B, M)."""
        scale_sq = self.outlier**2
        robust = scale_sq * square / (scale_sq + square)
        return (robust if self.share is None else robust * self.share).sum()

    def _cloth_px(self, state: FitState, seen: Projection) -> Tensor | None:
        """(B, M, R) how far the cloth of each region stands off at each point, pixels."""
        if self.cloth is None:
            return None
        per_metre = seen.by_point[..., 0, 0].unsqueeze(-1)
        return self.cloth * state.cloth.exp()[:, None] * per_metre

    def _residual(self, uv: Tensor, cloth_px: Tensor | None) -> Tensor:
        """(B, M, 2), or (B, M, 1) along the normal."""
        apart = uv - self.target
        if self.normal is not None:
            apart = (apart * self.normal).sum(dim=-1, keepdim=True)
        if cloth_px is not None:
            apart = apart + cloth_px.sum(dim=-1, keepdim=True)
        return apart * self.weight


def keypoint_targets(
    keypoints: SkinnedPoints, views: Sequence[Evidence], like: Tensor
) -> ImageTargets:
    """The body's 23 keypoints belong where the photo's were seen."""
    target = torch.stack([like.new_tensor(view.keypoints) for view in views])
    weight = torch.stack([like.new_tensor(view.keypoint_weight) for view in views])
    return ImageTargets(keypoints, target, None, weight, priors.KEYPOINT_OUTLIER_SIGMAS)


def dressed_outline(skin: Tensor, outline: Outline, cloth: Tensor, px_per_metre: float) -> Outline:
    """The outline of what is worn: the body's, moved outwards.

    Args:
        skin: (V, R) `skin_regions` of the body.
        outline: of its skin, in one view.
        cloth: (R,) logarithm of how many metres cloth stands off.
        px_per_metre: at the body's distance.
    """
    edges = torch.as_tensor(outline.edges, device=cloth.device)[None]
    normal = cloth.new_tensor(outline.normals)[None]
    away = region_shares(skin, edges, normal)[0] @ cloth.exp() * px_per_metre
    return replace(outline, points=outline.points + outline.normals * away.cpu().numpy()[:, None])


def outline_targets(
    shape: ArticulatedShape,
    matches: Sequence[Matches],
    state: FitState,
    skin: Tensor | None,
) -> ImageTargets:
    """The outline of what is worn belongs on the photo's.

    Noise is of two kinds: the mask's own, the same everywhere, and folds, the larger the farther
    cloth stands off.  Neighbouring points err together, over longer stretches in cloth than on
    skin; each counts as that share of an independent one, in proportion to its length.

    Args:
        shape: the body.
        matches: of each view.
        state: how far cloth stands off now: the size of its folds is taken from it.
        skin: (V, R) `skin_regions` of the body; None: nobody wears anything.
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
    if skin is None:
        weight = (valid / skin_sigma).unsqueeze(-1)
        return ImageTargets(middle, target, normal, weight, outlier, share)
    worn = region_shares(skin, edges, normal)
    # The body's hands are flat; people's hang half closed, and say nothing of the arm.
    share = share * (1.0 - worn[..., REGIONS.index("hand")]).clamp(min=0.0)
    regions = undressed(worn, bare)
    # Its size is needed roughly: the scale of a person of usual height will do.
    per_metre = priors.PERSON_HEIGHT_PX / priors.USUAL_HEIGHT_M
    hanging = regions * state.cloth.exp()[:, None] * cloth_folds(like)
    folds = hanging.sum(dim=-1) * (priors.FOLDS * per_metre)
    longer = priors.CONTOUR_INDEPENDENT_POINTS / priors.CLOTHED_INDEPENDENT_POINTS
    variance = skin_sigma**2 + folds**2
    share = share * variance / (skin_sigma**2 + longer * folds**2)
    weight = (valid / variance.sqrt()).unsqueeze(-1)
    regions = regions * valid.unsqueeze(-1)
    return ImageTargets(middle, target, normal, weight, outlier, share, regions)


class PosePrior:
    """People stand: rotations spread around a standing pose, focal lengths around the photo's."""

    def __init__(self, shape: ArticulatedShape, views: Sequence[Evidence], mean: Tensor) -> None:
        like = shape.template
        self._shape = shape
        self._joints = list(priors.FITTED_JOINTS)
        self._mean = mean[:, self._joints]
        self._sigma = priors.pose_sigma(dtype=like.dtype, device=like.device)
        self._log_focal = like.new_tensor([view.focal_px for view in views]).log()
        self._focal_sigma = like.new_tensor([view.focal_sigma for view in views])

    def residual(self, state: FitState) -> Tensor:
        """(B, 3A + 1) in standard deviations."""
        return self._residual(state, self._turn(state))

    def _residual(self, state: FitState, turn: Tensor) -> Tensor:
        focal = (state.log_focal - self._log_focal) / self._focal_sigma
        return torch.cat(((turn / self._sigma).flatten(1), focal[:, None]), dim=1)

    def rows(self, state: FitState) -> ViewRows:
        """Linearise: log(R₀ᵀ L) moves by J_l⁻¹ R₀ᵀ G_parentᵀ ω."""
        turn = self._turn(state)
        above = self._shape.parent_rotations(self._shape.global_rotations(state.local))
        by_turn = (
            rotation.left_jacobian_inverse(turn) @ self._mean.mT @ above[:, self._joints].mT
        ) / self._sigma[:, :, None]
        views, count = turn.shape[:2]
        by_view = turn.new_zeros((views, 3 * count + 1, VIEW_UNKNOWNS))
        # A joint's turn moves its own three residuals: blocks along the diagonal.
        at = torch.arange(3 * count, device=turn.device).view(count, 3)
        by_view[:, at[:, :, None], at[:, None]] = by_turn
        by_view[:, -1, FOCAL] = 1.0 / self._focal_sigma
        by_betas = turn.new_zeros((views, TURNS + 1, self._shape.num_betas))
        residual = self._residual(state, turn)
        return ViewRows(residual, (residual**2).sum(), by_betas, by_view)

    def _turn(self, state: FitState) -> Tensor:
        return rotation.log(self._mean.mT @ state.local[:, self._joints])


class ShapePrior:
    """Betas are spread as people's are; stature and, when declared, weight are what was declared.

    Args:
        shape: the body.
        people: how betas are spread; None: each is standard normal.
        height_m: declared stature.
        weight_kg: declared weight, if any.
    """

    def __init__(
        self,
        shape: ArticulatedShape,
        people: People | None,
        height_m: float,
        weight_kg: float | None,
    ) -> None:
        self._shape = shape
        self._height_m = height_m
        self._weight_kg = weight_kg
        like, count = shape.template, shape.num_betas
        if people is None:
            self._means = like.new_zeros((1, count))
            self._covariances = torch.eye(count, dtype=like.dtype, device=like.device)[None]
        else:
            self._means = like.new_tensor(people.means[:, :count])
            self._covariances = like.new_tensor(people.covariances[:, :count, :count])
        self._expect([1.0 / len(self._means)] * len(self._means))

    def _expect(self, chances: Sequence[float]) -> None:
        """Take the Gaussian with mean and covariance of the mixture."""
        weights = self._means.new_tensor(chances)
        self._usual = weights @ self._means
        apart = self._means - self._usual
        spread = self._covariances + apart[:, :, None] * apart[:, None, :]
        covariance = (weights[:, None, None] * spread).sum(dim=0)
        self._whiten = torch.linalg.inv(torch.linalg.cholesky(covariance))

    def weigh(self, betas: Tensor, matrix: Tensor, gradient: Tensor) -> None:
        """Expect from now on whom the photos leave possible.

        Args:
            betas: (K,) where the solver stands.
            matrix: (N, N) JᵀJ of everything, this prior too; betas come first.
            gradient: (N,) Jᵀr of the same.
        """
        if len(self._means) == 1:
            return
        at = torch.arange(len(betas), device=betas.device)
        ours = self._whiten.mT @ self._whiten
        matrix, gradient = matrix.clone(), gradient.clone()
        matrix[at[:, None], at] -= ours
        gradient[at] -= ours @ (betas - self._usual)
        self._expect(
            shares(
                [
                    log_evidence(matrix, gradient, at, precision, betas - mean)
                    for mean, precision in zip(
                        self._means, torch.linalg.inv(self._covariances), strict=True
                    )
                ]
            )
        )

    def check_height(self) -> None:
        """Refuse heights that hardly any body of the model has.

        Raises:
            OutOfRange: with the range.
        """
        stature, top, floor = self._stature(self._shape.template.new_zeros(self._shape.num_betas))
        usual_m = self._height_m + float(stature) * priors.HEIGHT_SIGMA_M
        directions = self._shape.shapedirs
        spread_m = float((directions[top, 1] - directions[floor, 1]).norm())
        if abs(self._height_m - usual_m) > priors.FARTHEST_HEIGHT_SIGMAS * spread_m:
            reach_m = priors.FARTHEST_HEIGHT_SIGMAS * spread_m
            raise OutOfRange(
                f"The body model reaches from {usual_m - reach_m:.2f} to {usual_m + reach_m:.2f} m;"
                f" {self._height_m:.2f} m is outside."
            )

    def residual(self, betas: Tensor) -> Tensor:
        """(R,) in standard deviations."""
        parts = [self._whiten @ (betas - self._usual), self._stature(betas)[0]]
        if self._weight_kg is not None:
            parts.append(self._mass(self._shape.shaped(betas), self._weight_kg))
        return torch.cat(parts)

    def rows(self, betas: Tensor) -> ShapeRows:
        """Linearise."""
        residual = [self._whiten @ (betas - self._usual)]
        by_betas = [self._whiten]
        stature, top, floor = self._stature(betas)
        residual.append(stature)
        directions = self._shape.shapedirs
        by_betas.append((directions[top, 1] - directions[floor, 1])[None] / priors.HEIGHT_SIGMA_M)
        if self._weight_kg is not None:
            vertices = self._shape.shaped(betas)
            residual.append(self._mass(vertices, self._weight_kg))
            by_betas.append(
                (self._mass_by_vertex(vertices).flatten() @ directions.flatten(0, 1))[None]
            )
        return ShapeRows(torch.cat(residual), torch.cat(by_betas))

    def weight_disagreement(self, betas: Tensor) -> float | None:
        """How many standard deviations a body is heavier than declared; None: nothing was."""
        if self._weight_kg is None:
            return None
        return float(self._mass(self._shape.shaped(betas), self._weight_kg))

    def _stature(self, betas: Tensor) -> tuple[Tensor, int, int]:
        """Residual (1,) and the vertices of crown and soles that it hangs on."""
        stature, top, floor = self._shape.stature(betas)
        return ((stature - self._height_m) / priors.HEIGHT_SIGMA_M)[None], top, floor

    def _mass(self, vertices: Tensor, weight_kg: float) -> Tensor:
        """Residual (1,) of vertices (V, 3) at rest.

        The volume inside a closed mesh is the sum of a·(b×c)/6 over its faces (Zhang and Chen,
        "Efficient feature extraction for 2D/3D objects in mesh representation", 2001).
        """
        a, b, c = vertices[self._shape.faces].unbind(dim=1)
        mass_kg: Tensor = (a * torch.linalg.cross(b, c)).sum() / 6.0 * priors.BODY_DENSITY_KG_M3
        return ((mass_kg - weight_kg) / priors.WEIGHT_SIGMA_KG).unsqueeze(0)

    def _mass_by_vertex(self, vertices: Tensor) -> Tensor:
        """Derivative (V, 3) of `_mass` by the vertices."""
        faces = self._shape.faces
        corners = vertices[faces]
        by_vertex = torch.zeros_like(vertices)
        for corner in range(3):
            b, c = corners[:, (corner + 1) % 3], corners[:, (corner + 2) % 3]
            by_vertex.index_add_(0, faces[:, corner], torch.linalg.cross(b, c))
        return by_vertex * (priors.BODY_DENSITY_KG_M3 / (6.0 * priors.WEIGHT_SIGMA_KG))
