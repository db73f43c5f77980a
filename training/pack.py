"""Photographs, silhouettes and perceptual weights in one small folder that travels to a borrowed GPU."""

import csv
import io
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from training.photographs import QUIET_BELOW, Photographs, gather_photographs

QUALITIES = (80, 75, 70, 65, 60, 55, 50, 45, 40, 35, 30, 25, 20)
"""AVIF qualities that are tried, best first; 50 keeps 33 dB of these photographs, 60 keeps 36 dB (measured)."""

SPEED = 7
"""AVIF effort: 19 ms per photograph of 256 px (measured); slower ones save a few per cent."""

SAMPLE = 150
"""Photographs from which the size of all is told."""

ROOM = 0.97
"""Share of the limit that the estimate may fill, so that the true size stays below it."""

TAR_BLOCK = 512
"""Bytes of a tar header; every file is padded to a multiple, by half a block on average."""


class PackError(ValueError):
    """The limit cannot be met."""


def pack(
    data: Path,
    out: Path,
    *,
    silhouettes: Sequence[Path],
    reserved: Path | None,
    perceptual: Path | None,
    limit_mib: float,
    side: int = 256,
    processes: int = 1,
) -> int:
    """Write `out/train`, `out/object_masks` and `out/weights`, which `--data out/train` then finds; returns bytes.

    Photographs are brought to `side` px, which is what training sees anyway, and compressed as little as the limit
    allows.

    Raises:
        PackError: when even the lowest quality does not fit.
    """
    beside = [*silhouettes, *(file.with_suffix(".csv") for file in silhouettes), *([reserved] if reserved else [])]
    _copy_all([file for file in beside if file.is_file()], out / "object_masks")
    _copy_all([perceptual] if perceptual else [], out / "weights")
    photographs = gather_photographs(data, out.parent / f"{out.name}.cache", side=side, processes=processes)
    left = limit_mib * 2**20 - _bytes_in(out)
    quality = _quality_for(photographs, left)
    _write_shard(photographs, out / "train", quality, processes)
    total = _bytes_in(out)
    if total > limit_mib * 2**20:
        raise PackError(f"The pack has {total / 2**20:.1f} MiB; the limit is {limit_mib} MiB. Lower it a little.")
    return total


def _quality_for(photographs: Photographs, left: float) -> int:
    chosen = np.linspace(0, len(photographs) - 1, min(SAMPLE, len(photographs))).astype(int)
    for quality in QUALITIES:
        sizes = [len(_compressed(photographs.pixels[index], quality)) + 1.5 * TAR_BLOCK for index in chosen]
        if np.mean(sizes) * len(photographs) < ROOM * left:
            return quality
    raise PackError(f"{len(photographs)} photographs do not fit into {left / 2**20:.0f} MiB; give fewer or more room.")


def _write_shard(photographs: Photographs, folder: Path, quality: int, processes: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    numbers = range(len(photographs))
    with (
        tarfile.open(folder / "photographs.tar", "w") as shard,
        (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as table,
    ):
        manifest = csv.writer(table)
        manifest.writerow(["shard", "file", "tier", "domain"])
        for number, data in zip(numbers, _all_compressed(photographs, quality, processes), strict=True):
            entry = photographs.entries[number]
            # The name decides who is held out, so it stays; what a file is, its content tells.
            manifest.writerow(["photographs.tar", entry.name, entry.tier, entry.domain])
            member = tarfile.TarInfo(entry.name)
            member.size = len(data)
            shard.addfile(member, io.BytesIO(data))


def _all_compressed(photographs: Photographs, quality: int, processes: int) -> Iterator[bytes]:
    compress = partial(_compressed, quality=quality)
    progress = partial(
        tqdm, total=len(photographs), desc=f"packing at {quality}", disable=len(photographs) < QUIET_BELOW
    )
    if processes == 1:
        yield from progress(map(compress, photographs.pixels))
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from progress(pool.map(compress, photographs.pixels, chunksize=64))


def _compressed(pixels: NDArray[np.uint8], quality: int) -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.asarray(pixels)).save(data, "AVIF", quality=quality, speed=SPEED)
    return data.getvalue()


def _copy_all(files: Sequence[Path], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copyfile(file, folder / file.name)


def _bytes_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
