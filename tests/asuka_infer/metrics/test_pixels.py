"""Pixel metrics against closed forms and brute force."""

import math

import numpy as np
import pytest

from asuka_infer.metrics.pixels import (
    MetricError,
    colour_step,
    composited,
    hole_l1,
    hole_psnr,
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
