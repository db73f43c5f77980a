"""Shift map: the hole is a photomontage of the picture shifted by its own most frequent offsets (OpenCV xphoto).

After He and Sun, "Statistics of Patch Offsets for Image Completion", 2012. xphoto's version leaves a missing pixel at
zero when none of its 60 offsets reaches a known one, without saying so. Here such pixels are found, and filled by
further passes that start from what the passes before them made, then by the Navier-Stokes method.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from asuka_infer.inpainter import Watch
from asuka_infer.request import Hole, InpaintRequest, RequestError, RgbImage
from asuka_infer.settings import FillSettings, PureFill, whole

LARGEST_SIDE = 320
"""Our choice: half of 384x384 missing took 9 s and 99 % of it 37 s in four passes; this in two takes half of that."""

LARGEST_SAFE_SIDE = 600
"""xphoto scales pictures down itself beyond 800x600, and its way back up writes outside the picture."""

PASSES = 2
"""Our choice: one pass does for a hole up to a third of the picture, a second one for most larger holes."""

OFFSET = 1000.0
"""Added to every known value, so that a pixel which nobody filled, zero, can be told from a black one."""

LAB_SCALE = np.array([2.55, 1.0, 1.0], np.float32)
"""OpenCV's 8-bit Lab stretches lightness from 0..100 to 0..255 and leaves a and b as they are."""

SMOOTH_RADIUS = 5
"""Reach of the last resort, as in the catalog's own `navier-stokes`."""


@dataclass(frozen=True)
class ShiftMapSettings(FillSettings):
    """What may be turned on the shift map."""

    largest_side: int = whole(
        LARGEST_SIDE,
        lowest=32,
        highest=LARGEST_SAFE_SIDE,
        meaning="Longest side, in pixels, that is filled at full detail.",
    )


def shift_map() -> PureFill[ShiftMapSettings]:
    """The method, ready to run."""
    return PureFill(fill, ShiftMapSettings())


def fill(request: InpaintRequest, settings: ShiftMapSettings, watch: Watch) -> RgbImage:
    """Fill in up to two passes.

    Raises:
        RequestError: for a picture larger than xphoto can be trusted with.
    """
    del settings
    if max(request.size) > LARGEST_SAFE_SIDE:
        raise RequestError(
            f"shift-map works on pictures of at most {LARGEST_SAFE_SIDE} pixels a side, this one is "
            f"{request.size[1]}x{request.size[0]}; call asuka_infer.inpaint.inpaint, which scales."
        )
    lab, missing = _to_lab(request.image), request.hole
    for done in range(1, PASSES + 1):
        if missing.any():
            lab, missing = _one_pass(lab, missing)
        watch.step(done, PASSES)
    filled = _to_rgb(lab)
    filled[~request.hole] = request.image[~request.hole]
    if missing.any():
        filled = cv2.inpaint(filled, missing.astype(np.uint8), SMOOTH_RADIUS, cv2.INPAINT_NS)
    return np.asarray(filled, np.uint8)


def _to_lab(image: RgbImage) -> NDArray[np.float32]:
    """CIELab with the proportions of OpenCV's 8-bit form, which xphoto was tuned on, but without its rounding."""
    return cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) * LAB_SCALE + np.float32(OFFSET)


def _to_rgb(lab: NDArray[np.float32]) -> RgbImage:
    rgb = cv2.cvtColor((lab - np.float32(OFFSET)) / LAB_SCALE, cv2.COLOR_LAB2RGB)
    return np.rint(rgb * 255).clip(0, 255).astype(np.uint8)


def _one_pass(lab: NDArray[np.float32], missing: Hole) -> tuple[NDArray[np.float32], Hole]:
    """What xphoto makes of it, and which pixels it left out."""
    montage = np.zeros_like(lab)
    known = np.where(missing, 0, 255).astype(np.uint8)
    cv2.xphoto.inpaint(lab, known, montage, cv2.xphoto.INPAINT_SHIFTMAP)
    # xphoto also relabels two pixels around the hole, and may lose them: what was known stays.
    montage[~missing] = lab[~missing]
    return montage, missing & (montage[..., 0] == 0)
