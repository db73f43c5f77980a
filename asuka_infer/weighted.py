"""Methods that run on weights: a function over a loaded model, at sizes the model handles, known pixels put back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, Self, TypeVar

from asuka_infer.compositing import exact
from asuka_infer.geometry import Box, Fit, crop
from asuka_infer.holes import resize
from asuka_infer.inpainter import SILENT, Watch
from asuka_infer.request import Hole, InpaintRequest, InpaintResult, RgbImage
from asuka_infer.settings import Settings, WorkingSize, change
from asuka_infer.watching import Unfitted
from asuka_infer.weights import sha256_of

WEIGHT_SUFFIXES = frozenset({".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".onnx"})
"""What weight files are called."""

NO_PREVIEWS: Mapping[str, RgbImage] = MappingProxyType({})

_HEX_OF_SHA256 = 64


@dataclass(frozen=True, eq=False)
class Filled:
    """A model's answer at its own size; outside the hole it may say anything."""

    image: RgbImage
    previews: Mapping[str, RgbImage] = field(default_factory=lambda: NO_PREVIEWS)


M = TypeVar("M")
S = TypeVar("S", bound=Settings)

WeightedFill = Callable[[M, InpaintRequest, S, Watch], Filled]
"""(model, request at a size the model handles, settings, watch) -> its answer at that size."""


@dataclass(frozen=True, eq=False)
class Weighted(Generic[M, S]):
    """An `Inpainter` made of a function, a loaded model and settings.

    Attributes:
        fill: the method.
        model: what was loaded; never changed afterwards.
        files: the weight files by the names they have in records.
        sizes: what sizes the model handles under given settings.
        settings: the method's knobs.
        imagine: what the model imagines before any step, for methods that can show it.
    """

    fill: WeightedFill[M, S]
    model: M
    files: Mapping[str, Path]
    sizes: Callable[[S], WorkingSize]
    settings: S
    imagine: Callable[[M, InpaintRequest, S], Mapping[str, RgbImage]] | None = None

    @property
    def working_size(self) -> WorkingSize:
        """What sizes to hand it."""
        return self.sizes(self.settings)

    @property
    def weights(self) -> Mapping[str, str]:
        """SHA-256 by weight file; read once per process."""
        return {name: file_sha256(path) for name, path in self.files.items()}

    def __call__(self, request: InpaintRequest, watch: Watch = SILENT) -> InpaintResult:
        """Fill the hole; any size is scaled evenly and padded to one the model handles, and brought back."""
        fit, image, hole = self._fitted(request)
        if not hole.any():
            watch.step(1, 1)
            return InpaintResult(exact(request.image, fit.undo(image), request.hole))
        filled = self.fill(self.model, InpaintRequest(image, hole, request.seed), self.settings, Unfitted(watch, fit))
        picture = exact(request.image, fit.undo(filled.image), request.hole)
        return InpaintResult(picture, MappingProxyType(dict(filled.previews)))

    def prior_preview(self, request: InpaintRequest) -> Mapping[str, RgbImage]:
        """What the model imagines under the present settings, before any step; empty when it has nothing to show."""
        _fit, image, hole = self._fitted(request)
        if self.imagine is None or not hole.any():
            return NO_PREVIEWS
        return self.imagine(self.model, InpaintRequest(image, hole, request.seed), self.settings)

    def _fitted(self, request: InpaintRequest) -> tuple[Fit, RgbImage, Hole]:
        """The request at a size the model handles, and the way back."""
        size = self.working_size
        fit = Fit.to_multiple(request.size, size.multiple, longest=size.largest, shortest=size.smallest)
        image, hole = fit.apply(request.image, request.hole)
        if hole.all():
            # Known specks finer than the model's pixels: a cell that holds one must do.
            hole = crop(~resize(~request.hole, fit.scaled), Box(0, 0, *fit.target))
        return fit, image, hole

    def with_settings(self, **changes: Any) -> Self:
        """The same weights with some settings changed."""
        return replace(self, settings=change(self.settings, changes))


def weight_files(folder: Path, *parts: str) -> dict[str, Path]:
    """The weight files below a folder, or below some of its sub-folders, by their path from the folder."""
    roots = [folder / part for part in parts] or [folder]
    found = (path for root in roots for path in sorted(root.rglob("*")) if path.suffix in WEIGHT_SUFFIXES)
    return {path.relative_to(folder).as_posix(): path for path in found}


def file_sha256(path: Path) -> str:
    """The SHA-256 of a weight file; the hub's cache names large files by it, others are read once per process."""
    real = path.resolve()
    if real.parent.name == "blobs" and len(real.name) == _HEX_OF_SHA256:
        return real.name
    status = real.stat()
    return _read_sha256(real, status.st_size, status.st_mtime_ns)


@cache
def _read_sha256(path: Path, size: int, changed: int) -> str:
    del size, changed  # part of the cache's key: another content is another file
    return sha256_of(path)
