"""HEIC pictures, by libheif through pi-heif (decoding only, LGPL)."""

from __future__ import annotations

import pi_heif
from PIL import Image

from worker.avatar.photo.sniff import boxes
from worker.errors import PhotoAnimated, PhotoUnreadable

# Only the picture is wanted: what else the file holds is not even looked at.
pi_heif.options.THUMBNAILS = False
pi_heif.options.DEPTH_IMAGES = False
pi_heif.options.AUX_IMAGES = False


def open_heic(data: bytes) -> pi_heif.HeifImage:
    """Return the primary picture, not yet decoded; libheif itself turns and crops it.

    Raises:
        PhotoAnimated: there are several pictures of its size, as in a burst.  Thumbnails, depth
            and gain maps are auxiliary and not counted.
        PhotoUnreadable: the item table is damaged.
    """
    _check_item_names(data)
    file = pi_heif.open_heif(data)
    primary = file[file.primary_index]
    if sum(picture.size == primary.size for picture in file) > 1:
        raise PhotoAnimated
    return primary


def decoded(picture: pi_heif.HeifImage) -> Image.Image:
    """Decode a picture; its EXIF orientation is reset, because HEIF's own was applied."""
    image: Image.Image = picture.to_pillow()
    return image


def _check_item_names(data: bytes) -> None:
    """Refuse item types and names that are no text.

    pi-heif 1.4 hands them to CPython unchecked and dies of a segmentation fault (found by
    damaging single bytes).  ISO/IEC 14496-12, 8.11.6: `meta` holds `iinf`, which holds `infe`.
    """
    for kind, meta in boxes(data):
        if kind != b"meta":
            continue
        for inner_kind, info in boxes(meta[4:]):
            if inner_kind == b"iinf":
                count_bytes = 2 if info[:1] == b"\0" else 4
                for _, entry in boxes(info[4 + count_bytes :]):
                    id_bytes = 4 if entry[:1] == b"\3" else 2
                    _check_text(entry[4 + id_bytes + 2 :])


def _check_text(text: bytes) -> None:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PhotoUnreadable("The HEIC file is damaged.") from error
