"""Crops of the sample photographs with seeded holes: the stimuli of the example study, made on the spot."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from asuka_infer.datasets.sample_pictures import SAMPLE_PICTURES
from asuka_infer.holes import write_hole_png
from asuka_infer.images import encode_png, write_atomically
from asuka_infer.request import Hole, RgbImage

STIMULUS_SIDE = 256
"""Pixels. The embedded model's training size (our choice), so that no method is helped or hurt by scaling."""

CROPS_PER_PICTURE = 4
"""Our choice: enough for more than 20 stimuli from 7 photographs; a newcomer sees 10 of them."""

SMALLEST_SHARE, LARGEST_SHARE = 0.10, 0.35
"""Hole area / image area: visible at a glance, yet with enough context to judge the fill by (our choice)."""

LARGEST_OVERLAP = 0.5
"""Share of a crop that another crop of the same photograph may show as well (our choice)."""

FLATTEST = 12.0
"""Grey-level standard deviation below which a crop shows nothing to compare (our choice, seen on the night sky)."""


@dataclass(frozen=True, eq=False)
class Stimulus:
    """One picture with a hole, and the name both carry on disk."""

    name: str
    image: RgbImage
    hole: Hole


def sample_stimuli(seed: int = 0) -> list[Stimulus]:
    """Square crops of every sample photograph, each with a hole; the same seed gives the same stimuli."""
    stimuli: list[Stimulus] = []
    for number, picture in enumerate(SAMPLE_PICTURES):
        rng = np.random.default_rng([seed, number])
        for index, crop in enumerate(_distinct_crops(picture.load(), rng)):
            stimuli.append(Stimulus(f"{picture.name}_{index}", crop, seeded_hole(STIMULUS_SIDE, rng)))
    return stimuli


def write_sample_stimuli(folder: Path, seed: int = 0) -> int:
    """Write images/NAME.png and holes/NAME.png under `folder`, as `batch` and `study ingest` read them.

    Returns:
        How many stimuli there are.
    """
    stimuli = sample_stimuli(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "holes").mkdir(parents=True, exist_ok=True)
    for stimulus in stimuli:
        write_atomically(folder / "images" / f"{stimulus.name}.png", encode_png(stimulus.image))
        write_hole_png(folder / "holes" / f"{stimulus.name}.png", stimulus.hole)
    return len(stimuli)


def seeded_hole(side: int, rng: np.random.Generator) -> Hole:
    """(side, side) bool: a brush stroke, an ellipse or a rectangle of a size between the shares above."""
    draw = (_brush_stroke, _ellipse, _rectangle)[rng.integers(3)]
    for _ in range(_TRIES):
        hole = draw(side, rng)
        if SMALLEST_SHARE <= hole.mean() <= LARGEST_SHARE:
            return hole
    return _rectangle(side, rng)


_TRIES = 200
"""A draw lands within the shares about one time in three (counted over 1,000 draws); 200 misses do not happen."""


def _distinct_crops(image: RgbImage, rng: np.random.Generator) -> list[RgbImage]:
    """Crops far from one another, so that no two show the same thing; flat ones are passed over."""
    height, width = image.shape[:2]
    places = [
        (int(top), int(left))
        for top in np.linspace(0, height - STIMULUS_SIDE, 5)
        for left in np.linspace(0, width - STIMULUS_SIDE, 5)
    ]
    rng.shuffle(places)
    chosen: list[tuple[int, int]] = []
    for place in places:
        crop = _crop(image, place)
        is_telling = crop.mean(axis=2).std() >= FLATTEST
        if is_telling and all(_overlap(place, other) <= LARGEST_OVERLAP for other in chosen):
            chosen.append(place)
    return [np.ascontiguousarray(_crop(image, place)) for place in chosen[:CROPS_PER_PICTURE]]


def _crop(image: RgbImage, place: tuple[int, int]) -> RgbImage:
    top, left = place
    return image[top : top + STIMULUS_SIDE, left : left + STIMULUS_SIDE]


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> float:
    rows, columns = (max(0, STIMULUS_SIDE - abs(a - b)) for a, b in zip(one, other, strict=True))
    return rows * columns / STIMULUS_SIDE**2


def _brush_stroke(side: int, rng: np.random.Generator) -> Hole:
    canvas = np.zeros((side, side), np.uint8)
    point = rng.uniform(0.15, 0.85, 2) * side
    angle = rng.uniform(0, 2 * np.pi)
    width = int(rng.integers(side // 10, side // 5))
    for _ in range(rng.integers(3, 7)):
        angle += rng.normal(0, 0.7)
        end = np.clip(point + rng.uniform(0.15, 0.4) * side * np.array([np.cos(angle), np.sin(angle)]), 0, side - 1)
        cv2.line(canvas, _pixel(point), _pixel(end), 255, width)
        point = end
    return canvas > 0


def _ellipse(side: int, rng: np.random.Generator) -> Hole:
    canvas = np.zeros((side, side), np.uint8)
    centre, axes = rng.uniform(0.25, 0.75, 2) * side, rng.uniform(0.15, 0.38, 2) * side
    cv2.ellipse(canvas, _pixel(centre), _pixel(axes), float(rng.uniform(0, 180)), 0, 360, 255, -1)
    return canvas > 0


def _rectangle(side: int, rng: np.random.Generator) -> Hole:
    hole = np.zeros((side, side), bool)
    height, width = (rng.uniform(0.35, 0.6, 2) * side).astype(int)
    top, left = int(rng.integers(0, side - height)), int(rng.integers(0, side - width))
    hole[top : top + height, left : left + width] = True
    return hole


def _pixel(point: np.ndarray) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))
