"""What is asked of every inpainting method, and what it answers: numpy arrays, validated once, frozen."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

RgbImage = NDArray[np.uint8]
"""(height, width, 3), sRGB, 0..255."""

Hole = NDArray[np.bool_]
"""(height, width), True where pixels are missing."""

LARGEST_SEED = 2**32 - 1
"""The largest seed that torch's CPU generator tells apart: it reads 32 bits, so 0 and 2**32 draw the same noise."""


class RequestError(ValueError):
    """An image, hole or seed that no method can work with; the message says what to change."""


@dataclass(frozen=True, eq=False)
class InpaintRequest:
    """One picture with missing pixels.

    Nothing here is known to one method alone: a method's own knobs (steps, prior picture) are its settings.

    Attributes:
        image: (height, width, 3) uint8 sRGB. Pixels under the hole are set to 0 on construction, so that no method
            can read what it is asked to replace.
        hole: (height, width) bool, True = missing. Neither empty nor everything.
        seed: names the random draw, 0..2**32-1; the same request gives the same answer.

    Raises:
        RequestError: when shapes, types or values do not fit.
    """

    image: RgbImage
    hole: Hole
    seed: int = 0

    def __post_init__(self) -> None:
        _refuse_wrong_image(self.image)
        _refuse_wrong_hole(self.hole, self.image)
        if isinstance(self.seed, bool) or not isinstance(self.seed, Integral) or not 0 <= self.seed <= LARGEST_SEED:
            raise RequestError(f"The seed is {self.seed!r}; give a whole number from 0 to {LARGEST_SEED}.")
        image, hole = self.image.copy(), self.hole.copy()
        image[hole] = 0
        image.setflags(write=False)
        hole.setflags(write=False)
        object.__setattr__(self, "image", image)
        object.__setattr__(self, "hole", hole)
        object.__setattr__(self, "seed", int(self.seed))

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.image.shape[0], self.image.shape[1]


@dataclass(frozen=True, eq=False)
class InpaintResult:
    """A method's answer to one request.

    Attributes:
        image: (height, width, 3) uint8 sRGB, the request's size.
        previews: named pictures of how the method got there (for example "prior", the Masked-Auto-Encoder's
            reconstruction), each (any height, any width, 3) uint8 sRGB. Empty for most methods.
    """

    image: RgbImage
    previews: Mapping[str, RgbImage] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        _refuse_wrong_image(self.image)


def _refuse_wrong_image(image: RgbImage) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:  # noqa: PLR2004 - height, width, RGB
        raise RequestError(
            f"The image is {image.dtype} with shape {image.shape}, but (height, width, 3) uint8 is needed; "
            "asuka_infer.images.read_image gives that form."
        )
    if 0 in image.shape:
        raise RequestError(f"The image has no pixels (shape {image.shape}); choose another file.")


def _refuse_wrong_hole(hole: Hole, image: RgbImage) -> None:
    if hole.dtype != np.bool_ or hole.ndim != 2:  # noqa: PLR2004 - height, width
        raise RequestError(
            f"The hole is {hole.dtype} with shape {hole.shape}, but (height, width) bool is needed; "
            "asuka_infer.holes.read_hole gives that form."
        )
    if hole.shape != image.shape[:2]:
        raise RequestError(
            f"The hole is {hole.shape[1]}x{hole.shape[0]} but the image is {image.shape[1]}x{image.shape[0]}; "
            "resize one of them first."
        )
    if not hole.any():
        raise RequestError("The hole is empty: no pixel is marked as missing; paint over what should be replaced.")
    if hole.all():
        raise RequestError("The hole covers the whole image, so nothing is known to continue from; leave some of it.")
