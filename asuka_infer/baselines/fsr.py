"""Frequency-selective reconstruction: each block from the few frequencies that explain the known (OpenCV xphoto)."""

from dataclasses import dataclass

import cv2
import numpy as np

from asuka_infer.inpainter import Watch
from asuka_infer.request import InpaintRequest, RgbImage
from asuka_infer.settings import FillSettings, PureFill, choice, whole

LARGEST_SIDE = 512
"""Measured: half of 512x512 missing takes 5 s at quality "fast"; "best" takes 35 times as long."""

QUALITIES = {"fast": cv2.xphoto.INPAINT_FSR_FAST, "best": cv2.xphoto.INPAINT_FSR_BEST}


@dataclass(frozen=True)
class FsrSettings(FillSettings):
    """What may be turned on frequency-selective reconstruction."""

    quality: str = choice("fast", options=tuple(QUALITIES), meaning="Block size and iterations; best is 35x slower.")
    largest_side: int = whole(
        LARGEST_SIDE, lowest=32, highest=1024, meaning="Longest side, in pixels, that is filled at full detail."
    )


def fsr() -> PureFill[FsrSettings]:
    """The method, ready to run."""
    return PureFill(fill, FsrSettings())


def fill(request: InpaintRequest, settings: FsrSettings, watch: Watch) -> RgbImage:
    """Fill in one go; xphoto wants blue-green-red and counts zero as missing."""
    known = np.where(request.hole, 0, 255).astype(np.uint8)
    filled = np.zeros_like(request.image)
    cv2.xphoto.inpaint(cv2.cvtColor(request.image, cv2.COLOR_RGB2BGR), known, filled, QUALITIES[settings.quality])
    watch.step(1, 1)
    return np.asarray(cv2.cvtColor(filled, cv2.COLOR_BGR2RGB), np.uint8)
