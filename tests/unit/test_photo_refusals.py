"""Files that are no good: each kind has its own name and its own advice."""

from __future__ import annotations

import random
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from worker.avatar.photo import read_photo
from worker.avatar.types import ViewName
from worker.errors import (
    InputError,
    PhotoAnimated,
    PhotoTooDark,
    PhotoTooLarge,
    PhotoTooSmall,
    PhotoTruncated,
    PhotoUnreadable,
    PhotoUnsupported,
)

FILES = Path(__file__).parent / "photo_files"


def textured(width: int = 600, height: int = 800) -> Image.Image:
    rng = np.random.default_rng(7)
    coarse = rng.integers(0, 255, (height // 20, width // 20, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height))


def bytes_of(tmp_path: Path, kind: str, **options: object) -> bytes:
    path = tmp_path / "whole"
    textured().save(path, kind, **options)
    return path.read_bytes()


def refusal(tmp_path: Path, data: bytes, name: str = "photo.jpg") -> InputError:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_photo(path, ViewName.FRONT)
    assert caught.value.advice
    return caught.value


def test_an_empty_file_was_cut_off(tmp_path: Path) -> None:
    assert type(refusal(tmp_path, b"")) is PhotoTruncated


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"<!DOCTYPE html><html><body>403 Forbidden</body></html>", "web page"),
        (b"\xef\xbb\xbf\n  <html>", "web page"),
        (b'{"error": "not found"}', "not a picture"),
        (b"\0" * 4000, "not a picture"),
        (b"\xff", "not a picture"),
    ],
)
def test_a_file_that_is_no_picture(tmp_path: Path, data: bytes, word: str) -> None:
    error = refusal(tmp_path, data)
    assert type(error) is PhotoUnreadable
    assert word in error.message


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"<?xml version='1.0'?>\n<!-- x --><svg/>", "SVG"),
        (b"%PDF-1.7", "PDF"),
        (b"BM" + b"\0" * 60, "BMP"),
        (b"\0\0\0\x18ftypavif\0\0\0\0mif1avif" + b"\0" * 20, "AVIF"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + b"\0" * 20, "video"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0qt  " + b"\0" * 20, "video"),
    ],
)
def test_a_picture_of_another_kind(tmp_path: Path, data: bytes, word: str) -> None:
    error = refusal(tmp_path, data)
    assert type(error) is PhotoUnsupported
    assert word in error.message


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "BMP", "ICO"])
def test_real_files_of_other_kinds(tmp_path: Path, kind: str) -> None:
    assert type(refusal(tmp_path, bytes_of(tmp_path, kind))) is PhotoUnsupported


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animations(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "animation"
    frames = [textured(), textured().rotate(180)]
    frames[0].save(path, kind, save_all=True, append_images=frames[1:], duration=100)
    assert type(refusal(tmp_path, path.read_bytes())) is PhotoAnimated


def test_a_burst_and_a_sequence_in_heif(tmp_path: Path) -> None:
    burst = (FILES / "burst.heic").read_bytes()
    assert type(refusal(tmp_path, burst)) is PhotoAnimated
    sequence = b"\0\0\0\x18ftyphevc\0\0\0\0mif1msf1" + b"\0" * 20
    assert type(refusal(tmp_path, sequence)) is PhotoAnimated


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
    ],
)
@pytest.mark.parametrize("share", [0.03, 0.3, 0.6, 0.95])
def test_files_that_end_in_the_middle(
    tmp_path: Path, kind: str, options: dict[str, bool], share: float
) -> None:
    whole = bytes_of(tmp_path, kind, **options)
    assert type(refusal(tmp_path, whole[: int(share * len(whole))])) is PhotoTruncated


@pytest.mark.parametrize("share", [0.03, 0.3, 0.6, 0.95])
def test_heic_files_that_end_in_the_middle(tmp_path: Path, share: float) -> None:
    whole = (FILES / "plain.heic").read_bytes()
    assert type(refusal(tmp_path, whole[: int(share * len(whole))])) is PhotoTruncated


def test_a_file_with_too_many_bytes_is_not_even_opened(tmp_path: Path) -> None:
    path = tmp_path / "huge.jpg"
    with path.open("wb") as file:
        file.truncate(30_000_000_000)  # sparse: reading it would take all memory
    with pytest.raises(PhotoTooLarge, match="30000 MB"):
        read_photo(path, ViewName.FRONT)


def _png_bomb() -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1_000_000, 9)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def _webp_bomb() -> bytes:
    canvas = (16_382).to_bytes(3, "little")
    body = b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + canvas + canvas + b"\0" * 64
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def _jpeg_bomb(tmp_path: Path) -> bytes:
    data = bytearray(bytes_of(tmp_path, "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 60_000, 60_000)
    return bytes(data)


def _heic_bomb() -> bytes:
    data = bytearray((FILES / "plain.heic").read_bytes())
    at = data.index(b"ispe") + 8
    data[at : at + 8] = struct.pack(">II", 30_000, 30_000)
    return bytes(data)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG", "HEIC"])
def test_pictures_with_too_many_pixels_are_refused_before_any_is_decoded(
    tmp_path: Path, kind: str
) -> None:
    bombs = {
        "PNG": _png_bomb,
        "WEBP": _webp_bomb,
        "JPEG": lambda: _jpeg_bomb(tmp_path),
        "HEIC": _heic_bomb,
    }
    data = bombs[kind]()
    tracemalloc.start()
    error = refusal(tmp_path, data)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert type(error) is PhotoTooLarge
    assert "megapixels" in error.message
    assert peak_bytes < 20_000_000


def test_the_limits_are_parameters(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    textured().save(path)
    with pytest.raises(PhotoTooLarge):
        read_photo(path, ViewName.FRONT, max_bytes=1000)
    with pytest.raises(PhotoTooLarge):
        read_photo(path, ViewName.FRONT, max_pixels=600 * 800 - 1)
    assert read_photo(path, ViewName.FRONT, max_pixels=600 * 800).pixels.shape == (800, 600, 3)


@pytest.mark.parametrize("size", [(400, 300), (100, 800), (1, 1)])
def test_pictures_with_too_few_pixels(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "small.png"
    textured(600, 800).resize(size).save(path)
    with pytest.raises(PhotoTooSmall, match=f"{size[0]} × {size[1]}"):
        read_photo(path, ViewName.FRONT)


def test_a_wide_photo_is_judged_by_its_own_height_not_the_reduced_one(tmp_path: Path) -> None:
    path = tmp_path / "wide.jpg"
    textured(4000, 1000).save(path)
    assert read_photo(path, ViewName.FRONT).pixels.shape == (400, 1600, 3)


def test_black_and_even_pictures(tmp_path: Path) -> None:
    path = tmp_path / "dark.png"
    dark = Image.fromarray((np.asarray(textured()) * 0.08).astype(np.uint8))
    dark.save(path)
    with pytest.raises(PhotoTooDark, match="black"):
        read_photo(path, ViewName.FRONT)
    Image.new("RGB", (600, 800), (200, 200, 200)).save(path)
    with pytest.raises(PhotoTooDark, match="even"):
        read_photo(path, ViewName.FRONT)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "HEIC"])
def test_whatever_is_damaged_the_answer_is_a_photo_or_a_refusal(tmp_path: Path, kind: str) -> None:
    heic = kind == "HEIC"
    whole = (FILES / "iphone_turned.heic").read_bytes() if heic else bytes_of(tmp_path, kind)
    rng = random.Random(11)
    path = tmp_path / "damaged"
    refused = 0
    for _ in range(60):
        data = bytearray(whole)
        # Headers are where damage is interesting.
        reach = min(len(data), rng.choice([200, len(data)]))
        for _ in range(rng.choice([1, 4, 16])):
            data[rng.randrange(reach)] = rng.randrange(256)
        path.write_bytes(data)
        try:
            read_photo(path, ViewName.FRONT)
        except InputError:
            refused += 1
    assert refused > 0


def test_an_item_type_that_is_no_text_does_not_kill_the_process(tmp_path: Path) -> None:
    data = bytearray((FILES / "thumb_focal.heic").read_bytes())
    at = data.index(b"Exif", data.index(b"infe"))
    data[at + 1] = 0xFF  # pi-heif 1.4 itself dies of this
    assert type(refusal(tmp_path, bytes(data))) is PhotoUnreadable
