"""Holes larger than a method works at: after one look at the whole, overlapping tiles at full resolution follow it.

Scaling a large crop down and its fill back up leaves a blur. Here that coarse fill only leads: the hole is filled again
tile by tile at the picture's own resolution, from its rim inwards, so that every tile continues known or finished
pixels; what is larger than a tile's detail (tones, layout) is taken from the coarse fill, so that nothing drifts.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from asuka_infer.compositing import exact
from asuka_infer.geometry import Box, Fit, crop, paste
from asuka_infer.inpainter import Watch
from asuka_infer.request import LARGEST_SEED, Hole, InpaintRequest, RgbImage
from asuka_infer.watching import Pass

OVERLAP = 0.25
"""Share of a tile's side that it has in common with the next one: what a method needs to see to continue it."""

MARGIN = 0.125
"""Share of a tile's side left around the hole where the picture allows it: tiles at the rim see known pixels there."""

GUIDE = 1 / 16
"""Width of the blur, as a share of a tile's side, beyond which the coarse fill decides. Our choice: half the margin, so
that the tones lean on the coarse fill within a tile, and edges and texture are the tile's own."""

MOST_TILES = 16
"""More would keep a visitor waiting for minutes; a larger hole is refined at a lower resolution instead."""

Fill = Callable[[InpaintRequest, Watch], RgbImage]
"""A method that takes any size, scaling to its own inside: a picture of that size, free outside the hole."""


def is_larger(hole: Hole, side: int) -> bool:
    """Whether what is missing spans more than `side` pixels, so that one look at it must be scaled down."""
    rows, columns = np.flatnonzero(hole.any(axis=1)), np.flatnonzero(hole.any(axis=0))
    return len(rows) > 0 and max(rows[-1] - rows[0], columns[-1] - columns[0]) >= side


def fill_coarse_to_fine(fill: Fill, frame: InpaintRequest, side: int, watch: Watch) -> RgbImage:
    """Fill a hole that is larger than `side`: the whole first, then tiles.

    The result depends on the request alone. The fill number k, 0 for the whole, has the seed `frame.seed` + k modulo
    2**32. Tiles are filled in the order of how much of them is known, ties from top left to bottom right.

    Args:
        fill: the method.
        frame: the crop around the hole.
        side: the longest side that the method works at without scaling.
        watch: hears about all fills together and may cancel.

    Returns:
        (height, width, 3) uint8 of the frame's size; outside the hole it is the frame's own picture.
    """
    fit, boxes = _resolution(frame, side)
    image, hole = fit.apply(frame.image, frame.hole)
    if hole.all():
        # Known specks finer than the tiles' pixels would be: tiles had nothing to continue.
        return exact(frame.image, fill(frame, watch), frame.hole)
    coarse = fill(frame, Pass(watch, 0, 1 + len(boxes)))
    lead = _to_size(exact(frame.image, coarse, frame.hole), fit)
    work = _Work(replace(frame, image=image, hole=hole), lead, fit, side)
    done = _fill_tiles(fill, work, boxes, watch)
    return exact(frame.image, fit.undo(done), frame.hole)


def tiles_over(hole: Hole, side: int) -> list[Box]:
    """Overlapping boxes of at most `side` that together contain every missing pixel, from top left to bottom right."""
    rows, columns = np.flatnonzero(hole.any(axis=1)), np.flatnonzero(hole.any(axis=0))
    across, down = (
        _spans(int(found[0]), int(found[-1]) + 1, available, side)
        for found, available in ((columns, hole.shape[1]), (rows, hole.shape[0]))
    )
    boxes = [Box(top, left, height, width) for top, height in down for left, width in across]
    return [box for box in boxes if hole[box.slices].any()]


@dataclass(frozen=True, eq=False)
class _Work:
    """What is refined: the request at the resolution of the tiles, the coarse fill that leads, and the way back."""

    frame: InpaintRequest
    lead: RgbImage
    fit: Fit
    side: int


def _fill_tiles(fill: Fill, work: _Work, boxes: list[Box], watch: Watch) -> RgbImage:
    picture, missing = work.frame.image.copy(), work.frame.hole.copy()
    left = list(boxes)
    for number in range(1, 1 + len(boxes)):
        box = min(left, key=lambda each: (float(missing[each.slices].mean()), each))
        left.remove(box)
        gap = missing[box.slices].copy()
        if not gap.any():
            continue
        so_far = exact(picture, work.lead, missing)
        part = Pass(watch, number, 1 + len(boxes), _shown_in(so_far, box, work.fit))
        seed = (work.frame.seed + number) % (LARGEST_SEED + 1)
        filled = fill(InpaintRequest(crop(picture, box), gap, seed), part)
        led = follow(filled, crop(work.lead, box), gap, GUIDE * work.side)
        picture[box.slices][gap] = led[gap]
        missing[box.slices] = False
    return picture


def follow(filled: RgbImage, lead: RgbImage, hole: Hole, width: float) -> RgbImage:
    """`filled` with the tones of `lead`: what a blur of standard deviation `width` pixels leaves of their difference.

    Where the hole ends the two agree by construction, so the correction fades out towards known pixels.
    """
    difference = np.where(hole[..., None], lead.astype(np.float32) - filled, np.float32(0))
    tones: NDArray[np.float32] = np.asarray(
        cv2.GaussianBlur(difference, (0, 0), width, borderType=cv2.BORDER_REFLECT_101), np.float32
    )
    return np.rint((filled + tones).clip(0, 255)).astype(np.uint8)


def _resolution(frame: InpaintRequest, side: int) -> tuple[Fit, list[Box]]:
    """The finest scaling of the frame, and its tiles, with which `MOST_TILES` are enough."""
    longest = max(frame.size)
    while True:
        fit = Fit.to_multiple(frame.size, 1, longest=longest)
        boxes = tiles_over(fit.apply(frame.image, frame.hole)[1], side)
        if len(boxes) <= MOST_TILES or longest <= side:
            return fit, boxes
        longest = max(side, int(longest * 0.9))


def _spans(start: int, stop: int, available: int, side: int) -> list[tuple[int, int]]:
    """(start, length) of evenly spread tiles along one axis that cover start..stop and a margin."""
    side = min(side, available)
    margin = round(MARGIN * side)
    start, stop = max(0, start - margin), min(available, stop + margin)
    stride = side - round(OVERLAP * side)
    count = 1 + max(0, math.ceil((stop - start - side) / stride))
    if count == 1:
        return [(max(0, min((start + stop - side) // 2, available - side)), side)]
    return [(start + round(number * (stop - start - side) / (count - 1)), side) for number in range(count)]


def _to_size(image: RgbImage, fit: Fit) -> RgbImage:
    """The coarse fill at the resolution of the tiles."""
    if fit.is_identity:
        return image
    height, width = fit.target
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _shown_in(so_far: RgbImage, box: Box, fit: Fit) -> Callable[[RgbImage], RgbImage]:
    def whole(shown: RgbImage) -> RgbImage:
        full = np.asarray(cv2.resize(shown, (box.width, box.height), interpolation=cv2.INTER_LINEAR), np.uint8)
        return fit.undo(paste(so_far, full, box))

    return whole
