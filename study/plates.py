"""Colour-vision plates: dots whose figure differs from its ground in hue alone, drawn by us from a seed.

Whether somebody sees the colours that a question asks about cannot be read from a browser. Every dot has a lightness of
its own, drawn alike for figure and ground, and all dots have one chroma; what is left is the hue, and the two hues lie
where people with red-green colour blindness see almost no difference. A screening, no diagnosis.
"""

import hmac
import math
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

FIGURES = "23456789"
"""Digits that look like no other and like no letter; who guesses is right one time in eight."""

SIZE = 320
"""Pixels: the figure is then some 6 degrees high at arm's length, as on printed plates."""

RADII = (3, 4, 5, 6, 7, 8)
GAP = 1.5
TRIES = 4000
"""Places tried for dots; more fill the plate no better."""

SURROUND = 117
"""Level of the grey between the dots: the neutral surround of the study's page."""

LIGHTNESS = (48.0, 66.0)
"""Range of L*, wide enough to drown whatever lightness a screen or an eye gives one hue over the other."""

CHROMA = 30.0
FIGURE_HUE, GROUND_HUE = math.radians(314), math.radians(228)
"""CIE L*a*b* hue angles, pink and cyan: a difference of 41 to most eyes, of which at most 8 are left to a protanope or
deuteranope; the best pair of a search over all hues in the model of Machado et al. (2009), which the test repeats."""

Pixels = NDArray[np.uint8]


def figure_of(key: bytes, number: int) -> str:
    """The figure of a session's plate; follows from the session's secret key, so nothing needs to be stored."""
    return FIGURES[hmac.digest(key, f"plate {number}".encode(), "sha256")[0] % len(FIGURES)]


def plate_png(key: bytes, number: int) -> bytes:
    """A session's plate as a PNG file that holds pixels and nothing else."""
    pixels = draw_plate(figure_of(key, number), seed=int.from_bytes(hmac.digest(key, b"dots", "sha256")[:4], "big"))
    done, png = cv2.imencode(".png", np.ascontiguousarray(pixels[..., ::-1]))
    if not done:
        raise RuntimeError("OpenCV could not encode a colour-vision plate as PNG; its build lacks the codec.")
    return bytes(png)


def read_plate(png: bytes) -> str:
    """What eyes that see all hues read on a plate: the figure whose shape holds the dots of the figure's hue."""
    decoded = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    if decoded is None:
        raise ValueError("A plate is a PNG file; these bytes are none.")
    lab = np.asarray(cv2.cvtColor(decoded.astype(np.float32) / 255, cv2.COLOR_BGR2Lab))
    hue = np.arctan2(lab[..., 2], lab[..., 1])
    towards = np.cos(hue - FIGURE_HUE) - np.cos(hue - GROUND_HUE)
    seen = np.where(np.hypot(lab[..., 1], lab[..., 2]) > CHROMA / 2, towards, 0)
    return max(FIGURES, key=lambda figure: float((seen * np.where(figure_shape(figure), 1, -1)).sum()))


@lru_cache(maxsize=64)
def draw_plate(figure: str, *, seed: int) -> Pixels:
    """(320, 320, 3) sRGB: a round plate of dots in which those within the figure have another hue."""
    generator = np.random.default_rng(seed)
    shape = figure_shape(figure)
    plate = np.full((SIZE, SIZE, 3), SURROUND, np.uint8)
    for column, row, radius in dots(generator):
        within = shape[row, column]
        colour = dot_colour(float(generator.uniform(*LIGHTNESS)), figure=bool(within))
        cv2.circle(plate, (column, row), radius, colour, thickness=cv2.FILLED, lineType=cv2.LINE_AA)
    return plate


def figure_shape(figure: str) -> NDArray[np.bool_]:
    """(320, 320), True within the figure."""
    shape = np.zeros((SIZE, SIZE), np.uint8)
    scale, thick = SIZE / 32, SIZE // 8
    (width, height), _ = cv2.getTextSize(figure, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)
    corner = ((SIZE - width) // 2, (SIZE + height) // 2)
    cv2.putText(shape, figure, corner, cv2.FONT_HERSHEY_SIMPLEX, scale, 1, thick)
    return shape > 0


def dots(generator: np.random.Generator) -> list[tuple[int, int, int]]:
    """(column, row, radius) of dots that fill a disc without touching, large ones first."""
    placed: list[tuple[int, int, int]] = []
    taken = np.zeros((TRIES, 3))
    sizes = np.sort(generator.choice(RADII, TRIES))[::-1]
    places = generator.integers(0, SIZE, (TRIES, 2))
    for (column, row), radius in zip(places.tolist(), sizes.tolist(), strict=True):
        if math.hypot(column - SIZE / 2, row - SIZE / 2) + radius > SIZE / 2 - 2:
            continue
        there = taken[: len(placed)]
        if (np.hypot(there[:, 0] - column, there[:, 1] - row) < there[:, 2] + radius + GAP).any():
            continue
        taken[len(placed)] = column, row, radius
        placed.append((column, row, radius))
    return placed


def dot_colour(lightness: float, *, figure: bool) -> tuple[int, int, int]:
    """The sRGB colour of a dot."""
    hue = FIGURE_HUE if figure else GROUND_HUE
    lab = np.array([[[lightness, CHROMA * math.cos(hue), CHROMA * math.sin(hue)]]], np.float32)
    red, green, blue = np.rint(np.clip(np.asarray(cv2.cvtColor(lab, cv2.COLOR_Lab2RGB))[0, 0], 0, 1) * 255).tolist()
    return int(red), int(green), int(blue)
