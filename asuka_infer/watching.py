"""Watches between a method and whoever waits: they turn parts into the whole and padded pictures into the caller's."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from asuka_infer.geometry import Fit
from asuka_infer.inpainter import Watch
from asuka_infer.request import RgbImage

PASS_STEPS = 1000
"""Progress within one of several fills is told in thousandths."""


@dataclass(frozen=True, eq=False)
class Unfitted:
    """Shows the caller's watch previews of any size at the size before a fit, without its padding."""

    watch: Watch
    fit: Fit

    def step(self, done: int, total: int) -> None:
        """Passed on."""
        self.watch.step(done, total)

    def preview(self, picture: Callable[[], RgbImage]) -> None:
        """Passed on at the request's size."""
        self.watch.preview(lambda: self._unpadded(picture()))

    def _unpadded(self, shown: RgbImage) -> RgbImage:
        height, width = self.fit.target
        full = cv2.resize(shown, (width, height), interpolation=cv2.INTER_LINEAR)
        return self.fit.undo(np.asarray(full, np.uint8))


@dataclass(frozen=True, eq=False)
class Pass:
    """Tells the caller's watch about one of several fills of the same picture.

    Attributes:
        watch: the caller's.
        number: which of the fills this is, from 0.
        count: how many there are.
        whole: from what this fill shows to what the caller is shown; None if that is the same.
    """

    watch: Watch
    number: int
    count: int
    whole: Callable[[RgbImage], RgbImage] | None = None

    def step(self, done: int, total: int) -> None:
        """Passed on as a part of all fills."""
        reached = self.number * PASS_STEPS + max(1, round(PASS_STEPS * done / total))
        self.watch.step(reached, self.count * PASS_STEPS)

    def preview(self, picture: Callable[[], RgbImage]) -> None:
        """Passed on as a look at all that is filled so far."""
        whole = self.whole
        self.watch.preview(picture if whole is None else lambda: whole(picture()))
