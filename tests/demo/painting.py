"""A visitor of the demo: opens photos, paints, reads the hole back, and what shapes should have painted."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page

from asuka_infer.request import Hole, RgbImage

Point = tuple[float, float]


TILE = 512
"""Pixels after which the noise repeats: making it anew for 12 megapixels takes longer than most tests."""


def photo(width: int, height: int, seed: int = 7) -> RgbImage:
    """Smooth colours with a little noise: any shift or re-encoding of it shows."""
    random = np.random.default_rng(seed)
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    noise = random.normal(0, 6, (min(height, TILE), min(width, TILE), 3)).astype(np.float32)
    result = np.tile(noise, (-(-height // TILE), -(-width // TILE), 1))[:height, :width]
    for k in range(3):
        across, down = x / (41 + 10 * k) + k, y / (57 - 9 * k)
        # sin(across + down), of two lines instead of a plane
        result[..., k] += 127 + 100 * (np.sin(across) * np.cos(down) + np.cos(across) * np.sin(down))
    return np.clip(result, 0, 255).astype(np.uint8)


def save(pixels: NDArray[Any], path: Path, **options: Any) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


@dataclass(frozen=True)
class Visitor:
    """One open page."""

    page: Page

    def open(self, path: Path) -> None:
        self.page.set_input_files(".mp-file", str(path))
        self.page.wait_for_selector('.mp[data-state="ready"]:not([data-busy="on"])')

    def layer(self) -> dict[str, float]:
        """Where the whole proxy is on the screen, to fractions of a pixel, and its size in proxy pixels."""
        script = """() => { const layer = document.querySelector('.mp-layer'), box = layer.getBoundingClientRect();
            const canvas = layer.querySelector('canvas');
            return {x: box.x, y: box.y, width: box.width, height: box.height, w: canvas.width, h: canvas.height}; }"""
        return cast("dict[str, float]", self.page.evaluate(script))

    def screen(self, point: Point) -> Point:
        """Where a point given in proxy pixels is on the screen."""
        box = self.layer()
        return box["x"] + point[0] * box["width"] / box["w"], box["y"] + point[1] * box["height"] / box["h"]

    def snapped(self, x: float, y: float) -> Point:
        """The proxy point nearest to a share (0..1) of its size that a pointer can press: whole screen pixels only."""
        box = self.layer()
        scale = box["w"] / box["width"]
        across, down = round(box["x"] + x * box["width"]), round(box["y"] + y * box["height"])
        return (across - box["x"]) * scale, (down - box["y"]) * scale

    def drag(self, *points: Point, steps: int = 1) -> None:
        """Press at the first point (proxy pixels), move through the others, release."""
        self.page.mouse.move(*self.screen(points[0]))
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*self.screen(point), steps=steps)
        self.page.mouse.up()

    def click(self, point: Point) -> None:
        self.page.mouse.click(*self.screen(point))

    def tool(self, name: str) -> None:
        self.page.click(f'.mp-tool[data-tool="{name}"]')

    def menu(self, action: str) -> None:
        if not self.page.locator(".mp-list").is_visible():
            self.page.click(".mp-menu summary")
        self.page.click(f'.mp-list [data-do="{action}"]')

    def sent(self) -> dict[str, Any]:
        """What Run would send this moment."""
        return cast("dict[str, Any]", self.page.evaluate("() => document.querySelector('.mp').flush()"))

    def hole(self) -> Hole:
        """What is painted, at the proxy's size."""
        with Image.open(io.BytesIO(base64.b64decode(self.sent()["hole"]))) as image:
            return np.array(image.convert("L")) > 127

    def radius(self) -> float:
        """The brush's radius in proxy pixels, as the ring on the screen shows it."""
        box = self.layer()
        ring = self.page.evaluate("() => document.querySelector('.mp-ring').getBoundingClientRect().width")
        return float(ring) / 2 * box["w"] / box["width"]

    def choose_methods(self, *titles: str) -> None:
        while (tokens := self.page.locator("#demo-methods .token")).count():
            tokens.first.locator(".token-remove").click()
        for title in titles:
            self.page.fill("#demo-methods input", title)
            self.page.get_by_role("option", name=title).wait_for()
            self.page.keyboard.press("Enter")
        self.page.keyboard.press("Escape")

    def run(self) -> None:
        """Press Fill in and wait for the result."""
        before = self.page.locator(".rv-strip button").count()
        self.page.click("#demo-run")
        self.page.wait_for_selector(f".rv-strip button >> nth={before}")
        self.page.wait_for_selector('.rv[data-state="shown"]:not([data-busy="on"])')

    def download(self, folder: Path) -> Path:
        with self.page.expect_download() as waiting:
            self.page.click(".rv-main")
        path = folder / waiting.value.suggested_filename
        waiting.value.save_as(path)
        return path

    def save_mask(self, folder: Path) -> Hole:
        with self.page.expect_download() as waiting:
            self.menu("saveMask")
        path = folder / "mask.png"
        waiting.value.save_as(path)
        with Image.open(path) as image:
            return np.array(image.convert("L")) > 127


def capsule(size: tuple[int, int], points: Sequence[Point], radius: float) -> Hole:
    """Brute force: pixels whose centre is within `radius` of the line through `points`."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]] + 0.5
    nearest = np.full(size, np.inf)
    for (ax, ay), (bx, by) in zip(points, [*points[1:], points[-1]], strict=True):
        dx, dy = bx - ax, by - ay
        along = np.clip(((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy or 1), 0, 1)
        nearest = np.minimum(nearest, np.hypot(x - ax - along * dx, y - ay - along * dy))
    return nearest <= radius


def rectangle(size: tuple[int, int], a: Point, b: Point) -> Hole:
    """Brute force: pixels whose centre is between the corners."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]] + 0.5
    across, down = sorted([a[0], b[0]]), sorted([a[1], b[1]])
    return (x >= across[0]) & (x <= across[1]) & (y >= down[0]) & (y <= down[1])
