"""Numbers that compare a result with the truth pixel by pixel; one number per picture, no network.

Every function takes `(results, truths, holes)`, alike many of each, and puts the known pixels back first: what a method
did outside the hole is never counted, as in the official scripts. `pixel_scores` gives all numbers of one picture.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, uniform_filter
from skimage.metrics import structural_similarity

from asuka_infer.compositing import exact
from asuka_infer.holes import grow, shrink, window_around
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
"""Full scale of a byte; colour steps and gradient errors are told in its levels."""

PERCENT = 100
"""L1 and L2 of whole pictures are told in percent, as published tables do."""

BOUNDARY_SHARE = 4 / 256
"""Half the width of the boundary band as a share of the picture's shorter side: 4 px at 256. DFNet does not say which
pixels its boundary is made of, so this is our choice."""

CANNY_THRESHOLDS = (100, 200)
"""Of the edge detector that the official gradient error finds the hole's outline with."""


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


def l1(results: Sequence[RgbImage], truths: Sequence[RgbImage], holes: Sequence[Hole]) -> Scores:
    """Mean absolute difference of the whole composited picture in percent of full scale (0..100)."""
    return _each(results, truths, holes, lambda result, truth, _: PERCENT * float(np.abs(result - truth).mean()))


def l2(results: Sequence[RgbImage], truths: Sequence[RgbImage], holes: Sequence[Hole]) -> Scores:
    """Mean squared difference of the whole composited picture in percent of full scale squared (0..100)."""
    return _each(results, truths, holes, lambda result, truth, _: PERCENT * float(np.square(result - truth).mean()))


def boundary_error(results: Sequence[RgbImage], truths: Sequence[RgbImage], holes: Sequence[Hole]) -> Scores:
    """BPE of DFNet (Hong et al., ACM MM 2019), |b (I - I')|_1 / |b|_1, in percent of full scale.

    b is 1 on the band of all pixels at most r from the hole's outline on either side, r = `BOUNDARY_SHARE` of the
    shorter side, rounded and at least 1. Known pixels of the band are put back, so they count with difference 0.
    """
    return _each(results, truths, holes, _boundary)


def gradient_error(results: Sequence[RgbImage], truths: Sequence[RgbImage], holes: Sequence[Hole]) -> Scores:
    """How far brightness gradients on the hole's outline are from the truth's, in levels of 255.

    As the official script: Sobel 3x3 of each channel, length of the difference of the two gradients, mean over the
    pixels that Canny finds on the hole and over the channels.

    Raises:
        MetricError: when Canny finds no outline (a hole of a pixel or two).
    """
    return _each(results, truths, holes, _gradient)


def hole_ssim(results: Sequence[RgbImage], truths: Sequence[RgbImage], holes: Sequence[Hole]) -> Scores:
    """The map of `ssim` averaged over the pixels of the hole alone (mirrored at the picture's border)."""
    return _each(results, truths, holes, lambda result, truth, hole: float(_ssim_map(result, truth)[1][hole].mean()))


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
        lambda result, truth, _: _ssim_map(result, truth)[0],
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


def pixel_scores(result: RgbImage, truth: RgbImage, hole: Hole) -> dict[str, float]:
    """Every number of one picture by its published name; "-hole" counts the pixels of the hole alone.

    `l1`, `l2` and `bpe` are percent, `psnr` is dB, `gradient` and `colour-step` are levels of 255.

    Raises:
        MetricError: when sizes do not agree, or the hole has no edge.
    """
    filled = composited([result], [truth], [hole])[0]
    one, other = _unit(filled), _unit(truth)
    gap = one - other
    whole, similar = _ssim_map(one, other)
    return {
        "psnr": _decibels(gap),
        "psnr-hole": _decibels(gap[hole]),
        "ssim": whole,
        "ssim-hole": float(similar[hole].mean()),
        "l1": PERCENT * float(np.abs(gap).mean()),
        "l1-hole": PERCENT * float(np.abs(gap[hole]).mean()),
        "l2": PERCENT * float(np.square(gap).mean()),
        "l2-hole": PERCENT * float(np.square(gap[hole]).mean()),
        "bpe": _boundary(one, other, hole),
        "gradient": _gradient(one, other, hole),
        "colour-step": _step(one, other, hole),
    }


def _ssim_map(result: NDArray[np.float64], truth: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """The mean over windows that lie inside the picture, and the value at every pixel."""
    if min(result.shape[:2]) < SSIM_WINDOW:
        raise MetricError(f"A picture of {result.shape[1]}x{result.shape[0]} is smaller than SSIM's 7x7 window.")
    grey = (result @ np.array(GREY), truth @ np.array(GREY))
    similarity = partial(structural_similarity, win_size=SSIM_WINDOW, data_range=1.0, full=True)
    # With `full` scikit-image returns two things; its stubs list every other form.
    mean, each = cast("tuple[float, NDArray[np.float64]]", similarity(*grey))
    return float(mean), each


def _boundary(result: NDArray[np.float64], truth: NDArray[np.float64], hole: Hole) -> float:
    reach = max(1, round(BOUNDARY_SHARE * min(hole.shape)))
    band = grow(hole, reach) & ~shrink(hole, reach)
    if not band.any():
        raise MetricError("A hole covers the whole picture, so it has no boundary; leave some of the picture known.")
    return PERCENT * float(np.abs(result - truth)[band].mean())


def _gradient(result: NDArray[np.float64], truth: NDArray[np.float64], hole: Hole) -> float:
    outline = cv2.Canny(hole.astype(np.uint8) * np.uint8(LEVELS), *CANNY_THRESHOLDS) > 0
    if not outline.any():
        raise MetricError(f"Canny finds no outline of a hole with {int(hole.sum())} pixels; give a larger hole.")
    near = window_around(outline, 2)  # Sobel looks one pixel far
    gap = LEVELS * (result[near] - truth[near])  # Sobel is linear: the gradient of the difference is the difference
    across, down = (np.asarray(cv2.Sobel(gap, cv2.CV_64F, dx, dy, ksize=3)) for dx, dy in ((1, 0), (0, 1)))
    return float(np.hypot(across, down)[outline[near]].mean())


def _step(result: NDArray[np.float64], truth: NDArray[np.float64], hole: Hole) -> float:
    near = window_around(hole, REACH)
    hole = hole[near]
    deep: Hole = np.asarray(binary_erosion(hole, iterations=BAND, border_value=1), dtype=bool)
    strip = hole & ~deep
    if not strip.any():
        raise MetricError("A hole covers the whole picture, so it has no edge; leave some of the picture known.")
    share = uniform_filter(strip.astype(float), REACH, mode="constant")
    tint = uniform_filter((result[near] - truth[near]) * strip[..., None], REACH, mode="constant", axes=(0, 1))
    return float(np.abs(tint[strip] / share[strip][:, None]).mean()) * LEVELS


def _each(results: Sequence[RgbImage], truths: Sequence[RgbImage], holes: Sequence[Hole], number: _Number) -> Scores:
    pairs = zip(composited(results, truths, holes), truths, holes, strict=True)
    return np.array([number(_unit(result), _unit(truth), hole) for result, truth, hole in pairs])


def _unit(picture: RgbImage) -> NDArray[np.float64]:
    return picture.astype(np.float64) / LEVELS


def _decibels(difference: NDArray[np.float64]) -> float:
    return float(-10 * np.log10(np.square(difference).mean() + PSNR_FLOOR))
