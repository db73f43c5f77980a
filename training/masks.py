"""The paper's mixture of training holes as pure, seeded functions, and banks of holes drawn by several processes."""

import csv
import math
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from tqdm import tqdm

Hole = NDArray[np.bool_]
"""(size, size), True where pixels are missing."""

PRESET_SIZE = 256
"""LaMa's and Co-Mod's parameters below are in pixels of a 256-px image; other sizes scale them."""

ATTEMPTS = 200
"""Redraws before giving up on a ratio range; the mixture's default range accepts more than three draws in four."""

QUIET_BELOW = 1000
"""Fewer holes than this are drawn before a progress bar is read."""


class MaskError(ValueError):
    """Holes cannot be drawn as asked; the message says why."""


@dataclass(frozen=True)
class Strokes:
    """LaMa's random poly-lines (Suvorov et al., WACV 2022, released generator); lengths in px at 256.

    Attributes:
        longest: a segment is 10 .. 10 + longest - 1 px long.
        widest: a stroke is 5 .. 5 + widest - 1 px wide.
        fewest: smallest number of strokes.
        most: the released generator draws up to one more than this.
    """

    longest: int
    widest: int
    fewest: int
    most: int


@dataclass(frozen=True)
class Boxes:
    """LaMa's random rectangles; sides smallest .. largest - 1 px at 256, margin px free at the border."""

    margin: int
    smallest: int
    largest: int
    fewest: int
    most: int


@dataclass(frozen=True)
class LamaPreset:
    """One LaMa generator: strokes, or with weight `box_weight` against 1 boxes."""

    strokes: Strokes
    boxes: Boxes | None = None
    box_weight: float = 0.0


LAMA_THIN = LamaPreset(Strokes(longest=40, widest=10, fewest=4, most=50))
LAMA_MEDIUM = LamaPreset(Strokes(longest=100, widest=50, fewest=4, most=5), Boxes(0, 10, 50, 1, 5), box_weight=0.3)
LAMA_THICK = LamaPreset(Strokes(longest=200, widest=100, fewest=1, most=5), Boxes(10, 30, 150, 1, 3), box_weight=0.3)
LAMA_TRAIN = LamaPreset(Strokes(longest=200, widest=100, fewest=1, most=5), Boxes(10, 30, 150, 1, 4), box_weight=1.0)

SEGMENTS_AT_MOST = 5
DIRECTIONS = 4
"""LaMa turns a stroke by 0.01, 1.01, 2.01 or 3.01 radians, mirrored for every other stroke."""

COMOD_BRUSH_VERTICES = (4, 18)
COMOD_BRUSH_ANGLE = 2 * math.pi / 5
COMOD_BRUSH_ANGLE_SPREAD = 2 * math.pi / 15
COMOD_BRUSH_WIDTHS = (12.0, 48.0)


@dataclass(frozen=True)
class Mixture:
    """What share of the holes has which shape (paper section 000 sec. 3.1: 50 / 40 / 10 %, union at 50 %).

    Attributes:
        irregular: share of LaMa or Co-Mod holes (both alike, our choice; the paper names both without shares).
        regular: share of rectangles and complements of rectangles (half each, our choice). The rest are objects.
        union: how often an object hole is united with an irregular one.
        smallest, largest: a hole's share of the image. The paper's range is not known; ours keeps a visible task
            and at least as much known as the MAE needs (it sees at most a quarter of the tokens).
        longest_side: range of an object's longer side as a share of the image (our choice, uniform).
        grow: an object is grown by up to this many px at 256, as a person paints round what is to go (our choice).
    """

    irregular: float = 0.4
    regular: float = 0.1
    union: float = 0.5
    smallest: float = 0.02
    largest: float = 0.75
    longest_side: tuple[float, float] = (0.3, 1.0)
    grow: int = 8


PAPER = Mixture()


@dataclass(frozen=True, eq=False)
class Silhouettes:
    """Object shapes to make holes of.

    Attributes:
        packed: (n, size*size/8) uint8, rows as `numpy.packbits` makes them, 1 = object.
        size: height and width in pixels.
    """

    packed: NDArray[np.uint8]
    size: int

    def __len__(self) -> int:
        return len(self.packed)

    def __getitem__(self, index: int) -> Hole:
        return np.unpackbits(self.packed[index]).reshape(self.size, self.size).astype(bool)


def read_silhouettes(
    files: Sequence[Path], reserved: Path | None = None, *, for_evaluation: bool = False
) -> Silhouettes:
    """The object shapes in `files`, without those kept for evaluation.

    Args:
        files: npz files with an array `packed` (n, size*size/8); beside each a CSV of the same name with a row per
            shape and a column `image`.
        reserved: a text file of lines `image:category`. Every shape of an image named there is left out.
        for_evaluation: take those alone instead.

    Raises:
        MaskError: when a file has no `packed`, the sizes differ, or the CSV does not have a row per shape.
    """
    if not files:
        raise MaskError("No silhouette file was given; name at least one npz file with an array 'packed'.")
    left_out = _reserved_images(reserved) if reserved else frozenset[str]()
    kept = [_read_packed(file, left_out, wanted=for_evaluation) for file in files]
    widths = {rows.shape[1] for rows in kept}
    size = math.isqrt(8 * max(widths))
    if len(widths) != 1 or size * size != 8 * max(widths):
        raise MaskError(f"The silhouettes have rows of {sorted(widths)} bytes; all must be one square size.")
    return Silhouettes(np.concatenate(kept), size)


def draw_hole(rng: np.random.Generator, silhouettes: Silhouettes, size: int, mixture: Mixture = PAPER) -> Hole:
    """One hole of the mixture, redrawn until its share of the image is inside the mixture's range.

    Raises:
        MaskError: when `ATTEMPTS` draws all fell outside the range.
    """
    for _ in range(ATTEMPTS):
        hole = _flip(rng, _draw_any(rng, silhouettes, size, mixture))
        if mixture.smallest <= hole.mean() <= mixture.largest:
            return hole
    raise MaskError(
        f"{ATTEMPTS} holes in a row missed the ratio range {mixture.smallest}..{mixture.largest}; widen the range."
    )


def lama_hole(rng: np.random.Generator, size: int, preset: LamaPreset = LAMA_TRAIN) -> Hole:
    """A LaMa hole; may be empty of nothing but never fails."""
    if preset.boxes is not None and rng.random() * (1 + preset.box_weight) >= 1:
        return _lama_boxes(rng, size, preset.boxes)
    return _lama_strokes(rng, size, preset.strokes)


def comod_hole(rng: np.random.Generator, size: int, ratio: tuple[float, float] = (0.0, 1.0)) -> Hole:
    """A Co-Mod-GAN hole (Zhao et al., ICLR 2021, RandomMask): rectangles and brush, redrawn until inside `ratio`."""
    amount = min(sum(ratio), 1.0)
    for _ in range(ATTEMPTS):
        hole = np.zeros((size, size), dtype=bool)
        _comod_rectangles(rng, hole, int(4 * amount), size // 2)
        _comod_rectangles(rng, hole, int(2 * amount), size)
        hole |= _comod_brush(rng, size, int(8 * amount))
        if ratio[0] < hole.mean() < ratio[1]:
            return hole
    raise MaskError(f"{ATTEMPTS} Co-Mod holes in a row missed the ratio range {ratio}; widen the range.")


def rectangle_hole(rng: np.random.Generator, size: int) -> Hole:
    """A rectangle with sides of 20 to 80 % of the image anywhere in it, or all but such a rectangle (our choice)."""
    height, width = rng.integers(int(0.2 * size), int(0.8 * size) + 1, size=2)
    top, left = rng.integers(0, size - height + 1), rng.integers(0, size - width + 1)
    hole = np.zeros((size, size), dtype=bool)
    hole[top : top + height, left : left + width] = True
    return ~hole if rng.random() < 0.5 else hole  # noqa: PLR2004 - half and half


def object_hole(rng: np.random.Generator, silhouettes: Silhouettes, size: int, mixture: Mixture = PAPER) -> Hole:
    """One silhouette, cut out, scaled, placed anywhere it fits, and grown as a painter's brush would."""
    shape = silhouettes[int(rng.integers(len(silhouettes)))]
    rows, columns = np.flatnonzero(shape.any(1)), np.flatnonzero(shape.any(0))
    cut = shape[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.uint8)
    scale = rng.uniform(*mixture.longest_side) * size / max(cut.shape)
    height, width = (max(1, min(size, round(side * scale))) for side in cut.shape)
    cut = cv2.resize(cut * 255, (width, height), interpolation=cv2.INTER_LINEAR)
    top, left = rng.integers(0, size - height + 1), rng.integers(0, size - width + 1)
    hole = np.zeros((size, size), dtype=np.uint8)
    hole[top : top + height, left : left + width] = cut > 127  # noqa: PLR2004 - half of 255
    reach = int(rng.integers(0, mixture.grow + 1)) * size // PRESET_SIZE
    brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    return cv2.dilate(hole, brush).astype(bool)


def numbered_hole(number: int, *, seed: int, silhouettes: Silhouettes, size: int, mixture: Mixture = PAPER) -> Hole:
    """Hole `number` of the endless sequence named by `seed`: the same whoever draws it, in whatever order."""
    return draw_hole(np.random.default_rng([seed, number]), silhouettes, size, mixture)


def draw_bank(
    count: int,
    *,
    seed: int,
    silhouettes: Silhouettes,
    size: int,
    mixture: Mixture = PAPER,
    processes: int = 1,
) -> NDArray[np.uint8]:
    """The first `count` numbered holes as packed bits, (count, size*size/8); the same for any number of processes."""
    draw = partial(_packed_hole, seed=seed, silhouettes=silhouettes, size=size, mixture=mixture)
    progress = partial(tqdm, total=count, desc="holes", unit="hole", mininterval=1.0, disable=count < QUIET_BELOW)
    if processes == 1:
        return np.stack(list(progress(map(draw, range(count)))))
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        return np.stack(list(progress(pool.map(draw, range(count), chunksize=max(1, count // (8 * processes))))))


def _reserved_images(reserved: Path) -> frozenset[str]:
    lines = reserved.read_text(encoding="utf-8").split()
    return frozenset(line.split(":", 1)[0] for line in lines)


def _read_packed(file: Path, left_out: frozenset[str], *, wanted: bool) -> NDArray[np.uint8]:
    with np.load(file) as arrays:
        if "packed" not in arrays:
            raise MaskError(f"{file} has the arrays {sorted(arrays)} but no 'packed'; give a silhouette file.")
        packed: NDArray[np.uint8] = arrays["packed"]
    if not left_out:
        return packed
    with file.with_suffix(".csv").open(encoding="utf-8", newline="") as table:
        images = [row["image"] for row in csv.DictReader(table)]
    if len(images) != len(packed):
        raise MaskError(f"{file} has {len(packed)} shapes but its CSV {len(images)} rows; they must agree.")
    return packed[[(image in left_out) == wanted for image in images]]


def _packed_hole(number: int, *, seed: int, silhouettes: Silhouettes, size: int, mixture: Mixture) -> NDArray[np.uint8]:
    return np.packbits(numbered_hole(number, seed=seed, silhouettes=silhouettes, size=size, mixture=mixture))


def _draw_any(rng: np.random.Generator, silhouettes: Silhouettes, size: int, mixture: Mixture) -> Hole:
    kind = rng.random()
    if kind < mixture.regular:
        return rectangle_hole(rng, size)
    if kind < mixture.regular + mixture.irregular:
        return _irregular(rng, size)
    hole = object_hole(rng, silhouettes, size, mixture)
    return hole | _irregular(rng, size) if rng.random() < mixture.union else hole


def _irregular(rng: np.random.Generator, size: int) -> Hole:
    return lama_hole(rng, size) if rng.random() < 0.5 else comod_hole(rng, size)  # noqa: PLR2004 - half and half


def _flip(rng: np.random.Generator, hole: Hole) -> Hole:
    rows, columns = (slice(None, None, int(step)) for step in rng.choice([-1, 1], size=2))
    return np.ascontiguousarray(hole[rows, columns])


def _scaled(pixels: int, size: int) -> int:
    return max(1, pixels * size // PRESET_SIZE)


def _lama_strokes(rng: np.random.Generator, size: int, strokes: Strokes) -> Hole:
    canvas = np.zeros((size, size), dtype=np.uint8)
    # most + 1 is drawn too: the released generator adds one to its upper bound, and numpy's bound is exclusive.
    for number in range(int(rng.integers(strokes.fewest, strokes.most + 2))):
        here = rng.integers(0, size, size=2)
        for _ in range(1 + int(rng.integers(SEGMENTS_AT_MOST))):
            angle = 0.01 + int(rng.integers(DIRECTIONS))
            angle = 2 * math.pi - angle if number % 2 == 0 else angle
            length = _scaled(10 + int(rng.integers(strokes.longest)), size)
            width = _scaled(5 + int(rng.integers(strokes.widest)), size)
            step = np.array([length * math.sin(angle), length * math.cos(angle)])
            there = np.clip((here + step).astype(int), 0, size)
            cv2.line(canvas, _point(here), _point(there), 1, width)
            here = there
    return canvas.astype(bool)


def _point(place: NDArray[np.int_ | np.float64]) -> tuple[int, int]:
    return int(place[0]), int(place[1])


def _lama_boxes(rng: np.random.Generator, size: int, boxes: Boxes) -> Hole:
    hole = np.zeros((size, size), dtype=bool)
    margin = boxes.margin * size // PRESET_SIZE
    largest = min(_scaled(boxes.largest, size), size - 2 * margin)
    for _ in range(int(rng.integers(boxes.fewest, boxes.most + 1))):
        height, width = rng.integers(_scaled(boxes.smallest, size), largest, size=2)
        top = rng.integers(margin, size - margin - height + 1)
        left = rng.integers(margin, size - margin - width + 1)
        hole[top : top + height, left : left + width] = True
    return hole


def _comod_rectangles(rng: np.random.Generator, hole: Hole, tries: int, longest: int) -> None:
    size = len(hole)
    for _ in range(int(rng.integers(tries)) if tries else 0):
        width, height = (int(side) for side in rng.integers(longest, size=2))
        # A rectangle may hang over the border by half of itself.
        left = int(rng.integers(-(width // 2), size - width + width // 2))
        top = int(rng.integers(-(height // 2), size - height + height // 2))
        hole[max(top, 0) : top + height, max(left, 0) : left + width] = True


def _comod_brush(rng: np.random.Generator, size: int, tries: int) -> Hole:
    # Drawn with Pillow as the reference does: OpenCV's thick lines come out a pixel wider.
    hole = np.zeros((size, size), dtype=bool)
    for _ in range(int(rng.integers(tries)) if tries else 0):
        canvas = Image.new("1", (size, size))
        pen = ImageDraw.Draw(canvas)
        path = _comod_path(rng, size)
        width = _scaled(int(rng.uniform(*COMOD_BRUSH_WIDTHS)), size)
        pen.line(path, fill=1, width=width)
        reach = width // 2
        for x, y in path:
            pen.ellipse((x - reach, y - reach, x + reach, y + reach), fill=1)
        hole = _flip(rng, hole | np.asarray(canvas))
    return hole


def _comod_path(rng: np.random.Generator, size: int) -> list[tuple[int, int]]:
    step = math.hypot(size, size) / 8
    low = COMOD_BRUSH_ANGLE - rng.uniform(0, COMOD_BRUSH_ANGLE_SPREAD)
    high = COMOD_BRUSH_ANGLE + rng.uniform(0, COMOD_BRUSH_ANGLE_SPREAD)
    here = rng.integers(0, size, size=2).astype(float)
    path = [_point(here)]
    for number in range(int(rng.integers(*COMOD_BRUSH_VERTICES))):
        angle = rng.uniform(low, high)
        angle = 2 * math.pi - angle if number % 2 == 0 else angle
        length = np.clip(rng.normal(step, step // 2), 0, 2 * step)
        here = np.clip(here + length * np.array([math.cos(angle), math.sin(angle)]), 0, size)
        path.append(_point(here))
    return path
