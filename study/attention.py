"""Pictures that say which of them to choose: a tick on one and a cross on every other, in no language.

Who looks at an attention trial cannot miss the answer, and who does not look cannot know it: nothing else about the
trial differs from any other. The page explains the marks in the participant's language, on every trial.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""(height, width, 3) sRGB."""

DISC_SHARE = 0.34
"""Radius of the disc as a share of the shorter side: seen at once, and the photograph is still a photograph."""

VEIL, VEIL_SHARE = 117, 0.55
"""Level and share of the grey over the photograph (the page's neutral surround), so that the mark is what is seen."""

TICK, CROSS = (0, 92, 52), (148, 18, 24)
"""Dark green and dark red: at least 7 : 1 on white, and their shapes tell them apart without the colours."""

TICK_LINE = ((-0.52, 0.04), (-0.14, 0.42), (0.54, -0.38))
CROSS_LINES = (((-0.4, -0.4), (0.4, 0.4)), ((-0.4, 0.4), (0.4, -0.4)))
"""Points in radii of the disc, right and down from its middle."""

LINE_SHARE = 0.22
"""Width of the strokes in radii."""

FINER = 8
"""Bits of the fraction of a pixel that OpenCV draws with."""


def marked(picture: Pixels, *, choose: bool) -> Pixels:
    """A picture behind a veil, with a tick on a white disc, or a cross."""
    height, width = picture.shape[:2]
    radius = DISC_SHARE * min(height, width)
    canvas = np.rint(picture * (1 - VEIL_SHARE) + VEIL * VEIL_SHARE).astype(np.uint8)
    middle = np.array([width / 2, height / 2])
    colour = TICK if choose else CROSS
    _disc(canvas, middle, radius * 1.08, colour)
    _disc(canvas, middle, radius, (255, 255, 255))
    for line in (TICK_LINE,) if choose else CROSS_LINES:
        points = np.rint((middle + radius * np.array(line)) * 2**FINER).astype(np.int32)
        thickness = max(1, round(LINE_SHARE * radius))
        cv2.polylines(
            canvas, [points], isClosed=False, color=colour, thickness=thickness, lineType=cv2.LINE_AA, shift=FINER
        )
    return canvas


def _disc(canvas: Pixels, middle: NDArray[np.float64], radius: float, colour: tuple[int, int, int]) -> None:
    x, y = np.rint(middle * 2**FINER).astype(int).tolist()
    fine = round(radius * 2**FINER)
    cv2.circle(canvas, (x, y), fine, colour, thickness=cv2.FILLED, lineType=cv2.LINE_AA, shift=FINER)
