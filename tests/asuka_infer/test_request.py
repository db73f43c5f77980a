"""A request holds only what a method may see, and refuses what no method can work with."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from asuka_infer import InpaintRequest, InpaintResult, RequestError
from asuka_infer.request import LARGEST_SEED, Hole

IMAGE = np.random.default_rng(0).integers(1, 256, (6, 8, 3), dtype=np.uint8)
HOLE = np.zeros((6, 8), bool)
HOLE[2:4, 3:6] = True

scenes = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
    lambda size: st.tuples(arrays(np.uint8, (*size, 3)), arrays(np.bool_, size))
)


@given(scenes.filter(lambda scene: scene[1].any() and not scene[1].all()))
def test_a_request_keeps_the_known_pixels_and_removes_the_others(scene: tuple[np.ndarray, np.ndarray]) -> None:
    image, hole = scene
    request = InpaintRequest(image, hole)
    for (row, column), missing in np.ndenumerate(hole):
        assert request.image[row, column].tolist() == ([0, 0, 0] if missing else image[row, column].tolist())
    assert np.array_equal(request.hole, hole)
    assert request.size == hole.shape


def test_a_request_neither_changes_what_it_was_given_nor_changes_with_it() -> None:
    image, hole = IMAGE.copy(), HOLE.copy()
    request = InpaintRequest(image, hole)
    assert np.array_equal(image, IMAGE)
    image[:] = 0
    hole[:] = True
    assert np.array_equal(request.image[~HOLE], IMAGE[~HOLE])
    assert np.array_equal(request.hole, HOLE)


def test_nobody_can_write_into_a_request() -> None:
    request = InpaintRequest(IMAGE, HOLE)
    for array in (request.image, request.hole):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 1


@pytest.mark.parametrize(
    ("image", "hole", "seed", "words"),
    [
        (IMAGE / 255, HOLE, 0, "image is float64"),
        (IMAGE[:, :, 0], HOLE, 0, r"shape \(6, 8\)"),
        (np.zeros((6, 8, 4), np.uint8), HOLE, 0, r"shape \(6, 8, 4\)"),
        (np.zeros((0, 8, 3), np.uint8), np.zeros((0, 8), bool), 0, "no pixels"),
        (IMAGE, HOLE.astype(np.uint8), 0, "hole is uint8"),
        (IMAGE, HOLE[:, :, None], 0, r"shape \(6, 8, 1\)"),
        (IMAGE, HOLE.T, 0, "hole is 6x8 but the image is 8x6"),
        (IMAGE, np.zeros((6, 8), bool), 0, "hole is empty"),
        (IMAGE, np.ones((6, 8), bool), 0, "covers the whole image"),
        (IMAGE, HOLE, -1, "seed is -1"),
        (IMAGE, HOLE, LARGEST_SEED + 1, "seed is 4294967296"),
    ],
)
def test_what_no_method_can_work_with_is_refused_in_a_sentence(
    image: np.ndarray, hole: Hole, seed: int, words: str
) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        InpaintRequest(image, hole, seed)
    assert str(caught.value).endswith(".")


def test_a_seed_that_is_no_whole_number_is_refused() -> None:
    for seed in (1.5, "7", True):
        with pytest.raises(RequestError, match="whole number"):
            InpaintRequest(IMAGE, HOLE, seed)  # pyright: ignore[reportArgumentType] - the point of the test


def test_the_largest_seed_and_a_numpy_seed_are_seeds() -> None:
    assert InpaintRequest(IMAGE, HOLE, LARGEST_SEED).seed == LARGEST_SEED
    assert InpaintRequest(IMAGE, HOLE, np.int64(7)).seed == 7  # pyright: ignore[reportArgumentType] - from an array


def test_a_result_is_a_picture_or_refused() -> None:
    assert not InpaintResult(IMAGE).previews
    with pytest.raises(RequestError, match="float32"):
        InpaintResult(IMAGE.astype(np.float32))  # pyright: ignore[reportArgumentType] - the point of the test
