"""The pool of candidates that visitors of the demo offered: folders that `python -m study ingest` reads as they are.

`images/NAME.png`, `holes/NAME.png`, `results/METHOD/NAME.png` with its run record `NAME.json`. NAME is a hash of the
content, so an offer made twice is there once, and further methods of the same photo and hole join it.
"""

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MOST_CANDIDATES = 500
"""Our choice: far more than a study shows, and the disk stays bounded."""

LARGEST_CANDIDATE = 64 * 2**20
"""Bytes of one offer, all files together (our choice): four methods on a 12-megapixel photo."""

NAME_DIGITS = 16
"""Of the SHA-256, in base 16: two of 500 offers share a name once in 10^14."""

METHOD_KEY = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


class PoolError(ValueError):
    """An offer that is not taken; the message may be shown to whoever made it."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A photo, its hole, and what several methods made of it.

    Attributes:
        photo: PNG.
        hole: PNG of the same size, white = missing.
        results: by method, a PNG of the same size and its run record as JSON.
    """

    photo: bytes
    hole: bytes
    results: Mapping[str, tuple[bytes, str]]

    @property
    def name(self) -> str:
        """What its files are called."""
        return hashlib.sha256(hashlib.sha256(self.photo).digest() + self.hole).hexdigest()[:NAME_DIGITS]


def keep_candidate(folder: Path, candidate: Candidate) -> str:
    """Put an offer into the pool; the photo comes last, so that what has a photo is complete.

    Returns:
        What its files are called.

    Raises:
        PoolError: when the pool is full, the offer too large, or a method's name is none.
        OSError: when the disk refuses.
    """
    name = candidate.name
    photo = folder / "images" / f"{name}.png"
    _refuse(folder, candidate, known=photo.exists())
    for method, (png, record) in candidate.results.items():
        _write(folder / "results" / method / f"{name}.png", png)
        _write(folder / "results" / method / f"{name}.json", record.encode())
    _write(folder / "holes" / f"{name}.png", candidate.hole)
    _write(photo, candidate.photo)
    return name


def _refuse(folder: Path, candidate: Candidate, *, known: bool) -> None:
    for method in candidate.results:
        if METHOD_KEY.fullmatch(method) is None:
            raise PoolError(f"{method!r} is no method's key; offer results of methods that the catalog names.")
    size = len(candidate.photo) + len(candidate.hole) + sum(len(png) for png, _ in candidate.results.values())
    if size > LARGEST_CANDIDATE:
        raise PoolError(
            f"This offer has {size / 2**20:.0f} MiB and the study takes at most {LARGEST_CANDIDATE / 2**20:.0f}; "
            "offer a smaller picture."
        )
    if not known and sum(1 for _ in (folder / "images").glob("*.png")) >= MOST_CANDIDATES:
        raise PoolError(f"The study has {MOST_CANDIDATES} offers already and takes no more until they are looked at.")


def _write(path: Path, content: bytes) -> None:
    """All of it or nothing, whoever reads at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
