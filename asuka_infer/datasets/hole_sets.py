"""Holes for the pictures of an evaluation set: seeded by name, written to disk with a manifest, drawn only once.

A hole depends on (seed, name, size, shapes, shares) alone: not on the other pictures and not on their order.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from asuka_infer.datasets.layouts import Photograph
from asuka_infer.holes import encode_hole_png, hole_sha256, read_hole
from asuka_infer.images import open_checked, write_atomically
from asuka_infer.request import Hole

Shape = Literal["brush", "rectangle", "frame", "mixed"]

MANIFEST = "holes.json"
"""Beside the holes: how they were drawn, and the hash of each."""

TRIES = 500
"""Draws before a plain rectangle of a fitting share is taken."""

MIXTURE = {"brush": 0.8, "rectangle": 0.1, "frame": 0.1}
"""Of "mixed": mostly irregular, a tenth each regular (our choice, after the shares of the paper's training holes)."""

BRUSH_STROKES = (1, 5)
BRUSH_VERTICES = (1, 5)
BRUSH_LENGTH, BRUSH_WIDTH = 200 / 256, 100 / 256
"""LaMa's thick strokes (Suvorov et al., WACV 2022), lengths as shares of the shorter side."""


class HoleSetError(ValueError):
    """Shapes or shares that no hole has, or a manifest of another set; the message says what to change."""


@dataclass(frozen=True)
class HoleSet:
    """How holes are drawn.

    Attributes:
        seed: names the set.
        shapes: "brush" (irregular strokes), "rectangle", "frame" (all but a rectangle) or "mixed".
        smallest, largest: share of the picture, 0 < smallest < largest < 1.
    """

    seed: int = 0
    shapes: str = "mixed"
    smallest: float = 0.1
    largest: float = 0.6

    def __post_init__(self) -> None:
        if self.shapes not in {"brush", "rectangle", "frame", "mixed"}:
            raise HoleSetError(f"The shapes are {self.shapes!r}; choose brush, rectangle, frame or mixed.")
        if not 0 < self.smallest < self.largest < 1:
            raise HoleSetError(
                f"Holes shall cover {self.smallest} to {self.largest} of a picture; give 0 < smallest < largest < 1."
            )


def draw_hole(plan: HoleSet, name: str, size: tuple[int, int], keep_clear: Hole | None = None) -> Hole:
    """The hole of one picture.

    Args:
        plan: how.
        name: of the picture; names the hole.
        size: (height, width) in pixels.
        keep_clear: True where nothing may be missing (a foreground). The share then counts what is left.

    Raises:
        HoleSetError: when the foreground leaves no room.
    """
    digest = hashlib.sha256(f"{plan.seed}/{name}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    free = np.ones(size, bool) if keep_clear is None else ~keep_clear
    for _ in range(TRIES):
        hole = _DRAWN[_shape(plan, rng)](size, rng) & free
        if plan.smallest <= hole.mean() <= plan.largest:
            return hole
    hole = _fitting_rectangle(size, (plan.smallest + plan.largest) / 2, rng) & free
    if not hole.any():
        raise HoleSetError(f"The foreground of {name} leaves no room for a hole; leave this picture out.")
    return hole


def write_hole_set(
    photographs: Sequence[Photograph], plan: HoleSet, out: Path, *, step: Callable[[int], object] = lambda _: None
) -> int:
    """Write `out`/KEY.png for every photograph and the manifest; returns how many were not there yet.

    Raises:
        HoleSetError: when `out` holds a set drawn in another way.
    """
    out.mkdir(parents=True, exist_ok=True)
    _refuse_another(plan, out)
    rows: list[dict[str, object]] = []
    written = 0
    for photograph in photographs:
        with open_checked(photograph.file) as (image, _):
            width, height = image.size
        target = out / f"{photograph.key}.png"
        hole = draw_hole(plan, photograph.key, (height, width))
        if not target.is_file() or not np.array_equal(read_hole(target), hole):
            write_atomically(target, encode_hole_png(hole))
            written += 1
        rows.append({"file": target.name, "share": round(float(hole.mean()), 4), "sha256": hole_sha256(hole)})
        step(1)
    manifest = {"made_with": asdict(plan), "holes": rows}
    write_atomically(out / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
    return written


def _refuse_another(plan: HoleSet, out: Path) -> None:
    manifest = out / MANIFEST
    if not manifest.is_file():
        return
    made = json.loads(manifest.read_text(encoding="utf-8"))["made_with"]
    if made != asdict(plan):
        raise HoleSetError(f"{out} holds holes made with {made}, not {asdict(plan)}; write to another folder.")


def _shape(plan: HoleSet, rng: np.random.Generator) -> str:
    if plan.shapes != "mixed":
        return plan.shapes
    return str(rng.choice(list(MIXTURE), p=list(MIXTURE.values())))


def _brush(size: tuple[int, int], rng: np.random.Generator) -> Hole:
    canvas = np.zeros(size, np.uint8)
    shorter = min(size)
    for stroke in range(int(rng.integers(*BRUSH_STROKES, endpoint=True))):
        point = rng.uniform(0, 1, 2) * (size[1], size[0])
        for turn in range(int(rng.integers(*BRUSH_VERTICES, endpoint=True))):
            angle = rng.uniform(0, 2 * np.pi) + np.pi * ((stroke + turn) % 2)
            length = rng.uniform(0.05, BRUSH_LENGTH) * shorter
            end = np.clip(point + length * np.array([np.cos(angle), np.sin(angle)]), 0, (size[1] - 1, size[0] - 1))
            width = max(1, round(float(rng.uniform(0.02, BRUSH_WIDTH)) * shorter))
            cv2.line(canvas, _pixel(point), _pixel(end), 1, width)
            point = end
    return canvas > 0


def _rectangle(size: tuple[int, int], rng: np.random.Generator) -> Hole:
    hole = np.zeros(size, bool)
    height, width = (max(1, round(float(side * rng.uniform(0.2, 0.9)))) for side in size)
    top, left = int(rng.integers(0, size[0] - height + 1)), int(rng.integers(0, size[1] - width + 1))
    hole[top : top + height, left : left + width] = True
    return hole


def _frame(size: tuple[int, int], rng: np.random.Generator) -> Hole:
    return ~_rectangle(size, rng)


_DRAWN: dict[str, Callable[[tuple[int, int], np.random.Generator], Hole]] = {
    "brush": _brush,
    "rectangle": _rectangle,
    "frame": _frame,
}


def _fitting_rectangle(size: tuple[int, int], share: float, rng: np.random.Generator) -> Hole:
    hole = np.zeros(size, bool)
    height, width = (max(1, round(side * share**0.5)) for side in size)
    top, left = int(rng.integers(0, size[0] - height + 1)), int(rng.integers(0, size[1] - width + 1))
    hole[top : top + height, left : left + width] = True
    return hole


def _pixel(point: np.ndarray) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))
