"""What a caller may choose about the fit."""

from __future__ import annotations

from dataclasses import dataclass

USUAL_ERODE_PX = 8.0


@dataclass(frozen=True, slots=True)
class FitOptions:
    """Choices of the operator; the defaults are those of the contract's environment."""

    silhouette_refine: bool = True
    """Refine by the outlines (SILHOUETTE_REFINE_ENABLED); False leaves keypoints and priors."""
    silhouette_torso_erode_px: float = USUAL_ERODE_PX
    """How much clothing is expected (SILHOUETTE_TORSO_ERODE_PX), beside the default 8: at 16 all
    garments are expected to stand off twice as far, at 0 nobody wears anything.  It also moves what
    kind of clothes is believed: below 6, people in nothing are taken for thinly dressed ones."""

    @property
    def dressed(self) -> bool:
        """Whether anybody may wear anything."""
        return self.silhouette_torso_erode_px > 0

    @property
    def cloth_scale(self) -> float:
        """How many times the usual thickness clothes are expected to have."""
        return self.silhouette_torso_erode_px / USUAL_ERODE_PX
