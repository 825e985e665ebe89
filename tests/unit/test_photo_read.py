"""What becomes of files that are good."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from worker.avatar.photo import WORKING_SIDE_PX, read_photo
from worker.avatar.types import Photo, ViewName

FILES = Path(__file__).parent / "photo_files"
DIAGONAL_35MM = math.hypot(36, 24)


def gradient(width: int = 600, height: int = 800) -> Image.Image:
    """Red above, blue below, brighter to the right: each corner differs."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [200 * (1 - y / height) + 30, 60 + 0 * x, 200 * y / height + 30]
    pixels = np.stack(channels, axis=-1) * (0.5 + 0.5 * x / width)[..., None]
    return Image.fromarray(pixels.astype(np.uint8))


def saved(folder: Path, image: Image.Image, kind: str, **options: object) -> Path:
    path = folder / f"photo.{kind.lower()}"
    image.save(path, kind, **options)
    return path


def read(path: Path) -> Photo:
    return read_photo(path, ViewName.FRONT)


def exif_with(**tags: float | tuple[int, int]) -> Image.Exif:
    exif = Image.Exif()
    for name, value in tags.items():
        if name == "Orientation":
            exif[ExifTags.Base.Orientation] = value
        else:
            exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base[name]] = value
    return exif


def assert_is_upright_gradient(photo: Photo, tolerance: float = 12) -> None:
    height, width = photo.pixels.shape[:2]
    expected = np.asarray(gradient(width, height), dtype=float)
    assert np.abs(photo.pixels.astype(float) - expected).mean() < tolerance


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_each_format_is_read_whatever_the_file_is_called(tmp_path: Path, kind: str) -> None:
    path = saved(tmp_path, gradient(), kind).rename(tmp_path / "REPORT.PDF")
    photo = read(path)
    assert photo.pixels.shape == (800, 600, 3)
    assert photo.pixels.dtype == np.uint8
    assert photo.view is ViewName.FRONT
    assert photo.focal_px is None
    assert_is_upright_gradient(photo)


@pytest.mark.parametrize("name", ["plain.heic", "thumb_focal.heic", "iphone_turned.heic"])
def test_heic_is_read_and_turned_once(name: str) -> None:
    photo = read(FILES / name)
    assert photo.pixels.shape == (800, 600, 3)
    assert_is_upright_gradient(photo)


def test_heic_keeps_the_focal_length() -> None:
    photo = read(FILES / "thumb_focal.heic")
    assert photo.focal_px == pytest.approx(26 / DIAGONAL_35MM * 1000)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_eight_exif_orientations_come_out_upright(tmp_path: Path, orientation: int) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = gradient().transpose(undo[orientation]) if orientation in undo else gradient()
    exif = exif_with(Orientation=orientation, FocalLengthIn35mmFilm=26)
    photo = read(saved(tmp_path, stored, "JPEG", exif=exif, quality=95))
    assert photo.pixels.shape == (800, 600, 3)
    assert photo.focal_px == pytest.approx(26 / DIAGONAL_35MM * 1000)
    assert_is_upright_gradient(photo, tolerance=3)


def test_a_large_photo_is_brought_down_and_its_focal_length_with_it(tmp_path: Path) -> None:
    exif = exif_with(FocalLengthIn35mmFilm=28)
    photo = read(saved(tmp_path, gradient().resize((3000, 4000)), "JPEG", exif=exif))
    assert photo.pixels.shape == (WORKING_SIDE_PX, 1200, 3)
    assert photo.focal_px == pytest.approx(28 / DIAGONAL_35MM * math.hypot(1200, 1600))
    assert_is_upright_gradient(photo, tolerance=3)


def test_focal_length_from_the_focal_plane(tmp_path: Path) -> None:
    # 5 mm in front of a sensor 6 mm wide: 5/6 of the picture's width.
    exif = exif_with(
        FocalLength=5.0,
        FocalPlaneXResolution=6000 / 6.0 * 25.4,
        FocalPlaneResolutionUnit=2,
        ExifImageWidth=6000,
        ExifImageHeight=8000,
    )
    photo = read(saved(tmp_path, gradient(), "JPEG", exif=exif))
    assert photo.focal_px == pytest.approx(600 * 5 / 6, rel=1e-3)


@pytest.mark.parametrize(
    "tags",
    [
        {"FocalLengthIn35mmFilm": 0},
        {"FocalLengthIn35mmFilm": 2},
        {"FocalLengthIn35mmFilm": 60000},
        {"FocalLength": 5.0},
        {"FocalLength": 5.0, "FocalPlaneXResolution": 0.0},
        {"FocalLength": 5.0, "FocalPlaneXResolution": 72.0},
        # Cropped and scaled after it was taken: nobody knows from what.
        {"FocalLengthIn35mmFilm": 26, "ExifImageWidth": 4000, "ExifImageHeight": 3500},
    ],
)
def test_a_focal_length_that_cannot_be_believed_is_left_out(
    tmp_path: Path, tags: dict[str, float]
) -> None:
    assert read(saved(tmp_path, gradient(), "JPEG", exif=exif_with(**tags))).focal_px is None


def test_a_crop_in_one_direction_keeps_the_lens(tmp_path: Path) -> None:
    exif = exif_with(FocalLengthIn35mmFilm=26, ExifImageWidth=600, ExifImageHeight=1000)
    photo = read(saved(tmp_path, gradient(), "JPEG", exif=exif))
    assert photo.focal_px == pytest.approx(26 / DIAGONAL_35MM * math.hypot(600, 1000))


def test_broken_exif_data_does_not_spoil_a_photo(tmp_path: Path) -> None:
    rubbish = b"Exif\0\0MM\0*\0\0\0\x08" + b"\xff" * 40
    photo = read(saved(tmp_path, gradient(), "JPEG", exif=rubbish))
    assert photo.focal_px is None
    assert_is_upright_gradient(photo)


def test_a_phone_portrait_with_a_second_frame_behind_is_its_first_frame(tmp_path: Path) -> None:
    path = tmp_path / "portrait.jpg"
    other = Image.new("RGB", (600, 800), "green")
    gradient().save(path, "MPO", save_all=True, append_images=[other])
    with Image.open(path) as opened:
        assert opened.format == "MPO"
    assert_is_upright_gradient(read(path))


def test_transparent_pixels_are_laid_on_grey(tmp_path: Path) -> None:
    image = gradient().convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 600, 100))
    photo = read(saved(tmp_path, image, "PNG"))
    assert photo.pixels[50, 300].tolist() == [128, 128, 128]
    assert photo.pixels[700, 300, 2] > 100


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "CMYK"])
def test_other_colour_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    kind = "JPEG" if mode == "CMYK" else "PNG"
    photo = read(saved(tmp_path, gradient().convert(mode), kind))
    assert photo.pixels.shape == (800, 600, 3)
    expected = np.asarray(gradient().convert(mode).convert("RGB"), dtype=float)
    assert np.abs(photo.pixels - expected).mean() < 6


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 800)[:, None].repeat(600, axis=1).astype(np.uint16)
    photo = read(saved(tmp_path, Image.fromarray(ramp), "PNG"))
    assert photo.pixels[400, 300, 0] == pytest.approx(128, abs=2)
    assert photo.pixels[780].max() < 255


def test_an_embedded_profile_is_applied(tmp_path: Path) -> None:
    linear_light = (np.asarray(gradient(), dtype=float) / 255) ** 2.2 * 255
    stored = Image.fromarray(linear_light.round().astype(np.uint8))
    without = read(saved(tmp_path, stored, "PNG"))
    with pytest.raises(AssertionError):
        assert_is_upright_gradient(without)
    photo = read(saved(tmp_path, stored, "PNG", icc_profile=_linear_rgb_profile()))
    assert_is_upright_gradient(photo, tolerance=6)


def test_a_damaged_profile_is_ignored(tmp_path: Path) -> None:
    photo = read(saved(tmp_path, gradient(), "PNG", icc_profile=b"not a profile"))
    assert_is_upright_gradient(photo, tolerance=1)


def _linear_rgb_profile() -> bytes:
    """Return the sRGB profile with its tone curves replaced by the identity."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(profile[128:132], "big")
    for entry in range(count):
        at = 132 + 12 * entry
        if bytes(profile[at : at + 4]) in {b"rTRC", b"gTRC", b"bTRC"}:
            offset = int.from_bytes(profile[at + 4 : at + 8], "big")
            # A parametric curve of type 0 (y = x^g) with g = 1, ICC.1:2022, 10.18.
            profile[offset : offset + 16] = b"para\0\0\0\0\0\0\0\0\0\x01\0\0"
    return bytes(profile)


def test_a_second_frame_that_is_cut_off_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "portrait.jpg"
    gradient().save(path, "MPO", save_all=True, append_images=[gradient().rotate(180)])
    path.write_bytes(path.read_bytes()[:-5000])
    assert_is_upright_gradient(read(path))


@pytest.mark.parametrize(
    ("height", "side_px", "shrunk"),
    [(2400, WORKING_SIDE_PX, 1.0), (2400, 800, 0.5), (1000, 800, 0.8), (700, 800, 1.0)],
)
def test_how_much_smaller_than_usual_a_photo_was_made(
    tmp_path: Path, height: int, side_px: int, shrunk: float
) -> None:
    path = saved(tmp_path, gradient(500, height), "PNG")
    photo = read_photo(path, ViewName.FRONT, side_px=side_px)
    assert photo.shrunk == pytest.approx(shrunk, abs=0.002)
