"""Batches balanced by domain, cut on the device, with the holes that were drawn."""

from pathlib import Path

import numpy as np
import pytest
import torch

from training.data import Crops, cut, draw_crops, draw_weights, gather_holes, unpack_holes
from training.masks import Silhouettes, numbered_hole
from training.photographs import Entry

CPU = torch.device("cpu")


def test_small_domains_are_drawn_more_often_than_they_occur() -> None:
    entries = [Entry("", "large", "own")] * 90 + [Entry("", "small", "own")] * 10

    assert draw_weights(entries, power=1).sum() == pytest.approx(1)
    assert draw_weights(entries, power=1)[-10:].sum() == pytest.approx(0.1)
    assert draw_weights(entries, power=0)[-10:].sum() == pytest.approx(0.5)
    # Square roots: sqrt(10) / (sqrt(10) + sqrt(90)) = 1 / 4.
    assert draw_weights(entries, power=0.5)[-10:].sum() == pytest.approx(0.25)


def gradient(side: int = 32) -> torch.Tensor:
    """One photograph whose red is the row and green the column."""
    rows, columns = np.mgrid[:side, :side]
    pixels = np.stack([rows, columns, np.zeros_like(rows)], axis=2).astype(np.uint8)
    return torch.from_numpy(pixels[None])


def one_crop(side: int, top: int, left: int, *, flipped: bool) -> Crops:
    first, sides, tops, lefts = (np.array([value]) for value in (0, side, top, left))
    return Crops(first, sides, tops, lefts, np.array([flipped]))


def test_a_square_of_the_asked_size_is_copied_pixel_by_pixel() -> None:
    square = cut(gradient(), one_crop(8, top=5, left=9, flipped=False), 8, CPU)[0] * 255

    assert square[0, :, 0].tolist() == pytest.approx(range(5, 13))
    assert square[1, 0].tolist() == pytest.approx(range(9, 17))


def test_a_flipped_square_is_the_mirror_image_of_the_same_place() -> None:
    for side in (8, 16):
        straight = cut(gradient(), one_crop(side, top=5, left=9, flipped=False), 8, CPU)
        flipped = cut(gradient(), one_crop(side, top=5, left=9, flipped=True), 8, CPU)
        assert torch.allclose(flipped, straight.flip(3), atol=1e-5)


def test_a_larger_square_is_shrunk_about_its_own_centre() -> None:
    square = cut(gradient(), one_crop(16, top=4, left=10, flipped=False), 8, CPU)[0] * 255

    # Bilinear halving puts each sample between two pixels: 4.5, 6.5, ...
    assert square[0, :, 3].tolist() == pytest.approx([4.5 + 2 * step for step in range(8)], abs=1e-3)
    assert square[1, 3].tolist() == pytest.approx([10.5 + 2 * step for step in range(8)], abs=1e-3)


def test_squares_are_drawn_inside_the_photograph_and_alike_for_one_seed() -> None:
    indices = np.arange(5)
    crops = draw_crops(np.random.default_rng(1), 500, side=32, smallest=8, largest=32, photographs=indices)

    assert (crops.tops >= 0).all()
    assert (crops.tops + crops.sides <= 32).all()
    assert (crops.lefts + crops.sides <= 32).all()
    assert crops.sides.min() == 8
    assert crops.sides.max() == 32
    assert set(crops.photographs) == set(indices)
    again = draw_crops(np.random.default_rng(1), 500, side=32, smallest=8, largest=32, photographs=indices)
    assert all(np.array_equal(a, b) for a, b in zip(crops, again, strict=True))


def test_unpacked_holes_are_the_numbered_ones(tmp_path: Path) -> None:
    shape = np.zeros((64, 64), dtype=bool)
    shape[20:40, 10:50] = True
    silhouettes = Silhouettes(np.packbits(shape)[None], 64)

    packed = gather_holes(tmp_path, silhouettes, count=6, seed=3, size=64)
    holes = unpack_holes(packed[[4, 1]])

    assert holes.shape == (2, 1, 64, 64)
    for hole, number in zip(holes, (4, 1), strict=True):
        assert np.array_equal(hole[0].numpy(), numbered_hole(number, seed=3, silhouettes=silhouettes, size=64))
    assert torch.equal(gather_holes(tmp_path, silhouettes, count=6, seed=3, size=64), packed)
