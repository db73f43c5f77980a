"""Seconds of every weight-free method at its own working size, for a quarter, a half and 99 % of a picture missing.

Run: .venv/bin/python benchmarks/classical_methods.py [side ...]   (default: 512)
Wall time grows with whatever else runs on the machine, processor time hardly does; both are printed.
"""

import os
import sys
import time

import cv2
import numpy as np

from asuka_infer.catalog import METHODS
from asuka_infer.inpaint import Framing, inpaint
from asuka_infer.request import Hole, RgbImage

KEYS = ("telea", "navier-stokes", "shift-map", "fsr", "biharmonic", "nearest-neighbour")
SHARES = (0.25, 0.5, 0.99)


def drawn(side: int) -> RgbImage:
    """Clouds of noise of every size, like the spectrum of a photograph."""
    random = np.random.default_rng(0)
    picture = np.zeros((side, side, 3), np.float32)
    for cells in (4, 8, 16, 32, 64, 128):
        noise = random.normal(0, 128 / cells**0.7, (cells, cells, 3)).astype(np.float32)
        picture += cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)
    return (picture + 128).clip(0, 255).astype(np.uint8)


def square(side: int, share: float) -> Hole:
    """A centred square hole."""
    inner = round(side * share**0.5)
    hole = np.zeros((side, side), bool)
    start = (side - inner) // 2
    hole[start : start + inner, start : start + inner] = True
    return hole


def main() -> None:
    """Print one row per method."""
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, OpenCV {cv2.__version__}, numpy {np.__version__}")
    print("seconds, wall (processor)")
    for side in [int(word) for word in sys.argv[1:]] or [512]:
        print(f"{side} px".ljust(18) + "".join(f"{share:.0%} missing".rjust(18) for share in SHARES))
        for key in KEYS:
            method, row = METHODS[key].load(), key.ljust(18)
            for share in SHARES:
                wall, processor = time.perf_counter(), time.process_time()
                inpaint(method, key, drawn(side), square(side, share), framing=Framing(None))
                wall, processor = time.perf_counter() - wall, time.process_time() - processor
                row += f"{wall:.2f} ({processor:.2f})".rjust(18)
            print(row, flush=True)


if __name__ == "__main__":
    main()
