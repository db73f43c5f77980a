"""What the demo hands to a study when an operator lets it: a photo, its hole, and what several methods made of it."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from asuka_infer.holes import encode_hole_png
from asuka_infer.images import write_atomically
from asuka_infer.request import Hole
from asuka_infer.run_record import RunRecord

LEAST_METHODS = 2
"""A study compares; one method alone is nothing to vote on."""

MOST_OFFERS = 500
"""That may wait to be looked through: an operator who looks at one in ten seconds needs an hour and a half (our
choice)."""

MOST_MEGABYTES = 5000
"""Of disk that visitors may fill: 500 offers of 10 MB, or 25 of the largest photos with four results (our choice)."""


@dataclass(frozen=True, eq=False)
class OfferedResult:
    """One method's result, a PNG file of the photo's size, and how it was made."""

    png: bytes
    record: RunRecord


@dataclass(frozen=True, eq=False)
class Offer:
    """The same photo, hole and seed through two or more methods, as `study` takes in stimuli.

    Attributes:
        photo: a PNG of the photo's upright sRGB pixels; the visitor's file name, EXIF and profile stay behind.
        hole: (height, width) bool, True = missing.
        results: one per method, in the order they were chosen.
    """

    photo: bytes
    hole: Hole
    results: tuple[OfferedResult, ...]


TakeOffer = Callable[[Offer], str]
"""Keeps an offer and says in one sentence what becomes of it; a ValueError's message tells the visitor why not."""


def keep_offers(
    folder: Path, *, most_offers: int = MOST_OFFERS, most_bytes: int = MOST_MEGABYTES * 1_000_000
) -> TakeOffer:
    """Keeps offers as a study takes stimuli in: images/, holes/ and results/METHOD/ with the run records beside them.

    The same offer twice is one; an operator looks through the folder before it goes into a study. A full pool takes
    nothing new until the operator has moved something out of it: what lies there is never pushed out by strangers.

    Args:
        folder: made when the first offer comes.
        most_offers: how many it holds.
        most_bytes: how much all its files together may take.
    """
    one_at_a_time = threading.Lock()

    def keep(offer: Offer) -> str:
        methods = [result.record.method for result in offer.results]
        if len(set(methods)) < LEAST_METHODS or len(set(methods)) < len(methods):
            raise ValueError("A study compares different methods; run two or more on the same photo, hole and seed.")
        files = _files(offer)
        with one_at_a_time:
            _refuse_too_many(folder, files, most_offers, most_bytes)
            for path, data in files.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                write_atomically(folder / path, data)
        return "Thank you. Whoever runs the study looks at it before anybody votes on it."

    return keep


def _files(offer: Offer) -> dict[Path, bytes]:
    """Path below the pool's folder -> content; the name says nothing of whoever offered it."""
    record = offer.results[0].record
    name = f"offer-{record.image_sha256[:10]}-{record.hole_sha256[:10]}-{record.seed}"
    files = {Path("images", f"{name}.png"): offer.photo, Path("holes", f"{name}.png"): encode_hole_png(offer.hole)}
    for result in offer.results:
        place = Path("results", result.record.method)
        files[place / f"{name}.png"] = result.png
        files[place / f"{name}.json"] = result.record.to_json().encode()
    return files


def _refuse_too_many(folder: Path, files: dict[Path, bytes], most_offers: int, most_bytes: int) -> None:
    there = {path.relative_to(folder): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    sizes = there | {path: len(data) for path, data in files.items()}
    offers = sum(path.parts[0] == "images" for path in sizes)
    if not sizes.keys() - there.keys() or (offers <= most_offers and sum(sizes.values()) <= most_bytes):
        return
    waiting = sum(path.parts[0] == "images" for path in there)
    raise ValueError(
        f"The pool is full: {waiting} offers ({sum(there.values()) / 1e6:.0f} MB) wait to be looked through, and at "
        f"most {most_offers} ({most_bytes / 1e6:.0f} MB) are kept. Come back another day."
    )
