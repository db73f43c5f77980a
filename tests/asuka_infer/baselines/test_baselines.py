"""What the classical methods must get right because it can be worked out by hand."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from asuka_infer.baselines import nearest_neighbour as nn
from asuka_infer.baselines.shift_map import LARGEST_SAFE_SIDE
from asuka_infer.catalog import find_method
from asuka_infer.request import Hole, InpaintRequest, RequestError, RgbImage

ALL = ["telea", "navier-stokes", "shift-map", "fsr", "biharmonic", "nearest-neighbour"]


def fill(key: str, image: RgbImage, hole: Hole, seed: int = 0) -> RgbImage:
    return find_method(key).load()(InpaintRequest(image, hole, seed)).image


def square_hole(height: int, width: int, top: int, left: int, side: int) -> Hole:
    hole = np.zeros((height, width), bool)
    hole[top : top + side, left : left + side] = True
    return hole


def stripes(height: int, width: int, period: int) -> RgbImage:
    """Diagonal stripes of two colours."""
    y, x = np.mgrid[0:height, 0:width]
    light = ((x + y) // (period // 2)) % 2 == 0
    return np.where(light[..., None], np.array([220, 180, 90]), np.array([30, 60, 140])).astype(np.uint8)


@pytest.mark.parametrize("key", ALL)
def test_a_plain_colour_continues_as_itself(key: str) -> None:
    image = np.full((48, 60, 3), (200, 100, 50), np.uint8)
    filled = fill(key, image, square_hole(48, 60, 10, 20, 20))
    # fsr and OpenCV's fast marching add up rounded numbers; everybody else has nothing to get wrong.
    assert np.abs(filled.astype(int) - image).max() <= {"fsr": 2, "telea": 3}.get(key, 0)


def test_biharmonic_continues_a_linear_ramp_exactly() -> None:
    y, x = np.mgrid[0:50, 0:60]
    image = np.stack([2 * x + y, 3 * y + 10, 200 - 2 * x - y], axis=2).astype(np.uint8)
    assert np.array_equal(fill("biharmonic", image, square_hole(50, 60, 15, 20, 18)), image)


@pytest.mark.parametrize("key", ["nearest-neighbour", "shift-map"])
def test_methods_that_copy_continue_a_regular_pattern(key: str) -> None:
    image = stripes(96, 96, 16)
    hole = square_hole(96, 96, 34, 34, 28)
    wrong = (fill(key, image, hole) != image).any(axis=2).sum() / hole.sum()
    assert wrong <= 0.02


def test_fsr_continues_a_wave_better_than_a_smooth_fill() -> None:
    y, x = np.mgrid[0:96, 0:96]
    wave = (128 + 90 * np.sin(x / 2.5 + y / 6)).astype(np.uint8)
    image, hole = np.dstack([wave, wave, wave]), square_hole(96, 96, 40, 40, 14)

    def error(key: str) -> float:
        return float(np.abs(fill(key, image, hole)[hole].astype(int) - image[hole]).mean())

    assert error("fsr") < 0.5 * error("telea")


def test_xphoto_leaves_pixels_unfilled_and_shift_map_does_not() -> None:
    image = np.full((61, 97, 3), 250, np.uint8)
    hole = np.ones((61, 97), bool)
    hole[:, :2] = False
    left = np.zeros_like(image)
    cv2.xphoto.inpaint(image, np.where(hole, 0, 255).astype(np.uint8), left, cv2.xphoto.INPAINT_SHIFTMAP)
    assert (left[hole] == 0).mean() > 0.5, "if OpenCV mended this, shift_map.py may become simpler"
    assert (fill("shift-map", image, hole) == 250).all()


def test_shift_map_refuses_sizes_at_which_xphoto_writes_outside_the_picture() -> None:
    side = LARGEST_SAFE_SIDE + 1
    with pytest.raises(RequestError, match=rf"at most {LARGEST_SAFE_SIDE} pixels.*asuka_infer\.inpaint"):
        fill("shift-map", np.zeros((side, 8, 3), np.uint8), square_hole(side, 8, 2, 2, 2))


def test_fsr_s_better_quality_differs_from_the_fast_one() -> None:
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (24, 24, 3), dtype=np.uint8)
    request = InpaintRequest(image, square_hole(24, 24, 8, 8, 6))
    method = find_method("fsr").load()
    assert not np.array_equal(method(request).image, method.with_settings(quality="best")(request).image)


def test_nearest_neighbour_without_blending_uses_only_colours_that_are_known() -> None:
    random = np.random.default_rng(1)
    image = random.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    hole = square_hole(60, 80, 20, 30, 25)
    known = {tuple(colour) for colour in image[~hole]}
    method = find_method("nearest-neighbour").load().with_settings(blend=False)
    assert {tuple(colour) for colour in method(InpaintRequest(image, hole)).image[hole]} <= known


def test_nearest_neighbour_with_another_seed_searches_elsewhere_on_a_large_hole() -> None:
    random = np.random.default_rng(2)
    image = cv2.GaussianBlur(random.integers(0, 256, (200, 200, 3), dtype=np.uint8), (0, 0), 2)
    image = np.asarray(image, np.uint8)
    hole = square_hole(200, 200, 40, 40, 120)
    assert not np.array_equal(
        fill("nearest-neighbour", image, hole, seed=1), fill("nearest-neighbour", image, hole, seed=2)
    )


@pytest.mark.parametrize("radius", [0, 1, 2, 3])
def test_sources_are_the_patches_inside_the_picture_that_touch_no_hole(radius: int) -> None:
    hole = np.random.default_rng(radius).random((17, 23)) < 0.03
    found = nn.known_patches(hole, radius)
    for y in range(17):
        for x in range(23):
            inside = y - radius >= 0 and x - radius >= 0 and y + radius < 17 and x + radius < 23
            patch = hole[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]
            assert found[y, x] == (inside and not patch.any())


def test_descriptors_keep_the_distance_between_smooth_patches() -> None:
    y, x = np.mgrid[0:40, 0:40]
    wave = (128 + 60 * np.sin(x / 8) * np.cos(y / 9)).astype(np.uint8)
    image = np.dstack([wave, wave, wave])
    rows = nn.describe(image, 3)
    for first, second in (((10, 10), (20, 25)), ((5, 30), (30, 5)), ((12, 18), (13, 19))):
        patches = [image[r - 3 : r + 4, c - 3 : c + 4, 0].astype(float) for r, c in (first, second)]
        true = ((patches[0] - patches[1]) ** 2).sum()
        (a,), (b,) = (np.atleast_1d(r * 40 + c) for r, c in (first, second))
        seen = ((rows[a].astype(float) - rows[b]) ** 2).sum()
        assert seen == pytest.approx(true, rel=0.1, abs=60)


def test_the_nearest_row_is_found_among_all() -> None:
    random = np.random.default_rng(4)
    wanted = random.integers(-1785, 1786, (40, 16), dtype=np.int16)
    offered = random.integers(-1785, 1786, (70, 16), dtype=np.int16)
    nearest, distance = nn.nearest_rows(wanted, offered)
    brute = ((wanted[:, None].astype(np.int64) - offered[None]) ** 2).sum(axis=2)
    assert np.array_equal(nearest, brute.argmin(axis=1))
    assert np.array_equal(distance, brute.min(axis=1))


@settings(max_examples=40, deadline=None)
@given(arrays.arrays(bool, st.tuples(st.integers(1, 24), st.integers(1, 24))), st.sampled_from(ALL))
def test_any_small_hole_is_filled(hole: Hole, key: str) -> None:
    if hole.all() or not hole.any():
        return
    image = np.random.default_rng(hole.size).integers(1, 256, (*hole.shape, 3), dtype=np.uint8)
    filled = fill(key, image, hole)
    assert np.array_equal(filled[~hole], image[~hole])
    assert filled.shape == image.shape
