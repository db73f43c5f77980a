"""The one function behind the demo, the command line, the batch and the API: a method, a picture, a hole, an answer.

It crops around the holes, scales each crop to what the method handles, runs the method, brings the fill back to full
size, composites it into the untouched picture and measures what changed. Whoever calls it with the same arguments gets
the same pixels.
"""

import importlib.metadata
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol, runtime_checkable

from asuka_infer import compositing as composite
from asuka_infer.compositing import Compositing
from asuka_infer.geometry import Box, Fit, crop, frames_around, paste
from asuka_infer.holes import hole_sha256, resize
from asuka_infer.images import Picture, pixel_sha256
from asuka_infer.inpainter import SILENT, Inpainter, Watch
from asuka_infer.request import LARGEST_SEED, Hole, InpaintRequest, RequestError, RgbImage
from asuka_infer.run_record import RunRecord
from asuka_infer.settings import HasWorkingSize, WorkingSize, as_json
from asuka_infer.tiled import fill_coarse_to_fine, is_larger
from asuka_infer.watching import Unfitted

APP_VERSION = "0.1.0"
"""As in pyproject.toml (a test compares them); nothing is installed as a package that could be asked."""

DEFAULT_CONTEXT = 0.5
"""Half the hole's longer side on every side, as the Krita plugin crops: the best of the tools that were compared."""

ANY_SIZE = WorkingSize(largest=2**31)
"""For methods that say nothing about sizes."""

PROGRESS_PARTS = 1000
"""With several crops, progress is told in thousandths of the whole."""

_LIBRARIES = {
    "numpy": "numpy",
    "cv2": "opencv-contrib-python-headless",
    "skimage": "scikit-image",
    "torch": "torch",
    "diffusers": "diffusers",
    "timm": "timm",
    "onnxruntime": "onnxruntime",
    "spandrel": "spandrel",
}
"""Libraries that compute pixels: module -> distribution. Recorded when they are loaded."""


@runtime_checkable
class HasWeights(Protocol):
    """A method that runs on weight files."""

    @property
    def weights(self) -> Mapping[str, str]:
        """Weight file name -> its SHA-256."""
        ...


@dataclass(frozen=True)
class Framing:
    """How much of the picture a method sees.

    Attributes:
        context: known surroundings on every side of a hole, as a share of the hole's longer side; None shows the
            method the whole picture.
        tiles: whether a hole larger than the method's working size is filled once more at full resolution, tile by
            tile, led by the first fill (`asuka_infer.tiled`), by methods that can go on from their own fills. Else it
            is one fill scaled up, as in the papers.

    Raises:
        RequestError: for a negative or endless context.
    """

    context: float | None = DEFAULT_CONTEXT
    tiles: bool = False

    def __post_init__(self) -> None:
        if self.context is not None and not 0 <= self.context < float("inf"):
            raise RequestError(f"The context is {self.context}; give 0 or more (0.5 is usual), or the whole picture.")

    def to_json(self) -> dict[str, float | None]:
        """As it stands in a run record; what is off is left out, so that older records stay what they were."""
        return {"context": self.context, **({"tiles": True} if self.tiles else {})}


@dataclass(frozen=True, eq=False)
class Inpainted:
    """A finished picture and the account of how it was made.

    Attributes:
        image: (height, width, 3) uint8 sRGB, the picture's size.
        changed_outside: pixels outside the hole that differ from the original, counted in the pictures themselves;
            always 0 with "exact".
        ring: pixels outside the hole that the compositing was free to change; 0 with "exact".
        previews: named pictures of how the method got there; of the second crop "name 2" and so on.
        record: what a run record says about it.
    """

    image: RgbImage
    changed_outside: int
    ring: int
    previews: Mapping[str, RgbImage]
    record: RunRecord


def inpaint(
    method: Inpainter,
    key: str,
    picture: Picture | RgbImage,
    hole: Hole,
    *,
    seed: int = 0,
    framing: Framing = Framing(),
    compositing: Compositing = "exact",
    watch: Watch = SILENT,
) -> Inpainted:
    """Fill the hole of a picture.

    Args:
        method: ready to run, settings chosen.
        key: its catalog key, for the record.
        picture: a decoded file, or its (height, width, 3) uint8 sRGB pixels.
        hole: (height, width) bool, True = missing.
        seed: 0..2**32-1. The crop number k (from 0, top to bottom) is filled with seed + k, modulo 2**32.
        framing: how much of the picture the method sees.
        compositing: "exact" changes no known pixel; "seamless" has a ring around the hole filled too, unseen by the
            method, and fades its fill into the photo there.
        watch: hears steps over all crops and previews of the whole picture, and may cancel.

    Raises:
        RequestError: for a picture, hole or seed that nothing can be done with.
        Cancelled: when `watch` asked to stop.
    """
    request = InpaintRequest(picture.pixels if isinstance(picture, Picture) else picture, hole, seed)
    if compositing not in {"exact", "seamless"}:
        raise RequestError(f"The compositing is {compositing!r}; choose exact or seamless.")
    original = picture.pixels if isinstance(picture, Picture) else picture
    begun = time.perf_counter()
    if compositing == "seamless":
        request = replace(request, hole=_hole_and_ring(hole))
    filled, previews = _fill_frames(method, request, framing, watch)
    seconds = time.perf_counter() - begun
    if compositing == "exact":
        image, ring = composite.exact(original, filled, hole), 0
    else:
        image = composite.seamless(original, filled, hole)
        ring = composite.ring_count(hole, composite.DEFAULT_RAMP)
    record = describe_run(method, key, original, hole, seed=seed, framing=framing, compositing=compositing)
    record = replace(record, result_sha256=pixel_sha256(image), seconds=round(seconds, 3))
    return Inpainted(image, composite.changed_outside(original, image, hole), ring, previews, record)


def describe_run(
    method: Inpainter,
    key: str,
    image: RgbImage,
    hole: Hole,
    *,
    seed: int,
    framing: Framing,
    compositing: Compositing,
) -> RunRecord:
    """The run record of a run that has not happened: no result's hash, no seconds. Same arguments, same pixels."""
    return RunRecord(
        method=key,
        seed=seed,
        settings=as_json(method.settings),
        framing=framing.to_json(),
        compositing=compositing,
        image_sha256=pixel_sha256(image),
        hole_sha256=hole_sha256(hole),
        result_sha256=_NO_RESULT,
        width=image.shape[1],
        height=image.shape[0],
        weights=dict(method.weights) if isinstance(method, HasWeights) else {},
        versions=_versions(),
        seconds=0.0,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _hole_and_ring(hole: Hole) -> Hole:
    """What a seamless run has filled; the hole alone where else nothing would be known.

    Methods hand known pixels back as they were, and to fade the photo into itself would leave every seam where it is.
    """
    both = composite.with_ring(hole)
    return hole if both.all() else both


_NO_RESULT = "0" * 64
_SEED_COUNT = LARGEST_SEED + 1


def _fill_frames(
    method: Inpainter, request: InpaintRequest, framing: Framing, watch: Watch
) -> tuple[RgbImage, dict[str, RgbImage]]:
    sizes = method.working_size if isinstance(method, HasWorkingSize) else ANY_SIZE
    boxes = _frames(request.hole, framing, sizes)
    filled = request.image
    previews: dict[str, RgbImage] = {}
    for count, box in enumerate(boxes):
        part = _PartWatch(watch, count, len(boxes), filled, request.hole, box)
        frame = InpaintRequest(crop(request.image, box), crop(request.hole, box), (request.seed + count) % _SEED_COUNT)
        in_tiles = framing.tiles and sizes.continues and is_larger(frame.hole, sizes.largest)
        patch, seen = (_fill_in_tiles if in_tiles else _fill_frame)(method, frame, sizes, part)
        filled = paste(filled, patch, box)
        previews |= {name if count == 0 else f"{name} {count + 1}": shown for name, shown in seen.items()}
    return filled, previews


def _frames(hole: Hole, framing: Framing, sizes: WorkingSize) -> list[Box]:
    if framing.context is None:
        return [Box(0, 0, *hole.shape)]
    return frames_around(
        hole, context=framing.context, multiple=sizes.multiple, smallest=sizes.smallest, square=sizes.square
    )


def _fill_in_tiles(
    method: Inpainter, frame: InpaintRequest, sizes: WorkingSize, watch: Watch
) -> tuple[RgbImage, Mapping[str, RgbImage]]:
    """The hole led by a coarse fill of all of it, whose previews are the ones to look at."""
    seen: list[Mapping[str, RgbImage]] = []

    def fill(request: InpaintRequest, heard: Watch) -> RgbImage:
        image, previews = _fill_frame(method, request, sizes, heard)
        seen.append(previews)
        return image

    return fill_coarse_to_fine(fill, frame, sizes.largest, watch), seen[0]


def _fill_frame(
    method: Inpainter, frame: InpaintRequest, sizes: WorkingSize, watch: Watch
) -> tuple[RgbImage, Mapping[str, RgbImage]]:
    """Run the method on one crop at a size it handles, and bring its fill back to the crop's size."""
    shortest = min(sizes.smallest, sizes.largest)
    fit = Fit.to_multiple(frame.size, sizes.multiple, longest=sizes.largest, shortest=shortest)
    image, hole = fit.apply(frame.image, frame.hole)
    if hole.all():
        # The known pixels are specks so far apart that no coarser cell is wholly known: a cell with a speck must do.
        hole = crop(~resize(~frame.hole, fit.scaled), Box(0, 0, *fit.target))
    if not hole.any():
        watch.step(1, 1)
        return fit.undo(image), {}
    result = method(InpaintRequest(image, hole, frame.seed), Unfitted(watch, fit))
    return fit.undo(result.image), result.previews


@dataclass(frozen=True, eq=False)
class _PartWatch:
    """Tells the caller's watch about one of several crops as a part of the whole.

    Attributes:
        watch: the caller's.
        count: which of the crops this is, from 0.
        parts: how many there are.
        picture: the whole picture so far.
        hole: the whole hole.
        box: where the crop is.
    """

    watch: Watch
    count: int
    parts: int
    picture: RgbImage
    hole: Hole
    box: Box

    def step(self, done: int, total: int) -> None:
        if self.parts == 1:
            self.watch.step(done, total)
            return
        reached = (self.count + done / total) / self.parts
        self.watch.step(max(1, round(reached * PROGRESS_PARTS)), PROGRESS_PARTS)

    def preview(self, picture: Callable[[], RgbImage]) -> None:
        self.watch.preview(lambda: self._whole(picture()))

    def _whole(self, shown: RgbImage) -> RgbImage:
        """The whole picture with the unfinished crop in its place."""
        return composite.exact(self.picture, paste(self.picture, shown, self.box), self.hole)


def _versions() -> dict[str, str]:
    """Of this app, Python and those libraries that are loaded and compute pixels."""
    loaded = {name for module, name in _LIBRARIES.items() if module in sys.modules}
    libraries = {name: importlib.metadata.version(name) for name in sorted(loaded)}
    return {"asuka-app": APP_VERSION, "python": platform.python_version(), **libraries}
