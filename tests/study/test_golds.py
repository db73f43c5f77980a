"""Gold pictures differ from the right answer in the hole alone, by as much and in such a way as their question asks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data
from skimage.color import deltaE_cie76, rgb2lab

from study.golds import SHIFT, WAYS, cleanest, colour_shifts, foreign_objects


def photograph() -> np.ndarray:
    return np.ascontiguousarray(data.astronaut()[:120, 150:300])


def ragged_hole(shape: tuple[int, int], seed: int) -> np.ndarray:
    """Some rectangles, anywhere."""
    generator = np.random.default_rng(seed)
    hole = np.zeros(shape, dtype=np.bool_)
    for _ in range(3):
        top, left = generator.integers(0, shape[0] - 30), generator.integers(0, shape[1] - 30)
        hole[top : top + generator.integers(3, 40), left : left + generator.integers(3, 40)] = True
    return hole


def difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The CIE 1976 colour difference of every pixel, by another library than the one under test."""
    return deltaE_cie76(rgb2lab(one), rgb2lab(other))


@given(seed=st.integers(0, 999))
@settings(max_examples=8, deadline=None)
def test_shifted_colours_differ_by_twelve_in_the_hole_and_by_nothing_outside(seed: int) -> None:
    fill, hole = photograph(), ragged_hole((120, 150), seed)
    for wrong in colour_shifts(fill, hole, 3, seed=str(seed)):
        assert np.array_equal(wrong[~hole], fill[~hole])
        assert difference(fill, wrong)[hole].mean() == pytest.approx(SHIFT, abs=1)


@pytest.mark.parametrize("level", [0, 40, 128, 200, 255])
def test_even_plain_black_and_plain_white_are_shifted_visibly(level: int) -> None:
    fill = np.full((40, 50, 3), level, dtype=np.uint8)
    hole = np.zeros((40, 50), dtype=np.bool_)
    hole[10:30, 15:40] = True
    for wrong in colour_shifts(fill, hole, 2, seed="s"):
        assert difference(fill, wrong)[hole].mean() >= 8


def test_a_shift_never_repairs_a_fill_that_was_off_already() -> None:
    """A hole 12 too green beside grey: every chosen shift leads further away from the grey, none back to it."""
    grey = np.full((60, 60, 3), 128, dtype=np.uint8)
    hole = np.zeros((60, 60), dtype=np.bool_)
    hole[20:40, 20:40] = True
    off = colour_shifts(grey, hole, 1, seed="a")[0]
    for wrong in colour_shifts(off, hole, 5, seed="b"):
        assert difference(grey, wrong)[hole].mean() > difference(grey, off)[hole].mean() + 3


def test_the_right_answer_is_the_fill_whose_border_shows_least() -> None:
    fill, hole = photograph(), ragged_hole((120, 150), 4)
    shifted = colour_shifts(fill, hole, 2, seed="x")
    assert cleanest({"a": shifted[0], "b": fill, "c": shifted[1]}, hole) == "b"


@given(seed=st.integers(0, 999), width=st.integers(20, 200))
@settings(max_examples=8, deadline=None)
def test_a_foreign_object_lies_in_the_hole_alone_and_comes_from_another_photograph(seed: int, width: int) -> None:
    fill, hole = photograph(), ragged_hole((120, 150), seed)
    other = np.ascontiguousarray(data.chelsea()[:180, :width])
    wrong = foreign_objects(fill, hole, [other], 3, seed=str(seed))
    assert len({picture.tobytes() for picture in wrong}) == 3
    for picture in wrong:
        changed = (picture != fill).any(axis=2)
        assert not changed[~hole].any()
        assert changed.sum() >= 0.09 * hole.sum()
        assert difference(fill, picture)[changed].mean() > SHIFT


def test_a_pasted_piece_is_found_in_the_photograph_it_came_from() -> None:
    fill = np.full((60, 60, 3), 90, dtype=np.uint8)
    hole = np.zeros((60, 60), dtype=np.bool_)
    hole[20:40, 20:44] = True
    other = np.random.default_rng(3).integers(0, 256, (70, 80, 3), dtype=np.uint8)
    (wrong,) = foreign_objects(fill, hole, [other], 1, seed="s")
    changed = (wrong != fill).any(axis=2)
    row = int(np.argwhere(changed)[:, 0].mean())
    column = int(np.flatnonzero(changed[row])[2])
    run = wrong[row, column : column + 4]
    either_way = (run.tolist(), run[::-1].tolist())  # pieces may be mirrored
    found = [other[top, left : left + 4].tolist() in either_way for top in range(70) for left in range(77)]
    assert sum(found) == 1


def test_the_same_seed_gives_the_same_pictures_and_another_one_others() -> None:
    fill, hole = photograph(), ragged_hole((120, 150), 1)
    assert np.array_equal(colour_shifts(fill, hole, 1, seed="1"), colour_shifts(fill, hole, 1, seed="1"))
    assert not np.array_equal(colour_shifts(fill, hole, 1, seed="1"), colour_shifts(fill, hole, 1, seed="2"))
    pieces = [foreign_objects(fill, hole, [data.chelsea()], 1, seed=seed)[0] for seed in ("1", "1", "2")]
    assert np.array_equal(pieces[0], pieces[1])
    assert not np.array_equal(pieces[0], pieces[2])


def test_there_are_enough_directions_for_the_largest_trial() -> None:
    fill, hole = photograph(), ragged_hole((120, 150), 2)
    wrong = colour_shifts(fill, hole, WAYS, seed="s")
    assert len({picture.tobytes() for picture in wrong}) == WAYS
