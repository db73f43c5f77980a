"""The first fill: harmonic inside, untouched outside, blind to what the hole hides."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from asuka_infer.asuka.first_fill import first_fill


def holed(side: int = 48) -> torch.Tensor:
    hole = torch.zeros(1, 1, side, side, dtype=torch.bool)
    hole[..., 9:33, 14:40] = True
    return hole


def laplace(image: NDArray[np.float64], hole: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The exact harmonic fill of a hole away from the border, by a linear solver."""
    places = {place: number for number, place in enumerate(zip(*np.nonzero(hole), strict=True))}
    matrix, right = np.zeros((len(places), len(places))), np.zeros(len(places))
    for (row, column), number in places.items():
        matrix[number, number] = 4
        for near in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            if near in places:
                matrix[number, places[near]] = -1
            else:
                right[number] += image[near]
    filled = image.copy()
    filled[hole] = np.linalg.solve(matrix, right)
    return filled


def test_it_is_close_to_the_solution_of_laplaces_equation() -> None:
    rng = np.random.default_rng(0)
    rough = torch.from_numpy(rng.random((1, 1, 6, 6)))
    image = torch.nn.functional.interpolate(rough, size=(48, 48), mode="bicubic")
    exact = laplace(image[0, 0].numpy(), holed()[0, 0].numpy())
    gap = first_fill(image, holed())[0, 0].numpy() - exact

    assert np.abs(gap).max() < 0.12 * np.ptp(image.numpy())
    assert np.abs(gap[holed()[0, 0]]).mean() < 0.03 * np.ptp(image.numpy())


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (33, 20), (64, 64)])
def test_known_pixels_stay_and_what_the_hole_hides_is_never_read(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    image, hole = torch.rand(2, 3, *size), torch.rand(2, 1, *size) < 0.6
    hole[0] = True
    other = torch.where(hole, torch.nan, image)
    filled = first_fill(other, hole)

    assert torch.equal(filled, first_fill(image, hole))
    assert torch.equal(filled.masked_select(~hole), image.masked_select(~hole))
    assert torch.equal(filled[0], torch.full_like(filled[0], 0.5))
    assert (filled >= 0).all()
    assert (filled <= 1).all()
