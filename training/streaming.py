"""Photographs too many to be kept decoded: found once, read from their files or tar shards as batches ask for them."""

import csv
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from training.data import SHEET_SEED, Crops, cut, draw_crops, holes_of
from training.photographs import DataError, Entry, Place, Tier, decode, find_all, held_out

COLUMNS = (*Entry._fields, *Place._fields)
"""Of the cached list of photographs."""


class StreamedSupply:
    """As `training.data.Supply`, for millions of photographs: threads decode each batch, nothing stays in memory."""

    def __init__(
        self,
        photographs: list[tuple[Entry, Place]],
        packed_holes: Mapping[int, Tensor],
        device: torch.device,
        *,
        side: int,
        threads: int,
    ) -> None:
        """Take what `list_photographs` and `gather_holes` made.

        Args:
            photographs: at least one that is trained on.
            packed_holes: by size.
            device: where batches are wanted.
            side: shorter sides are brought to this many px, then the middle square is used.
            threads: that decode; Pillow lets go of Python's lock.

        Raises:
            DataError: when all photographs are held out by their names.
        """
        apart = np.array([held_out(entry.name) for entry, _ in photographs], dtype=bool)
        self._training = np.flatnonzero(~apart)
        if not len(self._training):
            raise DataError(f"All {len(photographs)} photographs are held out by their names; add a few more.")
        self._evaluation = np.flatnonzero(apart) if apart.any() else self._training
        self._photographs, self._device, self._side = photographs, device, side
        on_gpu = device.type == "cuda"
        self._holes = {size: packed.to(device) if on_gpu else packed for size, packed in packed_holes.items()}
        self._pool = ThreadPoolExecutor(threads)

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

    def _cut(self, crops: Crops, size: int) -> Float[Tensor, "batch 3 size size"]:
        pixels = np.stack(list(self._pool.map(self._decoded, crops.photographs)))
        here = crops._replace(photographs=np.arange(len(pixels)))
        return cut(torch.from_numpy(pixels), here, size, self._device)

    def _decoded(self, index: int) -> NDArray[np.uint8]:
        return decode(self._photographs[index], side=self._side)


def list_photographs(source: Path, cache: Path, *, tier: Tier = "all") -> list[tuple[Entry, Place]]:
    """Every photograph below a folder or in its tar shards; walked once, later calls read the list in the cache.

    Places2 as it is downloaded will do: the folder with `train_large_places365standard.tar`, or what is in it.

    Raises:
        DataError: when there are none.
    """
    file = cache / f"list_{tier}.csv"
    if not file.is_file():
        found = [(entry, place) for entry, place in find_all(source) if tier in ("all", entry.tier)]
        if not found:
            raise DataError(f"No photograph of tier {tier!r} was found in {source}; give a folder or tar shards.")
        cache.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(f".{os.getpid()}.part")
        with unfinished.open("w", encoding="utf-8", newline="") as table:
            writer = csv.writer(table)
            writer.writerow(COLUMNS)
            writer.writerows((*entry, *place) for entry, place in found)
        unfinished.replace(file)
    with file.open(encoding="utf-8", newline="") as table:
        rows = csv.reader(table)
        next(rows)
        return [(Entry(*row[:3]), Place(Path(row[3]), int(row[4]), int(row[5]))) for row in rows]
