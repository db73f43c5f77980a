"""Nearest-neighbour patch inpainting: every missing patch is made of the known patches that look most like it.

The classical baseline of the surveys (seed 003, "NN-inpainting"), done as well as it is known to be done: coarse to
fine, alternating between finding each patch's nearest known neighbour and letting the overlapping neighbours vote on
every pixel (Wexler, Shechtman, Irani, "Space-Time Completion of Video", 2007), with the randomised neighbour search of
Barnes et al., "PatchMatch", 2009. Patches are compared by the integer coefficients of a small cosine transform, and
all arithmetic that decides anything is exact, so a seed gives the same picture on any number of threads.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from asuka_infer.baselines.even_tones import even_tones
from asuka_infer.holes import downsample
from asuka_infer.inpainter import Watch
from asuka_infer.request import Hole, InpaintRequest, RgbImage
from asuka_infer.settings import FillSettings, PureFill, switch, whole

Ints = NDArray[np.int32] | NDArray[np.int64]
Descriptors = NDArray[np.int16]

LARGEST_SIDE = 768
"""Our choice: half of 512x512 missing takes 4 s (benchmarks/classical_methods.py), and time grows with the area."""

PATCH_RADIUS = 3
"""7x7 patches, the size of Wexler et al. and PatchMatch's own completion."""

TAP_SCALE = 16
"""Cosines are rounded to sixteenths: the largest filter sum, 12.8 million, stays exact in a float32."""

LUMA_ORDER, CHROMA_ORDER = 3, 1
"""Frequencies kept (ky + kx at most): 10 of 49 for brightness, 3 each for the colours; 95 % of a patch's energy."""

COARSEST_REACH = 6
"""The pyramid ends where no missing pixel is further than this from a known one: about one patch's width."""

FEWEST_SOURCES = 48
"""Our choice: a coarser level with fewer known patches than this has nothing left to choose from."""

EXHAUSTIVE_PAIRS = 3_000_000
"""Up to so many (target, source) pairs the exact neighbour is looked up: 30 ms, less than the randomised search."""

CONFIDENCE_FALLOFF = 1.2
"""A patch one pixel deeper in the hole has 1/1.2 of the vote (Wexler et al. 2007, section 3.4: 1.3 to 1.1)."""

DEEPEST = 60
"""Beyond this depth votes weigh the same: 1.2**-60 is below one part in 50,000 already."""


@dataclass(frozen=True)
class NearestNeighbourSettings(FillSettings):
    """What may be turned on nearest-neighbour inpainting."""

    largest_side: int = whole(
        LARGEST_SIDE, lowest=32, highest=2048, meaning="Longest side, in pixels, that is filled at full detail."
    )
    rounds: int = whole(
        4, lowest=1, highest=20, meaning="How often neighbours are searched and pixels voted on per pyramid level."
    )
    blend: bool = switch(default=True, meaning="Whether the tones of neighbouring copies are evened out.")


def nearest_neighbour() -> PureFill[NearestNeighbourSettings]:
    """The method, ready to run."""
    return PureFill(fill, NearestNeighbourSettings())


def fill(request: InpaintRequest, settings: NearestNeighbourSettings, watch: Watch) -> RgbImage:
    """Fill the hole from coarse to fine; see the module."""
    levels = _pyramid(request.image, request.hole)
    random = np.random.Generator(np.random.PCG64(request.seed))
    schedule = [settings.rounds * (2 if coarse else 1) for coarse in range(len(levels))]
    total, done = sum(schedule), 0
    level = _first_guess(levels[-1])
    for depth in reversed(range(len(levels))):
        for _ in range(schedule[depth]):
            level = _vote(_search(level, random))
            done += 1
            watch.preview(lambda level=level: level.image)
            watch.step(done, total)
        if depth:
            level = _refine(level, levels[depth - 1], random)
    origins = _best_origins(level)
    if settings.blend:
        return even_tones(level.image, level.hole, origins.astype(np.int64))
    image = level.image.copy()
    image[level.hole] = image.reshape(-1, 3)[origins]
    return image


def known_patches(hole: Hole, radius: int) -> Hole:
    """Centres of the patches that lie inside the picture and touch no hole."""
    return cv2.dilate(
        hole.astype(np.uint8), _square(radius), borderType=cv2.BORDER_CONSTANT, borderValue=(1.0, 1.0, 1.0, 1.0)
    ) == 0  # fmt: skip


def describe(image: RgbImage, radius: int) -> Descriptors:
    """(h * w, coefficients): low cosine frequencies of the patch around every pixel, orthonormal, in grey levels."""
    red, green, blue = (image[..., channel].astype(np.float32) for channel in range(3))
    planes = (
        (red + 2 * green + blue, LUMA_ORDER, 4.0),
        (red - green, CHROMA_ORDER, 2.0),
        (blue - green, CHROMA_ORDER, 2.0),
    )
    taps = _cosines(radius)
    columns: list[NDArray[np.int16]] = []
    for plane, order, divisor in planes:
        for ky in range(min(order, 2 * radius) + 1):
            for kx in range(min(order - ky, 2 * radius) + 1):
                response = cv2.sepFilter2D(plane, cv2.CV_32F, taps[kx], taps[ky], borderType=cv2.BORDER_REFLECT)
                length = float(np.sqrt((taps[ky] ** 2).sum() * (taps[kx] ** 2).sum()))
                columns.append(np.rint(response / np.float32(length * divisor)).astype(np.int16).reshape(-1))
    return np.stack(columns, axis=1)


def nearest_rows(wanted: Descriptors, offered: Descriptors) -> tuple[Ints, Ints]:
    """For every wanted row the index of the nearest offered row, the first of equals, and the squared distance."""
    exact_wanted, exact_offered = wanted.astype(np.float64), offered.astype(np.float64)
    # Sums of integers below 2**53: exact in float64, so BLAS may add them in any order.
    squares = (exact_offered**2).sum(axis=1)[None] - 2 * exact_wanted @ exact_offered.T
    nearest = squares.argmin(axis=1)
    distance = np.take_along_axis(squares, nearest[:, None], axis=1)[:, 0] + (exact_wanted**2).sum(axis=1)
    return nearest.astype(np.int32), distance.astype(np.int32)


@dataclass(frozen=True, eq=False)
class _Level:
    """One pyramid level: the picture so far, and for each target patch its source.

    Attributes:
        image: (h, w, 3) uint8; the hole holds the estimate so far.
        hole: (h, w) bool.
        radius: patches are (2 * radius + 1) wide.
        is_source: (h, w) bool, centres of patches that are known throughout.
        targets: flat positions of every centre whose patch touches the hole.
        index: (h, w) where in `targets` a position is, or -1.
        confidence: (targets,) weight of a target's vote by its depth in the hole.
        found: (targets,) flat position of each target's source so far.
        distance: (targets,) squared descriptor distance to it.
    """

    image: RgbImage
    hole: Hole
    radius: int
    is_source: Hole
    targets: Ints
    index: Ints
    confidence: NDArray[np.float64]
    found: Ints
    distance: Ints


def _pyramid(image: RgbImage, hole: Hole) -> list[_Level]:
    levels = [_level(image, hole, _largest_radius(hole))]
    while _depth(levels[-1].hole).max() > COARSEST_REACH:
        image, hole = _halve(levels[-1].image, levels[-1].hole)
        if known_patches(hole, levels[0].radius).sum() < FEWEST_SOURCES:
            break
        levels.append(_level(image, hole, levels[0].radius))
    return levels


def _largest_radius(hole: Hole) -> int:
    return next(radius for radius in range(PATCH_RADIUS, -1, -1) if known_patches(hole, radius).any())


def _square(radius: int) -> NDArray[np.uint8]:
    return np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)


def _depth(hole: Hole) -> NDArray[np.float32]:
    """Distance in pixels from each missing pixel to the nearest known one."""
    return np.asarray(cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L1, 3), np.float32)


def _halve(image: RgbImage, hole: Hole) -> tuple[RgbImage, Hole]:
    """Half the size: means over the known pixels of 2x2, missing where any of the four is missing."""
    pad = ((0, hole.shape[0] % 2), (0, hole.shape[1] % 2))
    image, hole = np.pad(image, (*pad, (0, 0)), mode="edge"), np.pad(hole, pad, mode="edge")
    quads = image.astype(np.int32).reshape(hole.shape[0] // 2, 2, hole.shape[1] // 2, 2, 3)
    any_missing = downsample(hole, 2)
    small = ((quads.sum(axis=(1, 3)) + 2) // 4).astype(np.uint8)
    small[any_missing] = 0
    return small, any_missing


def _level(image: RgbImage, hole: Hole, radius: int) -> _Level:
    touched = cv2.dilate(hole.astype(np.uint8), _square(radius)) > 0
    targets = np.flatnonzero(touched).astype(np.int32)
    index = np.full(hole.shape, -1, np.int32)
    index.reshape(-1)[targets] = np.arange(len(targets), dtype=np.int32)
    depth = np.minimum(_depth(hole).reshape(-1)[targets], DEEPEST).astype(np.int32)
    falloff = np.array([CONFIDENCE_FALLOFF**-step for step in range(DEEPEST + 1)])
    nothing = np.zeros(len(targets), np.int32)
    return _Level(
        image,
        hole,
        radius,
        known_patches(hole, radius),
        targets,
        index,
        falloff[depth],
        found=nothing,
        distance=nothing,
    )


def _first_guess(level: _Level) -> _Level:
    """The coarsest level starts from a smooth continuation of its surroundings."""
    smooth = cv2.inpaint(level.image, level.hole.astype(np.uint8), COARSEST_REACH, cv2.INPAINT_NS)
    smooth[~level.hole] = level.image[~level.hole]
    first = int(np.flatnonzero(level.is_source)[0])
    return replace(level, image=smooth, found=np.full(len(level.targets), first, np.int32))


def _refine(coarse: _Level, fine: _Level, random: np.random.Generator) -> _Level:
    """Carry each coarse patch's source to the four finer patches below it, and let them vote."""
    y, x = np.divmod(fine.targets, fine.hole.shape[1])
    parent = coarse.index[np.minimum(y // 2, coarse.index.shape[0] - 1), np.minimum(x // 2, coarse.index.shape[1] - 1)]
    source_y, source_x = np.divmod(coarse.found[parent], coarse.hole.shape[1])
    source_y, source_x = 2 * source_y + y % 2, 2 * source_x + x % 2
    fits = (parent >= 0) & _allowed(fine, source_y, source_x)
    anywhere = _randomknown_patches(fine, random)
    found = np.where(fits, source_y * fine.hole.shape[1] + source_x, anywhere).astype(np.int32)
    return _vote(replace(fine, found=found))


def _randomknown_patches(level: _Level, random: np.random.Generator) -> Ints:
    places = np.flatnonzero(level.is_source).astype(np.int32)
    return places[random.integers(0, len(places), len(level.targets))]


def _allowed(level: _Level, y: Ints, x: Ints) -> Hole:
    """Which positions are inside the picture and the centre of a known patch."""
    height, width = level.hole.shape
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    return inside & level.is_source.reshape(-1)[np.where(inside, y * width + x, 0)]


def _search(level: _Level, random: np.random.Generator) -> _Level:
    """Look for a nearer source for every target: exactly where that is cheap, else as PatchMatch does."""
    descriptors = describe(level.image, level.radius)
    places = np.flatnonzero(level.is_source).astype(np.int32)
    if len(places) * len(level.targets) <= EXHAUSTIVE_PAIRS:
        found, distance = nearest_rows(descriptors[level.targets], descriptors[places])
        return replace(level, found=places[found], distance=distance)
    wanted = descriptors[level.targets]
    found, distance = level.found, _distance(wanted, descriptors[level.found])
    for y, x in _candidates(level, found, random):
        # `found` is sharpened in place between the candidates, which are drawn lazily from it.
        better = np.flatnonzero(_allowed(level, y, x))
        places = (y[better] * level.hole.shape[1] + x[better]).astype(np.int32)
        nearer = _distance(wanted[better], descriptors[places])
        wins = nearer < distance[better]
        found[better[wins]], distance[better[wins]] = places[wins], nearer[wins]
    return replace(level, found=found, distance=distance)


def _candidates(level: _Level, found: Ints, random: np.random.Generator) -> Iterator[tuple[Ints, Ints]]:
    """Places to try for every target: what neighbours found, then ever smaller random steps (PatchMatch 3.2)."""
    height, width = level.hole.shape
    y, x = np.divmod(level.targets, width)
    for jump in (4, 2, 1):
        for dy, dx in ((0, jump), (0, -jump), (jump, 0), (-jump, 0)):
            beside = (np.clip(y + dy, 0, height - 1), np.clip(x + dx, 0, width - 1))
            neighbour = level.index[beside]
            source_y, source_x = np.divmod(found[np.where(neighbour >= 0, neighbour, np.arange(len(y)))], width)
            yield source_y - (beside[0] - y), source_x - (beside[1] - x)
    reach = max(height, width)
    while reach >= 1:
        source_y, source_x = np.divmod(found, width)
        steps = random.integers(-reach, reach + 1, (2, len(y)), dtype=np.int32)
        yield source_y + steps[0], source_x + steps[1]
        reach //= 3


def _distance(wanted: Descriptors, offered: Descriptors) -> Ints:
    difference = (wanted - offered).astype(np.int32)
    return np.einsum("ij,ij->i", difference, difference)


def _cosines(radius: int) -> list[NDArray[np.float64]]:
    """The rows of a (2 * radius + 1)-point DCT-II, rounded to whole numbers."""
    width = 2 * radius + 1
    places = np.arange(width)
    return [np.rint(TAP_SCALE * np.cos(np.pi * (places + 0.5) * k / width)) for k in range(width)]


def _vote(level: _Level) -> _Level:
    """Every missing pixel becomes the weighted mean of what the patches over it propose."""
    y, x = np.nonzero(level.hole)
    weight, pixels = _weights(level), level.image.reshape(-1, 3)
    total, colour = np.zeros(len(y)), np.zeros((len(y), 3))
    for inside, patch, origin in _proposals(level, y, x):
        total[inside] += weight[patch]
        colour[inside] += weight[patch][:, None] * pixels[origin]
    image = level.image.copy()
    image[y, x] = np.rint(colour / total[:, None]).astype(np.uint8)
    return replace(level, image=image)


def _best_origins(level: _Level) -> Ints:
    """(missing pixels,) flat position of the known pixel that the heaviest vote over each missing one proposes."""
    y, x = np.nonzero(level.hole)
    weight = _weights(level)
    best, chosen = np.full(len(y), -1.0), np.zeros(len(y), np.int32)
    for inside, patch, origin in _proposals(level, y, x):
        wins = weight[patch] > best[inside]
        best[inside[wins]], chosen[inside[wins]] = weight[patch[wins]], origin[wins]
    return chosen


def _weights(level: _Level) -> NDArray[np.float64]:
    """(targets,) how much each patch's vote counts: it should look like its source and lie near the rim."""
    middle = len(level.distance) // 2
    usual = 1.0 + np.partition(level.distance, middle)[middle]
    # A rational weight instead of Wexler's exponential: IEEE division is the same on every machine, exp is not.
    near = 1.0 / (1.0 + level.distance / usual)
    return near * near * level.confidence


def _proposals(level: _Level, y: Ints, x: Ints) -> Iterator[tuple[Ints, Ints, Ints]]:
    """For each place in a patch: which of the pixels (y, x) have a patch there, which patch, what it proposes."""
    height, width = level.hole.shape
    for dy in range(-level.radius, level.radius + 1):
        for dx in range(-level.radius, level.radius + 1):
            inside = np.flatnonzero((y + dy >= 0) & (y + dy < height) & (x + dx >= 0) & (x + dx < width))
            patch = level.index[y[inside] + dy, x[inside] + dx]
            yield inside, patch, level.found[patch] - dy * width - dx
