"""A photo's evidence, brought to one scale: the person 820 px high, whatever the photo's size.

That makes the cost of a fit, and the meaning of every pixel in it, independent of the photo.
"""

from __future__ import annotations

from dataclasses import dataclass

import contourpy
import numpy as np
import torch
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial import cKDTree

from worker.avatar.fit import priors
from worker.avatar.fit.definitions import keypoint_noise
from worker.avatar.types import BoolArray, Float32Array, Float64Array, Observation, ViewName
from worker.errors import BodyHidden

SEEN_CONFIDENCE = 0.2
"""Keypoints below this are not used: BlazePose invents the hidden side."""
_CONTOUR_STEP_PX = 3.0
_SHORTEST_CONTOUR_PX = 40.0
_CONTOUR_SMOOTHING_PX = 1.2
_NORMAL_SMOOTHING_PX = 2.5
_BORDER_PX = 3.0
_SKIN_DEPTHS_PX = (4.0, 6.0, 8.0)
"""How far inside of the outline skin is looked for: the edge itself mixes with what is behind."""
_MARGIN_PX = 12
_NORMAL_WEIGHT_PX = 25.0
"""Opposite directions count as this many pixels of distance when outlines are matched."""


@dataclass(frozen=True, slots=True)
class Contour:
    """An outline as points with outward normals, ready to be matched."""

    points: Float64Array
    """(P, 2) pixels at working scale."""
    normals: Float64Array
    """(P, 2) unit, pointing away from the body."""
    bare: Float64Array
    """(P,) probability that the skin itself is seen just inside."""
    tree: cKDTree
    """Over `features(points, normals)`."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one view says, at working scale."""

    view: ViewName
    scale: float
    """Working pixels in a pixel of the photo."""
    focal_px: float
    focal_sigma: float
    """Of the logarithm of `focal_px`."""
    centre_px: tuple[float, float]
    """The principal point."""
    keypoints: Float64Array
    """(23, 2) where the body's keypoints are, by the usual errors of who marked them."""
    keypoints_marked: Float64Array
    """(23, 2) where they were marked, less what errors have on everybody in common."""
    keypoint_marking: Float64Array
    """(46, 46) from where keypoints are to there: errors go with where they are."""
    keypoint_weight: Float64Array
    """(23, 2) one over the standard deviation in x and y, pixels; 0 where not seen."""
    keypoint_root: Float64Array
    """(46, 46) makes their errors independent, once they are in standard deviations."""
    contour: Contour
    mask: BoolArray
    """(h, w) the person, cropped, at `mask_scale` working pixels a pixel."""
    mask_origin: tuple[float, float]
    """Working pixels x, y of the crop's corner."""
    mask_scale: tuple[float, float]
    """Mask pixels in a working pixel, along x and y."""


def features(points: Float64Array, normals: Float64Array) -> Float64Array:
    """(P, 4) coordinates in which near means near in place and in direction."""
    return np.concatenate((points, normals * _NORMAL_WEIGHT_PX), axis=1)


def gather(observation: Observation) -> Evidence:
    """Bring an observation to working scale and trace its outline.

    Raises:
        BodyHidden: too few keypoints were seen, or the mask holds no outline.
    """
    confidence = observation.keypoints[:, 2].astype(np.float64)
    seen = confidence > SEEN_CONFIDENCE
    if seen.sum() < 8:
        raise BodyHidden(f"only {int(seen.sum())} of 23 keypoints are seen in the photo")
    places = observation.keypoints[:, :2].astype(np.float64)
    scale = priors.PERSON_HEIGHT_PX / person_height_px(observation, places[seen])
    noise = keypoint_noise(observation)
    sigma = np.sqrt(np.diag(noise.covariance)).reshape(places.shape)
    camera = observation.intrinsics
    probability, origin, mask_scale = _working_mask(observation, scale)
    return Evidence(
        view=observation.view,
        scale=scale,
        focal_px=camera.focal_px * scale,
        focal_sigma=priors.KNOWN_FOCAL_SIGMA if camera.known else priors.ASSUMED_FOCAL_SIGMA,
        centre_px=(camera.width * scale / 2, camera.height * scale / 2),
        keypoints=places * scale - noise.offset,
        keypoints_marked=places * scale - noise.offset + noise.expected_at_usual,
        keypoint_marking=noise.marking,
        keypoint_weight=np.where(
            seen[:, None], np.sqrt(confidence.clip(0.0, 1.0))[:, None] / sigma, 0.0
        ),
        keypoint_root=_uncorrelated(noise.covariance, np.repeat(seen, 2)),
        contour=_trace(
            probability,
            origin,
            mask_scale,
            (camera.width * scale, camera.height * scale),
            _Skin(observation.skin, scale),
        ),
        mask=probability > 0.5,
        mask_origin=origin,
        mask_scale=mask_scale,
    )


def _uncorrelated(covariance: Float64Array, seen: BoolArray) -> Float64Array:
    """The inverse root of the correlation of what is seen; what is not stays by itself."""
    sigma = np.sqrt(np.diag(covariance))
    both = np.outer(seen, seen) | np.eye(len(seen), dtype=bool)
    correlation = np.where(both, covariance / np.outer(sigma, sigma), 0.0)
    # By torch, which the pipeline holds to one thread: numpy's library takes all, and beside other
    # work its threads waited for each other for 16 ms instead of 0.2.
    values, vectors = torch.linalg.eigh(torch.from_numpy(correlation))
    root: Float64Array = ((vectors / values.sqrt()) @ vectors.mT).numpy()
    return root


def person_height_px(observation: Observation, seen: Float64Array) -> float:
    """Height of the person: of the mask, bounded by what the keypoints allow.

    From eyes to heels is about nine tenths of the height; a mask that also holds someone else
    must not set the scale.
    """
    rows = np.flatnonzero(observation.mask.max(axis=1) > 0.5)
    from_keypoints = float(np.ptp(seen[:, 1])) / 0.92
    if rows.size == 0:
        raise BodyHidden("no outline of a person was found in the photo")
    return float(np.clip(rows[-1] - rows[0] + 1, 0.9 * from_keypoints, 1.15 * from_keypoints))


def _working_mask(
    observation: Observation, scale: float
) -> tuple[Float64Array, tuple[float, float], tuple[float, float]]:
    """Crop the mask to the person and shrink it to working scale; never enlarge it."""
    mask = observation.mask
    rows, columns = (np.flatnonzero(mask.max(axis=axis) > 0.3) for axis in (1, 0))
    margin = int(np.ceil(_MARGIN_PX / min(scale, 1.0)))
    top, bottom = max(rows[0] - margin, 0), min(rows[-1] + 1 + margin, mask.shape[0])
    left, right = max(columns[0] - margin, 0), min(columns[-1] + 1 + margin, mask.shape[1])
    crop = np.ascontiguousarray(mask[top:bottom, left:right], dtype=np.float32)
    height, width = crop.shape
    if scale < 1.0:
        size = (max(round(height * scale), 8), max(round(width * scale), 8))
        shrunk = torch.nn.functional.interpolate(
            torch.from_numpy(crop)[None, None], size=size, mode="area"
        )
        crop = shrunk[0, 0].numpy()
    per_x = crop.shape[1] / (width * scale)
    per_y = crop.shape[0] / (height * scale)
    return crop.astype(np.float64), (left * scale, top * scale), (per_x, per_y)


def _trace(
    probability: Float64Array,
    origin: tuple[float, float],
    mask_scale: tuple[float, float],
    image_size: tuple[float, float],
    skin: _Skin,
) -> Contour:
    """Trace the outline where the smoothed mask crosses one half, with even spacing."""
    smooth = gaussian_filter(probability, _CONTOUR_SMOOTHING_PX, mode="nearest")
    step = _CONTOUR_STEP_PX * mask_scale[1]
    pieces = []
    for line in contourpy.contour_generator(z=smooth).lines(0.5):
        points = np.asarray(line, dtype=np.float64)
        along = np.concatenate(([0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))))
        if along[-1] < _SHORTEST_CONTOUR_PX * mask_scale[1]:
            continue
        at = np.arange(0.0, along[-1], step)
        pieces.append(np.stack([np.interp(at, along, points[:, axis]) for axis in (0, 1)], axis=1))
    if not pieces:
        raise BodyHidden("no outline of a person was found in the photo")
    index = np.concatenate(pieces)
    wide = gaussian_filter(probability, _NORMAL_SMOOTHING_PX, mode="nearest")
    rows, columns = np.gradient(wide)
    at_points = index[:, ::-1].T
    slopes = [np.asarray(slope, dtype=np.float64) for slope in (columns, rows)]
    normals = -np.stack(
        [map_coordinates(slope, at_points, order=1, mode="nearest") for slope in slopes], axis=1
    )
    length = np.linalg.norm(normals, axis=1)
    # An index names a pixel's centre: half a pixel from its corner.
    points = (index + 0.5) / np.asarray(mask_scale) + np.asarray(origin)
    inside = ((points > _BORDER_PX) & (points < np.asarray(image_size) - _BORDER_PX)).all(axis=1)
    kept = inside & (length > 1e-6)
    if kept.sum() < 30:
        raise BodyHidden("the person's outline lies outside the photo")
    points, normals = points[kept], normals[kept] / length[kept, None]
    return Contour(
        points, normals, skin.inside(points, normals), cKDTree(features(points, normals))
    )


@dataclass(frozen=True, slots=True)
class _Skin:
    """Where bare skin is seen, asked for in working pixels."""

    probability: Float32Array | None
    scale: float

    def inside(self, points: Float64Array, normals: Float64Array) -> Float64Array:
        """(P,) probability of skin a little inside of an outline."""
        if self.probability is None:
            return np.zeros(len(points))
        found = []
        for depth_px in _SKIN_DEPTHS_PX:
            at = (points - depth_px * normals) / self.scale - 0.5
            found.append(map_coordinates(self.probability, at[:, ::-1].T, order=1, mode="nearest"))
        return np.asarray(np.mean(found, axis=0), dtype=np.float64)
