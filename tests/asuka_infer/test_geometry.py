"""Crops hold the whole hole and come back to where they were; scaling keeps the aspect and has an exact way back."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from asuka_infer.geometry import Box, Fit, GeometryError, crop, extend_known, frames_around, paste
from asuka_infer.request import Hole

sides = st.integers(1, 40)


@st.composite
def holes(draw: st.DrawFn) -> np.ndarray:
    """A few rectangles in a picture, sometimes the other way round: neither empty nor everything."""
    height, width = draw(sides), draw(sides)
    hole = np.zeros((height, width), bool)
    for _ in range(draw(st.integers(1, 4))):
        top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        hole[top : top + draw(st.integers(1, 8)), left : left + draw(st.integers(1, 8))] = True
    hole ^= draw(st.booleans())
    assume(hole.any() and not hole.all())
    return hole


@st.composite
def boxed_arrays(draw: st.DrawFn) -> tuple[np.ndarray, Box]:
    """A picture or hole and a box that starts inside it and may reach over its bottom and right edges."""
    height, width = draw(sides), draw(sides)
    shape = draw(st.sampled_from([(height, width), (height, width, 3)]))
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    return draw(arrays(np.uint8, shape)), Box(top, left, draw(sides), draw(sides))


wishes = {
    "hole": holes(),
    "context": st.floats(0, 3),
    "multiple": st.integers(1, 16),
    "smallest": st.integers(1, 64),
    "square": st.booleans(),
}

# --- crops around holes


@settings(max_examples=80, deadline=None)
@given(**wishes)
def test_every_missing_pixel_is_in_exactly_one_crop(
    hole: Hole, context: float, multiple: int, smallest: int, *, square: bool
) -> None:
    times = np.zeros(hole.shape, int)
    for box in frames_around(hole, context=context, multiple=multiple, smallest=smallest, square=square):
        times[box.slices] += 1
    assert (times[hole] == 1).all()
    assert times.max() == 1


@settings(max_examples=80, deadline=None)
@given(**wishes)
def test_crops_are_multiples_show_something_known_and_leave_the_picture_only_when_they_must(
    hole: Hole, context: float, multiple: int, smallest: int, *, square: bool
) -> None:
    for box in frames_around(hole, context=context, multiple=multiple, smallest=smallest, square=square):
        assert box.height % multiple == box.width % multiple == 0
        assert not hole[box.slices].all()
        for start, side, available in ((box.top, box.height, hole.shape[0]), (box.left, box.width, hole.shape[1])):
            assert side < available + multiple
            if start + side > available:
                assert start == 0


def test_a_crop_has_the_context_asked_for_on_every_side() -> None:
    hole = np.zeros((200, 300), bool)
    hole[80:100, 120:160] = True
    assert frames_around(hole, context=0.5) == [Box(60, 100, 60, 80)]
    assert frames_around(hole, context=0.5, multiple=16) == [Box(58, 100, 64, 80)]
    assert frames_around(hole, context=0.5, smallest=100) == [Box(40, 90, 100, 100)]


def test_a_square_crop_grows_on_both_sides_as_far_as_the_picture_goes() -> None:
    hole = np.zeros((200, 300), bool)
    hole[80:100, 120:160] = True
    assert frames_around(hole, context=0.5, square=True) == [Box(50, 100, 80, 80)]
    wide = np.zeros((60, 300), bool)
    wide[10:20, 100:180] = True
    assert frames_around(wide, context=0.5, square=True) == [Box(0, 60, 60, 160)]


def test_squares_never_make_two_crops_one() -> None:
    """Two wires one above the other: as bands they are apart, as squares they would overlap."""
    hole = np.zeros((400, 300), bool)
    hole[100:104, 120:180] = True
    hole[200:204, 120:180] = True
    bands = frames_around(hole, context=0.5)
    assert bands == [Box(70, 90, 64, 120), Box(170, 90, 64, 120)]
    assert frames_around(hole, context=0.5, square=True) == [Box(42, 90, 120, 120), Box(170, 90, 64, 120)]


def test_a_crop_at_the_border_is_shifted_inside_and_keeps_its_size() -> None:
    hole = np.zeros((200, 300), bool)
    hole[0:20, 280:300] = True
    assert frames_around(hole, context=1) == [Box(0, 240, 60, 60)]


def test_holes_near_each_other_share_a_crop_and_distant_ones_do_not() -> None:
    hole = np.zeros((100, 400), bool)
    hole[40:50, 20:30] = True
    hole[40:50, 60:70] = True
    hole[40:50, 350:360] = True
    assert frames_around(hole, context=1) == [Box(30, 10, 30, 30), Box(30, 50, 30, 30), Box(30, 340, 30, 30)]
    # With context 2 the first two crops would overlap; the pair is framed anew as one hole from column 20 to 70.
    assert frames_around(hole, context=2) == [Box(20, 0, 50, 90), Box(20, 330, 50, 50)]


def test_a_merged_crop_that_now_reaches_a_third_hole_takes_it_in() -> None:
    hole = np.zeros((60, 300), bool)
    for column in (10, 30, 62):
        hole[30:34, column : column + 4] = True
    # At context 2.2 (9 pixels) the crops are columns 1-23, 21-43 and 53-75: only the first two overlap.
    assert len(frames_around(hole, context=1)) == 3
    assert len(frames_around(hole, context=2.2)) == 2
    # A crop of at least 60 columns around the first two reaches the third.
    assert len(frames_around(hole, context=2.2, smallest=60)) == 1


@pytest.mark.parametrize(
    ("size", "multiple"), [((97, 61), 8), ((1, 50), 8), ((50, 1), 64), ((2, 2), 16), ((3000, 4000), 32)]
)
def test_a_hole_of_99_percent_gets_the_whole_picture_rounded_up(size: tuple[int, int], multiple: int) -> None:
    hole = np.ones(size, bool)
    hole[-1, -1] = False
    (box,) = frames_around(hole, context=0.5, multiple=multiple, smallest=512)
    assert (box.top, box.left) == (0, 0)
    assert (box.height, box.width) == tuple(math.ceil(side / multiple) * multiple for side in size)


def test_a_picture_just_above_a_multiple_is_not_padded_when_the_hole_leaves_room() -> None:
    hole = np.zeros((1001, 1001), bool)
    hole[400:600, 400:600] = True
    (box,) = frames_around(hole, context=3, multiple=8)
    assert box == Box(0, 0, 1000, 1000)


def test_a_hole_like_snow_over_a_large_photo_is_framed_in_time() -> None:
    hole = np.random.default_rng(0).random((3000, 4000)) < 0.01
    boxes = frames_around(hole, context=0.5, multiple=8, smallest=64)
    times = np.zeros(hole.shape, np.uint8)
    for box in boxes:
        times[box.slices] += 1
    assert times.max() == 1
    assert times[hole].min() == 1


@pytest.mark.parametrize(
    ("context", "multiple", "smallest"), [(-0.1, 8, 8), (math.nan, 8, 8), (1, 0, 8), (1, 8, 0), (math.inf, 1, 1)]
)
def test_impossible_wishes_are_refused(context: float, multiple: int, smallest: int) -> None:
    with pytest.raises(GeometryError, match="context is 0 or more"):
        frames_around(np.eye(3, dtype=bool), context=context, multiple=multiple, smallest=smallest)


def test_an_empty_hole_has_no_crop() -> None:
    with pytest.raises(GeometryError, match="hole is empty"):
        frames_around(np.zeros((3, 3), bool), context=1)


# --- cutting out and putting back


@given(boxed_arrays())
def test_pasting_what_was_cut_changes_nothing(boxed: tuple[np.ndarray, Box]) -> None:
    array, box = boxed
    assert np.array_equal(paste(array, crop(array, box), box), array)


@given(boxed_arrays(), st.integers(0, 2**32 - 1))
def test_a_pasted_patch_is_cut_out_again_and_nothing_else_changed(boxed: tuple[np.ndarray, Box], seed: int) -> None:
    array, box = boxed
    patch = np.random.default_rng(seed).integers(0, 256, (box.height, box.width, *array.shape[2:]), dtype=np.uint8)
    before = array.copy()
    result = paste(array, patch, box)
    inside = np.zeros(array.shape[:2], bool)
    inside[box.slices] = True
    rows, columns = min(box.height, array.shape[0] - box.top), min(box.width, array.shape[1] - box.left)
    assert np.array_equal(crop(result, box)[:rows, :columns], patch[:rows, :columns])
    assert np.array_equal(result[~inside], array[~inside])
    assert np.array_equal(array, before)


@given(boxed_arrays())
def test_outside_the_picture_its_edge_repeats(boxed: tuple[np.ndarray, Box]) -> None:
    array, box = boxed
    cut = crop(array, box)
    for row in range(box.height):
        for column in range(box.width):
            y, x = min(box.top + row, array.shape[0] - 1), min(box.left + column, array.shape[1] - 1)
            assert np.array_equal(cut[row, column], array[y, x])


def test_boxes_that_do_not_belong_are_refused() -> None:
    array = np.zeros((5, 5), np.uint8)
    with pytest.raises(GeometryError, match="lies outside"):
        crop(array, Box(5, 0, 2, 2))
    with pytest.raises(GeometryError, match="lies outside"):
        paste(array, np.zeros((2, 2), np.uint8), Box(0, 7, 2, 2))
    with pytest.raises(GeometryError, match="patch has shape"):
        paste(array, np.zeros((3, 2), np.uint8), Box(0, 0, 2, 3))
    for numbers in ((-1, 0, 1, 1), (0, -1, 1, 1), (0, 0, 0, 1), (0, 0, 1, 0)):
        with pytest.raises(GeometryError, match="is no box"):
            Box(*numbers)


@given(*[st.builds(Box, st.integers(0, 9), st.integers(0, 9), st.integers(1, 9), st.integers(1, 9))] * 2)
def test_boxes_overlap_and_join_as_sets_of_pixels_do(one: Box, other: Box) -> None:
    def pixels(box: Box) -> set[tuple[int, int]]:
        return {(r, c) for r in range(box.top, box.bottom) for c in range(box.left, box.right)}

    assert one.overlaps(other) == bool(pixels(one) & pixels(other))
    both = pixels(one) | pixels(other)
    rows, columns = [p[0] for p in both], [p[1] for p in both]
    expected = Box(min(rows), min(columns), max(rows) - min(rows) + 1, max(columns) - min(columns) + 1)
    assert one.joined(other) == expected


# --- scaling to a model and back

sizes = st.tuples(st.integers(1, 5000), st.integers(1, 5000))


@given(sizes, sizes)
def test_a_picture_inside_a_target_keeps_its_aspect_to_half_a_pixel(
    source: tuple[int, int], target: tuple[int, int]
) -> None:
    fit = Fit.inside(source, target)
    scale = min(target[0] / source[0], target[1] / source[1])
    for scaled, side, room in zip(fit.scaled, source, target, strict=True):
        assert 1 <= scaled <= room
        assert abs(scaled - side * scale) <= 0.5 + 1e-9 or scaled == 1
    assert any(scaled == room for scaled, room in zip(fit.scaled, target, strict=True))


@given(sizes, st.sampled_from([1, 8, 16, 32, 64]), st.integers(1, 600), st.one_of(st.none(), st.integers(64, 2048)))
def test_a_picture_to_a_multiple_is_padded_by_less_than_one_and_obeys_its_limits(
    source: tuple[int, int], multiple: int, shortest: int, longest: int | None
) -> None:
    fit = Fit.to_multiple(source, multiple, longest=longest, shortest=shortest)
    for scaled, target in zip(fit.scaled, fit.target, strict=True):
        assert target % multiple == 0
        assert 0 <= target - scaled < multiple
    if longest is not None:
        assert max(fit.target) <= longest
    elif min(source) < shortest:
        assert min(fit.scaled) == shortest
    else:
        assert fit.scaled == source
    scale = fit.scaled[int(source[1] > source[0])] / max(source)
    short = min(source) * scale
    assert abs(min(fit.scaled) - short) <= max(0.5 + short / max(fit.scaled), 1)


@given(sizes, sizes, st.floats(0, 1), st.floats(0, 1))
def test_a_point_goes_to_the_model_and_comes_back(
    source: tuple[int, int], target: tuple[int, int], down: float, across: float
) -> None:
    fit = Fit.inside(source, target)
    point = down * source[0], across * source[1]
    there = fit.forward(*point)
    assert there[0] <= fit.scaled[0] * (1 + 1e-12)
    assert fit.backward(*there) == pytest.approx(point, rel=1e-12, abs=1e-12)
    assert fit.forward(*source) == pytest.approx(fit.scaled)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    hole = draw(holes())
    return np.random.default_rng(draw(st.integers(0, 99))).integers(0, 256, (*hole.shape, 3), dtype=np.uint8), hole


@settings(max_examples=60, deadline=None)
@given(scenes(), st.integers(1, 64))
def test_padding_alone_comes_back_bit_for_bit(scene: tuple[np.ndarray, np.ndarray], multiple: int) -> None:
    image, hole = scene
    fit = Fit.to_multiple(hole.shape, multiple)
    assert fit.is_identity
    there, missing = fit.apply(image, hole)
    assert there.shape[:2] == missing.shape == fit.target
    assert np.array_equal(fit.undo(there), image)
    assert np.array_equal(missing[: hole.shape[0], : hole.shape[1]], hole)


@settings(max_examples=60, deadline=None)
@given(scenes(), st.integers(4, 60), st.integers(4, 60), st.integers(0, 2**32 - 1))
def test_what_lies_under_the_hole_reaches_no_known_pixel_of_the_model(
    scene: tuple[np.ndarray, np.ndarray], height: int, width: int, seed: int
) -> None:
    image, hole = scene
    other = image.copy()
    other[hole] = np.random.default_rng(seed).integers(0, 256, (int(hole.sum()), 3), dtype=np.uint8)
    fit = Fit.inside(hole.shape, (height, width))
    (one, missing), (two, _) = fit.apply(image, hole), fit.apply(other, hole)
    assert np.array_equal(one[~missing], two[~missing])


@settings(max_examples=60, deadline=None)
@given(scenes(), st.integers(4, 60), st.integers(4, 60))
def test_every_missing_pixel_is_missing_for_the_model(
    scene: tuple[np.ndarray, np.ndarray], height: int, width: int
) -> None:
    image, hole = scene
    fit = Fit.inside(hole.shape, (height, width))
    _, missing = fit.apply(image, hole)
    for row, column in np.argwhere(hole):
        y, x = fit.forward(row + 0.5, column + 0.5)
        assert missing[min(int(y), fit.scaled[0] - 1), min(int(x), fit.scaled[1] - 1)]


@pytest.mark.parametrize("size", [(97, 61), (1, 50), (50, 1), (300, 400)])
def test_a_smooth_picture_survives_the_way_there_and_back(size: tuple[int, int]) -> None:
    rows, columns = np.mgrid[: size[0], : size[1]]
    ramp = 50 + 100 * (rows + 0.5) / size[0] + 50 * (columns + 0.5) / size[1]
    image = np.repeat(ramp[:, :, None], 3, axis=2).astype(np.uint8)
    hole = np.zeros(size, bool)
    hole[0, 0] = True
    for target in ((256, 256), (64, 512)):
        fit = Fit.inside(size, target)
        back = fit.undo(fit.apply(image, hole)[0])
        assert back.shape == image.shape
        assert np.abs(back.astype(int) - image)[~hole].mean() < 2


def test_missing_pixels_take_the_colour_of_a_nearest_known_one() -> None:
    image = np.random.default_rng(0).integers(0, 256, (12, 14, 3), dtype=np.uint8)
    hole = np.random.default_rng(1).random((12, 14)) < 0.7
    filled = extend_known(image, hole)
    known = np.argwhere(~hole)
    assert np.array_equal(filled[~hole], image[~hole])
    for row, column in np.argwhere(hole):
        away = np.hypot(*(known - (row, column)).T)
        # OpenCV's 5x5 distance is within 2 % of the Euclidean one: accept all that are that near.
        near = known[away <= away.min() * 1.05]
        assert any(np.array_equal(filled[row, column], image[y, x]) for y, x in near)


def test_sizes_that_do_not_fit_are_refused() -> None:
    fit = Fit.inside((10, 20), (8, 8))
    with pytest.raises(GeometryError, match="20x10"):
        fit.apply(np.zeros((10, 10, 3), np.uint8), np.zeros((10, 20), bool))
    with pytest.raises(GeometryError, match="8x8"):
        fit.undo(np.zeros((10, 20, 3), np.uint8))
    with pytest.raises(GeometryError, match="1 or more"):
        Fit.inside((0, 5), (8, 8))
    with pytest.raises(GeometryError, match="longest"):
        Fit.to_multiple((5, 5), 16, longest=8)
