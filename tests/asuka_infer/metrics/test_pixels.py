"""Pixel metrics against closed forms and brute force."""

import math
from typing import Any

import cv2
import numpy as np
import pytest
from skimage.metrics import mean_squared_error, structural_similarity

from asuka_infer.metrics.pixels import (
    MetricError,
    boundary_error,
    colour_step,
    composited,
    gradient_error,
    hole_l1,
    hole_psnr,
    hole_ssim,
    l1,
    l2,
    pixel_scores,
    psnr,
    ssim,
)
from asuka_infer.request import Hole, RgbImage


def photograph(seed: int = 0, size: int = 40) -> RgbImage:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def square_hole(size: int = 40) -> Hole:
    hole = np.zeros((size, size), dtype=bool)
    hole[10:30, 12:32] = True
    return hole


def test_what_a_method_did_outside_the_hole_is_never_counted() -> None:
    truth, hole = photograph(), square_hole()
    result = photograph(1)
    result[hole] = truth[hole]

    assert hole_l1([result], [truth], [hole])[0] == 0
    assert psnr([result], [truth], [hole])[0] == pytest.approx(70)
    assert ssim([result], [truth], [hole])[0] == pytest.approx(1)
    assert colour_step([result], [truth], [hole])[0] == 0
    assert np.array_equal(composited([result], [truth], [hole])[0], truth)


def test_a_constant_offset_in_the_hole_gives_the_closed_forms() -> None:
    truth, hole = np.full((40, 40, 3), 100, np.uint8), square_hole()
    result = truth + np.uint8(51)  # a fifth of full scale

    assert hole_l1([result], [truth], [hole])[0] == pytest.approx(0.2)
    assert hole_psnr([result], [truth], [hole])[0] == pytest.approx(-10 * math.log10(0.04), abs=1e-4)
    # The hole is a quarter of the picture.
    assert psnr([result], [truth], [hole])[0] == pytest.approx(-10 * math.log10(0.01), abs=1e-4)
    assert colour_step([result], [truth], [hole])[0] == pytest.approx(51)


def test_ssim_is_the_textbook_formula_over_every_window() -> None:
    truth, hole = photograph(2, 16), np.ones((16, 16), dtype=bool)
    hole[:2] = False
    result = photograph(3, 16)
    filled = composited([result], [truth], [hole])[0]
    weights = np.array([0.2989, 0.587, 0.114])
    x, y = filled / 255 @ weights, truth / 255 @ weights
    values: list[float] = []
    for top in range(10):
        for left in range(10):
            a, b = x[top : top + 7, left : left + 7].ravel(), y[top : top + 7, left : left + 7].ravel()
            (va, vab), (_, vb) = np.cov(a, b)
            numerator = (2 * a.mean() * b.mean() + 0.01**2) * (2 * vab + 0.03**2)
            values.append(numerator / ((a.mean() ** 2 + b.mean() ** 2 + 0.01**2) * (va + vb + 0.03**2)))

    assert ssim([result], [truth], [hole])[0] == pytest.approx(np.mean(values), abs=1e-6)


def test_the_colour_step_sees_a_tint_but_hardly_a_texture() -> None:
    truth, hole = np.full((80, 80, 3), 128, np.uint8), np.zeros((80, 80), dtype=bool)
    hole[20:60, 20:60] = True
    noise = np.random.default_rng(0).integers(-20, 21, truth.shape)
    textured = (truth + noise).astype(np.uint8)
    tinted = truth + np.array([20, 0, 0], np.uint8)

    assert colour_step([tinted], [truth], [hole])[0] == pytest.approx(20 / 3)
    assert colour_step([textured], [truth], [hole])[0] < 2.5
    assert hole_l1([textured], [truth], [hole])[0] > hole_l1([tinted], [truth], [hole])[0]


def test_the_colour_step_does_not_look_deeper_than_the_edge() -> None:
    truth, hole = photograph(), square_hole()
    result = truth.copy()
    result[14:26, 16:28] = 0

    assert colour_step([result], [truth], [hole])[0] == 0
    assert hole_l1([result], [truth], [hole])[0] > 0


def test_where_a_hole_meets_the_border_there_is_no_edge() -> None:
    truth = np.full((40, 40, 3), 100, np.uint8)
    hole = np.zeros((40, 40), dtype=bool)
    hole[:20] = True
    result = truth.copy()
    result[:10] = 200

    assert colour_step([result], [truth], [hole])[0] == 0


def test_the_colour_step_is_the_local_mean_by_brute_force() -> None:
    truth, hole, result = photograph(4), square_hole(), photograph(5)
    inner = np.zeros_like(hole)
    for row in range(40):
        for column in range(40):
            near = [(row + r, column + c) for r in range(-3, 4) for c in range(-3, 4) if abs(r) + abs(c) <= 3]
            inner[row, column] = all(not (0 <= r < 40 and 0 <= c < 40) or hole[r, c] for r, c in near)
    strip = hole & ~inner
    steps: list[float] = []
    for row, column in zip(*np.nonzero(strip), strict=True):
        window = (slice(max(0, row - 8), row + 9), slice(max(0, column - 8), column + 9))
        difference = (result.astype(float) - truth)[window][strip[window]]
        steps.append(float(np.abs(difference.mean(0)).mean()))

    assert colour_step([result], [truth], [hole])[0] == pytest.approx(np.mean(steps))


@pytest.mark.parametrize(
    ("result", "hole"), [(photograph(0, 39), square_hole()), (photograph(), np.zeros((40, 40), dtype=bool))]
)
def test_pictures_that_do_not_fit_are_refused(result: RgbImage, hole: Hole) -> None:
    with pytest.raises(MetricError, match="Picture 0"):
        hole_l1([result], [photograph()], [hole])


def test_unequal_numbers_and_nothing_at_all_are_refused() -> None:
    with pytest.raises(MetricError, match="1 results, 2 truths"):
        psnr([photograph()], [photograph()] * 2, [square_hole()])
    with pytest.raises(MetricError, match="0 results"):
        psnr([], [], [])


def test_a_hole_without_an_edge_has_no_colour_step() -> None:
    with pytest.raises(MetricError, match="no edge"):
        colour_step([photograph()], [photograph()], [np.ones((40, 40), dtype=bool)])


def test_l1_and_l2_are_percentages_of_full_scale() -> None:
    truth, hole = np.full((40, 40, 3), 100, np.uint8), square_hole()
    result = truth + np.uint8(51)  # a fifth of full scale in a quarter of the picture

    assert l1([result], [truth], [hole])[0] == pytest.approx(5)
    assert l2([result], [truth], [hole])[0] == pytest.approx(1)
    noisy = photograph(1)
    filled = composited([noisy], [photograph()], [hole])[0]
    expected = 100 * mean_squared_error(filled / 255, photograph() / 255)
    assert l2([noisy], [photograph()], [hole])[0] == pytest.approx(expected)


def test_the_boundary_error_counts_a_band_on_both_sides_of_the_outline() -> None:
    truth, hole = np.full((64, 64, 3), 100, np.uint8), np.zeros((64, 64), dtype=bool)
    hole[:, 32:] = True
    result = truth + np.uint8(51)

    # At 64 px the band is 1 px on either side; the outer half is known, so it has no error.
    assert boundary_error([result], [truth], [hole])[0] == pytest.approx(100 * 0.2 / 2)
    hole = np.zeros((512, 512), dtype=bool)
    hole[:, 256:] = True
    deep = np.full((512, 512, 3), 100, np.uint8)
    result = deep.copy()
    result[:, 264:] = 0  # the band is 8 px at 512: nothing deeper counts
    assert boundary_error([result], [deep], [hole])[0] == 0
    result[:, 263] = 0
    assert boundary_error([result], [deep], [hole])[0] == pytest.approx(100 * 100 / 255 / 16)


def test_the_gradient_error_is_the_official_script_s_in_plain_loops() -> None:
    truth, hole, result = photograph(6), square_hole(), photograph(7)
    filled = composited([result], [truth], [hole])[0]
    outline = cv2.Canny(hole.astype(np.uint8) * np.uint8(255), 100, 200) > 0
    kernel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    total: list[float] = []
    for channel in range(3):
        a, b = filled[..., channel].astype(float), truth[..., channel].astype(float)
        for row, column in zip(*np.nonzero(outline), strict=True):
            near = (slice(row - 1, row + 2), slice(column - 1, column + 2))
            dx = (kernel * a[near]).sum() - (kernel * b[near]).sum()
            dy = (kernel.T * a[near]).sum() - (kernel.T * b[near]).sum()
            total.append(math.hypot(dx, dy))

    assert gradient_error([result], [truth], [hole])[0] == pytest.approx(np.mean(total), rel=1e-9)


def test_hole_ssim_is_scikit_image_s_map_over_the_hole() -> None:
    truth, hole, result = photograph(8), square_hole(), photograph(9)
    weights = np.array([0.2989, 0.587, 0.114])
    filled = composited([result], [truth], [hole])[0]
    similarity: Any = structural_similarity  # its stubs list forms that `full` excludes
    _, each = similarity(filled / 255 @ weights, truth / 255 @ weights, data_range=1.0, full=True)

    assert hole_ssim([result], [truth], [hole])[0] == pytest.approx(each[hole].mean())


def test_all_numbers_of_a_picture_at_once_are_the_single_ones() -> None:
    truth, hole, result = photograph(10), square_hole(), photograph(11)
    single = {
        "psnr": psnr, "psnr-hole": hole_psnr, "ssim": ssim, "ssim-hole": hole_ssim, "l1": l1, "l2": l2,
        "bpe": boundary_error, "gradient": gradient_error, "colour-step": colour_step,
    }  # fmt: skip
    told = pixel_scores(result, truth, hole)

    assert {name: told[name] for name in single} == pytest.approx(
        {name: number([result], [truth], [hole])[0] for name, number in single.items()}
    )
    assert told["l1-hole"] == pytest.approx(100 * hole_l1([result], [truth], [hole])[0])
    assert told["l2-hole"] == pytest.approx(told["l2"] * 40 * 40 / hole.sum())


def test_pictures_and_holes_too_small_for_a_metric_are_named() -> None:
    tiny, dot = photograph(0, 6), np.zeros((6, 6), dtype=bool)
    dot[2:4, 2:4] = True

    with pytest.raises(MetricError, match="6x6 is smaller than SSIM's"):
        ssim([tiny], [tiny], [dot])
    with pytest.raises(MetricError, match="no boundary"):
        boundary_error([tiny], [tiny], [np.ones((6, 6), dtype=bool)])
    with pytest.raises(MetricError, match="no outline"):
        gradient_error([tiny], [tiny], [np.ones((6, 6), dtype=bool)])
