"""The focal length in pixels, when a photo's EXIF data tells it believably."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any

from PIL import Image
from PIL.ExifTags import IFD, Base

DIAGONAL_35MM_MM = math.hypot(36.0, 24.0)
"""Of the 35 mm film frame.  CIPA DCG-001 takes the 35 mm equivalent focal length by the
diagonal angle of view, and phones follow it (4.2 mm on a 7.0 mm diagonal is written as 26)."""

_INCH_MM = 25.4
_MM_PER_FOCAL_PLANE_UNIT = {2: _INCH_MM, 3: 10.0}  # EXIF 2.32, tag 0xA210; 2 is the default
_ASPECT_TOLERANCE = 0.02
# Shorter is a fisheye, which no pinhole describes; longer needs the person 30 m away.
_MIN_35MM_MM, _MAX_35MM_MM = 10.0, 400.0


def focal_length_px(exif: Image.Exif, size: tuple[int, int]) -> float | None:
    """Return the focal length in pixels of the picture as stored, or None.

    `FocalLengthIn35mmFilm` is preferred: cameras that crop digitally account for it there.
    Else `FocalLength` with `FocalPlaneXResolution`.  A picture that was cropped after it was
    taken has no focal length that could be told, unless one side still has its first length.

    Args:
        exif: the picture's EXIF data.
        size: width and height of the picture as stored, before its orientation is applied.
    """
    try:
        tags = exif.get_ifd(IFD.Exif)
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, struct.error):
        return None  # EXIF data is the one part of a photo that may be broken without harm
    full = _full_size(tags, size)
    if full is None:
        return None
    diagonal_px = math.hypot(*full)
    equivalent_mm = _positive(tags.get(Base.FocalLengthIn35mmFilm))
    focal_px = None
    if equivalent_mm is not None:
        focal_px = equivalent_mm / DIAGONAL_35MM_MM * diagonal_px
    else:
        focal_px = _from_focal_plane(tags, full)
    if focal_px is None:
        return None
    believable = _MIN_35MM_MM <= focal_px / diagonal_px * DIAGONAL_35MM_MM <= _MAX_35MM_MM
    return focal_px if believable else None


def _from_focal_plane(tags: Mapping[int, Any], full: tuple[float, float]) -> float | None:
    focal_mm = _positive(tags.get(Base.FocalLength))
    resolution = _positive(tags.get(Base.FocalPlaneXResolution))
    unit_mm = _MM_PER_FOCAL_PLANE_UNIT.get(tags.get(Base.FocalPlaneResolutionUnit, 2))
    recorded_width = _positive(tags.get(Base.ExifImageWidth))
    if focal_mm is None or resolution is None or unit_mm is None:
        return None
    # The resolution is that of the picture as it was taken; the file may have been scaled since.
    scale = full[0] / recorded_width if recorded_width else 1.0
    return focal_mm * resolution / unit_mm * scale


def _full_size(tags: Mapping[int, Any], size: tuple[int, int]) -> tuple[float, float] | None:
    """Return the uncropped picture's size at the file's scale, or None when it cannot be told."""
    width, height = size
    recorded_width = _positive(tags.get(Base.ExifImageWidth))
    recorded_height = _positive(tags.get(Base.ExifImageHeight))
    if recorded_width is None or recorded_height is None:
        return float(width), float(height)
    ratio = (width / height) / (recorded_width / recorded_height)
    if abs(math.log(ratio)) <= _ASPECT_TOLERANCE:
        return float(width), float(height)
    # Some programs turn the pixels and leave the two numbers as they were.
    if abs(math.log((width / height) / (recorded_height / recorded_width))) <= _ASPECT_TOLERANCE:
        return float(width), float(height)
    if width == recorded_width or height == recorded_height:
        return recorded_width, recorded_height
    return None


def _positive(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if math.isfinite(number) and number > 0 else None
