"""Holes keep every missing pixel on the way to any grid, and files of every kind say the same thing."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from asuka_infer.holes import (
    LARGEST_RADIUS,
    HoleError,
    binarise,
    downsample,
    encode_hole_png,
    grow,
    hole_sha256,
    looks_inverted,
    read_hole,
    resize,
    shrink,
    snap_outward,
    window_around,
    write_hole_png,
)
from asuka_infer.images import ImageError
from asuka_infer.request import Hole

sides = st.integers(1, 24)
holes = st.tuples(sides, sides).flatmap(lambda size: arrays(np.bool_, size))
sparse_holes = st.tuples(sides, sides).flatmap(
    lambda size: arrays(np.bool_, size, elements=st.just(value=False), fill=st.just(value=False)).flatmap(
        lambda empty: st.lists(st.tuples(st.integers(0, size[0] - 1), st.integers(0, size[1] - 1)), max_size=4).map(
            lambda points: marked(empty, points)
        )
    )
)
any_holes = st.one_of(holes, sparse_holes, sparse_holes.map(np.logical_not))


def marked(hole: Hole, points: list[tuple[int, int]]) -> np.ndarray:
    hole = hole.copy()
    for row, column in points:
        hole[row, column] = True
    return hole


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def squared_distances(to: np.ndarray) -> np.ndarray:
    """Brute force: for each pixel the squared distance to the nearest True one, infinity without any."""
    rows, columns = np.mgrid[: to.shape[0], : to.shape[1]]
    nearest = np.full(to.shape, np.inf)
    for row, column in np.argwhere(to):
        nearest = np.minimum(nearest, (rows - row) ** 2 + (columns - column) ** 2)
    return nearest


BLOB = np.zeros((6, 9), bool)
BLOB[1:4, 2:7] = True

# --- growing and shrinking


@settings(max_examples=60, deadline=None)
@given(any_holes, st.one_of(st.integers(0, 30), st.floats(0, 30)))
def test_growing_adds_exactly_the_pixels_within_the_radius(hole: Hole, px: float) -> None:
    assert np.array_equal(grow(hole, px), squared_distances(hole) <= px * px)


@settings(max_examples=60, deadline=None)
@given(any_holes, st.one_of(st.integers(0, 30), st.floats(0, 30)))
def test_shrinking_removes_exactly_the_pixels_within_the_radius_of_a_known_one(hole: Hole, px: float) -> None:
    assert np.array_equal(shrink(hole, px), hole & (squared_distances(~hole) > px * px))


def test_a_radius_is_exact_up_to_the_largest() -> None:
    hole = np.zeros((3, LARGEST_RADIUS + 3), bool)
    hole[1, 0] = True
    grown = grow(hole, LARGEST_RADIUS)
    assert grown[1].sum() == LARGEST_RADIUS + 1
    # One row away the circle ends a pixel earlier: r**2 + 1 > r**2.
    assert grown[0].sum() == LARGEST_RADIUS


@pytest.mark.parametrize("px", [-1, LARGEST_RADIUS + 1, float("nan")])
def test_an_impossible_radius_is_refused(px: float) -> None:
    for change in (grow, shrink):
        with pytest.raises(HoleError, match="radius"):
            change(BLOB, px)


def test_the_input_is_never_changed() -> None:
    before = BLOB.copy()
    for change in (grow, shrink, snap_outward, downsample):
        change(BLOB, 2)
    resize(BLOB, (3, 3))
    assert np.array_equal(BLOB, before)


# --- grids


@settings(max_examples=80, deadline=None)
@given(any_holes, st.integers(1, 30))
def test_a_cell_is_missing_exactly_when_any_of_its_pixels_is(hole: Hole, factor: int) -> None:
    coarse = downsample(hole, factor)
    assert coarse.shape == (-(-hole.shape[0] // factor), -(-hole.shape[1] // factor))
    for (row, column), missing in np.ndenumerate(coarse):
        cell = hole[row * factor : (row + 1) * factor, column * factor : (column + 1) * factor]
        assert missing == cell.any()


@settings(max_examples=80, deadline=None)
@given(any_holes, st.integers(1, 30))
def test_snapping_outward_marks_whole_cells_and_only_touched_ones(hole: Hole, grid: int) -> None:
    snapped = snap_outward(hole, grid)
    expected = np.zeros_like(hole)
    for row, column in np.argwhere(hole):
        top, left = row // grid * grid, column // grid * grid
        expected[top : top + grid, left : left + grid] = True
    assert np.array_equal(snapped, expected)
    assert np.array_equal(snap_outward(snapped, grid), snapped)


def overlap_1d(cells: int, pixels: int) -> np.ndarray:
    """Whether cell i of `cells` and pixel j of `pixels`, laid over the same length, share more than a point."""
    table = np.zeros((cells, pixels), bool)
    for i in range(cells):
        for j in range(pixels):
            table[i, j] = max(i * pixels, j * cells) < min((i + 1) * pixels, (j + 1) * cells)
    return table


@settings(max_examples=80, deadline=None)
@given(any_holes, sides, sides)
def test_a_coarser_hole_has_every_cell_that_overlaps_at_all(hole: Hole, height: int, width: int) -> None:
    size = (min(height, hole.shape[0]), min(width, hole.shape[1]))
    rows, columns = overlap_1d(size[0], hole.shape[0]), overlap_1d(size[1], hole.shape[1])
    expected = (rows.astype(int) @ hole.astype(int) @ columns.T.astype(int)) > 0
    assert np.array_equal(resize(hole, size), expected)


@settings(max_examples=80, deadline=None)
@given(any_holes, st.integers(0, 30), st.integers(0, 30))
def test_enlarging_repeats_the_nearest_pixel(hole: Hole, more_rows: int, more_columns: int) -> None:
    height, width = hole.shape[0] + more_rows, hole.shape[1] + more_columns
    large = resize(hole, (height, width))
    for (row, column), missing in np.ndenumerate(large):
        assert missing == hole[int((row + 0.5) * hole.shape[0] / height), int((column + 0.5) * hole.shape[1] / width)]


@settings(max_examples=50, deadline=None)
@given(any_holes, st.integers(1, 5), st.integers(1, 5))
def test_enlarging_by_whole_factors_and_coming_back_is_exact(hole: Hole, down: int, across: int) -> None:
    large = resize(hole, (hole.shape[0] * down, hole.shape[1] * across))
    assert np.array_equal(resize(large, hole.shape), hole)


@pytest.mark.parametrize("side", [257, 300, 511, 512, 1000, 1013])
def test_a_stroke_of_one_pixel_reaches_the_256_grid_at_every_alignment(side: int) -> None:
    for row in range(side):
        stroke = np.zeros((side, 3), bool)
        stroke[row] = True
        coarse = resize(stroke, (256, 3))
        assert np.array_equal(coarse[:, 0], coarse.all(axis=1))
        cells = coarse[:, 0]
        assert 1 <= cells.sum() <= 2
        assert cells[row * 256 // side]


@pytest.mark.parametrize("wrong", [0, -1])
def test_a_grid_without_cells_is_refused(wrong: int) -> None:
    for make in (lambda: downsample(BLOB, wrong), lambda: snap_outward(BLOB, wrong), lambda: resize(BLOB, (3, wrong))):
        with pytest.raises(HoleError, match=str(wrong)):
            make()


@given(any_holes, st.integers(0, 5))
def test_the_window_contains_the_hole_with_its_margin_and_nothing_is_lost(hole: Hole, margin: int) -> None:
    window = window_around(hole, margin)
    if window is None:
        assert not hole.any()
        return
    rows, columns = np.nonzero(hole)
    assert hole[window].sum() == hole.sum()
    assert window[0].start == max(0, rows.min() - margin)
    assert window[1].stop == columns.max() + margin + 1


# --- binarising and polarity


def test_what_is_at_least_half_bright_is_missing_in_every_number_type() -> None:
    assert binarise(np.array([[0, 127, 128, 255]], np.uint8)).tolist() == [[False, False, True, True]]
    assert binarise(np.array([[0, 32767, 32768, 65535]], np.uint16)).tolist() == [[False, False, True, True]]
    assert binarise(np.array([[0, 0.49, 0.5, 1]])).tolist() == [[False, False, True, True]]
    assert binarise(np.array([[False, True]])).tolist() == [[False, True]]
    assert binarise(np.array([[254, 255]], np.uint8), threshold=1).tolist() == [[False, True]]
    assert binarise(np.array([[0, 1, 255]], np.uint8), threshold=0.001).tolist() == [[False, True, True]]


@pytest.mark.parametrize(
    "levels",
    [np.array([[0.0, 255.0]]), np.array([[np.nan, 1.0]]), np.array([[0, 1]]), np.zeros((2, 2, 3), np.uint8)],
)
def test_levels_of_unknown_meaning_are_refused(levels: np.ndarray) -> None:
    with pytest.raises(HoleError):
        binarise(levels)


def test_a_drawing_and_its_negative_are_told_apart() -> None:
    assert not looks_inverted(BLOB)
    assert looks_inverted(~BLOB)
    frame = np.ones((100, 100), bool)
    frame[5:95, 5:95] = False
    assert not looks_inverted(frame)


# --- files


def grey(hole: Hole) -> Image.Image:
    return Image.fromarray(hole.astype(np.uint8) * np.uint8(255))


def drawn(hole: Hole, colour: tuple[int, int, int]) -> Image.Image:
    sheet = np.zeros((*hole.shape, 4), np.uint8)
    sheet[hole] = (*colour, 255)
    return Image.fromarray(sheet)


def photo_with_erased(hole: Hole) -> Image.Image:
    photo = np.random.default_rng(0).integers(0, 256, (*hole.shape, 3), dtype=np.uint8)
    return Image.fromarray(np.dstack([photo, np.where(hole, 0, 255).astype(np.uint8)]))


def opaque_with_transparent_rest(hole: Hole) -> Image.Image:
    sheet = np.zeros((*hole.shape, 4), np.uint8)
    sheet[:, :, :3] = np.where(hole, 255, 0)[:, :, None]
    sheet[:, :, 3] = 255
    sheet[0, 0, 3] = 0
    return Image.fromarray(sheet)


FILES = {
    "grey": grey(BLOB),
    "rgb": grey(BLOB).convert("RGB"),
    "one bit": Image.fromarray(BLOB),
    "palette": grey(BLOB).convert("P"),
    "zero and one": Image.fromarray(BLOB.astype(np.uint8)),
    "sixteen bits": Image.fromarray(BLOB.astype(np.uint16) * np.uint16(65535)),
    "sixteen bits, zero and one": Image.fromarray(BLOB.astype(np.uint16)),
    "opaque alpha": grey(BLOB).convert("RGBA"),
    "drawn in white": drawn(BLOB, (255, 255, 255)),
    "drawn in black": drawn(BLOB, (0, 0, 0)),
    "drawn in red": drawn(BLOB, (220, 20, 20)),
    "photo with a part erased": photo_with_erased(BLOB),
    "black and white with some transparency": opaque_with_transparent_rest(BLOB),
    "red on black": Image.fromarray(np.dstack([BLOB * np.uint8(255), BLOB * np.uint8(0), BLOB * np.uint8(0)])),
}


@pytest.mark.parametrize("kind", FILES)
def test_every_way_to_store_a_hole_is_understood(kind: str) -> None:
    assert np.array_equal(read_hole(saved(FILES[kind]), BLOB.shape), BLOB)


def test_compression_noise_in_a_jpeg_does_not_move_the_hole() -> None:
    hole = np.zeros((64, 64), bool)
    hole[16:40, 8:48] = True
    assert np.array_equal(read_hole(saved(grey(hole), "JPEG", quality=85)), hole)


@settings(max_examples=50, deadline=None)
@given(any_holes.filter(lambda hole: hole.any() and not hole.all()))
def test_a_written_hole_comes_back(hole: Hole) -> None:
    assert np.array_equal(read_hole(encode_hole_png(hole), hole.shape), hole)


def test_a_hole_file_is_white_where_missing(tmp_path: Path) -> None:
    write_hole_png(tmp_path / "hole.png", BLOB)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "hole.png")), BLOB * np.uint8(255))


def test_another_size_is_refused_unless_asked_to_fit() -> None:
    file = saved(grey(BLOB))
    with pytest.raises(HoleError, match="The picture is 9x6 but the picture is 18x12") as caught:
        read_hole(file, (12, 18))
    assert "scaled" in str(caught.value)
    assert np.array_equal(read_hole(file, (12, 18), fit=True), BLOB.repeat(2, axis=0).repeat(2, axis=1))


def test_a_hole_of_another_shape_is_not_stretched() -> None:
    with pytest.raises(HoleError, match="stretching"):
        read_hole(saved(grey(BLOB)), (9, 6), fit=True)


def test_a_proxy_rounded_to_whole_pixels_still_fits() -> None:
    proxy = np.zeros((853, 1280), bool)
    proxy[400:500, 300:400] = True
    assert read_hole(encode_hole_png(proxy), (4000, 6000), fit=True).shape == (4000, 6000)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (Image.new("L", (4, 4), 0), "marks nothing as missing"),
        (Image.fromarray(np.arange(0, 80, 5, dtype=np.uint8).reshape(4, 4)), "brightest pixel is 75 of 255"),
        (Image.new("RGBA", (4, 4), (0, 0, 0, 0)), "marks nothing"),
        (Image.new("L", (4, 4), 255), "marks every pixel as missing"),
    ],
)
def test_a_file_that_marks_nothing_or_everything_is_refused(image: Image.Image, words: str) -> None:
    with pytest.raises(HoleError, match=words):
        read_hole(saved(image))


def test_what_cannot_be_read_as_a_picture_cannot_be_read_as_a_hole(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no readable picture"):
        read_hole(b"nothing")
    with pytest.raises(ImageError, match="No such file"):
        read_hole(tmp_path / "hole.png")


def test_the_hash_tells_size_and_pixels_apart() -> None:
    other = BLOB.copy()
    other[5, 8] = True
    assert len({hole_sha256(h) for h in (BLOB, other, BLOB.T, BLOB.reshape(9, 6), BLOB.reshape(1, 54))}) == 5
    assert hole_sha256(BLOB) == hole_sha256(read_hole(encode_hole_png(BLOB)))
