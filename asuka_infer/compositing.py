"""Put the known pixels back: exactly, or with a ramp that lies wholly outside the hole.

The alpha is 1 everywhere inside the hole in both ways, so what was removed can never shine through. (Blurring the hole
itself, as is common, makes half of its pixels half transparent.)
"""

from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from asuka_infer.holes import LARGEST_RADIUS, window_around
from asuka_infer.images import differing
from asuka_infer.request import Hole, RgbImage

Compositing = Literal["exact", "seamless"]
"""How the filled hole meets the known pixels: "exact" changes none of them, "seamless" blends a ring around it."""

DEFAULT_RAMP = 8
"""Width of the seamless ring in pixels. Our choice: one cell of a latent diffusion model's grid, where seams lie."""


_SMALLEST_WEIGHT = 1e-6
"""Below it a weight is float32 rounding: it cannot change an 8-bit level, and the pixel does not count as blended."""


class CompositingError(ValueError):
    """Pictures or a hole that do not belong together; the message names the sizes."""


def exact(original: RgbImage, filled: RgbImage, hole: Hole) -> RgbImage:
    """`filled` inside the hole, `original` everywhere else, bit for bit."""
    _refuse_misfits(original, filled, hole)
    result = original.copy()
    window = window_around(hole, 0)
    if window is not None:
        # Only where the hole is: of a photo of 40 MP with a small one 0.2 s instead of 1.6 (measured).
        result[window][hole[window]] = filled[window][hole[window]]
    return result


def seamless(original: RgbImage, filled: RgbImage, hole: Hole, *, ramp: int = DEFAULT_RAMP) -> RgbImage:
    """`filled` inside the hole, fading into `original` over `ramp` pixels outside it; see `ramp_alpha`."""
    _refuse_misfits(original, filled, hole)
    _refuse_wrong_ramp(ramp)
    result = exact(original, filled, hole)
    window = window_around(hole, ramp + 1)
    if window is None:
        return result
    alpha = _alpha_near(hole[window], ramp)
    ring = (alpha > 0) & ~hole[window]
    weight = alpha[ring][:, None]
    # Slices give views, so assigning to the ring of the window changes the result itself.
    result[window][ring] = np.rint(weight * filled[window][ring] + (1 - weight) * original[window][ring])
    return result


def ramp_alpha(hole: Hole, ramp: int) -> NDArray[np.float32]:
    """(height, width) weight of the filled picture: 1 in the hole, max(0, 1 - d / (ramp + 1)) at distance d from it.

    d is the Euclidean distance in pixels to the nearest hole pixel's centre, so straight outwards exactly `ramp`
    pixels are blended. With `ramp` 0 this is the hole itself.
    """
    _refuse_wrong_ramp(ramp)
    alpha = np.zeros(hole.shape, np.float32)
    window = window_around(hole, ramp + 1)
    if window is not None:
        alpha[window] = _alpha_near(hole[window], ramp)
    return alpha


def with_ring(hole: Hole, ramp: int = DEFAULT_RAMP) -> Hole:
    """The hole and every known pixel that `seamless` may change: where the weight is above 0."""
    _refuse_wrong_ramp(ramp)
    both = hole.copy()
    window = window_around(hole, ramp + 1)
    if window is not None:
        both[window] = _alpha_near(hole[window], ramp) > 0
    return both


def ring_count(hole: Hole, ramp: int) -> int:
    """How many known pixels `seamless` may change: those with a weight between 0 and 1."""
    return int(np.count_nonzero(with_ring(hole, ramp)) - np.count_nonzero(hole))


def changed_outside(original: RgbImage, result: RgbImage, hole: Hole) -> int:
    """How many pixels outside the hole differ in any channel, counted from the pictures themselves."""
    _refuse_misfits(original, result, hole)
    return int(np.count_nonzero(differing(original, result) & ~hole))


def _alpha_near(hole: Hole, ramp: int) -> NDArray[np.float32]:
    distance = cv2.distanceTransform((~hole).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    alpha = 1 - np.asarray(distance, np.float32) / np.float32(ramp + 1)
    # A weight that float32 rounding leaves above 0 at d = ramp + 1 would still blend nothing visible.
    return np.where(alpha > _SMALLEST_WEIGHT, alpha, np.float32(0))


def _refuse_wrong_ramp(ramp: int) -> None:
    if not 0 <= ramp <= LARGEST_RADIUS:
        raise CompositingError(f"The ramp is {ramp} pixels; give a whole number from 0 to {LARGEST_RADIUS}.")


def _refuse_misfits(original: NDArray[Any], other: NDArray[Any], hole: NDArray[Any]) -> None:
    if original.shape != other.shape or original.shape[:2] != hole.shape:
        raise CompositingError(
            f"The pictures have shapes {original.shape} and {other.shape} and the hole {hole.shape}; "
            "they must be of one size."
        )
    if original.dtype != np.uint8 or other.dtype != np.uint8 or hole.dtype != np.bool_:
        raise CompositingError(
            f"The pictures are {original.dtype} and {other.dtype} and the hole {hole.dtype}; "
            "uint8, uint8 and bool are needed."
        )
