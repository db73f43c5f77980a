"""What is known stays: exactly, or but for a ring that lies wholly outside the hole."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from asuka_infer.compositing import CompositingError, changed_outside, exact, ramp_alpha, ring_count, seamless
from asuka_infer.request import Hole

sides = st.integers(1, 16)
scenes = st.tuples(sides, sides).flatmap(
    lambda size: st.tuples(arrays(np.uint8, (*size, 3)), arrays(np.uint8, (*size, 3)), arrays(np.bool_, size))
)
thin_scenes = st.tuples(sides, sides, st.integers(0, 255), st.integers(0, 2**32 - 1)).map(lambda s: thin_scene(*s))


def thin_scene(height: int, width: int, spot: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    original, filled = rng.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    hole = np.zeros((height, width), bool)
    hole.ravel()[spot % hole.size] = True
    return original, filled, hole


def distances(hole: Hole) -> np.ndarray:
    rows, columns = np.mgrid[: hole.shape[0], : hole.shape[1]]
    nearest = np.full(hole.shape, np.inf)
    for row, column in np.argwhere(hole):
        nearest = np.minimum(nearest, np.hypot(rows - row, columns - column))
    return nearest


@given(scenes)
def test_exact_changes_no_known_pixel_and_takes_every_missing_one(scene: tuple[np.ndarray, ...]) -> None:
    original, filled, hole = scene
    result = exact(original, filled, hole)
    for (row, column), missing in np.ndenumerate(hole):
        assert result[row, column].tolist() == (filled if missing else original)[row, column].tolist()
    assert changed_outside(original, result, hole) == 0


@settings(deadline=None)
@given(st.one_of(scenes, thin_scenes), st.integers(0, 9))
def test_seamless_is_the_filled_picture_in_the_hole_and_the_original_beyond_the_ring(
    scene: tuple[np.ndarray, ...], ramp: int
) -> None:
    original, filled, hole = scene
    result = seamless(original, filled, hole, ramp=ramp)
    away = distances(hole)
    assert np.array_equal(result[hole], filled[hole])
    assert np.array_equal(result[away >= ramp + 1], original[away >= ramp + 1])
    assert changed_outside(original, result, hole) <= ring_count(hole, ramp)


@settings(deadline=None)
@given(st.one_of(scenes, thin_scenes), st.integers(0, 9))
def test_the_ring_fades_linearly_with_the_distance(scene: tuple[np.ndarray, ...], ramp: int) -> None:
    original, filled, hole = scene
    weight = np.maximum(0, 1 - distances(hole) / (ramp + 1))
    np.testing.assert_allclose(ramp_alpha(hole, ramp), weight, atol=1e-6)
    blended = weight[..., None] * filled + (1 - weight[..., None]) * original
    assert np.abs(seamless(original, filled, hole, ramp=ramp) - blended).max() <= 0.5 + 1e-3


@settings(deadline=None)
@given(thin_scenes, st.integers(0, 9))
def test_the_weight_is_one_in_the_hole_and_never_rises_outwards(scene: tuple[np.ndarray, ...], ramp: int) -> None:
    hole = scene[2]
    alpha = ramp_alpha(hole, ramp)
    assert (alpha[hole] == 1).all()
    assert (alpha[~hole] < 1).all()
    order = np.argsort(distances(hole), axis=None, kind="stable")
    assert (np.diff(alpha.ravel()[order]) <= 1e-6).all()


@pytest.mark.parametrize("ramp", [0, 1, 3, 8, 16])
def test_straight_outwards_exactly_ramp_pixels_are_blended(ramp: int) -> None:
    hole = np.zeros((1, 60), bool)
    hole[0, :20] = True
    assert ring_count(hole, ramp) == ramp
    np.testing.assert_allclose(
        ramp_alpha(hole, ramp)[0, 20 : 20 + ramp], 1 - np.arange(1, ramp + 1) / (ramp + 1), atol=1e-6
    )


def test_the_ring_is_counted_as_a_circle_around_one_pixel() -> None:
    hole = np.zeros((41, 41), bool)
    hole[20, 20] = True
    rows, columns = np.mgrid[-20:21, -20:21]
    assert ring_count(hole, 8) == int((rows**2 + columns**2 < 81).sum()) - 1


def test_equal_pictures_stay_equal_under_any_blend() -> None:
    original = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    hole = np.zeros((20, 20), bool)
    hole[8:12, 8:12] = True
    assert np.array_equal(seamless(original, original.copy(), hole, ramp=5), original)


@given(scenes)
def test_changes_outside_are_counted_one_by_one(scene: tuple[np.ndarray, ...]) -> None:
    original, other, hole = scene
    count = sum(
        1
        for (row, column), missing in np.ndenumerate(hole)
        if not missing and original[row, column].tolist() != other[row, column].tolist()
    )
    assert changed_outside(original, other, hole) == count


def test_a_change_in_one_channel_by_one_level_counts() -> None:
    original = np.zeros((4, 4, 3), np.uint8)
    result = original.copy()
    result[2, 2, 1] = 1
    assert changed_outside(original, result, np.zeros((4, 4), bool)) == 1


def test_nothing_that_was_given_is_changed() -> None:
    original, filled, hole = thin_scene(9, 9, 40, 0)
    copies = original.copy(), filled.copy(), hole.copy()
    exact(original, filled, hole)
    seamless(original, filled, hole, ramp=4)
    for array, copy in zip((original, filled, hole), copies, strict=True):
        assert np.array_equal(array, copy)


def test_without_a_hole_or_without_known_pixels_there_is_no_ring() -> None:
    assert ring_count(np.zeros((5, 5), bool), 4) == 0
    assert ring_count(np.ones((5, 5), bool), 4) == 0


def test_pictures_that_do_not_belong_together_are_refused() -> None:
    original, filled, hole = thin_scene(9, 8, 40, 0)
    with pytest.raises(CompositingError, match=r"\(8, 9\)"):
        exact(original, filled, hole.T)
    with pytest.raises(CompositingError, match=r"\(8, 8, 3\)"):
        seamless(original, filled[:8], hole, ramp=1)
    with pytest.raises(CompositingError, match="float64"):
        exact(original, filled / 255, hole)  # pyright: ignore[reportArgumentType] - the point of the test
    with pytest.raises(CompositingError, match="uint8"):
        changed_outside(original, filled, hole.astype(np.uint8))  # pyright: ignore[reportArgumentType] - as above
    with pytest.raises(CompositingError, match="ramp is -1"):
        seamless(original, filled, hole, ramp=-1)
