"""What a caller may choose about the fit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FitOptions:
    """Choices of the operator; the defaults are those of the contract's environment."""

    silhouette_refine: bool = True
    """Refine by the outlines (SILHOUETTE_REFINE_ENABLED); False leaves keypoints and priors."""
    silhouette_torso_erode_px: float = 8.0
    """How much cloth the outline holds where people wear any (SILHOUETTE_TORSO_ERODE_PX), in
    pixels of a photo in which the person is 3,200 px high, as on a 12-megapixel phone, so that
    the outcome does not depend on the photo's size."""
