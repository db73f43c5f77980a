"""Crops around holes, and scaling with padding to what a model takes: exact inverse pairs, no squashing."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from asuka_infer import holes
from asuka_infer.request import Hole, RgbImage

LEAST_MARGIN = 1
"""Known pixels kept on every side of a hole, where the picture has them: without any a crop could be all hole."""

MOST_REGIONS = 512
"""More separate regions than this are first joined on a coarser grid: beyond it merging pair by pair costs seconds."""

_Array = TypeVar("_Array", bound=NDArray[Any])


class GeometryError(ValueError):
    """Sizes or boxes that do not fit together; the message says which and what is allowed."""


@dataclass(frozen=True, order=True)
class Box:
    """A rectangle of whole pixels; it may reach over the picture's bottom and right edges."""

    top: int
    left: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1 or self.top < 0 or self.left < 0:
            raise GeometryError(f"{self} is no box: top and left are 0 or more, height and width 1 or more.")

    @property
    def bottom(self) -> int:
        """The first row below the box."""
        return self.top + self.height

    @property
    def right(self) -> int:
        """The first column right of the box."""
        return self.left + self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, for indexing an array."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def overlaps(self, other: "Box") -> bool:
        """Whether the two share a pixel."""
        return (
            self.top < other.bottom and other.top < self.bottom and self.left < other.right and other.left < self.right
        )

    def joined(self, other: "Box") -> "Box":
        """The smallest box that contains both."""
        top, left = min(self.top, other.top), min(self.left, other.left)
        return Box(top, left, max(self.bottom, other.bottom) - top, max(self.right, other.right) - left)


def frames_around(
    hole: Hole, *, context: float, multiple: int = 1, smallest: int = 1, square: bool = False
) -> list[Box]:
    """The crops to inpaint: together they contain every missing pixel, and no two of them overlap.

    Holes whose crops would overlap share one, so that no crop shows another's missing pixels as if they were known.
    A crop is shifted to lie inside the picture before it gives anything up; every crop contains a known pixel.

    Args:
        hole: (height, width), neither empty nor everything.
        context: known surroundings on every side, as a share of the hole's longer side (0.5: half of it); holes that
            share a crop share the widest surroundings of any of them.
        multiple: crop sides are multiples of this. Where the picture's own side is none and the hole needs it all,
            the crop reaches over the bottom or right edge by less than `multiple` (`crop` repeats the edge there).
        smallest: the shortest crop side, in pixels, as far as the picture goes.
        square: the shorter sides of a crop grow to its longer ones, as far as the picture goes; a crop that would then
            overlap another stays as it is, so that squares never make two crops one.

    Raises:
        GeometryError: for an empty hole, a negative context or a multiple or smallest below 1.
    """
    if context < 0 or not math.isfinite(context) or multiple < 1 or smallest < 1:
        raise GeometryError(
            f"Context {context}, multiple {multiple} and smallest {smallest} were given; "
            "context is 0 or more, the others are 1 or more."
        )
    regions = _regions(hole, context)
    if not regions:
        raise GeometryError("The hole is empty, so there is nothing to crop around; mark what is missing.")
    frames = sorted(_merged(regions, lambda region: _frame(region, hole.shape, multiple, smallest)))
    return sorted(_squared(frames, hole.shape, multiple)) if square else frames


def crop(array: _Array, box: Box) -> _Array:
    """The part of a (height, width, ...) array inside the box; where the box leaves the picture its edge repeats."""
    inside = array[box.slices]
    if 0 in inside.shape[:2]:
        raise GeometryError(f"{box} lies outside an array of shape {array.shape}; use the picture it was made for.")
    below, right = box.height - inside.shape[0], box.width - inside.shape[1]
    return np.pad(inside, [(0, below), (0, right)] + [(0, 0)] * (array.ndim - 2), mode="edge")  # pyright: ignore[reportReturnType] - np.pad keeps type and rank


def paste(array: _Array, patch: _Array, box: Box) -> _Array:
    """A copy of `array` with `patch` where `box` says; what the patch has outside the picture is dropped.

    `paste(array, crop(array, box), box)` is `array`, and `crop(paste(array, patch, box), box)` is `patch`.
    """
    if patch.shape != (box.height, box.width, *array.shape[2:]):
        raise GeometryError(
            f"The patch has shape {patch.shape} but {box} needs {box.height}x{box.width} rows x columns."
        )
    result = array.copy()
    room = result[box.slices]
    if 0 in room.shape[:2]:
        raise GeometryError(f"{box} lies outside an array of shape {array.shape}; use the picture it was made for.")
    room[...] = patch[: room.shape[0], : room.shape[1]]
    return result


@dataclass(frozen=True)
class Fit:
    """A picture scaled evenly and padded at the bottom and right to a model's size, and the way back.

    Attributes:
        source: (height, width) of the picture.
        scaled: (height, width) it is scaled to; each side is the evenly scaled one rounded to a whole pixel.
        target: (height, width) after padding.
    """

    source: tuple[int, int]
    scaled: tuple[int, int]
    target: tuple[int, int]

    @classmethod
    def inside(cls, source: tuple[int, int], target: tuple[int, int]) -> Self:
        """The largest even scaling of `source` that lies in `target`; the rest is padding."""
        _refuse_wrong_sizes(source, target)
        scale = min(target[0] / source[0], target[1] / source[1])
        return cls(source, _scaled(source, scale, target), target)

    @classmethod
    def to_multiple(
        cls, source: tuple[int, int], multiple: int, *, longest: int | None = None, shortest: int = 1
    ) -> Self:
        """Padded to multiples of `multiple`, and scaled only where a side is too long or too short.

        The longer side becomes at most `longest`, the shorter at least `shortest`; where both cannot hold, `longest`
        wins. Without scaling a picture comes back bit for bit.
        """
        if multiple < 1 or shortest < 1 or (longest is not None and longest < multiple):
            raise GeometryError(
                f"Multiple {multiple}, longest {longest} and shortest {shortest} were given; "
                "all are 1 or more and longest is no less than the multiple."
            )
        _refuse_wrong_sizes(source)
        scale = max(1.0, shortest / min(source))
        if longest is not None:
            longest -= longest % multiple
            scale = min(scale, longest / max(source))
        limit = (longest or max(source) * shortest, longest or max(source) * shortest)
        scaled = source if scale == 1 else _scaled(source, scale, limit)
        height, width = (_up(side, multiple) for side in scaled)
        return cls(source, scaled, (height, width))

    @property
    def is_identity(self) -> bool:
        """Whether nothing is scaled, so that `undo` gives back every pixel that `apply` was given."""
        return self.scaled == self.source

    def apply(self, image: RgbImage, hole: Hole) -> tuple[RgbImage, Hole]:
        """Scale and pad a picture and its hole.

        What lies under the hole never reaches a known pixel: shrinking averages over whole cells and a cell that
        overlaps the hole is missing; for enlarging the hole is first filled with the nearest known colours.
        """
        _refuse_other_size(image, self.source)
        _refuse_other_size(hole, self.source)
        if not self.is_identity:
            image = _resized(extend_known(image, hole), self.scaled)
            hole = holes.resize(hole, self.scaled)
        return crop(image, self._room), crop(hole, self._room)

    def undo(self, image: RgbImage) -> RgbImage:
        """A picture of the target size without its padding, at the source size."""
        _refuse_other_size(image, self.target)
        image = image[: self.scaled[0], : self.scaled[1]].copy()
        return image if self.is_identity else _resized(image, self.source)

    def forward(self, row: float, column: float) -> tuple[float, float]:
        """Where a point of the picture lies in the target; whole numbers are pixel corners, (0, 0) the top left."""
        return row * self.scaled[0] / self.source[0], column * self.scaled[1] / self.source[1]

    def backward(self, row: float, column: float) -> tuple[float, float]:
        """The inverse of `forward`."""
        return row * self.source[0] / self.scaled[0], column * self.source[1] / self.scaled[1]

    @property
    def _room(self) -> Box:
        return Box(0, 0, *self.target)


def extend_known(image: RgbImage, hole: Hole) -> RgbImage:
    """The picture with every missing pixel given the colour of a nearest known one."""
    result = image.copy()
    window = holes.window_around(hole, 1)
    if window is None or hole[window].all():
        return result
    missing = hole[window]
    _, nearest = cv2.distanceTransformWithLabels(
        missing.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    labels = np.asarray(nearest, np.int32)
    colours = np.empty((int(labels.max()) + 1, 3), np.uint8)
    colours[labels[~missing]] = image[window][~missing]
    result[window][missing] = colours[labels[missing]]
    return result


@dataclass(frozen=True)
class _Region:
    """Missing pixels that one crop must hold, and how much around them."""

    box: Box
    margin: int

    def joined(self, other: "_Region") -> "_Region":
        # The wider of the two margins: a share of the joined box would let distant specks ask for the whole photo.
        return _Region(self.box.joined(other.box), max(self.margin, other.margin))


def _regions(hole: Hole, context: float) -> list[_Region]:
    """The hole's connected regions, joined on coarser grids while there are too many."""
    cell, coarse = 1, hole
    while True:
        count, _, stats, _ = cv2.connectedComponentsWithStats(coarse.astype(np.uint8), connectivity=8)
        if count - 1 <= MOST_REGIONS:
            break
        cell *= 2
        coarse = holes.downsample(coarse, 2)
    regions: list[_Region] = []
    for left, top, width, height, _ in np.asarray(stats[1:], np.int64).tolist():
        bottom, right = min((top + height) * cell, hole.shape[0]), min((left + width) * cell, hole.shape[1])
        box = Box(top * cell, left * cell, bottom - top * cell, right - left * cell)
        regions.append(_Region(box, max(LEAST_MARGIN, math.ceil(context * max(box.height, box.width)))))
    return regions


def _merged(regions: list[_Region], frame_of: Callable[[_Region], Box]) -> list[Box]:
    """Frames around regions; a region whose frame overlaps another's is joined with it and framed anew."""
    done: list[tuple[_Region, Box]] = []
    for start in regions:
        region, frame = start, frame_of(start)
        while (hit := next((pair for pair in done if pair[1].overlaps(frame)), None)) is not None:
            done.remove(hit)
            region = region.joined(hit[0])
            frame = frame_of(region)
        done.append((region, frame))
    return [frame for _, frame in done]


def _frame(region: _Region, size: tuple[int, ...], multiple: int, smallest: int) -> Box:
    box = region.box
    height, width = (max(side + 2 * region.margin, smallest) for side in (box.height, box.width))
    top, height = _span(box.top, box.height, size[0], wanted=height, multiple=multiple)
    left, width = _span(box.left, box.width, size[1], wanted=width, multiple=multiple)
    return Box(top, left, height, width)


def _squared(frames: list[Box], size: tuple[int, ...], multiple: int) -> list[Box]:
    done = list(frames)
    for number, frame in enumerate(frames):
        side = max(frame.height, frame.width)
        top, height = _span(frame.top, frame.height, size[0], wanted=side, multiple=multiple)
        left, width = _span(frame.left, frame.width, size[1], wanted=side, multiple=multiple)
        grown = Box(top, left, height, width)
        if not any(grown.overlaps(other) for other in done[:number] + done[number + 1 :]):
            done[number] = grown
    return done


def _span(start: int, length: int, available: int, *, wanted: int, multiple: int) -> tuple[int, int]:
    """Start and length of a frame along one axis."""
    wanted = min(wanted, available)
    side = _up(wanted, multiple)
    if side > available and side - multiple >= min(length + LEAST_MARGIN, available):
        side -= multiple
    centred = start - (side - length) // 2
    return max(0, min(centred, available - side)), side


def _up(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple


def _scaled(source: tuple[int, int], scale: float, limit: tuple[int, int]) -> tuple[int, int]:
    height, width = (max(1, min(round(side * scale), most)) for side, most in zip(source, limit, strict=True))
    return height, width


def _resized(image: RgbImage, size: tuple[int, int]) -> RgbImage:
    shrinks = size[0] * size[1] < image.shape[0] * image.shape[1]
    # Area averaging never rings and never aliases; cubic is the sharpest that stays local when enlarging.
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=method), np.uint8)


def _refuse_wrong_sizes(*sizes: tuple[int, int]) -> None:
    for size in sizes:
        if min(size) < 1:
            raise GeometryError(f"The size is {size[1]}x{size[0]}; both sides must be 1 or more.")


def _refuse_other_size(array: NDArray[Any], size: tuple[int, int]) -> None:
    if array.shape[:2] != size:
        raise GeometryError(f"The array has shape {array.shape}, but this fit is for {size[1]}x{size[0]}.")
