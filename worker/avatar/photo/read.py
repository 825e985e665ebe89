"""`read_photo`: the one way in for bytes that a stranger made."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from worker.avatar.photo.decode import decode
from worker.avatar.types import ByteArray, Photo, ViewName
from worker.errors import PhotoTooDark, PhotoTooLarge, PhotoTooSmall

MAX_BYTES = 25_000_000
"""Phones write 2 to 15 MB; the advice of `PhotoTooLarge` names this number."""
MAX_PIXELS = 50_000_000
"""A 48-megapixel phone photo passes; the advice of `PhotoTooLarge` names this number."""
MIN_HEIGHT_PX = 480
"""Below it a pixel is more than 4 mm of the body; named in the advice of `PhotoTooSmall`."""
WORKING_SIDE_PX = 1600
"""Longest side that is kept: about 1.2 mm of the body a pixel."""

_MIN_WIDTH_PX = 160
_MIN_BRIGHT = 40
"""Grey level that a fiftieth of the picture must reach, or nothing can be made out."""
_MIN_RANGE = 24
"""Grey levels between the darkest and brightest fiftieth."""


def read_photo(
    path: Path,
    view: ViewName,
    *,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
    side_px: int = WORKING_SIDE_PX,
) -> Photo:
    """Read a JPEG, PNG, WebP or HEIC file as an upright sRGB picture.

    The orientation is applied, an embedded colour profile is applied, transparent pixels are
    laid on grey, the longest side is brought down to `side_px`, and all metadata but
    the focal length is dropped.

    Args:
        path: the file; its name says nothing.
        view: from where the photo is said to show the person.
        max_bytes: checked before the file is read.
        max_pixels: width × height, checked before anything is decoded.
        side_px: longest side that is kept; smaller costs less memory in all stages.

    Raises:
        PhotoTooLarge, PhotoTruncated, PhotoUnreadable, PhotoUnsupported, PhotoAnimated: the
            file.
        PhotoTooSmall, PhotoTooDark: the picture.
    """
    size_bytes = path.stat().st_size
    if size_bytes > max_bytes:
        raise PhotoTooLarge(
            f"The photo has {size_bytes / 1e6:.0f} MB; at most {max_bytes / 1e6:.0f} are read."
        )
    decoded = decode(path.read_bytes(), max_pixels=max_pixels, side_px=side_px)
    pixels = np.ascontiguousarray(np.asarray(decoded.image, dtype=np.uint8))
    _check_size(decoded.full_size)
    _check_light(pixels)
    usual_px = min(max(decoded.full_size), WORKING_SIDE_PX)
    shrunk = min(max(pixels.shape[:2]) / usual_px, 1.0)
    return Photo(view=view, pixels=pixels, focal_px=decoded.focal_px, shrunk=shrunk)


def _check_size(size: tuple[int, int]) -> None:
    width, height = size
    if height < MIN_HEIGHT_PX or width < _MIN_WIDTH_PX:
        raise PhotoTooSmall(f"The photo has only {width} × {height} pixels.")


def _check_light(pixels: ByteArray) -> None:
    """Refuse pictures in which nothing can be seen; how the person is lit, the observer judges."""
    grey = pixels[::4, ::4].mean(axis=2)
    darkest, brightest = np.percentile(grey, (2, 98))
    if brightest < _MIN_BRIGHT:
        raise PhotoTooDark("The photo is almost black.")
    if brightest - darkest < _MIN_RANGE:
        raise PhotoTooDark("The photo shows one even colour.")
