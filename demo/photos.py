"""What the visitor sees and paints on: a small copy of the photo, and the hole brought back to the photo's own size."""

import base64
import binascii
import io

import cv2
import numpy as np
from numpy.typing import NDArray

from asuka_infer.holes import resize
from asuka_infer.images import open_checked, upright_levels
from asuka_infer.request import Hole, RgbImage

LONGEST_PROXY_SIDE = 1536
"""Pixels. Large enough to paint hair on a 27-inch screen, small enough for a phone's canvas and 3 MB as PNG."""

LARGEST_HOLE_TEXT = 800_000
"""Characters. A hole of the largest proxy at one bit per pixel, not compressed at all, has 400,000 in base64."""

CHECKER_CELL = 12
CHECKER_SHADES = (255, 224)
"""Transparent parts are shown over light squares, as image editors do."""

_HALF = 127


class HoleTextError(ValueError):
    """What the painter sent is no hole for this photo; the message says what to do."""


def proxy_size(size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of what the browser shows of a photo of `size`: never enlarged, the shape kept."""
    longest = max(size)
    if longest <= LONGEST_PROXY_SIDE:
        return size
    height, width = (max(1, round(side * LONGEST_PROXY_SIDE / longest)) for side in size)
    return height, width


def proxy_of(pixels: RgbImage, alpha: NDArray[np.uint8] | None = None) -> RgbImage:
    """A photo as the browser shows it: (height, width, 3) uint8 of `proxy_size`, transparency over squares."""
    height, width = proxy_size((pixels.shape[0], pixels.shape[1]))
    small = np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    if alpha is None:
        return small
    weight = np.asarray(cv2.resize(alpha, (width, height), interpolation=cv2.INTER_AREA), np.float32)[..., None] / 255
    rows, columns = np.indices((height, width)) // CHECKER_CELL
    squares = np.asarray(CHECKER_SHADES, np.float32)[(rows + columns) % 2][..., None]
    return np.rint(weight * small + (1 - weight) * squares).astype(np.uint8)


def on_proxy(hole: Hole) -> Hole:
    """A hole at the proxy's size: every proxy pixel that holds a missing pixel, so that no sliver is forgotten."""
    small = proxy_size((hole.shape[0], hole.shape[1]))
    return _any_in(_any_in(hole, small[0]).T, small[1]).T


def read_painted_hole(text: str, size: tuple[int, int]) -> Hole:
    """The hole that the painter drew on the proxy, at the photo's own (height, width).

    Every pixel of the photo asks the one proxy pixel that its centre lies in, so what was painted arrives exactly,
    neither blurred nor grown.

    Args:
        text: base64 of a PNG of the proxy's size, white = missing.
        size: (height, width) of the photo.

    Raises:
        HoleTextError: for anything but such a PNG. Only a page that is older than the server sends that.
    """
    if len(text) > LARGEST_HOLE_TEXT:
        raise HoleTextError(f"The hole has {len(text)} characters, at most {LARGEST_HOLE_TEXT}; reload the page.")
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise HoleTextError(f"The hole could not be read ({error}); reload the page.") from error
    expected = proxy_size(size)
    with open_checked(io.BytesIO(data), max_pixels=LONGEST_PROXY_SIDE**2) as (image, _name):
        levels, _alpha = upright_levels(image, "the hole")
    if levels.shape != expected:
        raise HoleTextError(
            f"The hole is {levels.shape[1]}x{levels.shape[0]} but the photo is shown at {expected[1]}x{expected[0]}; "
            "reload the page and paint it again."
        )
    return resize(levels > _HALF, size)


def _any_in(rows: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
    """`count` rows, each true where any row is whose centre lies in it, as `read_painted_hole` asks."""
    length = rows.shape[0]
    starts = -(-(2 * length * np.arange(count) - count) // (2 * count))
    return np.logical_or.reduceat(rows, starts, axis=0)
