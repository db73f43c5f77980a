"""Photographs decoded once into one array; no torch, so that decoding processes start in a moment."""

import csv
import hashlib
import io
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from tqdm import tqdm

Tier = Literal["all", "open"]
"""Which licences may be trained on: every one, or those that allow any use."""

SIDE = 256
"""Photographs are kept at this size: that of the MAE and of the small family."""

HELD_OUT_OF = 50
"""One photograph in fifty is never trained on; which ones depends on their names alone."""

SUFFIXES = frozenset({".avif", ".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})

MANIFEST_COLUMNS = ("shard", "file", "tier", "domain")

QUIET_BELOW = 256
"""Fewer photographs than this are done before a progress bar is read."""


class DataError(ValueError):
    """Photographs that cannot be trained on; the message says what to change."""


class Entry(NamedTuple):
    """Where a photograph came from: its name, its domain ("indoor") and its licence tier ("open", "own", ...)."""

    name: str
    domain: str
    tier: str


@dataclass(frozen=True, eq=False)
class Photographs:
    """Decoded photographs, square and of one size.

    Attributes:
        pixels: (n, side, side, 3) uint8, memory-mapped from the cache.
        entries: where each came from.
        apart: indices that are not trained on; None = those whose names say so (`held_out`).
    """

    pixels: NDArray[np.uint8]
    entries: tuple[Entry, ...]
    apart: frozenset[int] | None = None

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def training(self) -> NDArray[np.int64]:
        """Indices of the photographs to train on."""
        return np.flatnonzero([not self._is_apart(index) for index in range(len(self))])

    @property
    def evaluation(self) -> NDArray[np.int64]:
        """Indices of the photographs never trained on."""
        return np.flatnonzero([self._is_apart(index) for index in range(len(self))])

    def _is_apart(self, index: int) -> bool:
        return held_out(self.entries[index].name) if self.apart is None else index in self.apart


def held_out(name: str) -> bool:
    """Whether a photograph of this name is kept out of training, whatever else is in the folder."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % HELD_OUT_OF == 0


def gather_photographs(
    source: Path, cache: Path, *, side: int = SIDE, tier: Tier = "all", processes: int = 1
) -> Photographs:
    """Decode every photograph of a folder once; later calls only map the cached array into memory.

    Args:
        source: a folder of photographs (any depth; the first folder below is the domain) or of tar shards. With a
            `manifest.csv` (columns shard, file, tier, domain) beside the shards, tiers and domains are taken from it.
        cache: a folder for the decoded array.
        side: shorter sides are brought to this many pixels, then the middle square is kept.
        tier: "open" leaves out everything that does not allow any use.
        processes: that decode.

    Raises:
        DataError: when there is nothing to train on, or a file cannot be decoded.
    """
    pixels_file, entries_file = (cache / f"photographs_{tier}_{side}.{ending}" for ending in ("npy", "csv"))
    if not entries_file.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        _decode_all(source, pixels_file, entries_file, side=side, tier=tier, processes=processes)
    with entries_file.open(encoding="utf-8", newline="") as table:
        entries = tuple(Entry(**row) for row in csv.DictReader(table))
    # Copy-on-write, so that torch may wrap the array; nothing ever writes to it.
    return Photographs(np.load(pixels_file, mmap_mode="c"), entries)


def _decode_all(source: Path, pixels_file: Path, entries_file: Path, *, side: int, tier: Tier, processes: int) -> None:
    found = [(entry, read) for entry, read in find_all(source) if tier in ("all", entry.tier)]
    if not found:
        raise DataError(
            f"No photograph of tier {tier!r} was found in {source}; give a folder of pictures or tar shards."
        )
    unfinished = pixels_file.with_suffix(".part.npy")
    pixels = np.lib.format.open_memmap(unfinished, "w+", np.uint8, (len(found), side, side, 3))
    decoded = partial(decode, side=side)
    progress = partial(tqdm, total=len(found), desc="photographs", mininterval=1.0, disable=len(found) < QUIET_BELOW)
    if processes == 1:
        for number, picture in enumerate(progress(map(decoded, found))):
            pixels[number] = picture
    else:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            for number, picture in enumerate(progress(pool.map(decoded, found, chunksize=32))):
                pixels[number] = picture
    pixels.flush()
    unfinished.replace(pixels_file)
    _write_entries(entries_file, [entry for entry, _ in found])


class Place(NamedTuple):
    """Where the bytes of a photograph lie: a file, or a stretch of a tar file."""

    file: Path
    offset: int = 0
    size: int = -1

    def read(self) -> bytes:
        """The photograph's file."""
        with self.file.open("rb") as stream:
            stream.seek(self.offset)
            return stream.read(self.size)


def find_all(source: Path) -> Iterator[tuple[Entry, Place]]:
    """Every photograph of a folder, or of the tar shards in it, and where its bytes lie.

    Raises:
        DataError: when there is no such folder or its manifest lacks a column.
    """
    if not source.is_dir():
        raise DataError(f"There is no folder {source}; give one with photographs or tar shards.")
    shards = sorted(source.glob("*.tar"))
    listed = _read_manifest(source / "manifest.csv")
    in_shards = chain.from_iterable(_find_in_shard(shard, listed) for shard in shards)
    return chain(in_shards, _find_in_folder(source))


def _find_in_folder(source: Path) -> Iterator[tuple[Entry, Place]]:
    for file in sorted(source.rglob("*")):
        if file.suffix.lower() in SUFFIXES:
            inside = file.relative_to(source)
            domain = inside.parts[0] if len(inside.parts) > 1 else "photographs"
            yield Entry(inside.as_posix(), domain, "own"), Place(file)


def _find_in_shard(shard: Path, listed: dict[tuple[str, str], Entry]) -> Iterator[tuple[Entry, Place]]:
    with tarfile.open(shard) as members:
        for member in members:
            if Path(member.name).suffix.lower() in SUFFIXES:
                unlisted = Entry(member.name, "photographs", "own")
                entry = listed.get((shard.name, member.name), unlisted)
                yield entry, Place(shard, member.offset_data, member.size)


def _read_manifest(manifest: Path) -> dict[tuple[str, str], Entry]:
    if not manifest.is_file():
        return {}
    with manifest.open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    if rows and not set(MANIFEST_COLUMNS) <= rows[0].keys():
        raise DataError(f"{manifest} has the columns {sorted(rows[0])}; it needs {', '.join(MANIFEST_COLUMNS)}.")
    # "indoor/kitchen" is a kind of indoor: balance is between the large domains.
    return {(row["shard"], row["file"]): Entry(row["file"], row["domain"].split("/")[0], row["tier"]) for row in rows}


def decode(found: tuple[Entry, Place], *, side: int) -> NDArray[np.uint8]:
    """A photograph upright, its shorter side at `side` px, its middle square.

    Raises:
        DataError: when it cannot be decoded, naming it.
    """
    entry, place = found
    try:
        with Image.open(io.BytesIO(place.read())) as picture:
            upright = ImageOps.exif_transpose(picture).convert("RGB")
    except OSError as error:
        raise DataError(f"{entry.name} in {place.file} cannot be decoded ({error}); remove or replace it.") from error
    return np.asarray(ImageOps.fit(upright, (side, side), method=Image.Resampling.LANCZOS))


def _write_entries(file: Path, entries: Sequence[Entry]) -> None:
    unfinished = file.with_suffix(".part")
    with unfinished.open("w", encoding="utf-8", newline="") as table:
        writer = csv.writer(table)
        writer.writerow(Entry._fields)
        writer.writerows(entries)
    unfinished.replace(file)
