"""Copied pixels whose tones are evened out: what must come out can be worked out by hand."""

import numpy as np
import pytest

from asuka_infer.baselines.even_tones import HARDEST_STEP, even_tones
from asuka_infer.request import Hole, RgbImage


def middle(height: int, width: int) -> Hole:
    hole = np.zeros((height, width), bool)
    hole[8:16, 10:22] = True
    return hole


def copied_from(hole: Hole, down: int, right: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    y, x = np.nonzero(hole)
    return (y + down) * hole.shape[1] + x + right


def ramp(height: int, width: int) -> RgbImage:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([40 + 2 * x + y, 200 - x - 2 * y, 100 + x], axis=2).astype(np.uint8)


@pytest.mark.parametrize(("down", "right"), [(0, 13), (9, 0), (9, -9), (9, 14)])
def test_a_ramp_copied_from_where_it_is_brighter_becomes_the_ramp_itself(down: int, right: int) -> None:
    image, hole = ramp(32, 40), middle(32, 40)
    damaged = image.copy()
    damaged[hole] = 77
    # The pull to the copied level (1e-4) may cost less than a level in the middle of a hole this small.
    assert np.abs(even_tones(damaged, hole, copied_from(hole, down, right)).astype(int) - image).max() <= 1


def test_known_pixels_stay_and_what_lies_under_the_hole_is_not_read() -> None:
    image, hole = ramp(32, 40), middle(32, 40)
    origins = copied_from(hole, 9, 3)
    answers: list[RgbImage] = []
    for level in (0, 255):
        damaged = image.copy()
        damaged[hole] = level
        answers.append(even_tones(damaged, hole, origins))
    assert np.array_equal(answers[0], answers[1])
    assert np.array_equal(answers[0][~hole], image[~hole])


@pytest.mark.parametrize("touching", ["top left", "bottom right", "every side"])
def test_holes_at_the_border_are_filled(touching: str) -> None:
    image = ramp(20, 24)
    hole = np.zeros((20, 24), bool)
    if touching == "top left":
        hole[:6, :7] = True
    elif touching == "bottom right":
        hole[13:, 15:] = True
    else:
        hole[:] = True
        hole[8:12, 8:12] = False
    origins = np.full(int(hole.sum()), 9 * 24 + 10)
    filled = even_tones(image, hole, origins)
    assert np.array_equal(filled[~hole], image[~hole])
    # One pixel copied everywhere has the same neighbours everywhere, so each fill continues the ramp it came from.
    assert np.abs(np.diff(filled.astype(int), axis=0)).max() <= 10


def test_a_step_too_hard_for_a_tone_is_kept() -> None:
    image = np.zeros((32, 40, 3), np.uint8)
    image[:, 26:] = int(HARDEST_STEP) * 3
    hole = middle(32, 40)
    filled = even_tones(image, hole, copied_from(hole, 0, 16))
    assert (filled[hole] >= int(HARDEST_STEP) * 3 - 5).all()
    assert (filled[~hole] == image[~hole]).all()


def test_one_missing_pixel_gets_the_mean_of_what_its_neighbours_ask_for() -> None:
    image = np.full((3, 3, 3), 100, np.uint8)
    image[1, 0] = 120
    hole = np.zeros((3, 3), bool)
    hole[1, 1] = True
    # The source (0, 0) and its known right-hand neighbour are equal, below it lies 120: the steps asked for are
    # right 0, down +20 (the source's), and for left and up there is no pixel beside the source: plain steps of the
    # copied 100 to 120 (left) and to 100 (up). Mean of 100 - 0, 100 - 20, 120 - 20 and 100 - 0 = 95.
    assert even_tones(image, hole, np.array([0]))[1, 1].tolist() == [95, 95, 95]
