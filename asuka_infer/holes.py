"""Holes: read, binarised, grown, shrunk and brought to coarser grids; the only place that touches polarity.

True (white, 1) is missing, everywhere. Going to a coarser grid a cell is missing as soon as any part of it is, so that
a stroke of one pixel survives at every alignment (nearest-neighbour scaling loses a 2-pixel stroke at 6 of 8).
"""

import hashlib
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from asuka_infer.images import MAX_PIXELS, encode_grey_png, open_checked, upright_levels, write_atomically
from asuka_infer.request import Hole

LARGEST_RADIUS = 512
"""The farthest a hole grows or shrinks, in pixels: OpenCV's float32 distances are exact up to about 880 (measured)."""


class HoleError(ValueError):
    """A hole that cannot be read or does not fit; the message says what is wrong, the value and what to do."""


def read_hole(
    source: Path | bytes | BinaryIO,
    size: tuple[int, int] | None = None,
    *,
    fit: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> Hole:
    """Read a hole from a picture file; white is missing.

    * Grey, colour, palette and 1-bit files: what is at least half bright is missing. A file of exactly two shades
      (0 and 1, say) counts its brighter one as missing.
    * Files with transparency: strokes drawn in one colour on a transparent sheet are missing where they are drawn
      (alpha at least half); of a black-and-white file the opaque white is missing; of any other picture (a photograph
      with a part erased) what is transparent is missing.

    Args:
        source: a path, the bytes of a file, or an open binary file.
        size: (height, width) of the picture that the hole belongs to.
        fit: scale a hole of another size but the same shape to `size`, instead of refusing it.
        max_pixels: the largest file that is decoded.

    Raises:
        ImageError: when the file cannot be read.
        HoleError: when nothing or everything is marked, or the size is another one.
    """
    with open_checked(source, max_pixels=max_pixels) as (image, name):
        levels, alpha = upright_levels(image, name)
    hole = _from_levels(levels) if alpha is None else _from_alpha(levels, alpha)
    _refuse_pointless(hole, levels, name)
    if size is None or hole.shape == size:
        return hole
    if not fit:
        raise HoleError(
            f"{name} is {hole.shape[1]}x{hole.shape[0]} but the picture is {size[1]}x{size[0]}; "
            "draw the hole at the picture's size or ask for it to be scaled."
        )
    if not _same_shape(hole.shape, size):
        raise HoleError(
            f"{name} is {hole.shape[1]}x{hole.shape[0]} and cannot be scaled to {size[1]}x{size[0]} without "
            "stretching it; draw the hole on the picture itself."
        )
    return resize(hole, size)


def binarise(levels: NDArray[Any], threshold: float = 0.5) -> Hole:
    """(height, width) levels -> hole: missing where the level is at least `threshold` of full brightness.

    Args:
        levels: bool, uint8 (0..255), uint16 (0..65535) or floating (0..1).
        threshold: 0 < threshold <= 1.

    Raises:
        HoleError: for another type or shape, or floating levels outside 0..1 (NaN included).
    """
    if levels.ndim != 2:  # noqa: PLR2004 - height, width
        raise HoleError(f"The hole has shape {levels.shape}, but (height, width) is needed; take one channel.")
    if not 0 < threshold <= 1:
        raise HoleError(f"The threshold is {threshold}; give a number above 0 and at most 1.")
    if levels.dtype == np.bool_:
        return levels.copy()
    if levels.dtype.kind == "u" and levels.dtype.itemsize <= _WIDEST_LEVEL:
        return levels >= threshold * np.iinfo(levels.dtype).max
    if not np.issubdtype(levels.dtype, np.floating):
        raise HoleError(f"The hole is {levels.dtype}; bool, uint8, uint16 or floating 0..1 is needed.")
    if not ((levels >= 0) & (levels <= 1)).all():
        raise HoleError(f"The hole's levels run from {levels.min()} to {levels.max()}; floating ones must be in 0..1.")
    return levels >= threshold


def grow(hole: Hole, px: float) -> Hole:
    """The hole and every pixel whose centre is at most `px` (0..`LARGEST_RADIUS`) from a hole pixel's centre."""
    _refuse_wrong_radius(px)
    grown = hole.copy()
    window = window_around(hole, int(px) + 1)
    if window is not None:
        grown[window] = _squared_distance(~hole[window]) <= px * px
    return grown


def shrink(hole: Hole, px: float) -> Hole:
    """The hole without every pixel whose centre is at most `px` from a known pixel's centre.

    Outside the picture nothing is known, so a hole does not recede from the picture's border.
    """
    _refuse_wrong_radius(px)
    shrunk = hole.copy()
    # Of all known pixels one nearest to the hole lies within 1 pixel of the hole's bounding box, or inside it.
    window = window_around(hole, 1)
    if window is not None and not hole[window].all():
        shrunk[window] = _squared_distance(hole[window]) > px * px
    return shrunk


def snap_outward(hole: Hole, grid: int) -> Hole:
    """The smallest hole made of whole `grid` x `grid` cells (counted from the top left) that contains the hole."""
    coarse = downsample(hole, grid)
    height, width = hole.shape
    return coarse.repeat(grid, axis=0).repeat(grid, axis=1)[:height, :width]


def downsample(hole: Hole, factor: int) -> Hole:
    """(height, width) -> (ceil(height / factor), ceil(width / factor)): a cell is missing when any pixel in it is."""
    if factor < 1:
        raise HoleError(f"The factor is {factor}; give a whole number of 1 or more.")
    rows = np.arange(0, hole.shape[0], factor)
    columns = np.arange(0, hole.shape[1], factor)
    return np.logical_or.reduceat(np.logical_or.reduceat(hole, rows, axis=0), columns, axis=1)


def resize(hole: Hole, size: tuple[int, int]) -> Hole:
    """The hole at another (height, width).

    An axis that gets coarser marks every cell that overlaps the hole at all, also where cells are no whole pixels
    (any size to the Masked-Auto-Encoder's 256). An axis that gets finer repeats the nearest pixel, so enlarging and
    coming back loses nothing.
    """
    if min(size) < 1:
        raise HoleError(f"The size is {size[1]}x{size[0]}; both sides must be 1 or more.")
    return _resize_rows(_resize_rows(hole, size[0]).T, size[1]).T.copy()


def window_around(hole: Hole, margin: int) -> tuple[slice, slice] | None:
    """Slices of rows and columns around all of the hole, `margin` pixels wider on every side; None without a hole.

    Work done inside it costs what the hole costs, not what a 40-megapixel photograph does.
    """
    rows = np.flatnonzero(hole.any(axis=1))
    if rows.size == 0:
        return None
    columns = np.flatnonzero(hole[rows[0] : rows[-1] + 1].any(axis=0))
    top, left = max(0, int(rows[0]) - margin), max(0, int(columns[0]) - margin)
    return slice(top, int(rows[-1]) + margin + 1), slice(left, int(columns[-1]) + margin + 1)


def looks_inverted(hole: Hole) -> bool:
    """Whether the hole looks like one drawn the other way round: most of it and most of its border are missing.

    A guess to ask about, never to act on: the complement of a rectangle looks the same and may be meant.
    """
    border = np.concatenate([hole[0], hole[-1], hole[:, 0], hole[:, -1]])
    return bool(hole.mean() > 0.5 and border.mean() > 0.5)  # noqa: PLR2004 - most


def hole_sha256(hole: Hole) -> str:
    """The SHA-256 of a hole's size and pixels, as 64 hex digits: the same for every file format that holds it."""
    digest = hashlib.sha256(f"hole {hole.shape[1]}x{hole.shape[0]}\n".encode())
    digest.update(np.packbits(hole).data)
    return digest.hexdigest()


def encode_hole_png(hole: Hole) -> bytes:
    """A grey PNG's bytes, 255 where missing and 0 where known; `read_hole` gives the same hole back."""
    return encode_grey_png(hole.astype(np.uint8) * np.uint8(255))


def write_hole_png(path: Path, hole: Hole) -> None:
    """Write `encode_hole_png` to a file, all of it or nothing."""
    write_atomically(path, encode_hole_png(hole))


def _from_levels(levels: NDArray[np.uint8]) -> Hole:
    shades = np.flatnonzero(np.bincount(levels.ravel(), minlength=256))
    if len(shades) == 2:  # noqa: PLR2004 - a file of two shades says which is which by their order
        return levels == shades[1]
    return binarise(levels)


_WIDEST_LEVEL = 2
_HALF_OPAQUE = 128
_SAME_SHADE = 8
"""Levels that opaque pixels of one drawn colour may differ by: the rounding of a premultiplied brush edge."""


def _from_alpha(levels: NDArray[Any], alpha: NDArray[np.uint8]) -> Hole:
    opaque = alpha >= _HALF_OPAQUE
    shades = levels[opaque].astype(np.int32)
    if shades.size == 0 or np.ptp(shades) <= _SAME_SHADE:
        return opaque
    white = int(np.iinfo(levels.dtype).max)
    if (np.minimum(shades, white - shades) <= _SAME_SHADE).all():
        return opaque & binarise(levels)
    return ~opaque


def _refuse_pointless(hole: Hole, levels: NDArray[Any], name: str) -> None:
    if not hole.any():
        full = np.iinfo(levels.dtype).max
        raise HoleError(
            f"{name} marks nothing as missing (its brightest pixel is {int(levels.max())} of {full}); "
            "white means missing, so paint white over what should be replaced."
        )
    if hole.all():
        raise HoleError(
            f"{name} marks every pixel as missing, so nothing is known to continue from; "
            "white means missing, so leave black what should stay."
        )


def _same_shape(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether one size is the other scaled, up to rounding the smaller one to whole pixels."""
    small, large = sorted([size, other], key=lambda sides: sides[0] * sides[1])
    return abs(small[0] * large[1] - small[1] * large[0]) <= max(large)


def _refuse_wrong_radius(px: float) -> None:
    if not 0 <= px <= LARGEST_RADIUS:
        raise HoleError(f"The radius is {px} pixels; give a number from 0 to {LARGEST_RADIUS}.")


def _squared_distance(away: NDArray[np.bool_]) -> NDArray[np.float64]:
    """For every pixel the squared distance to the nearest False pixel's centre."""
    distance = cv2.distanceTransform(away.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # Squared distances between pixel centres are whole numbers; rounding them removes the square root's error.
    return np.rint(np.square(np.asarray(distance, np.float64)))


def _resize_rows(hole: Hole, count: int) -> Hole:
    height = hole.shape[0]
    cells = np.arange(count)
    if count >= height:
        return hole[(2 * cells + 1) * height // (2 * count)]
    starts = cells * height // count
    stops = -(-(cells + 1) * height // count)
    # reduceat takes [start, stop) pairs, of which every second answer is the wanted one; a stop may be the very end.
    padded = np.concatenate([hole, np.zeros((1, hole.shape[1]), np.bool_)])
    return np.logical_or.reduceat(padded, np.stack([starts, stops], axis=1).ravel(), axis=0)[::2]
