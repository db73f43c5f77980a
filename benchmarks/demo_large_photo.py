"""A 40-megapixel photo through the page: seconds and peak memory of the server, from the upload to the download.

    python benchmarks/demo_large_photo.py [--megapixels 40] [--method Telea]

Serves the demo alone, with nothing loaded yet, opens a JPEG of that size in Chromium, paints a stroke, runs it twice,
downloads the PNG and compares it with the photo: nothing outside the hole may differ. Memory is the kernel's own peak
(VmHWM) of the server.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from demo_first_result import app_served, opened, run_once
from PIL import Image
from playwright.sync_api import sync_playwright

from tests.conftest import CHROMIUM_FLAGS
from tests.demo.painting import photo

SIDES = (4, 3)


def peak_mb(process: psutil.Process) -> float:
    """Most memory that the process has held at once."""
    lines = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1000


def write_photo(path: Path, megapixels: float) -> None:
    """A JPEG of 4:3 as a camera writes it: quality 92, a little noise."""
    unit = (megapixels * 1e6 / (SIDES[0] * SIDES[1])) ** 0.5
    Image.fromarray(photo(round(SIDES[0] * unit), round(SIDES[1] * unit))).save(path, quality=92)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, default=40)
    parser.add_argument("--method", default="ASUKA (embedded)", help="the title of the method to run")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        path = folder / "large.jpg"
        write_photo(path, asked.megapixels)
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=list(CHROMIUM_FLAGS))
        with app_served(folder, "--only", "demo") as (url, process, _seconds):
            with opened(browser, url) as (visitor, watched):
                print(f"{asked.megapixels:g} megapixels, {path.stat().st_size / 1e6:.1f} MB as JPEG")
                if asked.method not in visitor.page.inner_text("#demo-about"):
                    visitor.choose_methods(asked.method)
                begun = time.perf_counter()
                visitor.open(path)
                print(f"open to paint on: {time.perf_counter() - begun:.1f} s, server's peak {peak_mb(process):.0f} MB")
                for number in ("first", "second"):
                    begun = time.perf_counter()
                    before, after = run_once(visitor, watched, asked.method)
                    print(
                        f"{number} run: {time.perf_counter() - begun:.1f} s, sent {after - before:,} bytes, "
                        f"server's peak {peak_mb(process):.0f} MB ({visitor.page.inner_text('.rv-facts')[:60]})"
                    )
                begun = time.perf_counter()
                result = visitor.download(folder)
                print(f"download: {time.perf_counter() - begun:.1f} s, {result.stat().st_size / 1e6:.1f} MB PNG")
                print(f"the page says: {visitor.page.inner_text('.rv-changed')} changed outside the hole")
            with Image.open(path) as original, Image.open(result) as made:
                changed = (np.asarray(original) != np.asarray(made)).any(axis=2)
            rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
            print(
                f"measured: {np.count_nonzero(changed):,} of {changed.size:,} pixels differ, all between rows "
                f"{rows[0]} and {rows[-1]}, columns {columns[0]} and {columns[-1]}"
            )
        browser.close()


if __name__ == "__main__":
    main()
