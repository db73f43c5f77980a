"""Diffusion methods, tiny and random, on holes larger than they work at."""

from collections.abc import Callable

import numpy as np
import pytest

from asuka_infer.catalog import find_method
from asuka_infer.inpaint import Framing, inpaint
from asuka_infer.request import RgbImage

pytestmark = pytest.mark.usefixtures("tiny_folder")


class Listener:
    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []
        self.sizes: set[tuple[int, ...]] = set()

    def step(self, done: int, total: int) -> None:
        self.steps.append((done, total))

    def preview(self, picture: Callable[[], RgbImage]) -> None:
        self.sizes.add(picture().shape)


def test_a_hole_larger_than_a_diffusion_model_is_filled_tile_by_tile_at_full_resolution() -> None:
    method = find_method("sd15").load().with_settings(steps=2, largest_side=64)
    image = np.random.default_rng(2).integers(0, 256, (200, 210, 3), dtype=np.uint8)
    hole = np.zeros((200, 210), np.bool_)
    hole[50:150, 60:160] = True
    watch = Listener()
    done = inpaint(method, "sd15", image, hole, framing=Framing(0.5, tiles=True), watch=watch)
    assert done.changed_outside == 0
    fills, rest = divmod(watch.steps[-1][1], 1000)
    assert (rest, watch.steps[-1][0]) == (0, watch.steps[-1][1])
    assert fills > 4
    assert len(watch.steps) == 2 * fills
    assert watch.sizes == {image.shape}
    assert not np.array_equal(inpaint(method, "sd15", image, hole).image, done.image)
