"""The canvas grows and nothing of the photo is lost, and every new pixel is in the hole."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from asuka_infer.holes import resize
from asuka_infer.images import MAX_PIXELS, encode_like, read_image
from demo.outpainting import Border, CanvasError, extend, read_border
from demo.photos import on_proxy
from tests.demo.painting import photo

SIDES = st.integers(0, 40)


@given(SIDES, SIDES, SIDES, SIDES)
def test_the_photo_lies_in_the_canvas_untouched_and_all_around_it_is_the_hole(
    left: int, top: int, right: int, bottom: int
) -> None:
    if not left + top + right + bottom:
        return
    pixels = photo(30, 20)
    picture, hole = extend(read_image(png(pixels)), Border(left, top, right, bottom), max_pixels=MAX_PIXELS)
    assert picture.size == hole.shape == (20 + top + bottom, 30 + left + right)
    assert np.array_equal(picture.pixels[~hole].reshape(20, 30, 3), pixels)
    assert hole.sum() == hole.size - 600
    assert not hole[top, left]
    assert not hole[top + 19, left + 29]


def png(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_a_transparent_photo_stays_transparent_and_its_border_is_opaque() -> None:
    pixels = np.dstack([photo(30, 20), np.full((20, 30), 70, np.uint8)])
    picture, hole = extend(read_image(png(pixels)), Border(left=10), max_pixels=MAX_PIXELS)
    with Image.open(io.BytesIO(encode_like(picture, picture.pixels, hole))) as written:
        alpha = np.array(written)[..., 3]
    assert (alpha[hole] == 255).all()
    assert (alpha[~hole] == 70).all()


@pytest.mark.parametrize(
    ("said", "grown"),
    [("25 %", 50), ("25", 50), ("30px", 30), (" 12,5 % ", 25), ("", 0), ("0", 0), ("400%", 800)],
)
def test_amounts_are_read_as_people_write_them(said: str, grown: int) -> None:
    assert read_border((said, "1px", "", ""), (100, 200)).left == grown


def test_per_cent_are_of_the_side_that_grows() -> None:
    assert read_border(("10", "10", "20", "20"), (100, 200)) == Border(20, 10, 40, 20)


@pytest.mark.parametrize(
    ("sides", "words"),
    [
        (("", "", "", ""), "No side grows"),
        (("much", "", "", ""), "'much' is no amount"),
        (("-5", "", "", ""), "no amount"),
        (("1e9", "", "", ""), "no amount"),
        (("500 %", "", "", ""), "at most 400%"),
        (("99999999999 px", "", "", ""), "at most 400%"),
    ],
)
def test_what_cannot_be_a_border_is_explained(sides: tuple[str, str, str, str], words: str) -> None:
    with pytest.raises(CanvasError, match=words):
        read_border(sides, (100, 200))


def test_a_canvas_that_is_too_large_is_refused_before_it_is_made() -> None:
    with pytest.raises(CanvasError, match=r"630x20, 0 megapixels; at most 0 are handled"):
        extend(read_image(png(photo(30, 20))), Border(left=600), max_pixels=12_000)


@pytest.mark.parametrize(
    ("height", "width", "top", "left"),
    [
        (2083, 2081, 1, 1),
        (5, 1839, 4, 5),
        (1999, 700, 0, 300),
        (1600, 1200, 211, 77),
        (300, 200, 10, 20),
        (1, 4000, 0, 1),
    ],
)
def test_the_hole_on_the_proxy_covers_every_missing_pixel(height: int, width: int, top: int, left: int) -> None:
    hole = np.zeros((height + top, width + left), np.bool_)
    hole[:top], hole[:, :left] = True, True
    back = resize(on_proxy(hole), (hole.shape[0], hole.shape[1]))
    assert not (hole & ~back).any()
    assert not back[top + 3 :, left + 3 :].any()  # a proxy pixel is at most 2.6 photo pixels here
