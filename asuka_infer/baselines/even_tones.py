"""Evens out the tones of a hole that was filled by copying pixels: copies keep their detail and meet without a step.

After Perez, Gangnet and Blake, "Poisson Image Editing", 2003: the fill keeps the differences between neighbouring
pixels that its sources have, not their levels, and agrees with the known pixels at the rim. Where the copies differ by
too much to be the same surface under another light, their step is kept, so that no colour smears across an edge.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import splu

from asuka_infer.request import Hole, RgbImage

Numbers = NDArray[np.float64]
Places = NDArray[np.int64]
Level = TypeVar("Level", bound=np.generic)

HARDEST_STEP = 50.0
"""Levels, mean over the colours, up to which a step between two copies is a matter of tone. Chosen by eye on
photographs: at 80 a green tree smears into the sky beside it, at 50 it does not and seams in a sky still vanish."""

PULL = 1e-4
"""How strongly levels are held to the copied ones: tones drift back over about 100 pixels, so no smear is endless."""

ROUNDING = 6
"""Decimals kept before rounding to 0..255, so that an exact half never depends on the last bit of the solver."""


def even_tones(image: RgbImage, hole: Hole, origins: Places) -> RgbImage:
    """Fill the hole with the pixels at `origins`, tones evened out.

    Args:
        image: (h, w, 3) uint8; only its known pixels are read.
        hole: (h, w), True = missing.
        origins: for every missing pixel, row by row, the flat position (row * w + column) of the known pixel to copy.
    """
    copied = image.astype(np.float64)
    copied[hole] = copied.reshape(-1, 3)[origins]
    origin = np.full(hole.shape, -1, np.int64)
    origin[hole] = origins
    system = _System.empty(copied[hole])
    for axis in (0, 1):
        _add_neighbours(system, copied, hole, origin, axis)
    result = image.copy()
    result[hole] = np.floor(np.round(system.solve(), ROUNDING) + 0.5).clip(0, 255).astype(np.uint8)
    return result


@dataclass(frozen=True, eq=False)
class _System:
    """The linear equations: one row per missing pixel, one right side per colour.

    Attributes:
        diagonal: (n,) how many equations a pixel takes part in, and the pull.
        right: (n, 3) right sides.
        joined: pairs of missing pixels that are neighbours, one (2, any) array per direction.
    """

    diagonal: Numbers
    right: Numbers
    joined: list[Places]

    @classmethod
    def empty(cls, copied: Numbers) -> "_System":
        return cls(np.full(len(copied), PULL), PULL * copied, [])

    def solve(self) -> Numbers:
        count = len(self.diagonal)
        first, second = np.concatenate(self.joined, axis=1)
        own = np.arange(count)
        values = np.concatenate([np.full(2 * len(first), -1.0), self.diagonal])
        rows, columns = np.concatenate([first, second, own]), np.concatenate([second, first, own])
        matrix = csc_matrix((values, (rows, columns)), shape=(count, count))
        return splu(matrix, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True}).solve(self.right)


def _add_neighbours(system: _System, copied: Numbers, hole: Hole, origin: Places, axis: int) -> None:
    """Ask that every missing pixel differs from its neighbours along an axis as its source does from its own."""
    number = np.full(hole.shape, -1, np.int64)
    number[hole] = np.arange(len(system.diagonal))
    before, after = _halves(number, axis)
    touched = (before >= 0) | (after >= 0)
    before, after = before[touched], after[touched]
    level_before, level_after = (levels[touched] for levels in _halves(copied, axis))
    origins = [places[touched] for places in _halves(origin, axis)]
    step = _steps(copied, hole, axis, origins, level_after - level_before)
    for pixel, other, sign, level in ((before, after, -1, level_after), (after, before, 1, level_before)):
        missing, rim = pixel >= 0, (pixel >= 0) & (other < 0)
        # No pixel occurs twice in `pixel`, so plain indexed sums are right.
        system.diagonal[pixel[missing]] += 1
        system.right[pixel[missing]] += sign * step[missing]
        system.right[pixel[rim]] += level[rim]
    both = (before >= 0) & (after >= 0)
    system.joined.append(np.stack([before[both], after[both]]))


def _halves(grid: NDArray[Level], axis: int) -> tuple[NDArray[Level], NDArray[Level]]:
    """All pixels that have a next one along the axis, and those next ones, each as one row per pixel."""
    shape = (-1, *grid.shape[2:])
    if axis == 0:
        return grid[:-1].reshape(shape), grid[1:].reshape(shape)
    return grid[:, :-1].reshape(shape), grid[:, 1:].reshape(shape)


def _steps(copied: Numbers, hole: Hole, axis: int, origins: list[Places], plain: Numbers) -> Numbers:
    """(pairs, 3) the wanted difference from each pixel to the next: the mean of what the sources of the two have."""
    total, count = np.zeros_like(plain), np.zeros(len(plain))
    pixels = copied.reshape(-1, 3)
    for origin, direction in zip(origins, (1, -1), strict=True):
        beside, usable = _beside(hole, origin, axis, direction)
        total[usable] += direction * (pixels[beside[usable]] - pixels[origin[usable]])
        count += usable
    step = total / np.maximum(count, 1)[:, None]
    hard = (count == 0) | (np.abs(step - plain).mean(axis=1) > HARDEST_STEP)
    return np.where(hard[:, None], plain, step)


def _beside(hole: Hole, origin: Places, axis: int, direction: int) -> tuple[Places, Hole]:
    """The flat positions next to `origin`, and where they are inside the picture and known."""
    height, width = hole.shape
    y, x = np.divmod(np.maximum(origin, 0), width)
    y, x = (y + direction, x) if axis == 0 else (y, x + direction)
    inside = (origin >= 0) & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    place = np.where(inside, y * width + x, 0)
    return place, inside & ~hole.reshape(-1)[place]
