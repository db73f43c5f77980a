"""What a method's auto-encoder looks at in the photo's stead: the paper's remedy where its prior repeats what it sees.

The choice is settings like any other (JSON values), so a run record says it and the same record makes the same picture.
"""

import base64
import binascii
import io
import re
from dataclasses import dataclass

import cv2
import numpy as np

from asuka_infer.images import ImageError, encode_png, read_image
from asuka_infer.request import RgbImage
from asuka_infer.settings import Settings, SettingsError, choice, text

PRIORS = ("photo", "blank", "colour", "picture")

PICTURE_SIDE = 256
"""Longest side of a prior picture in pixels: what the largest auto-encoder here looks at."""

LONGEST_PICTURE = 400_000
"""Characters of base64: a PNG of the largest prior picture that does not compress at all has 262,000."""

WHITE = 255

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass(frozen=True)
class PriorSettings(Settings):
    """The part of a method's settings that says what its auto-encoder sees.

    Raises:
        SettingsError: for a colour that is none, or a picture that is missing or cannot be read.
    """

    prior: str = choice(
        "photo",
        options=PRIORS,
        meaning="What the auto-encoder sees: the photo around the hole, blank paper, one colour, or another picture.",
    )
    prior_colour: str = text("#808080", meaning="The colour it sees when prior is colour, as #rrggbb.")
    prior_picture: str = text(
        "", meaning="The picture it sees when prior is picture, as base64 of a small PNG or JPEG."
    )

    def __post_init__(self) -> None:
        """Check the values, and that they belong together."""
        super().__post_init__()
        if not _COLOUR.fullmatch(self.prior_colour):
            raise SettingsError(f"prior_colour = {self.prior_colour!r} is not possible; write #rrggbb, #808080 say.")
        if self.prior == "picture":
            _decode(self.prior_picture)


def prior_pixels(settings: PriorSettings, side: int) -> RgbImage | None:
    """(side, side, 3) uint8 that the auto-encoder sees whole, or None for the photo itself with its hole.

    Raises:
        SettingsError: when the picture cannot be read.
    """
    if settings.prior == "photo":
        return None
    if settings.prior == "picture":
        return np.asarray(
            cv2.resize(_decode(settings.prior_picture), (side, side), interpolation=cv2.INTER_AREA), np.uint8
        )
    colour = settings.prior_colour if settings.prior == "colour" else "#ffffff"
    levels = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    return np.full((side, side, 3), levels, np.uint8)


def prior_text(pixels: RgbImage) -> str:
    """A picture as `prior_picture` takes it: made small, PNG, base64."""
    scale = min(1.0, PICTURE_SIDE / max(pixels.shape[:2]))
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    small = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    return base64.b64encode(encode_png(small)).decode()


def _decode(said: str) -> RgbImage:
    if not said:
        raise SettingsError(
            "prior is picture but prior_picture is empty; give one (asuka_infer.prior_choice.prior_text)."
        )
    if len(said) > LONGEST_PICTURE:
        raise SettingsError(
            f"prior_picture has {len(said)} characters, at most {LONGEST_PICTURE}; make it {PICTURE_SIDE} pixels small."
        )
    try:
        data = base64.b64decode(said, validate=True)
        return read_image(io.BytesIO(data), max_pixels=PICTURE_SIDE**2).pixels
    except (binascii.Error, ImageError) as error:
        raise SettingsError(f"prior_picture cannot be read: {error}") from error
