"""Click on a thing, get its outline: SAM 2.1 when its weights are on this machine, else colour and edges (GrabCut)."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from asuka_infer.images import pixel_sha256
from asuka_infer.request import Hole, RgbImage
from asuka_infer.weight_sources import WeightSource, locate

SAM_SOURCE = "facebook/sam2.1-hiera-tiny"
"""The smallest published SAM 2.1 (Apache-2.0, 39 M parameters): a click costs a CPU about a second."""

SAM_MEGABYTES = 156
"""Of `SAM_SOURCE`, as the hub states it."""

MOST_CLICKS = 64
"""For one thing. More than anybody clicks, few enough that the prompt stays small (our choice)."""

KEPT_EMBEDDINGS = 2
"""Photos whose SAM embedding (about 10 MB) is kept, so that a second click on one is quick."""

GRABCUT_SIDE = 400
"""Longest side at which colours are modelled, in pixels: a quarter of a second on one slow core (measured)."""

GRABCUT_ROUNDS = 3
ALIKE = (32, 14, 14)
"""How far from the clicked pixel's Lab levels (0..255 each) its surroundings count as the same thing to begin with.

Lightness may differ more than colour: things have shades. Chosen on the sample pictures."""

SEED = 0
"""GrabCut's colour clusters begin at random; the same clicks must give the same outline."""

SelectedBy = Literal["sam", "colour"]


class SelectionError(ValueError):
    """Clicks that select nothing; the message says what to do."""


@dataclass(frozen=True)
class Click:
    """A point of the picture, in pixels of it, that belongs to the thing (`inside`) or does not."""

    x: float
    y: float
    inside: bool = True


@dataclass(frozen=True, eq=False)
class Selection:
    """What the clicks select, (height, width) bool, and which of the two ways found it."""

    hole: Hole
    by: SelectedBy


@dataclass(eq=False)
class ClickSelect:
    """One for the app: knows whether SAM's weights are here, loads them at the first click, keeps no visitor's picture.

    Attributes:
        source: a folder with a SAM 2.1 checkpoint of transformers, or a hub id that is looked up among the local
            weights (`ASUKA_WEIGHTS`) and in the hub's cache. Nothing is ever downloaded here.
    """

    source: str = SAM_SOURCE
    _model: "_Sam | None" = field(default=None, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    @property
    def folder(self) -> Path | None:
        """Where SAM's weights are, None when they are not here."""
        if Path(self.source).is_dir():
            return Path(self.source)
        needed = ("config.json", "preprocessor_config.json|processor_config.json", "*.safetensors")
        name = self.source.rpartition("/")[2]
        return locate(WeightSource(name, needed, "a SAM 2.1 checkpoint", repo=self.source))

    def __call__(self, pixels: RgbImage, clicks: Sequence[Click]) -> Selection:
        """The thing that is clicked on.

        Args:
            pixels: (height, width, 3) uint8 sRGB.
            clicks: at least one inside it; later ones correct the outline.

        Raises:
            SelectionError: for clicks beside the picture, too many, or none inside.
        """
        _refuse_pointless(clicks, (pixels.shape[0], pixels.shape[1]))
        folder = self.folder
        if folder is None:
            return Selection(select_by_colour(pixels, clicks), "colour")
        with self._lock:
            if self._model is None or self._model.folder != folder:
                self._model = _Sam.load(folder)
            return Selection(self._model.select(pixels, clicks), "sam")


def select_by_colour(pixels: RgbImage, clicks: Sequence[Click]) -> Hole:
    """The connected thing around the clicks inside, by its colours and edges.

    What looks like the clicked pixels and touches them starts as the thing, the picture's border as its surroundings;
    GrabCut (Rother, Kolmogorov and Blake, SIGGRAPH 2004) finds the edge between. Only parts with a click in them stay.
    """
    height, width = pixels.shape[:2]
    scale = min(1.0, GRABCUT_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    points = [(_within(c.x * size[0] / width, size[0]), _within(c.y * size[1] / height, size[1])) for c in clicks]
    inside = [point for point, click in zip(points, clicks, strict=True) if click.inside]
    outside = [point for point, click in zip(points, clicks, strict=True) if not click.inside]
    alike = _alike(small, inside)
    labels = _first_guess(alike, inside, outside)
    thing = _cut(small, labels) if _has_both(labels) else labels % 2 == 1
    thing = _parts_with(thing, inside)
    return np.asarray(cv2.resize(thing.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)) > 0


def _refuse_pointless(clicks: Sequence[Click], size: tuple[int, int]) -> None:
    if not 1 <= len(clicks) <= MOST_CLICKS:
        raise SelectionError(f"{len(clicks)} points select nothing; give 1 to {MOST_CLICKS}, or begin the next thing.")
    if not any(click.inside for click in clicks):
        raise SelectionError("No point lies on what should be selected; click on it first, then exclude parts.")
    for click in clicks:
        if not (0 <= click.x <= size[1] and 0 <= click.y <= size[0]):
            raise SelectionError(f"The point ({click.x:.0f}, {click.y:.0f}) is beside the {size[1]}x{size[0]} picture.")


def _within(place: float, count: int) -> int:
    return min(count - 1, max(0, int(place)))


def _alike(small: RgbImage, inside: Sequence[tuple[int, int]]) -> NDArray[np.bool_]:
    """What touches a click and has nearly its colour, fine texture smoothed away."""
    lab = cv2.cvtColor(cv2.bilateralFilter(small, 7, 30, 7), cv2.COLOR_RGB2LAB)
    found = np.zeros((small.shape[0], small.shape[1]), np.bool_)
    flags = 4 | cv2.FLOODFILL_FIXED_RANGE | cv2.FLOODFILL_MASK_ONLY | (1 << 8)
    for point in inside:
        framed = np.zeros((small.shape[0] + 2, small.shape[1] + 2), np.uint8)
        cv2.floodFill(lab, framed, point, 0, ALIKE, ALIKE, flags)
        found |= framed[1:-1, 1:-1] > 0
    return found


def _first_guess(
    alike: NDArray[np.bool_], inside: Sequence[tuple[int, int]], outside: Sequence[tuple[int, int]]
) -> NDArray[np.uint8]:
    """GrabCut's four labels: what is sure and what is likely."""
    reach = max(2, round(max(alike.shape) / 120))
    square = np.ones((3, 3), np.uint8)
    labels = np.full(alike.shape, cv2.GC_PR_BGD, np.uint8)
    labels[cv2.dilate(alike.astype(np.uint8), square, iterations=2 * reach) > 0] = cv2.GC_PR_FGD
    labels[cv2.erode(alike.astype(np.uint8), square) > 0] = cv2.GC_FGD
    border = np.ones(alike.shape, np.bool_)
    border[1:-1, 1:-1] = False
    labels[border & ~alike] = cv2.GC_BGD
    for point in inside:
        cv2.circle(labels, point, reach, cv2.GC_FGD, -1)
    for point in outside:
        cv2.circle(labels, point, reach, cv2.GC_BGD, -1)
    return labels


def _has_both(labels: NDArray[np.uint8]) -> bool:
    """Odd labels are the thing, even ones its surroundings; without either there is no edge to find."""
    return bool((labels % 2 == 1).any() and (labels % 2 == 0).any())


def _cut(small: RgbImage, labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    cv2.setRNGSeed(SEED)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cut, *_models = cv2.grabCut(
        small, labels.copy(), (0, 0, 0, 0), *models, GRABCUT_ROUNDS, cv2.GC_INIT_WITH_MASK
    )  # fmt: skip
    return np.asarray(cut) % 2 == 1


def _parts_with(thing: NDArray[np.bool_], inside: Sequence[tuple[int, int]]) -> NDArray[np.bool_]:
    _count, parts = cv2.connectedComponents(thing.astype(np.uint8), connectivity=4)
    clicked = {int(parts[y, x]) for x, y in inside} - {0}
    return np.isin(parts, list(clicked))


@dataclass(eq=False)
class _Sam:
    """A loaded SAM 2.1 and the embeddings of the last photos."""

    folder: Path
    model: Any
    processor: Any
    embeddings: "OrderedDict[str, Any]" = field(default_factory=OrderedDict[str, Any])

    @classmethod
    def load(cls, folder: Path) -> "_Sam":
        from transformers import Sam2ImageProcessor, Sam2Model, Sam2Processor  # noqa: PLC0415 - loads torch

        model: Any = Sam2Model.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        pictures: Any = Sam2ImageProcessor.from_pretrained(folder, local_files_only=True)
        return cls(folder, model.eval(), Sam2Processor(pictures))

    def select(self, pixels: RgbImage, clicks: Sequence[Click]) -> Hole:
        import torch  # noqa: PLC0415 - only those who have the weights pay for it

        points = [[[[click.x, click.y] for click in clicks]]]
        labels = [[[int(click.inside) for click in clicks]]]
        with torch.inference_mode():
            asked = self.processor(images=pixels, input_points=points, input_labels=labels, return_tensors="pt")
            # One click may mean a part or the whole, so three outlines are offered and the surest is taken.
            answer = self.model(
                image_embeddings=self._embedding(pixels, asked["pixel_values"]),
                input_points=asked["input_points"],
                input_labels=asked["input_labels"],
                multimask_output=len(clicks) == 1,
            )
            best = int(answer.iou_scores[0, 0].argmax())
            masks = self.processor.post_process_masks(answer.pred_masks, asked["original_sizes"])
        return np.asarray(masks[0][0, best].numpy(), np.bool_)

    def _embedding(self, pixels: RgbImage, values: Any) -> Any:
        key = pixel_sha256(pixels)
        if key not in self.embeddings:
            self.embeddings[key] = self.model.get_image_embeddings(values)
        self.embeddings.move_to_end(key)
        while len(self.embeddings) > KEPT_EMBEDDINGS:
            self.embeddings.popitem(last=False)
        return self.embeddings[key]
