"""Pictures with a known right answer: a clean fill, and the same fill made worse in the way one question asks about.

For visual consistency the colours in the hole are shifted away from what surrounds it; for context stability a piece of
another photograph is put into the hole. Both leave every pixel outside the hole as it was, and both follow from the
pictures and a seed alone. Pure functions over pixels; which images are used, and how often, the definition says.
"""

import hashlib
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

SHIFT = 12.0
"""Mean CIE 1976 colour difference of a shifted hole: about five just noticeable differences (2.3, Mahy et al. 1994),
so that who looks sees it, and below what a failed method does, so that it cannot be seen without looking."""

WAYS = 16
"""Directions in the a*b* plane among which the worst are taken; more than any trial has candidates."""

STRONGEST_SHIFT = 60.0
"""Where colours lie at the edge of sRGB a shift is partly cut off and made up for by a larger one, up to this."""

CORRECTIONS = 6
"""Steps in which the strength of a shift is corrected for what was cut off; the difference is below 5 % after three."""

RING_PX = 4
"""Width of the strips on both sides of the hole's border whose colours are compared."""

OBJECT_SHARE = 0.35
"""Half axes of the pasted piece as shares of the hole's width and height: it covers some 40 % of a rectangle."""

SMALLEST_OBJECT = 0.1
"""Where the ellipse covers less of the hole than this, the hole is too ragged for a piece and is filled wholly."""

TRIES = 24
"""Pieces of other photographs among which the most foreign are taken, per candidate wanted."""

Pixels = NDArray[np.uint8]
"""(height, width, 3) sRGB."""

Hole = NDArray[np.bool_]
"""(height, width), True = missing."""

Lab = NDArray[np.float32]
"""CIE L*a*b* under D65, L* from 0 to 100."""


def cleanest(results: Mapping[str, Pixels], hole: Hole) -> str:
    """The key of the result whose colours differ least across the hole's border; equal ones by their key."""
    window = _window(hole, 2 * RING_PX)
    scores = {key: _seam(_lab(pixels[window]), hole[window]) for key, pixels in results.items()}
    return min(sorted(scores), key=lambda key: scores[key])


def colour_shifts(fill: Pixels, hole: Hole, ways: int, *, seed: str) -> list[Pixels]:
    """`ways` copies of a fill whose colours within the hole are shifted by `SHIFT`, each in another direction.

    Of directions all around the colour circle those are taken that set the hole off most from its surroundings: a
    shift must not repair a fill that was off to begin with.

    Args:
        fill: what is shown as the right answer.
        hole: where its colours are shifted.
        ways: how many, at most `WAYS`.
        seed: any text; another one turns the directions.
    """
    window = _window(hole, 2 * RING_PX)
    inside, lab = hole[window], _lab(fill[window])
    turn = np.random.default_rng(_number(seed)).random()
    found: list[tuple[float, NDArray[np.uint8]]] = []
    for angle in 2 * np.pi * (np.arange(WAYS) + turn) / WAYS:
        colours = _shifted(lab[inside], np.array([0, np.cos(angle), np.sin(angle)], np.float32))
        changed = lab.copy()
        changed[inside] = _lab(colours[None])[0]
        found.append((_seam(changed, inside), colours))
    found.sort(key=lambda each: -each[0])
    shifted: list[Pixels] = []
    for _, colours in found[:ways]:
        picture = fill.copy()
        picture[hole] = colours
        shifted.append(picture)
    return shifted


def foreign_objects(fill: Pixels, hole: Hole, others: Sequence[Pixels], ways: int, *, seed: str) -> list[Pixels]:
    """`ways` copies of a fill with a piece of another photograph in the hole, each another piece.

    Of many pieces drawn from `others` those are taken whose colours differ most from what they cover.

    Args:
        fill: what is shown as the right answer.
        hole: the piece lies wholly within it.
        others: other photographs, of any size; at least one.
        ways: how many.
        seed: any text.
    """
    generator = np.random.default_rng(_number(seed))
    window = _window(hole, 0)
    shape = _piece(hole[window])
    covered = _lab(fill[window])[shape]
    pieces: dict[bytes, tuple[float, Pixels]] = {}
    for number in range(TRIES * ways):
        crop = _crop(others[number % len(others)], shape.shape, generator)
        difference = float(np.linalg.norm(_lab(crop)[shape] - covered, axis=1).mean())
        pieces[crop.tobytes()] = difference, crop[shape]
    most_foreign = sorted(pieces.values(), key=lambda piece: -piece[0])
    pasted: list[Pixels] = []
    for number in range(ways):
        picture = fill.copy()
        picture[window][shape] = most_foreign[number % len(most_foreign)][1]
        pasted.append(picture)
    return pasted


def _shifted(lab: Lab, direction: Lab) -> Pixels:
    """(n, 3) colours at a mean distance of `SHIFT` from (n, 3) others, as far as sRGB has such."""
    strength = SHIFT
    colours = _rgb((lab + strength * direction).astype(np.float32))
    for _ in range(CORRECTIONS):
        reached = float(np.linalg.norm(_lab(colours[None])[0] - lab, axis=1).mean())
        strength = min(strength * SHIFT / max(reached, 1), STRONGEST_SHIFT)
        colours = _rgb((lab + strength * direction).astype(np.float32))
    return colours


def _seam(lab: Lab, hole: Hole) -> float:
    """Mean colour difference between the strip within the border and the known colours beside it."""
    size = 2 * RING_PX + 1
    kernel = np.ones((size, size), np.uint8)
    inner = hole & (cv2.erode(hole.astype(np.uint8), kernel, borderValue=1) == 0)
    outer = ~hole & (cv2.dilate(hole.astype(np.uint8), kernel) > 0)
    if not inner.any() or not outer.any():
        return 0.0
    weight = cv2.blur(outer.astype(np.float32), (2 * size, 2 * size))
    beside = cv2.blur(np.where(outer[..., None], lab, 0).astype(np.float32), (2 * size, 2 * size))
    seen = inner & (weight > 0)
    near = np.asarray(beside[seen] / weight[seen][:, None], np.float32)
    return float(np.linalg.norm(lab[seen] - near, axis=1).mean())


def _piece(hole: Hole) -> Hole:
    """An ellipse around the point of the hole that is farthest from its border, within the hole."""
    framed = np.pad(hole.astype(np.uint8), 1)
    depth = np.asarray(cv2.distanceTransform(framed, cv2.DIST_L2, cv2.DIST_MASK_PRECISE))[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    rows, columns = np.indices(hole.shape)
    high, wide = (max(OBJECT_SHARE * side, 2) for side in hole.shape)
    piece = hole & (((rows - row) / high) ** 2 + ((columns - column) / wide) ** 2 <= 1)
    return piece if piece.sum() >= SMALLEST_OBJECT * hole.sum() else hole


def _crop(photograph: Pixels, shape: tuple[int, ...], generator: np.random.Generator) -> Pixels:
    """A random piece of that shape; a photograph that is too small is enlarged first."""
    height, width = shape
    scale = max(height / photograph.shape[0], width / photograph.shape[1], 1)
    if scale > 1:
        size = (int(np.ceil(photograph.shape[1] * scale)), int(np.ceil(photograph.shape[0] * scale)))
        photograph = np.asarray(cv2.resize(photograph, size, interpolation=cv2.INTER_CUBIC), np.uint8)
    top = int(generator.integers(photograph.shape[0] - height + 1))
    left = int(generator.integers(photograph.shape[1] - width + 1))
    crop = photograph[top : top + height, left : left + width]
    upside_down, mirrored = generator.integers(2, size=2)
    return crop[:: -1 if upside_down else 1, :: -1 if mirrored else 1]


def _window(hole: Hole, margin: int) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(hole.any(axis=1)), np.flatnonzero(hole.any(axis=0))
    top, left = max(int(rows[0]) - margin, 0), max(int(columns[0]) - margin, 0)
    return slice(top, int(rows[-1]) + margin + 1), slice(left, int(columns[-1]) + margin + 1)


def _lab(rgb: Pixels) -> Lab:
    return np.asarray(cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2Lab), np.float32)


def _rgb(lab: Lab) -> Pixels:
    """(n, 3) colours as 8-bit sRGB, what lies outside cut off."""
    rgb = np.asarray(cv2.cvtColor(lab[None], cv2.COLOR_Lab2RGB))[0]
    return np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8)


def _number(seed: str) -> int:
    return int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big")
