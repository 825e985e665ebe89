"""From a file's bytes to upright 8-bit sRGB, without trusting the file.

Size limits are checked on the header, before any decoder allocates a canvas.  Each format is
opened by its own plugin class: `Image.open` would guess among all formats, turn a portrait
JPEG with a depth picture behind it (MPO) into a several-frames file, and keep global limits.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from worker.avatar.photo.exif import focal_length_px
from worker.avatar.photo.heic import decoded, open_heic
from worker.avatar.photo.sniff import Format, png_size, sniff, webp_size
from worker.errors import PhotoAnimated, PhotoTooLarge, PhotoTruncated, PhotoUnreadable

# What Pillow's plugins and libheif raise on damaged files.
_DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, RuntimeError, IndexError, KeyError, TypeError,
    struct.error, zlib.error, OverflowError,
)  # fmt: skip
_BACKGROUND = (128, 128, 128)
"""Behind transparent pixels: neither bright nor dark clothes melt into it."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """An upright RGB picture and what its file said about the lens."""

    image: Image.Image
    focal_px: float | None
    """In pixels of `image`."""
    full_size: tuple[int, int]
    """Width and height upright, before it was brought down."""


def decode(data: bytes, *, max_pixels: int, side_px: int) -> Decoded:
    """Decode a photo, turn it upright and bring its longest side down to `side_px`.

    Raises:
        PhotoTruncated, PhotoUnreadable, PhotoUnsupported, PhotoAnimated: see `sniff`.
        PhotoTooLarge: the header announces more than `max_pixels`.
    """
    kind = sniff(data)
    with warnings.catch_warnings():
        # Pillow warns about broken metadata, which the shopper can do nothing about.
        warnings.simplefilter("ignore")
        return _decoded(kind, data, max_pixels, side_px)


def _decoded(kind: Format, data: bytes, max_pixels: int, side_px: int) -> Decoded:
    try:
        image = _open(kind, data, max_pixels)
        stored_size = image.size
        if kind is Format.JPEG:
            # libjpeg can skip most of the work when half, quarter or eighth size is enough.
            image.draft(None, (2 * side_px, 2 * side_px))
        image.load()
    except _DECODER_ERRORS as error:
        raise _refusal(kind, error) from error
    exif = _exif(image)
    focal_px = focal_length_px(exif, stored_size)
    profile = image.info.get("icc_profile")
    upright = _upright(_reduced(_eight_bit(image), side_px), exif)
    scale = max(upright.size) / max(stored_size)
    lying = (upright.width > upright.height) != (stored_size[0] > stored_size[1])
    return Decoded(
        image=_srgb(upright, profile),
        focal_px=None if focal_px is None else focal_px * scale,
        full_size=stored_size[::-1] if lying else stored_size,
    )


def _open(kind: Format, data: bytes, max_pixels: int) -> Image.Image:
    """Open lazily: after this the size is known to be fit to decode."""
    match kind:
        case Format.JPEG:
            jpeg = JpegImageFile(io.BytesIO(data))
            _check_pixels(jpeg.size, max_pixels)
            return jpeg
        case Format.PNG:
            _check_pixels(png_size(data), max_pixels)
            png = PngImageFile(io.BytesIO(data))
            if getattr(png, "n_frames", 1) > 1:
                raise PhotoAnimated
            return png
        case Format.WEBP:
            _check_pixels(webp_size(data), max_pixels)
            return WebPImageFile(io.BytesIO(data))
        case Format.HEIC:
            picture = open_heic(data)
            _check_pixels(picture.size, max_pixels)
            return decoded(picture)


def _check_pixels(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise PhotoUnreadable("The picture has no pixels.")
    if width * height > max_pixels:
        raise PhotoTooLarge(
            f"The photo has {width * height / 1e6:.0f} megapixels; at most "
            f"{max_pixels / 1e6:.0f} are read."
        )


def _refusal(kind: Format, error: Exception) -> PhotoTruncated | PhotoUnreadable:
    text = str(error).lower()
    # Only the message tells these apart: Pillow raises OSError, libheif EOFError or ValueError.
    cut = isinstance(error, EOFError) or any(
        hint in text for hint in ("truncated", "end of file", "eof", "unexpected end")
    )
    if cut:
        return PhotoTruncated()
    return PhotoUnreadable(f"The {kind} file is damaged.")


def _exif(image: Image.Image) -> Image.Exif:
    try:
        return image.getexif()
    except _DECODER_ERRORS:
        return Image.Exif()  # a photo with broken EXIF data is still a photo


def _eight_bit(image: Image.Image) -> Image.Image:
    """Bring any mode to L, RGB or CMYK, the modes whose profiles can be applied."""
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip it
        grey = np.asarray(image).astype(np.int64).clip(0, 65535) // 257
        return Image.fromarray(grey.astype(np.uint8))
    if image.mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info:
        canvas = Image.new("RGBA", image.size, (*_BACKGROUND, 255))
        return Image.alpha_composite(canvas, image.convert("RGBA")).convert("RGB")
    return image if image.mode in {"L", "RGB", "CMYK"} else image.convert("RGB")


def _reduced(image: Image.Image, side_px: int) -> Image.Image:
    longest = max(image.size)
    if longest <= side_px:
        return image
    width, height = (max(1, round(side * side_px / longest)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


def _upright(image: Image.Image, exif: Image.Exif) -> Image.Image:
    turned = image.copy()
    turned.info = {}
    turned.getexif()[0x0112] = exif.get(0x0112, 1)
    ImageOps.exif_transpose(turned, in_place=True)
    return turned


def _srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(
                image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass  # a damaged profile, or one of another colour space: the numbers are all we have
        else:
            if converted is not None:
                return converted
    return image.convert("RGB")
