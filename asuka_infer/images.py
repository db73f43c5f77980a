"""Picture files in and out: every file becomes upright 8-bit sRGB with its alpha, profile and EXIF kept apart.

The only place where ranges change (0..255 to 0..1 and back) and where a picture file is opened or written.
"""

import hashlib
import io
import os
import secrets
import struct
import zlib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from asuka_infer.request import RgbImage

MAX_PIXELS = 89_478_485
"""The largest picture that is opened, in pixels: Pillow's own bound, above which it warns of a decompression bomb.

Photographs of 61 megapixels (the largest 35 mm sensors) pass; one at the bound needs about 1 GB while it is decoded.
"""

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM")
"""What is opened: raster formats decoded in this process. Never EPS, PDF or WMF, which would start other programs.

The pictures of phones that hold several (MPO) begin as a JPEG and are read as one.
"""

PNG_COMPRESSION = 3
"""zlib's level. Measured on 20 photographs: 0.06 s and 0.98 MB per megapixel; level 6 takes 0.15 s to save 6 %."""

SRGB_TOLERANCE = 1
"""A profile that moves no colour by more than this many of 255 levels is sRGB under another name."""


_Level = TypeVar("_Level", np.uint8, np.uint16)


class ImageError(ValueError):
    """A picture that cannot be read or written; the message says what is wrong, the value and what to do."""


@dataclass(frozen=True, eq=False)
class Picture:
    r"""One picture file, decoded.

    Attributes:
        pixels: (height, width, 3) uint8, upright, sRGB. Under alpha 0 they are what the file stores there.
        alpha: (height, width) uint8, 0 = transparent, straight (not premultiplied); None when opaque everywhere.
        icc: the file's ICC profile as found. `pixels` are no longer in it unless `native` is None: to write a
            result in this profile use `encode_like`.
        exif: the file's EXIF block ("Exif\0\0..."), orientation reset, embedded thumbnail removed (it would show
            what was painted out); None when there is none.
        format: Pillow's name of the file format, for example "JPEG".
        native: (height, width, 3) uint8 upright pixels in the file's own RGB profile; None when they are `pixels`
            or when the file is not RGB (CMYK).
        notes: sentences about what was changed on the way that its owner might not expect.
    """

    pixels: RgbImage
    alpha: NDArray[np.uint8] | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    format: str | None = None
    native: RgbImage | None = None
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]


def read_image(source: Path | bytes | BinaryIO, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read a picture file in any of `FORMATS`; of an animation the first frame.

    Args:
        source: a path, the bytes of a file, or an open binary file.
        max_pixels: the largest declared size that is decoded; it is checked before any pixel is.

    Raises:
        ImageError: when the file is missing, no picture, damaged, too large, or holds numbers of unknown range.
    """
    with open_checked(source, max_pixels=max_pixels) as (image, name):
        return _decode(image, name)


def to_float(pixels: RgbImage) -> NDArray[np.float32]:
    """(height, width, 3) uint8 0..255 -> (3, height, width) float32 0..1; `to_uint8` is its exact inverse."""
    refuse_wrong_pixels(pixels)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32) / np.float32(255)


def to_uint8(planes: NDArray[np.floating[Any]]) -> RgbImage:
    """(3, height, width) floating, 0..1 -> (height, width, 3) uint8; rounded, what lies outside 0..1 is clipped.

    Raises:
        ImageError: for another shape, and for NaN or infinity (a network failed before this point).
    """
    if planes.ndim != 3 or planes.shape[0] != 3:  # noqa: PLR2004 - RGB planes
        raise ImageError(f"The planes have shape {planes.shape}, but (3, height, width) is needed.")
    if not np.isfinite(planes).all():
        count = int(np.count_nonzero(~np.isfinite(planes)))
        raise ImageError(f"{count} of {planes.size} values are NaN or infinite; look for the step that produced them.")
    levels = np.rint(np.clip(planes, 0, 1) * 255)
    return np.ascontiguousarray(levels.transpose(1, 2, 0)).astype(np.uint8)


def encode_png(
    pixels: RgbImage,
    *,
    alpha: NDArray[np.uint8] | None = None,
    text: Mapping[str, str] | None = None,
    icc: bytes | None = None,
    exif: bytes | None = None,
    xmp: str | None = None,
) -> bytes:
    """A PNG file's bytes; the same arguments give the same bytes.

    Args:
        pixels: (height, width, 3) uint8.
        alpha: (height, width) uint8.
        text: PNG text chunks, written in the order of their keys (1..79 Latin-1 characters each).
        icc: the profile that `pixels` are in; leave it out for sRGB. Not `Picture.icc`: see `encode_like`.
        exif: an EXIF block as `Picture.exif` has it.
        xmp: an XMP packet.

    Raises:
        ImageError: when shapes or types do not fit or a text key is not allowed in a PNG.
    """
    refuse_wrong_pixels(pixels)
    if alpha is not None:
        if alpha.shape != pixels.shape[:2] or alpha.dtype != np.uint8:
            raise ImageError(
                f"The alpha is {alpha.dtype} with shape {alpha.shape}, but uint8 {pixels.shape[:2]} is needed."
            )
        pixels = np.dstack([pixels, alpha])
    file = io.BytesIO()
    extras: dict[str, Any] = {"icc_profile": icc, "exif": exif}
    Image.fromarray(pixels).save(
        file,
        "PNG",
        compress_level=PNG_COMPRESSION,
        pnginfo=_png_text(text or {}, xmp),
        **{name: value for name, value in extras.items() if value is not None},
    )
    return file.getvalue()


def encode_grey_png(levels: NDArray[np.uint8]) -> bytes:
    """A PNG file's bytes for (height, width) uint8 levels."""
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "PNG", compress_level=PNG_COMPRESSION)
    return file.getvalue()


def encode_like(
    picture: Picture,
    result: RgbImage,
    hole: NDArray[np.bool_],
    *,
    text: Mapping[str, str] | None = None,
    xmp: str | None = None,
) -> bytes:
    """A PNG of `result` with the alpha, EXIF and colour profile of the file that `picture` came from.

    Pixels outside the hole whose sRGB value did not change are the file's own, bit for bit, in its own profile; the
    others are converted from sRGB into it. The hole itself becomes opaque: there is something in it now.
    """
    refuse_wrong_pixels(result)
    if result.shape != picture.pixels.shape or hole.shape != result.shape[:2]:
        raise ImageError(
            f"Picture, result and hole have sizes {picture.size}, {result.shape[:2]} and {hole.shape}; "
            "they must be the same."
        )
    alpha = None if picture.alpha is None else np.where(hole, np.uint8(255), picture.alpha)
    if picture.native is None or picture.icc is None:
        return encode_png(result, alpha=alpha, text=text, exif=picture.exif, xmp=xmp)
    changed = hole | differing(result, picture.pixels)
    native = picture.native.copy()
    native[changed] = _from_srgb(result[changed][None], picture.icc)[0]
    return encode_png(native, alpha=alpha, text=text, icc=picture.icc, exif=picture.exif, xmp=xmp)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that `path` holds either what it held before or all of `data`, even when power fails.

    Raises:
        ImageError: when the folder is missing, full or not writable; `path` is then as it was.
    """
    partial = path.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        try:
            with partial.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        raise ImageError(f"{path} could not be written ({error.strerror}); choose another folder.") from error


def differing(first: RgbImage, second: RgbImage) -> NDArray[np.bool_]:
    """(height, width) True where two pictures of one size differ in any channel."""
    differs = np.zeros(first.shape[:2], np.bool_)
    # Most strips of a photo and its result are equal, and one fits the cache: at 40 MP 0.1 s instead of 1.9 (measured).
    for top in range(0, first.shape[0], _STRIP):
        ours, theirs = first[top : top + _STRIP], second[top : top + _STRIP]
        if not np.array_equal(ours, theirs):
            unequal = ours != theirs
            # Four times as fast as `any(axis=2)`, whose inner loop is three long.
            differs[top : top + _STRIP] = unequal[..., 0] | unequal[..., 1] | unequal[..., 2]
    return differs


_STRIP = 64
"""Rows that are compared at once."""


def pixel_sha256(pixels: RgbImage) -> str:
    """The SHA-256 of a picture's size and pixels, as 64 hex digits: the same for every file format that holds them."""
    refuse_wrong_pixels(pixels)
    digest = hashlib.sha256(f"rgb8 {pixels.shape[1]}x{pixels.shape[0]}\n".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def refuse_wrong_pixels(pixels: NDArray[Any]) -> None:
    """Raise `ImageError` unless `pixels` is (height, width, 3) uint8 with at least one pixel."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:  # noqa: PLR2004 - RGB
        raise ImageError(
            f"The pixels are {pixels.dtype} with shape {pixels.shape}, but (height, width, 3) uint8 is needed."
        )


@contextmanager
def open_checked(
    source: Path | bytes | BinaryIO, *, max_pixels: int = MAX_PIXELS
) -> Generator[tuple[Image.Image, str]]:
    """Open a picture file, header only, and name it for messages; every damage found inside becomes an `ImageError`."""
    name = source.name if isinstance(source, Path) else "The picture"
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        _refuse_empty(file, name)
        with Image.open(file, formats=FORMATS) as image:
            _refuse_too_large(image.size, name, max_pixels)
            yield image, name
    except ImageError:
        raise
    except _DAMAGE as error:
        raise ImageError(_say_damage(error, name, max_pixels)) from error


def upright_levels(image: Image.Image, name: str) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
    """The brightness (height, width) of an opened file, uint8 or uint16, and its alpha; profiles are not applied."""
    image.load()
    orientation, _ = _read_exif(image, [])
    if image.mode.startswith("I;16"):
        return _upright(np.asarray(image).astype(np.uint16), orientation), None
    colours, alpha = _colours_and_alpha(image, name)
    levels = np.array(colours.convert("RGB").convert("L"))
    return _upright(levels, orientation), None if alpha is None else _upright(alpha, orientation)


_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    EOFError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
"""All that Pillow's decoders have been seen to raise on damaged files."""


def _say_damage(error: BaseException, name: str, max_pixels: int) -> str:
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"{name} declares too many pixels ({error}); at most {max_pixels:,} are opened, so scale it down first."
    if isinstance(error, Image.UnidentifiedImageError):
        return f"{name} is no readable picture of the formats {', '.join(FORMATS)}; convert it to PNG or JPEG."
    if isinstance(error, OSError) and error.errno is not None:
        return f"{name} could not be read ({error.strerror}); check that the file exists and may be read."
    return f"{name} is damaged or incomplete ({error}); get it again or save it anew as PNG."


def _refuse_empty(file: Path | BinaryIO, name: str) -> None:
    length = file.stat().st_size if isinstance(file, Path) else file.seek(0, os.SEEK_END)
    if length == 0:
        raise ImageError(f"{name} is empty (0 bytes); get the file again.")
    if not isinstance(file, Path):
        file.seek(0)


def _refuse_too_large(size: tuple[int, int], name: str, max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageError(
            f"{name} is {width}x{height}, {width * height:,} pixels, but at most {max_pixels:,} are opened; "
            "scale it down first."
        )
    if width * height == 0:
        raise ImageError(f"{name} is {width}x{height} and has no pixels; choose another file.")


def _decode(image: Image.Image, name: str) -> Picture:
    notes: list[str] = []
    if getattr(image, "is_animated", False) and image.format in {"GIF", "PNG", "WEBP", "AVIF"}:
        image.seek(0)
        notes.append("Only the first frame of the animation is used.")
    deep = _sixteen_bit_levels(image)
    image.load()
    orientation, exif = _read_exif(image, notes)
    icc = image.info.get("icc_profile") or None
    if deep is not None:
        notes.append("The 16 bits per channel were reduced to 8.")
    colours, alpha = _colours_and_alpha(image if deep is None else _eight_bit_image(deep), name)
    pixels, native = _to_srgb(colours, icc, notes)
    return Picture(
        pixels=_upright(pixels, orientation),
        alpha=None if alpha is None else _upright(alpha, orientation),
        icc=icc,
        exif=exif,
        format=image.format,
        native=None if native is None else _upright(native, orientation),
        notes=tuple(notes),
    )


_STRUCTURAL_TAGS = frozenset(
    {*range(254, 260), 262, 266, 273, 277, 278, 279, 284, 317, *range(320, 326), 330, 338, 339, 347}
    | {513, 514, 530, 531, 532, 700, 33723, 34377, 34675}
)
"""TIFF tags that say how pixels are stored (TIFF 6.0, sections 3 to 15), not what the picture is about."""


def _read_exif(image: Image.Image, notes: list[str]) -> tuple[int, bytes | None]:
    """The orientation (1..8) and what is worth keeping of the EXIF block."""
    try:
        exif = image.getexif()
        orientation = exif.get(ExifTags.Base.Orientation, 1)
        if not exif:
            return 1, None
        for tag in _STRUCTURAL_TAGS & set(exif):
            del exif[tag]
        exif[ExifTags.Base.Orientation] = 1
        details = exif.get_ifd(ExifTags.IFD.Exif)
        if orientation in _SWAPS_SIDES and {ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight} <= set(
            details
        ):
            width, height = ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight
            details[width], details[height] = details[height], details[width]
        kept = exif.tobytes() if set(exif) - {ExifTags.Base.Orientation} else None
    except _DAMAGE:
        notes.append("The EXIF block is damaged and was left out.")
        return 1, None
    return orientation if orientation in _TURNS else 1, kept


_SWAPS_SIDES = frozenset({5, 6, 7, 8})

_TURNS: dict[int, tuple[bool, bool, bool]] = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
"""EXIF 2.32 orientation -> (transpose, then flip top to bottom, then flip left to right) that makes it upright."""


def _upright(array: NDArray[_Level], orientation: int) -> NDArray[_Level]:
    transpose, top_to_bottom, left_to_right = _TURNS[orientation]
    if transpose:
        array = array.swapaxes(0, 1)
    if top_to_bottom:
        array = array[::-1]
    if left_to_right:
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def _sixteen_bit_levels(image: Image.Image) -> NDArray[np.uint16] | None:
    """(height, width[, 3 or 4]) levels of a 16-bit PNG or TIFF, None for other files.

    Pillow reads grey with all 16 bits, but of colour it keeps each channel's upper byte only, which darkens by half a
    level on average; OpenCV reads them whole.
    """
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    file = getattr(image, "fp", None)
    if file is None or image.format not in {"PNG", "TIFF"} or ";16" not in str(getattr(image, "tile", "")):
        return None
    file.seek(0)
    decoded = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.dtype != np.uint16 or decoded.shape[:2] != (image.height, image.width):
        raise ValueError("its 16-bit pixels do not decode")
    levels = np.asarray(decoded, np.uint16)
    return levels if levels.ndim == 2 else levels[:, :, [2, 1, 0, 3][: levels.shape[2]]]  # noqa: PLR2004 - grey


def _eight_bit_image(levels: NDArray[np.uint16]) -> Image.Image:
    """Rounded: 0 -> 0, 65535 -> 255, and what was promoted from 8 bits (times 257) comes back exactly."""
    return Image.fromarray(((levels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8))


def _colours_and_alpha(image: Image.Image, name: str) -> tuple[Image.Image, NDArray[np.uint8] | None]:
    """The picture as L, RGB, CMYK or LAB, and its alpha where it has one that is not opaque everywhere."""
    if image.mode in {"I", "F"}:
        raise ImageError(
            f"{name} holds {'whole' if image.mode == 'I' else 'floating point'} numbers of 32 bits whose black and "
            "white are unknown; save it with 8 or 16 bits per channel."
        )
    if not image.has_transparency_data:
        return _without_palette(image), None
    rgba = image.convert("RGBA")
    alpha = np.array(rgba.getchannel("A"))
    colours = image.getchannel("L") if image.mode == "LA" else rgba.convert("RGB")
    return colours, alpha if alpha.min() < 255 else None  # noqa: PLR2004 - opaque


def _without_palette(image: Image.Image) -> Image.Image:
    if image.mode in {"L", "RGB", "CMYK", "LAB"}:
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _to_srgb(
    colours: Image.Image, icc: bytes | None, notes: list[str]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """(sRGB pixels, the pixels in the file's own RGB profile where that differs)."""
    if icc is not None:
        try:
            return _through_profile(colours, icc)
        except (ImageCms.PyCMSError, OSError, ValueError) as error:
            notes.append(f"The colour profile could not be used ({error}); the colours were taken as sRGB.")
    if colours.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        colours = ImageCms.profileToProfile(colours, lab, srgb, outputMode="RGB") or colours
    if colours.mode == "CMYK":
        notes.append("The picture is CMYK without a usable profile; its colours were converted by the plain formula.")
    return np.array(colours.convert("RGB")), None


_SPACE_TO_MODE = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}


def _through_profile(colours: Image.Image, icc: bytes) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    space = icc[16:20].decode("latin-1").strip()  # ICC.1:2022, 7.2.8: the data colour space
    mode = _SPACE_TO_MODE.get(space)
    if colours.mode == "L" and mode == "RGB":
        colours = colours.convert("RGB")
    if colours.mode != mode:
        raise ValueError(f"it is for {space} but the pixels are {colours.mode}")
    transform = _transform(profile, ImageCms.createProfile("sRGB"), colours.mode)
    if mode != "RGB":
        return np.array(_applied(transform, colours)), None
    lattice = Image.fromarray(_COLOUR_LATTICE)
    moved = np.abs(np.array(_applied(transform, lattice), np.int16) - _COLOUR_LATTICE).max()
    if moved <= SRGB_TOLERANCE:
        return np.array(colours), None
    return np.array(_applied(transform, colours)), np.array(colours)


def _from_srgb(pixels: RgbImage, icc: bytes) -> RgbImage:
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    transform = _transform(ImageCms.createProfile("sRGB"), profile, "RGB")
    return np.array(_applied(transform, Image.fromarray(pixels)))


def _transform(source: Any, target: Any, mode: str) -> ImageCms.ImageCmsTransform:
    # Relative colorimetric with black point compensation, as photo editors convert by default: in-gamut colours stay.
    return ImageCms.buildTransform(
        source,
        target,
        mode,
        "RGB",
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )


def _applied(transform: ImageCms.ImageCmsTransform, image: Image.Image) -> Image.Image:
    converted = ImageCms.applyTransform(image, transform)
    if converted is None:
        raise ValueError("the colour engine returned nothing")
    return converted


def _colour_lattice(steps: int = 18) -> RgbImage:
    levels = np.linspace(0, 255, steps).round().astype(np.uint8)
    return np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)


_COLOUR_LATTICE = _colour_lattice()


def _png_text(text: Mapping[str, str], xmp: str | None) -> PngInfo:
    chunks = PngInfo()
    if xmp is not None:
        chunks.add_itxt("XML:com.adobe.xmp", xmp)  # the keyword of XMP specification part 3, 1.1.5
    for key in sorted(text):
        if not 1 <= len(key.encode("latin-1", "replace")) <= 79 or not key.isprintable():  # noqa: PLR2004 - PNG 11.3.4
            raise ImageError(f"The PNG text key {key!r} is not 1 to 79 printable characters; shorten it.")
        chunks.add_text(key, text[key])
    return chunks


def _sync_folder(folder: Path) -> None:
    # Without this the rename itself may be lost when power fails.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
