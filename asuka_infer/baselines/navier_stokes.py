"""Navier-Stokes: lines of equal brightness flow on into the hole like a fluid (OpenCV)."""

from dataclasses import dataclass

import cv2
import numpy as np

from asuka_infer.inpainter import Watch
from asuka_infer.request import InpaintRequest, RgbImage
from asuka_infer.settings import FillSettings, PureFill, whole

LARGEST_SIDE = 2048
"""Our choice: half of 512x512 missing takes 0.2 s (benchmarks/classical_methods.py) and a smooth fill gains nothing
from more than these pixels."""


@dataclass(frozen=True)
class NavierStokesSettings(FillSettings):
    """What may be turned on the Navier-Stokes method."""

    radius: int = whole(5, lowest=1, highest=50, meaning="How far from a missing pixel known colours are looked at.")
    largest_side: int = whole(
        LARGEST_SIDE, lowest=32, highest=4096, meaning="Longest side, in pixels, that is filled at full detail."
    )


def navier_stokes() -> PureFill[NavierStokesSettings]:
    """The method, ready to run."""
    return PureFill(fill, NavierStokesSettings())


def fill(request: InpaintRequest, settings: NavierStokesSettings, watch: Watch) -> RgbImage:
    """Fill in one go."""
    filled = cv2.inpaint(request.image, request.hole.astype(np.uint8), settings.radius, cv2.INPAINT_NS)
    watch.step(1, 1)
    return np.asarray(filled, np.uint8)
