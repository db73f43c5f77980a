"""A study on photographs that scikit-image installs, filled in nine simple ways: something a person can look at."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from skimage import data

from asuka_infer.compositing import exact
from asuka_infer.holes import write_hole_png
from asuka_infer.images import encode_png, write_atomically
from tests.study.stage import Folders

Pixels = np.ndarray

WIDTH, HEIGHT = 240, 180


def _inpainted(way: int, radius: int) -> Callable[[Pixels, Pixels], Pixels]:
    def fill(photograph: Pixels, hole: Pixels) -> Pixels:
        return np.asarray(cv2.inpaint(photograph, hole.astype(np.uint8), radius, way))

    return fill


def _moved(rows: int, columns: int) -> Callable[[Pixels, Pixels], Pixels]:
    return lambda photograph, _hole: np.roll(photograph, (rows, columns), (0, 1))


def _mean(photograph: Pixels, hole: Pixels) -> Pixels:
    return np.full_like(photograph, photograph[~hole].mean(axis=0))


NINE: dict[str, Callable[[Pixels, Pixels], Pixels]] = {
    "telea-near": _inpainted(cv2.INPAINT_TELEA, 2),
    "telea-far": _inpainted(cv2.INPAINT_TELEA, 16),
    "stokes-near": _inpainted(cv2.INPAINT_NS, 2),
    "stokes-far": _inpainted(cv2.INPAINT_NS, 16),
    "from-the-left": _moved(0, 70),
    "from-the-right": _moved(0, -70),
    "from-above": _moved(60, 0),
    "from-below": _moved(-60, 0),
    "mean": _mean,
}


def draw_photographs(root: Path, *, scale: int = 1) -> Folders:
    """Six photographs of `scale` times 240 x 180 pixels with a hole each and nine results."""
    width, height = scale * WIDTH, scale * HEIGHT
    folders = Folders(root / "images", root / "holes", root / "results")
    for folder in (folders.images, folders.holes, *(folders.results / method for method in NINE)):
        folder.mkdir(parents=True)
    sources = (data.astronaut(), data.chelsea(), data.coffee(), data.rocket(), data.cat()[40:], data.astronaut()[200:])
    for number, source in enumerate(sources):
        key = f"photo{number}"
        photograph = np.asarray(cv2.resize(source, (width, height), interpolation=cv2.INTER_AREA))
        hole = np.zeros((height, width), dtype=np.uint8)
        middle, axes = (scale * (110 + 6 * number), scale * 95), (scale * 44, scale * 34)
        cv2.ellipse(hole, middle, axes, 20 * number, 0, 360, 1, cv2.FILLED)
        missing = hole.astype(np.bool_)
        write_atomically(folders.images / f"{key}.png", encode_png(photograph))
        write_hole_png(folders.holes / f"{key}.png", missing)
        for method, fill in NINE.items():
            result = exact(photograph, fill(photograph, missing), missing)
            write_atomically(folders.results / method / f"{key}.png", encode_png(result))
    return folders
