"""What a file is, judged by its first bytes, and whether it is all there.

Names and extensions lie, so nobody looks at them.  The canvas sizes of PNG and WebP are read
here because Pillow's own WebP decoder allocates the canvas as soon as the file is opened.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import StrEnum

from worker.errors import PhotoAnimated, PhotoTruncated, PhotoUnreadable, PhotoUnsupported


class Format(StrEnum):
    """The formats that are read."""

    JPEG = "JPEG"
    PNG = "PNG"
    WEBP = "WebP"
    HEIC = "HEIC"


# Major brands of ISO/IEC 23008-12 (HEIF) files that hold HEVC still pictures; `mif1` is the
# structural brand, which files with any codec may carry as major brand.
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"mif1", b"mif2"})
_SEQUENCE_BRANDS = frozenset({b"hevc", b"hevx", b"hevm", b"hevs", b"msf1"})

_OTHER_PICTURES: tuple[tuple[bytes, str], ...] = (
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF or camera raw"),
    (b"MM\0*", "TIFF or camera raw"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"FUJIFILMCCD-RAW", "camera raw"),
    (b"8BPS", "Photoshop"),
    (b"%PDF", "PDF"),
    (b"\0\0\1\0", "icon"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
)


def sniff(data: bytes) -> Format:
    """Tell the format of a complete file.

    Raises:
        PhotoTruncated: the file is empty, or shorter than its own header says.
        PhotoAnimated: it is an image sequence.
        PhotoUnsupported: it is a picture of another kind, or a video.
        PhotoUnreadable: it is no picture at all.
    """
    if not data:
        raise PhotoTruncated("The file is empty.")
    if data.startswith(b"\xff\xd8\xff"):
        return Format.JPEG
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return Format.PNG
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        _check_riff_is_whole(data)
        return Format.WEBP
    if data[4:8] == b"ftyp":
        return _sniff_iso_media(data)
    for magic, name in _OTHER_PICTURES:
        if data.startswith(magic):
            raise PhotoUnsupported(f"The file is a {name} file, which is not accepted.")
    raise _no_picture(data)


def png_size(data: bytes) -> tuple[int, int]:
    """Return width and height from a PNG's IHDR chunk (PNG specification, 11.2.2)."""
    if len(data) < 33:
        raise PhotoTruncated
    if data[12:16] != b"IHDR":
        raise PhotoUnreadable("The PNG file does not begin with its header.")
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def webp_size(data: bytes) -> tuple[int, int]:
    """Return canvas width and height from a WebP's first chunk (RFC 9649)."""
    if len(data) < 30:
        raise PhotoTruncated
    kind, body = data[12:16], data[20:]
    if kind == b"VP8X":
        if body[0] & 0x02:
            raise PhotoAnimated
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", body[6:10])
        return width & 0x3FFF, height & 0x3FFF
    raise PhotoUnreadable("The WebP file does not begin with a picture.")


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield type and body of each box in a file or in another box (ISO/IEC 14496-12, 4.2).

    Raises:
        PhotoTruncated: a box is larger than what there is.
        PhotoUnreadable: a box is smaller than its own header.
    """
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        header_bytes = 8
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
            header_bytes = 16
        elif size == 0:  # the box reaches to the end
            size = len(data) - at
        if at + size > len(data):
            raise PhotoTruncated
        if size < header_bytes:
            raise PhotoUnreadable("The HEIC file is damaged.")
        yield data[at + 4 : at + 8], data[at + header_bytes : at + size]
        at += size


def _check_riff_is_whole(data: bytes) -> None:
    if len(data) < 8 + int.from_bytes(data[4:8], "little"):
        raise PhotoTruncated


def _sniff_iso_media(data: bytes) -> Format:
    brands = _brands(data)
    if b"avif" in brands or b"avis" in brands:
        raise PhotoUnsupported("The file is an AVIF file, which is not accepted.")
    if brands[0] in _SEQUENCE_BRANDS:
        raise PhotoAnimated("The HEIF file is a sequence of pictures.")
    if not _HEIC_BRANDS.intersection(brands):
        raise PhotoUnsupported("The file is a video, not a photo.")
    for _ in boxes(data):
        pass  # a box that is cut off raises
    return Format.HEIC


def _brands(data: bytes) -> tuple[bytes, ...]:
    """Return the major brand and the compatible ones of the `ftyp` box (ISO/IEC 14496-12, 4.3)."""
    size = min(int.from_bytes(data[:4], "big"), len(data), 256)
    return (data[8:12], *(data[at : at + 4] for at in range(16, size - 3, 4)))


def _no_picture(data: bytes) -> PhotoUnreadable | PhotoUnsupported:
    text = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<svg", b"<?xml")) and b"<svg" in text:
        return PhotoUnsupported("The file is an SVG drawing, not a photo.")
    if text.startswith((b"<!doctype html", b"<html", b"<head")):
        return PhotoUnreadable("The file is a web page, not a photo.")
    return PhotoUnreadable()
