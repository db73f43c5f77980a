"""The proxy, and the way back from it to the photo's own pixels."""

import base64
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from asuka_infer.request import Hole
from demo.photos import LONGEST_PROXY_SIDE, HoleTextError, proxy_of, proxy_size, read_painted_hole
from tests.demo.painting import photo


def as_text(hole: Hole) -> str:
    file = io.BytesIO()
    Image.fromarray(hole).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@given(st.integers(1, 9000), st.integers(1, 9000))
def test_a_proxy_keeps_the_shape_and_never_grows(height: int, width: int) -> None:
    small = proxy_size((height, width))
    assert max(small) == min(max(height, width), LONGEST_PROXY_SIDE)
    assert min(small) == max(1, round(min(height, width) * max(small) / max(height, width)))


def test_a_photo_that_fits_is_shown_as_it_is() -> None:
    pixels = photo(640, 480)
    assert np.array_equal(proxy_of(pixels), pixels)


def test_transparency_is_shown_over_squares() -> None:
    pixels = np.zeros((24, 48, 3), np.uint8)
    shown = proxy_of(pixels, np.zeros((24, 48), np.uint8))
    assert shown[0, 0].tolist() == [255, 255, 255]
    assert shown[0, 12].tolist() == [224, 224, 224]


@pytest.mark.parametrize("size", [(3000, 4000), (1999, 3001), (480, 640), (1, 5000)])
def test_every_pixel_of_the_photo_asks_the_proxy_pixel_under_its_centre(size: tuple[int, int]) -> None:
    small = proxy_size(size)
    painted = np.random.default_rng(3).random(small) < 0.3
    painted[0, 0] = True
    hole = read_painted_hole(as_text(painted), size)
    assert hole.shape == size
    for y, x in np.random.default_rng(4).integers(0, size, (500, 2)):
        assert hole[y, x] == painted[int((y + 0.5) * small[0] / size[0]), int((x + 0.5) * small[1] / size[1])]


def test_a_hole_of_another_photo_is_refused_in_words() -> None:
    with pytest.raises(HoleTextError, match=r"The hole is 10x20 but the photo is shown at 640x480; reload"):
        read_painted_hole(as_text(np.ones((20, 10), np.bool_)), (480, 640))


@pytest.mark.parametrize("text", ["no base64!", "x" * 900_000])
def test_anything_but_a_hole_is_refused_in_words(text: str) -> None:
    with pytest.raises(HoleTextError, match="reload the page"):
        read_painted_hole(text, (480, 640))
