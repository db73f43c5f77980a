"""Photographs too many to be kept decoded: found once, read from their files or tar shards as batches ask for them."""

import csv
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from training.data import Crops, Squares, cut
from training.photographs import DataError, Entry, Place, Tier, decode, find_all, held_out

COLUMNS = (*Entry._fields, *Place._fields)
"""Of the cached list of photographs."""


class StreamedSupply(Squares):
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
        training = np.flatnonzero(~apart)
        if not len(training):
            raise DataError(f"All {len(photographs)} photographs are held out by their names; add a few more.")
        super().__init__(training, np.flatnonzero(apart), packed_holes, device, side=side)
        self._photographs = photographs
        self._pool = ThreadPoolExecutor(threads)

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
