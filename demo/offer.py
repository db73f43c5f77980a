"""What the demo hands to a study when an operator lets it: a photo, its hole, and what several methods made of it."""

from collections.abc import Callable
from dataclasses import dataclass

from asuka_infer.request import Hole
from asuka_infer.run_record import RunRecord


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
