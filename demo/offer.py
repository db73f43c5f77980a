"""What the demo hands to a study when an operator lets it: a photo, its hole, and what several methods made of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from asuka_infer.holes import encode_hole_png
from asuka_infer.images import write_atomically
from asuka_infer.request import Hole
from asuka_infer.run_record import RunRecord

LEAST_METHODS = 2
"""A study compares; one method alone is nothing to vote on."""


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


def keep_offers(folder: Path) -> TakeOffer:
    """Keeps offers as a study takes stimuli in: images/, holes/ and results/METHOD/ with the run records beside them.

    The same offer twice is one; an operator looks through the folder before it goes into a study.

    Args:
        folder: made when the first offer comes.
    """

    def keep(offer: Offer) -> str:
        methods = [result.record.method for result in offer.results]
        if len(set(methods)) < LEAST_METHODS or len(set(methods)) < len(methods):
            raise ValueError("A study compares different methods; run two or more on the same photo, hole and seed.")
        record = offer.results[0].record
        name = f"offer-{record.image_sha256[:10]}-{record.hole_sha256[:10]}-{record.seed}"
        files = {Path("images", f"{name}.png"): offer.photo, Path("holes", f"{name}.png"): encode_hole_png(offer.hole)}
        for result in offer.results:
            place = Path("results", result.record.method)
            files[place / f"{name}.png"] = result.png
            files[place / f"{name}.json"] = result.record.to_json().encode()
        for path, data in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / path, data)
        return "Thank you. Whoever runs the study looks at it before anybody votes on it."

    return keep
