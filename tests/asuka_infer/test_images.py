"""Every kind of picture file comes in as what a viewer shows, and goes out as it came."""

import io
import itertools
import struct
import threading
import zlib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms

from asuka_infer.images import (
    MAX_PIXELS,
    ImageError,
    encode_like,
    encode_png,
    pixel_sha256,
    read_image,
    to_float,
    to_uint8,
    write_atomically,
)

UPRIGHT = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)

pictures = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(lambda size: arrays(np.uint8, (*size, 3)))


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_declaring(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


# --- ranges


@given(pictures)
def test_eight_bits_to_float_and_back_changes_nothing(pixels: np.ndarray) -> None:
    assert np.array_equal(to_uint8(to_float(pixels)), pixels)


def test_every_level_becomes_its_share_of_255() -> None:
    levels = np.arange(256, dtype=np.uint8)
    planes = to_float(np.stack([levels] * 3, axis=-1)[None])
    assert planes.shape == (3, 1, 256)
    assert planes.dtype == np.float32
    np.testing.assert_allclose(planes[1, 0], np.arange(256) / 255, rtol=1e-7)


def test_floats_are_rounded_to_the_nearest_level_and_clipped() -> None:
    planes = np.array([-0.5, 0.4 / 255, 0.6 / 255, 254.4 / 255, 1.7], np.float32).reshape(1, 1, 5).repeat(3, axis=0)
    assert to_uint8(planes)[0, :, 0].tolist() == [0, 0, 1, 254, 255]


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number_is_refused_not_painted(broken: float) -> None:
    planes = np.zeros((3, 4, 4), np.float32)
    planes[1, 2, 3] = broken
    with pytest.raises(ImageError, match="1 of 48 values"):
        to_uint8(planes)


def test_planes_in_another_order_are_refused() -> None:
    with pytest.raises(ImageError, match=r"\(4, 4, 3\)"):
        to_uint8(np.zeros((4, 4, 3), np.float32))


# --- orientation and EXIF

# EXIF 2.32, table 6: which side of the picture the stored row 0 and column 0 are.
STORED: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    1: lambda u: u,
    2: lambda u: u[:, ::-1],
    3: lambda u: u[::-1, ::-1],
    4: lambda u: u[::-1],
    5: lambda u: np.stack([u[:, r] for r in range(u.shape[1])]),
    6: lambda u: np.stack([u[:, u.shape[1] - 1 - r] for r in range(u.shape[1])]),
    7: lambda u: np.stack([u[::-1, u.shape[1] - 1 - r] for r in range(u.shape[1])]),
    8: lambda u: np.stack([u[::-1, r] for r in range(u.shape[1])]),
}


def with_orientation(orientation: int, **details: object) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    for name, value in details.items():
        exif[ExifTags.Base[name]] = value
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_every_orientation_comes_in_upright(orientation: int, kind: str) -> None:
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](UPRIGHT)))
    options = {"lossless": True} if kind == "WEBP" else {}
    picture = read_image(saved(stored, kind, exif=with_orientation(orientation).tobytes(), **options))
    assert np.array_equal(picture.pixels, UPRIGHT)


def test_a_turned_alpha_turns_with_its_picture() -> None:
    alpha = np.arange(35, dtype=np.uint8).reshape(5, 7)
    stored = np.ascontiguousarray(STORED[6](np.dstack([UPRIGHT, alpha])))
    picture = read_image(saved(Image.fromarray(stored), exif=with_orientation(6).tobytes()))
    assert picture.alpha is not None
    assert np.array_equal(picture.alpha, alpha)


@pytest.mark.parametrize("nonsense", [0, 9, 65535])
def test_an_impossible_orientation_means_upright(nonsense: int) -> None:
    assert np.array_equal(read_image(saved(Image.fromarray(UPRIGHT), exif=with_orientation(nonsense))).pixels, UPRIGHT)


def test_what_the_camera_wrote_is_kept_with_the_orientation_reset() -> None:
    exif = with_orientation(6, Make="Kamera", Artist="Å. Fotograf", DateTime="2026:11:20 12:00:00")
    exif.get_ifd(ExifTags.IFD.Exif).update({ExifTags.Base.ExifImageWidth: 5, ExifTags.Base.ExifImageHeight: 7})
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    picture = read_image(saved(Image.fromarray(np.ascontiguousarray(STORED[6](UPRIGHT))), exif=exif))
    kept = Image.open(io.BytesIO(encode_png(picture.pixels, exif=picture.exif))).getexif()
    assert kept[ExifTags.Base.Orientation] == 1
    assert kept[ExifTags.Base.Make] == "Kamera"
    assert kept[ExifTags.Base.DateTime] == "2026:11:20 12:00:00"
    assert kept.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"
    details = kept.get_ifd(ExifTags.IFD.Exif)
    assert (details[ExifTags.Base.ExifImageWidth], details[ExifTags.Base.ExifImageHeight]) == (7, 5)


def test_the_thumbnail_that_still_shows_what_is_painted_out_is_not_kept() -> None:
    secret = saved(Image.new("RGB", (16, 16), "red"), "JPEG")
    # A TIFF structure with IFD0 (Make) and IFD1 (the thumbnail), as cameras write it.
    make = struct.pack(">HHI4s", 0x010F, 2, 4, b"Abc\0")
    ifd0 = struct.pack(">H", 1) + make + struct.pack(">I", 8 + 18)
    start = 8 + 18 + 2 + 3 * 12 + 4
    ifd1 = struct.pack(">H", 3) + struct.pack(">HHIHH", 0x0103, 3, 1, 6, 0)
    ifd1 += struct.pack(">HHII", 0x0201, 4, 1, start) + struct.pack(">HHII", 0x0202, 4, 1, len(secret))
    block = b"Exif\0\0MM\0*" + struct.pack(">I", 8) + ifd0 + ifd1 + struct.pack(">I", 0) + secret
    source = saved(Image.fromarray(UPRIGHT), "JPEG", exif=block)
    assert secret in source
    picture = read_image(source)
    assert picture.exif is not None
    assert b"Abc" in picture.exif
    assert secret[:20] not in picture.exif


def test_how_a_tiff_stores_its_pixels_is_not_carried_into_a_png() -> None:
    source = saved(Image.fromarray(UPRIGHT), "TIFF", exif=with_orientation(1, Artist="Ada"))
    kept = Image.Exif()
    kept.load(read_image(source).exif or b"")
    assert kept[ExifTags.Base.Artist] == "Ada"
    assert ExifTags.Base.StripOffsets not in kept
    assert ExifTags.Base.BitsPerSample not in kept


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_a_damaged_exif_block_costs_the_block_not_the_picture() -> None:
    picture = read_image(saved(Image.fromarray(UPRIGHT), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff garbage"))
    assert picture.size == (5, 7)
    assert picture.exif is None


# --- kinds of pixels


def test_grey_becomes_three_equal_channels() -> None:
    grey = UPRIGHT[:, :, 0].copy()
    assert np.array_equal(read_image(saved(Image.fromarray(grey))).pixels, np.dstack([grey] * 3))


def test_one_bit_becomes_black_and_white() -> None:
    bits = UPRIGHT[:, :, 0] > 128
    assert np.array_equal(read_image(saved(Image.fromarray(bits))).pixels, np.dstack([bits * np.uint8(255)] * 3))


def test_grey_with_alpha_keeps_both() -> None:
    both = UPRIGHT[:, :, :2].copy()
    picture = read_image(saved(Image.fromarray(both, "LA")))
    assert np.array_equal(picture.pixels[:, :, 2], both[:, :, 0])
    assert picture.alpha is not None
    assert np.array_equal(picture.alpha, both[:, :, 1])


def test_a_palette_is_looked_up_and_its_transparent_entry_becomes_alpha() -> None:
    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    picture = read_image(saved(palette, transparency=1))
    assert picture.pixels.tolist() == [[[10, 20, 30], [40, 50, 60], [70, 80, 90]]]
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[255, 0, 255]]


def test_colours_under_full_transparency_are_those_of_the_file() -> None:
    rgba = np.dstack([UPRIGHT, np.zeros((5, 7), np.uint8)])
    picture = read_image(saved(Image.fromarray(rgba)))
    assert np.array_equal(picture.pixels, UPRIGHT)
    assert picture.alpha is not None
    assert not picture.alpha.any()


def test_an_alpha_that_is_opaque_everywhere_is_none() -> None:
    assert read_image(saved(Image.fromarray(UPRIGHT).convert("RGBA"))).alpha is None


def sixteen_bits(channels: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 65536, (6, 4, channels), dtype=np.uint16)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_are_rounded_to_eight_not_clipped(suffix: str, channels: int) -> None:
    levels = sixteen_bits(channels)
    done, file = cv2.imencode(suffix, levels)
    assert done
    picture = read_image(file.tobytes())
    expected = np.floor(levels / 65535 * 255 + 0.5).astype(np.uint8)
    colours = expected[:, :, [0, 0, 0] if channels == 1 else [2, 1, 0]]
    assert np.array_equal(picture.pixels, colours)
    if channels == 4:
        assert picture.alpha is not None
        assert np.array_equal(picture.alpha, expected[:, :, 3])
    assert "16 bits" in picture.notes[0]


def test_numbers_without_a_known_white_are_refused() -> None:
    with pytest.raises(ImageError, match="floating point numbers"):
        read_image(saved(Image.fromarray(np.ones((3, 3), np.float32)), "TIFF"))


def test_cmyk_without_a_profile_is_converted_by_the_formula_and_says_so() -> None:
    ink = Image.fromarray(np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 0, 0, 255]]], np.uint8), "CMYK")
    picture = read_image(saved(ink, "TIFF"))
    assert picture.pixels.tolist() == [[[255, 255, 255], [0, 255, 255], [0, 0, 0]]]
    assert any("CMYK" in note for note in picture.notes)


def test_the_inverted_cmyk_of_jpeg_files_is_not_a_negative() -> None:
    picture = read_image(saved(Image.new("CMYK", (16, 16), (0, 0, 0, 0)), "JPEG", quality=95))
    assert picture.pixels.min() > 250


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_read(kind: str) -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    picture = read_image(saved(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    assert picture.pixels.reshape(-1, 3).max(axis=0).tolist() == [255, 0, 0]
    assert "first frame" in picture.notes[0]


# --- colour profiles


def matrix_profile(primaries: np.ndarray, gamma: float) -> bytes:
    """An ICC v2 display profile: RGB -> XYZ (D50) by `primaries` (columns) after a power law."""

    def fixed(*values: float) -> bytes:
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    white = primaries.sum(axis=1)
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + b"\0" * 82
    tags = {b"desc": text, b"cprt": b"text\0\0\0\0none\0\0\0\0", b"wtpt": b"XYZ \0\0\0\0" + fixed(*white)}
    tags |= {name: b"XYZ \0\0\0\0" + fixed(*primaries[:, k]) for k, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    return profile_of(tags, b"mntr", b"RGB ", b"XYZ ")


def profile_of(tags: dict[bytes, bytes], kind: bytes, space: bytes, connection: bytes) -> bytes:
    """An ICC v2.1 file: header (ICC.1:2001-04, 6.1), tag table, tags."""
    offset = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    header = struct.pack(">I4sI4s4s4s", offset + len(body), b"lcms", 0x02100000, kind, space, connection)
    header += b"\0" * 12 + b"acsp" + b"\0" * 28 + struct.pack(">iii", 63190, 65536, 54061) + b"\0" * 48
    return header + table + body


# Bradford-adapted to D50: sRGB from IEC 61966-2-1, Display P3 from SMPTE EG 432-1.
SRGB_D50 = np.array(
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
)
P3_D50 = np.array([[0.515121, 0.291977, 0.157104], [0.241196, 0.692245, 0.066574], [-0.001053, 0.041885, 0.784073]])


def p3_to_srgb(pixels: np.ndarray, gamma: float) -> np.ndarray:
    linear = np.linalg.solve(SRGB_D50, P3_D50 @ (pixels.reshape(-1, 3) / 255).T ** gamma).clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (encoded.T * 255).reshape(pixels.shape)


def muted(seed: int, size: tuple[int, int] = (12, 10)) -> np.ndarray:
    """Colours that lie inside sRGB also when their numbers are Display P3's."""
    rng = np.random.default_rng(seed)
    return (rng.integers(60, 200, (*size, 1)) + rng.integers(-20, 20, (*size, 3))).astype(np.uint8)


def test_a_wide_gamut_photo_is_converted_to_srgb_as_the_matrices_say() -> None:
    pixels = muted(0)
    picture = read_image(saved(Image.fromarray(pixels), icc_profile=matrix_profile(P3_D50, 2.2)))
    assert np.abs(picture.pixels - p3_to_srgb(pixels, 2.2)).max() < 1.6
    assert np.abs(picture.pixels.astype(int) - pixels).max() > 3
    assert picture.native is not None
    assert np.array_equal(picture.native, pixels)
    assert picture.icc == matrix_profile(P3_D50, 2.2)


def test_a_photo_tagged_as_srgb_keeps_its_levels_bit_for_bit() -> None:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = read_image(saved(Image.fromarray(UPRIGHT), icc_profile=icc))
    assert np.array_equal(picture.pixels, UPRIGHT)
    assert picture.native is None
    assert picture.icc == icc


def test_a_grey_photo_with_a_colour_profile_goes_through_it() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    picture = read_image(saved(Image.fromarray(grey), icc_profile=matrix_profile(SRGB_D50, 1.0)))
    assert np.abs(picture.pixels[:, :, 0] - p3_to_srgb_grey(grey)).max() < 1.6


def p3_to_srgb_grey(linear_levels: np.ndarray) -> np.ndarray:
    linear = linear_levels / 255
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def test_a_photo_with_the_srgb_profile_that_cameras_embed_is_left_as_it_is() -> None:
    # scikit-image's sample carries HP's sRGB IEC61966-2.1, whose rounded curves move some levels by one.
    file = Path(str(files("skimage"))) / "data" / "astronaut.png"
    picture = read_image(file)
    assert picture.icc is not None
    assert b"sRGB IEC61966-2.1" in picture.icc
    assert np.array_equal(picture.pixels, np.asarray(Image.open(file)))


def key_only_profile() -> bytes:
    """An ICC v2 CMYK printer profile: a 2x2x2x2 table to CIELAB in which lightness falls evenly with black ink."""
    corners = [(255 * (1 - key), 128, 128) for *_, key in itertools.product((0, 1), repeat=4)]
    identity = b"".join(struct.pack(">i", 65536 * (row == column)) for row in range(3) for column in range(3))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + bytes(range(256)) * 4
    table += bytes(value for corner in corners for value in corner) + bytes(range(256)) * 3
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + b"\0" * 82,
        b"cprt": b"text\0\0\0\0none\0\0\0\0",
        b"wtpt": b"XYZ \0\0\0\0" + struct.pack(">iii", 63190, 65536, 54061),
        **dict.fromkeys((b"A2B0", b"A2B1", b"A2B2"), table),
    }
    return profile_of(tags, b"prtr", b"CMYK", b"Lab ")


def test_cmyk_goes_through_its_profile() -> None:
    key = np.arange(0, 256, 15, dtype=np.uint8)[None]
    ink = np.dstack([np.zeros_like(key)] * 3 + [key])
    picture = read_image(saved(Image.fromarray(ink, "CMYK"), "TIFF", icc_profile=key_only_profile()))
    lightness = 100 * (1 - key / 255)
    linear = np.where(lightness > 8, ((lightness + 16) / 116) ** 3, lightness / 903.3)
    expected = 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert np.abs(picture.pixels - expected[..., None]).max() < 2
    assert picture.native is None
    assert not picture.notes


def test_cielab_is_converted() -> None:
    # TIFF 6.0, section 23: L* is unsigned, a* and b* are signed.
    lab = Image.fromarray(np.array([[[255, 0, 0], [0, 0, 0], [137, 0, 0]]], np.uint8), "LAB")
    picture = read_image(saved(lab, "TIFF"))
    # L* 53.7 is sRGB level 128: the 18 % grey card is 53.6.
    assert np.abs(picture.pixels[0].astype(int) - [[255] * 3, [0] * 3, [128] * 3]).max() <= 2


def test_the_first_picture_of_a_phones_multi_picture_file_is_read_without_a_word() -> None:
    first, second = Image.new("RGB", (16, 16), (200, 30, 30)), Image.new("RGB", (8, 8), "blue")
    picture = read_image(saved(first, "MPO", save_all=True, append_images=[second], quality=95))
    assert np.abs(picture.pixels.astype(int) - (200, 30, 30)).max() < 6
    assert picture.size == (16, 16)
    assert not picture.notes


@pytest.mark.parametrize(("kind", "options"), [("AVIF", {"quality": 100}), ("JPEG2000", {}), ("BMP", {}), ("PPM", {})])
def test_other_formats_are_read_too(kind: str, options: dict[str, int]) -> None:
    picture = read_image(saved(Image.new("RGB", (16, 12), (200, 100, 50)), kind, **options))
    assert picture.format == kind
    assert np.abs(picture.pixels.astype(int) - (200, 100, 50)).max() <= 3


@pytest.mark.parametrize("icc", [b"garbage", b"", matrix_profile(P3_D50, 2.2)[:200], b"\0" * 200])
def test_a_damaged_profile_means_srgb_and_says_so(icc: bytes) -> None:
    picture = read_image(saved(Image.fromarray(UPRIGHT), icc_profile=icc))
    assert np.array_equal(picture.pixels, UPRIGHT)
    assert (not icc) or "profile could not be used" in picture.notes[0]


def test_a_profile_for_another_kind_of_pixels_is_not_applied() -> None:
    icc = matrix_profile(P3_D50, 2.2)
    picture = read_image(saved(Image.fromarray(UPRIGHT), icc_profile=icc[:16] + b"GRAY" + icc[20:]))
    assert np.array_equal(picture.pixels, UPRIGHT)
    assert "profile could not be used" in picture.notes[0]


def test_a_result_goes_back_into_the_photos_profile_with_known_pixels_untouched() -> None:
    pixels, icc = muted(1), matrix_profile(P3_D50, 2.2)
    picture = read_image(saved(Image.fromarray(pixels), icc_profile=icc))
    hole = np.zeros((12, 10), bool)
    hole[3:8, 2:6] = True
    result = picture.pixels.copy()
    result[hole] = muted(2)[hole]
    file = Image.open(io.BytesIO(encode_like(picture, result, hole)))
    stored = np.asarray(file)
    assert np.array_equal(stored[~hole], pixels[~hole])
    assert np.abs(p3_to_srgb(stored, 2.2)[hole] - result[hole]).max() < 2
    assert file.info["icc_profile"] == icc


def test_a_blended_ring_around_the_hole_goes_into_the_photos_profile_too() -> None:
    picture = read_image(saved(Image.fromarray(muted(1)), icc_profile=matrix_profile(P3_D50, 2.2)))
    hole = np.zeros((12, 10), bool)
    hole[3:8, 2:6] = True
    result = picture.pixels.copy()
    result[2] = muted(2)[2]
    stored = np.asarray(Image.open(io.BytesIO(encode_like(picture, result, hole))))
    assert np.abs(p3_to_srgb(stored, 2.2)[2] - result[2]).max() < 2


def test_picture_result_and_hole_of_different_sizes_are_refused() -> None:
    picture = read_image(encode_png(UPRIGHT))
    with pytest.raises(ImageError, match="must be the same"):
        encode_like(picture, UPRIGHT, np.zeros((7, 5), bool))


def test_a_result_keeps_transparency_except_where_something_was_filled_in() -> None:
    alpha = np.full((5, 7), 9, np.uint8)
    picture = read_image(encode_png(UPRIGHT, alpha=alpha))
    hole = np.zeros((5, 7), bool)
    hole[1:3, 1:3] = True
    stored = np.asarray(Image.open(io.BytesIO(encode_like(picture, UPRIGHT, hole))))
    assert np.array_equal(stored[:, :, 3], np.where(hole, 255, 9))
    assert np.array_equal(stored[:, :, :3], UPRIGHT)


# --- bad files


def complain(source: Path | bytes | io.BytesIO) -> str:
    with pytest.raises(ImageError) as caught:
        read_image(source)
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    return message


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(20_000, 10_000), (10_000, 10_000), (60_000, 60_000)])
def test_a_bomb_is_refused_by_its_declared_size_before_it_is_decoded(size: tuple[int, int]) -> None:
    message = complain(png_declaring(*size))
    assert f"{MAX_PIXELS:,}" in message
    assert "scale it down" in message


def test_a_40_megapixel_photo_is_within_the_bound_and_a_lower_bound_can_be_asked() -> None:
    assert MAX_PIXELS > 7728 * 5152
    with pytest.raises(ImageError, match="7x5, 35 pixels, but at most 34"):
        read_image(saved(Image.fromarray(UPRIGHT)), max_pixels=34)
    assert read_image(saved(Image.fromarray(UPRIGHT)), max_pixels=35).size == (5, 7)


def test_a_missing_file_a_folder_and_an_empty_file_each_say_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    assert "gone.png could not be read (No such file" in complain(tmp_path / "gone.png")
    assert "could not be read (Is a directory" in complain(tmp_path)
    assert "empty.png is empty (0 bytes)" in complain(tmp_path / "empty.png")
    assert "The picture is empty" in complain(b"")


@pytest.mark.parametrize("content", [b"hello", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"<svg/>", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_named_so(content: bytes) -> None:
    assert "no readable picture" in complain(content)


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("JPEG", {}), ("TIFF", {}), ("BMP", {}), ("WEBP", {}), ("GIF", {})]
)
def test_a_truncated_file_is_refused_rather_than_half_grey(kind: str, options: dict[str, object]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    whole = saved(Image.fromarray(noise), kind, **options)
    assert "damaged" in complain(whole[: len(whole) * 2 // 3]) or kind in {"TIFF", "WEBP"}


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_no_damage_to_a_file_escapes_as_another_error(data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from(SAMPLES))
    broken = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    try:
        picture = read_image(bytes(broken[: data.draw(st.integers(1, len(broken)))]))
    except ImageError:
        return
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.shape[2] == 3


SAMPLES = [
    *(saved(Image.fromarray(UPRIGHT), kind, exif=with_orientation(6)) for kind in ("PNG", "JPEG", "TIFF", "WEBP")),
    *(saved(Image.fromarray(UPRIGHT).convert("P"), kind) for kind in ("GIF", "BMP", "PNG")),
    cv2.imencode(".png", sixteen_bits(3))[1].tobytes(),
    saved(Image.fromarray(UPRIGHT), icc_profile=matrix_profile(P3_D50, 2.2)),
]


def test_an_open_file_is_read_from_its_beginning_and_left_open() -> None:
    file = io.BytesIO(saved(Image.fromarray(UPRIGHT)))
    file.seek(20)
    assert np.array_equal(read_image(file).pixels, UPRIGHT)
    assert not file.closed


# --- writing


@settings(max_examples=50)
@given(pictures)
def test_a_png_holds_every_pixel_and_is_written_the_same_way_twice(pixels: np.ndarray) -> None:
    file = encode_png(pixels, text={"b": "2", "a": "1"})
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(file))), pixels)
    assert file == encode_png(pixels, text={"a": "1", "b": "2"})


def test_text_in_any_script_and_a_profile_come_back_from_the_png() -> None:
    icc = matrix_profile(P3_D50, 2.2)
    file = encode_png(
        UPRIGHT, alpha=UPRIGHT[:, :, 0].copy(), text={"method": "telea", "note": "移除物体" * 100}, icc=icc
    )
    image = Image.open(io.BytesIO(file))
    assert {name: image.info[name] for name in ("method", "note")} == {"method": "telea", "note": "移除物体" * 100}
    assert image.info["icc_profile"] == icc
    assert image.mode == "RGBA"


@pytest.mark.parametrize("key", ["", "k" * 80, "a\nb"])
def test_a_text_key_that_png_forbids_is_refused(key: str) -> None:
    with pytest.raises(ImageError, match="text key"):
        encode_png(UPRIGHT, text={key: "x"})


def test_misfitting_arrays_are_refused_with_their_shape() -> None:
    with pytest.raises(ImageError, match=r"\(5, 7\)"):
        encode_png(UPRIGHT[:, :, 0])
    with pytest.raises(ImageError, match=r"\(7, 5\)"):
        encode_png(UPRIGHT, alpha=np.zeros((7, 5), np.uint8))
    with pytest.raises(ImageError, match="float64"):
        encode_png(UPRIGHT / 255)  # pyright: ignore[reportArgumentType] - the point of the test


def test_the_hash_is_of_size_and_pixels_not_of_the_file() -> None:
    same = read_image(saved(Image.fromarray(UPRIGHT), "TIFF")).pixels
    assert pixel_sha256(same) == pixel_sha256(UPRIGHT) == pixel_sha256(UPRIGHT[::-1][::-1])
    other = UPRIGHT.copy()
    other[4, 6, 2] ^= 1
    assert len({pixel_sha256(p) for p in (UPRIGHT, other, UPRIGHT.reshape(7, 5, 3), UPRIGHT.reshape(1, 35, 3))}) == 4


def test_a_file_is_replaced_whole_while_others_read_it(tmp_path: Path) -> None:
    path = tmp_path / "result.png"
    versions = [bytes([k]) * 200_000 for k in range(4)]
    write_atomically(path, versions[0])
    stop, seen = threading.Event(), set[bytes]()

    def watch() -> None:
        while not stop.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=watch)
    reader.start()
    for version in itertools.islice(itertools.cycle(versions), 24):
        write_atomically(path, version)
    stop.set()
    reader.join()
    assert seen <= set(versions)
    assert [file.name for file in tmp_path.iterdir()] == ["result.png"]


def test_a_written_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_atomically(tmp_path / "written", b"x")
    assert (tmp_path / "written").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_where_nothing_can_be_written_it_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="could not be written"):
        write_atomically(tmp_path / "no such folder" / "a.png", b"x")
    (tmp_path / "taken").mkdir()
    with pytest.raises(ImageError, match="taken could not be written"):
        write_atomically(tmp_path / "taken", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
