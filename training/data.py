"""Batches of photographs and holes, cut and unpacked on any device."""

import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from training.masks import PAPER, Mixture, Silhouettes, draw_bank
from training.photographs import SIDE, DataError, Entry, Photographs

BALANCE = 0.5
"""A domain's share grows with this power of its size: 1 is as found, 0 all domains alike (our choice: between)."""

SHEET_SEED = 2026
"""Names the photographs and holes of the sample sheets, so that sheets of different days can be compared."""


def gather_holes(
    cache: Path,
    silhouettes: Silhouettes,
    *,
    count: int,
    seed: int,
    size: int = SIDE,
    mixture: Mixture = PAPER,
    processes: int = 1,
) -> UInt8[Tensor, "count bytes"]:
    """Packed holes of the mixture, drawn once and kept in the cache; `unpack_holes` gives them as booleans."""
    file = cache / f"holes_{size}_{count}_{seed}.npy"
    if not file.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        bank = draw_bank(count, seed=seed, silhouettes=silhouettes, size=size, mixture=mixture, processes=processes)
        # Several processes may draw the same bank at once: each writes its own file, the last one stays.
        unfinished = file.with_suffix(f".{os.getpid()}.part.npy")
        np.save(unfinished, bank)
        unfinished.replace(file)
    return torch.from_numpy(np.load(file, mmap_mode="c"))


def unpack_holes(packed: UInt8[Tensor, "batch bytes"]) -> Bool[Tensor, "batch 1 size size"]:
    """The holes of packed rows, on the device where they are."""
    size = round((8 * packed.shape[1]) ** 0.5)
    bits = torch.arange(7, -1, -1, dtype=torch.uint8, device=packed.device)
    return ((packed[..., None] >> bits) & 1).view(-1, 1, size, size).bool()


def holes_of(
    banks: Mapping[int, Tensor], rng: np.random.Generator, batch: int, size: int, device: torch.device
) -> Bool[Tensor, "batch 1 size size"]:
    """Holes of the bank of that size.

    Raises:
        DataError: when none of that size were gathered.
    """
    if size not in banks:
        raise DataError(f"No holes of {size} px were gathered (only {sorted(banks)}); gather them first.")
    bank = banks[size]
    chosen = torch.from_numpy(rng.integers(len(bank), size=batch)).to(bank.device)
    return unpack_holes(bank[chosen].to(device))


def draw_weights(entries: Sequence[Entry], power: float = BALANCE) -> NDArray[np.float64]:
    """How likely each photograph is drawn, so that a domain's share is its size to the given power."""
    sizes = Counter(entry.domain for entry in entries)
    weights = np.array([sizes[entry.domain] ** (power - 1) for entry in entries])
    return weights / weights.sum()


class Crops(NamedTuple):
    """Which squares of which photographs a batch shows: drawn on the CPU, cut on the device.

    Attributes:
        photographs: index of each.
        sides: of the squares, in pixels of the photograph.
        tops, lefts: of the squares.
        flipped: left and right exchanged.
    """

    photographs: NDArray[np.int64]
    sides: NDArray[np.int64]
    tops: NDArray[np.int64]
    lefts: NDArray[np.int64]
    flipped: NDArray[np.bool_]


def draw_crops(
    rng: np.random.Generator,
    batch: int,
    *,
    side: int,
    smallest: int,
    largest: int,
    photographs: NDArray[np.int64],
    weights: NDArray[np.float64] | None = None,
) -> Crops:
    """Squares of `smallest` to `largest` px anywhere in photographs of `side` px, half of them flipped."""
    chosen = rng.choice(photographs, size=batch, p=weights)
    sides = rng.integers(smallest, largest + 1, size=batch)
    tops, lefts = (rng.random((2, batch)) * (side - sides + 1)).astype(np.int64)
    return Crops(chosen, sides, tops, lefts, rng.random(batch) < 0.5)  # noqa: PLR2004 - half and half


def cut(
    pixels: UInt8[Tensor, "n side side 3"], crops: Crops, size: int, device: torch.device
) -> Float[Tensor, "batch 3 size size"]:
    """The squares at `size` px as RGB in [0, 1]; squares of just that size are copied, others resized."""
    if (crops.sides == size).all():
        return _copy(pixels, crops, size, device)
    side = pixels.shape[1]
    whole = crops._replace(
        tops=np.zeros_like(crops.tops), lefts=np.zeros_like(crops.lefts), flipped=crops.flipped & False
    )
    return _resize(_copy(pixels, whole, side, device), crops, size)


class Squares(ABC):
    """Squares of photographs, and holes, drawn anew for every step; where pixels come from is the subclasses' business.

    What is drawn depends on the random generator and the photographs' numbers alone.
    """

    def __init__(
        self,
        training: NDArray[np.int64],
        evaluation: NDArray[np.int64],
        packed_holes: Mapping[int, Tensor],
        device: torch.device,
        *,
        side: int,
        weights: NDArray[np.float64] | None = None,
    ) -> None:
        """Say what there is.

        Args:
            training: numbers of the photographs that are trained on.
            evaluation: of those kept apart for sheets; the others where none are.
            packed_holes: by size.
            device: where batches are wanted.
            side: of the photographs in px.
            weights: how likely each photograph of `training` is drawn; None: all alike.
        """
        self._training, self._weights = training, weights
        self._evaluation = evaluation if len(evaluation) else training
        self._device, self._side = device, side
        on_gpu = device.type == "cuda"
        self._holes = {size: packed.to(device) if on_gpu else packed for size, packed in packed_holes.items()}

    def pictures(
        self, rng: np.random.Generator, batch: int, size: int, *, smallest: int, largest: int | None = None
    ) -> Float[Tensor, "batch 3 size size"]:
        """Squares of `smallest` to `largest` px (the whole photograph) of training photographs, at `size` px."""
        crops = draw_crops(
            rng,
            batch,
            side=self._side,
            smallest=min(smallest, self._side),
            largest=min(largest or self._side, self._side),
            photographs=self._training,
            weights=self._weights,
        )
        return self._cut(crops, size)

    def holes(self, rng: np.random.Generator, batch: int, size: int) -> Bool[Tensor, "batch 1 size size"]:
        """Holes of the mixture."""
        return holes_of(self._holes, rng, batch, size, self._device)

    def shown(self, count: int, size: int) -> tuple[Float[Tensor, "n 3 size size"], Bool[Tensor, "n 1 size size"]]:
        """The same few held-out photographs with the same holes, for sheets; fewer where fewer are held out."""
        rng = np.random.default_rng(SHEET_SEED)
        chosen = rng.permutation(self._evaluation)[:count]
        whole, nothing = np.full(len(chosen), self._side), np.zeros(len(chosen), dtype=np.int64)
        return self._cut(Crops(chosen, whole, nothing, nothing, nothing > 0), size), self.holes(rng, len(chosen), size)

    @abstractmethod
    def _cut(self, crops: Crops, size: int) -> Float[Tensor, "batch 3 size size"]:
        """The squares on the device."""


class Supply(Squares):
    """Photographs that are kept decoded, on the device if that is a GPU."""

    def __init__(self, photographs: Photographs, packed_holes: Mapping[int, Tensor], device: torch.device) -> None:
        """Take what `gather_photographs` and `gather_holes` made; a GPU gets all of it once (2 GB for 10,000)."""
        super().__init__(
            photographs.training,
            photographs.evaluation,
            packed_holes,
            device,
            side=photographs.pixels.shape[1],
            weights=draw_weights([photographs.entries[index] for index in photographs.training]),
        )
        pixels = torch.from_numpy(photographs.pixels)
        self._pixels = pixels.to(device) if device.type == "cuda" else pixels

    def _cut(self, crops: Crops, size: int) -> Float[Tensor, "batch 3 size size"]:
        return cut(self._pixels, crops, size, self._device)


def _copy(pixels: Tensor, crops: Crops, size: int, device: torch.device) -> Tensor:
    steps = np.arange(size)
    rows = crops.tops[:, None] + steps
    columns = crops.lefts[:, None] + np.where(crops.flipped[:, None], steps[::-1], steps)
    places = (torch.from_numpy(place).to(pixels.device) for place in (crops.photographs, rows, columns))
    chosen, rows_, columns_ = places
    squares = pixels[chosen[:, None, None], rows_[:, :, None], columns_[:, None, :]]
    return squares.to(device, non_blocking=True).permute(0, 3, 1, 2).float() / 255


def _resize(whole: Tensor, crops: Crops, size: int) -> Tensor:
    """Bilinear, which is right because squares are never larger than twice the asked size."""
    side = whole.shape[-1]
    scale = torch.from_numpy(crops.sides / side)
    mirror = torch.from_numpy(np.where(crops.flipped, -1.0, 1.0))
    across, down = (torch.from_numpy((2 * start + crops.sides) / side - 1) for start in (crops.lefts, crops.tops))
    nothing = torch.zeros_like(scale)
    rows = [torch.stack([scale * mirror, nothing, across], 1), torch.stack([nothing, scale, down], 1)]
    maps = torch.stack(rows, 1).to(whole.device, torch.float32)
    grid = functional.affine_grid(maps, [len(whole), 3, size, size], align_corners=False)
    return functional.grid_sample(whole, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
