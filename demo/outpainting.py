"""Outpainting: the canvas grows by a border on any side, and the border is the hole."""

import re
from dataclasses import dataclass, replace

import numpy as np

from asuka_infer.images import Picture
from asuka_infer.request import Hole

WIDEST_SHARE = 4.0
"""A side may grow by four times the picture: beyond it almost nothing is known to continue from (our choice)."""

_AMOUNT = re.compile(r"\s*(\d+(?:[.,]\d+)?)\s*(%|px)?\s*")


class CanvasError(ValueError):
    """A canvas that cannot be; the message says what to change."""


@dataclass(frozen=True)
class Border:
    """Pixels to add on each side of a picture.

    Raises:
        CanvasError: for negative numbers or nothing at all.
    """

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0

    def __post_init__(self) -> None:
        sides = (self.left, self.top, self.right, self.bottom)
        if min(sides) < 0:
            raise CanvasError(f"The border is {sides} pixels (left, top, right, bottom); give 0 or more.")
        if not any(sides):
            raise CanvasError("No side grows; give at least one of them a number, 25 % for example.")


def read_border(sides: tuple[str, str, str, str], size: tuple[int, int]) -> Border:
    """What somebody wrote for left, top, right and bottom: "25 %" of the picture's width or height, "200 px", "".

    A number without a unit is in per cent.

    Args:
        sides: left, top, right, bottom.
        size: (height, width) of the picture.

    Raises:
        CanvasError: for anything else, or a side that grows by more than `WIDEST_SHARE`.
    """
    height, width = size
    lengths = (width, height, width, height)
    return Border(*(_pixels(said, length) for said, length in zip(sides, lengths, strict=True)))


def extend(picture: Picture, border: Border, *, max_pixels: int) -> tuple[Picture, Hole]:
    """The picture on its larger canvas and the hole, (height, width) bool: exactly the border.

    The picture's own pixels, profile and EXIF are kept as they are. The border's colour is that of the nearest pixel:
    no method ever sees it, it is for the eye.

    Raises:
        CanvasError: when the canvas would have more than `max_pixels`.
    """
    height, width = picture.size
    rows, columns = (border.top, border.bottom), (border.left, border.right)
    tall, wide = height + sum(rows), width + sum(columns)
    if tall * wide > max_pixels:
        raise CanvasError(
            f"The canvas would be {wide}x{tall}, {tall * wide / 1e6:.0f} megapixels; at most "
            f"{max_pixels / 1e6:.0f} are handled. Grow it less, or start from a smaller photo."
        )
    hole = np.ones((tall, wide), np.bool_)
    hole[border.top : border.top + height, border.left : border.left + width] = False
    grown = replace(
        picture,
        pixels=np.pad(picture.pixels, (rows, columns, (0, 0)), mode="edge"),
        native=None if picture.native is None else np.pad(picture.native, (rows, columns, (0, 0)), mode="edge"),
        alpha=None if picture.alpha is None else np.pad(picture.alpha, (rows, columns), constant_values=255),
    )
    return grown, hole


def _pixels(said: str, length: int) -> int:
    if not said.strip():
        return 0
    match = _AMOUNT.fullmatch(said)
    if match is None:
        raise CanvasError(
            f"{said.strip()[:20]!r} is no amount; write a number with % or px, for example 25 % or 200 px."
        )
    amount = float(match[1].replace(",", "."))
    grown = round(amount if match[2] == "px" else amount * length / 100)
    if grown > WIDEST_SHARE * length:
        raise CanvasError(
            f"A side would grow by {grown} pixels; at most {WIDEST_SHARE:.0%} of the picture "
            f"({round(WIDEST_SHARE * length)} pixels) can be imagined. Grow it in steps."
        )
    return grown
