"""A photo and its mirror image, so that networks can look at both.

No network sees quite the same in a photo and in its mirror image; neither is nearer to the truth.
What is made of both alike, by the same steps on each, does not know left from right: the mirror
image of a photo gives the mirror image of what is seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from worker.avatar.observe.roi import Outside, Roi
from worker.avatar.types import Float32Array


@dataclass(frozen=True, slots=True)
class BothWays:
    """A photo as it is and mirrored."""

    image: Image.Image
    """RGB."""
    mirrored: Image.Image

    @classmethod
    def of(cls, image: Image.Image) -> BothWays:
        """Mirror a photo."""
        return cls(image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return self.image.width

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return self.image.height

    def crops(
        self, roi: Roi, size_px: int, *, outside: Outside
    ) -> tuple[Float32Array, Float32Array]:
        """Cut one square out of both: (size_px, size_px, 3), 0..1, the second one mirrored.

        Each is cut out of its own photo and not the other turned: shrinking begins at the left.
        """
        crops = (
            roi.crop(self.image, size_px, outside=outside),
            roi.mirrored(self.width).crop(self.mirrored, size_px, outside=outside),
        )
        straight, turned = (crop.astype(np.float32) / 255.0 for crop in crops)
        return straight, turned
