"""Shoppers' files become upright sRGB pixels, or a named refusal."""

from worker.avatar.photo.read import (
    MAX_BYTES,
    MAX_PIXELS,
    MIN_HEIGHT_PX,
    WORKING_SIDE_PX,
    read_photo,
)

__all__ = ["MAX_BYTES", "MAX_PIXELS", "MIN_HEIGHT_PX", "WORKING_SIDE_PX", "read_photo"]
