"""Numbers that compare a result with the truth pixel by pixel; one number per picture, no network.

Every function takes `(results, truths, holes)`, alike many of each, and puts the known pixels back first: what a method
did outside the hole is never counted, as in the official scripts.
"""

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, uniform_filter
from skimage.metrics import structural_similarity

from asuka_infer.compositing import exact
from asuka_infer.request import Hole, RgbImage

_Number = Callable[[NDArray[np.float64], NDArray[np.float64], Hole], float]

Scores = NDArray[np.float64]
"""(n,): one number per picture."""

PSNR_FLOOR = 1e-7
"""Added to the mean squared error by the official script: a perfect result has 70 dB, not infinity."""

GREY = (0.2989, 0.587, 0.114)
"""Luma weights of the official script (MATLAB's)."""

SSIM_WINDOW = 7
"""Side of SSIM's uniform window in the official script (scikit-image's default)."""

BAND = 3
"""Width in px of the strip inside the hole's edge over which a colour step is looked for (our choice)."""

REACH = 17
"""Side in px of the neighbourhood over which a colour step is averaged, so that texture does not count (our choice)."""

LEVELS = 255
"""Full scale of a byte; colour steps are told in its levels."""


class MetricError(ValueError):
    """Pictures that cannot be compared; the message says which."""


def composited(results: Sequence[RgbImage], truths: Sequence[RgbImage], holes: Sequence[Hole]) -> list[RgbImage]:
    """The results inside their holes, the truths elsewhere.

    Raises:
        MetricError: when there is nothing to compare, or numbers or sizes do not agree.
    """
    if not len(results) == len(truths) == len(holes) or not len(results):
        raise MetricError(f"There are {len(results)} results, {len(truths)} truths, {len(holes)} holes; give one each.")
    for number, (result, truth, hole) in enumerate(zip(results, truths, holes, strict=True)):
        if not result.shape == truth.shape == (*hole.shape, 3) or not hole.any():
            raise MetricError(
                f"Picture {number}: result {result.shape}, truth {truth.shape}, hole {hole.shape} with "
                f"{int(hole.sum())} pixels; they must be of one size and the hole not empty."
            )
    return [exact(truth, result, hole) for result, truth, hole in zip(results, truths, holes, strict=True)]


def hole_l1(results: Sequence[RgbImage], truths: Sequence[RgbImage], holes: Sequence[Hole]) -> Scores:
    """Mean absolute difference inside the hole, in [0, 1]."""
    return _each(results, truths, holes, lambda result, truth, hole: float(np.abs(result - truth)[hole].mean()))


def psnr(results: Sequence[RgbImage], truths: Sequence[RgbImage], holes: Sequence[Hole]) -> Scores:
    """Peak signal-to-noise ratio of the whole composited picture in dB."""
    return _each(results, truths, holes, lambda result, truth, _: _decibels(result - truth))


def hole_psnr(results: Sequence[RgbImage], truths: Sequence[RgbImage], holes: Sequence[Hole]) -> Scores:
    """The same over the pixels of the hole alone: does not depend on how large the hole is."""
    return _each(results, truths, holes, lambda result, truth, hole: _decibels((result - truth)[hole]))


def ssim(results: Sequence[RgbImage], truths: Sequence[RgbImage], holes: Sequence[Hole]) -> Scores:
    """Structural similarity of the composited grey pictures (uniform 7x7 window, sample covariance)."""
    return _each(
        results,
        truths,
        holes,
        lambda result, truth, _: _similarity(result @ np.array(GREY), truth @ np.array(GREY)),
    )


def colour_step(results: Sequence[RgbImage], truths: Sequence[RgbImage], holes: Sequence[Hole]) -> Scores:
    """How far colours jump at the edge of the hole beyond what the truth does, in levels of 255.

    On the strip of `BAND` px inside the edge, the difference to the truth is averaged over `REACH` px: texture, right
    or wrong, averages out, a tint does not. The mean of its absolute value over the strip and the colours is told.
    Where the hole meets the border of the picture there is no edge.

    Raises:
        MetricError: when a hole covers everything.
    """
    return _each(results, truths, holes, _step)


def _similarity(result: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    # With its defaults scikit-image returns one number; its stubs list every other form.
    return float(cast("float", structural_similarity(result, truth, win_size=SSIM_WINDOW, data_range=1.0)))


def _step(result: NDArray[np.float64], truth: NDArray[np.float64], hole: Hole) -> float:
    deep: Hole = np.asarray(binary_erosion(hole, iterations=BAND, border_value=1), dtype=bool)
    strip = hole & ~deep
    if not strip.any():
        raise MetricError("A hole covers the whole picture, so it has no edge; leave some of the picture known.")
    share = uniform_filter(strip.astype(float), REACH, mode="constant")
    tint = uniform_filter((result - truth) * strip[..., None], REACH, mode="constant", axes=(0, 1))
    return float(np.abs(tint[strip] / share[strip][:, None]).mean()) * LEVELS


def _each(results: Sequence[RgbImage], truths: Sequence[RgbImage], holes: Sequence[Hole], number: _Number) -> Scores:
    pairs = zip(composited(results, truths, holes), truths, holes, strict=True)
    return np.array([number(_unit(result), _unit(truth), hole) for result, truth, hole in pairs])


def _unit(picture: RgbImage) -> NDArray[np.float64]:
    return picture.astype(np.float64) / LEVELS


def _decibels(difference: NDArray[np.float64]) -> float:
    return float(-10 * np.log10(np.square(difference).mean() + PSNR_FLOOR))
