"""What every ready method of the catalog promises; a new entry is held to it by being in the table."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asuka_infer.catalog import METHODS, find_method
from asuka_infer.compositing import Compositing
from asuka_infer.inpaint import Framing, inpaint
from asuka_infer.inpainter import Cancelled, Inpainter
from asuka_infer.request import Hole, InpaintRequest, RgbImage
from asuka_infer.settings import SettingsError, as_json, change, knobs

READY = [key for key, method in METHODS.items() if method.readiness().ready]
WHOLE = Framing(None)


@cache
def loaded(key: str) -> Inpainter:
    method = find_method(key).load()
    # What is promised holds at any number of steps; at its own number RePaint alone would take a minute and a half.
    return method.with_settings(steps=6, jump_length=2) if key == "sd-mini-repaint" else method


@pytest.fixture(params=READY)
def key(request: pytest.FixtureRequest) -> str:
    return request.param


def photo(height: int, width: int, seed: int = 3) -> RgbImage:
    """Soft gradients and grain, like a photograph but drawn."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    planes = [
        110 + 90 * np.sin(x / 9 + phase) * np.cos(y / 7 - phase) + random.normal(0, 8, (height, width))
        for phase in (0, 1, 2)
    ]
    return np.stack(planes, axis=2).clip(0, 255).astype(np.uint8)


def nothing(height: int, width: int) -> Hole:
    return np.zeros((height, width), bool)


def one_pixel() -> Hole:
    hole = nothing(61, 97)
    hole[30, 40] = True
    return hole


def touching_borders() -> Hole:
    hole = nothing(97, 61)
    hole[:30, :20] = True
    hole[-5:, :] = True
    return hole


def portrait_with_several() -> Hole:
    hole = nothing(120, 50)
    hole[10:22, 8:30] = True
    hole[60:64, 40:50] = True
    hole[100:117, 3:9] = True
    return hole


def nearly_all() -> Hole:
    hole = ~nothing(70, 70)
    hole[31:38, 40:47] = False
    return hole


def specks() -> Hole:
    hole = np.random.default_rng(5).random((50, 66)) < 0.99  # no patch is known as a whole
    hole[7, 7] = False
    return hole


def one_wide() -> Hole:
    hole = nothing(64, 1)
    hole[20:40] = True
    return hole


def one_high() -> Hole:
    hole = nothing(1, 33)
    hole[0, :5] = True
    hole[0, 30] = True
    return hole


def two_by_two() -> Hole:
    hole = nothing(2, 2)
    hole[1, 1] = True
    return hole


def half_and_odd() -> Hole:
    hole = nothing(33, 129)
    hole[:, 60:] = True
    return hole


HOLES: list[Callable[[], Hole]] = [
    one_pixel,
    touching_borders,
    portrait_with_several,
    nearly_all,
    specks,
    one_wide,
    one_high,
    two_by_two,
    half_and_odd,
]


@pytest.mark.parametrize("draw", HOLES)
def test_known_pixels_come_back_bit_for_bit_and_the_size_stays(key: str, draw: Callable[[], Hole]) -> None:
    hole = draw()
    image = photo(*hole.shape)
    result = loaded(key)(InpaintRequest(image, hole, seed=1)).image
    assert result.shape == image.shape
    assert result.dtype == np.uint8
    assert np.array_equal(result[~hole], image[~hole])
    done = inpaint(loaded(key), key, image, hole, seed=1)
    assert np.array_equal(done.image[~hole], image[~hole])
    assert (done.changed_outside, done.ring) == (0, 0)


@pytest.mark.parametrize("compositing", ["exact", "seamless"])
@pytest.mark.parametrize("draw", [portrait_with_several, specks, touching_borders])
def test_what_lies_under_the_hole_never_changes_anything(
    key: str, draw: Callable[[], Hole], compositing: Compositing
) -> None:
    hole = draw()
    image, other = photo(*hole.shape), photo(*hole.shape)
    other[hole] = 255 - other[hole]
    for framing in (Framing(0.5), WHOLE):
        answers = [
            inpaint(loaded(key), key, picture, hole, seed=2, framing=framing, compositing=compositing).image
            for picture in (image, other)
        ]
        assert np.array_equal(answers[0], answers[1])


def test_nothing_under_the_hole_is_read_when_the_picture_is_scaled_down(key: str) -> None:
    method = loaded(key)
    if any(knob.name == "largest_side" for knob in knobs(method.settings)):
        method = method.with_settings(largest_side=32)
    hole = portrait_with_several()
    image, other = photo(*hole.shape), photo(*hole.shape)
    other[hole] = 255 - other[hole]
    answers = [inpaint(method, key, picture, hole, framing=WHOLE).image for picture in (image, other)]
    assert np.array_equal(answers[0], answers[1])
    assert np.array_equal(answers[0][~hole], image[~hole])


def test_the_same_request_gives_the_same_answer_whatever_ran_before(key: str) -> None:
    hole = touching_borders()
    request = InpaintRequest(photo(97, 61), hole, seed=11)
    first = loaded(key)(request).image
    loaded(key)(InpaintRequest(photo(64, 64, seed=9), np.roll(np.eye(64, dtype=bool), 3, axis=1), seed=4))
    assert np.array_equal(loaded(key)(request).image, first)


def digest(key: str) -> str:
    done = inpaint(loaded(key), key, photo(97, 61), touching_borders(), seed=11, framing=WHOLE)
    return hashlib.sha256(done.image.tobytes()).hexdigest()


IN_ANOTHER_PROCESS = """
import sys
sys.path[:0] = [{root!r}, {here!r}]
from test_contract import digest
for key in reversed({keys!r}):
    print(key, digest(key))
"""


def test_another_process_with_another_order_and_one_thread_gives_the_same_answers() -> None:
    here = Path(__file__).resolve().parent
    script = IN_ANOTHER_PROCESS.format(root=str(here.parents[1]), here=str(here), keys=READY)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1"}
    said = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    there = dict(line.split() for line in said.stdout.splitlines())
    assert there == {key: digest(key) for key in READY}


class Listener:
    """Hears steps and previews, and stops the method at a chosen step."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.steps: list[tuple[int, int]] = []
        self.pictures: list[RgbImage] = []
        self.stop_at = stop_at

    def step(self, done: int, total: int) -> None:
        self.steps.append((done, total))
        if len(self.steps) == self.stop_at:
            raise Cancelled

    def preview(self, picture: Callable[[], RgbImage]) -> None:
        self.pictures.append(picture())


def test_steps_count_from_one_to_the_total(key: str) -> None:
    watch = Listener()
    loaded(key)(InpaintRequest(photo(97, 61), touching_borders()), watch)
    total = watch.steps[0][1]
    assert watch.steps == [(done, total) for done in range(1, total + 1)]


def test_progress_over_several_crops_rises_to_the_total_and_previews_show_the_whole_picture(key: str) -> None:
    watch = Listener()
    hole = nothing(90, 400)
    hole[40:50, 20:30] = True
    hole[40:50, 370:380] = True
    image = photo(90, 400)
    inpaint(loaded(key), key, image, hole, watch=watch)
    done = [step / total for step, total in watch.steps]
    assert done == sorted(done)
    assert 0 < done[0] <= done[-1] == 1.0
    assert all(shown.shape == image.shape and np.array_equal(shown[~hole], image[~hole]) for shown in watch.pictures)


def test_a_cancelled_method_stops_within_the_step(key: str) -> None:
    watch = Listener(stop_at=1)
    with pytest.raises(Cancelled):
        inpaint(loaded(key), key, photo(97, 61), touching_borders(), watch=watch)
    assert len(watch.steps) == 1


def test_a_small_hole_in_a_large_photograph_changes_nothing_else(key: str) -> None:
    image = np.ascontiguousarray(np.broadcast_to(photo(300, 400)[None, :, None], (10, 300, 10, 400, 3)))
    image = image.reshape(3000, 4000, 3)
    hole = nothing(3000, 4000)
    hole[1500:1524, 2990:3010] = True
    done = inpaint(loaded(key), key, image, hole)
    assert done.changed_outside == 0
    assert np.array_equal(done.image[~hole], image[~hole])


def test_settings_survive_the_run_record(key: str) -> None:
    method = loaded(key)
    hole = two_by_two()
    record = inpaint(method, key, photo(2, 2), hole).record
    assert change(method.settings, record.settings) == method.settings
    again = method.with_settings(**record.settings)
    assert as_json(again.settings) == dict(record.settings)
    assert record.method == key


def wrong_values(method: Inpainter) -> Iterator[dict[str, Any]]:
    yield {"no_such_setting": 1}
    for knob in knobs(method.settings):
        if knob.kind in {"whole", "number"}:
            yield {knob.name: knob.highest + 1}
            yield {knob.name: float("nan")}
        yield {knob.name: object()}


def test_every_setting_refuses_what_it_cannot_be_and_says_what_is_allowed(key: str) -> None:
    method = loaded(key)
    before = as_json(method.settings)
    for changes in wrong_values(method):
        with pytest.raises(SettingsError, match=next(iter(changes))):
            method.with_settings(**changes)
    assert as_json(method.settings) == before
    assert all(knob.accepts(before[knob.name]) and knob.meaning.endswith(".") for knob in knobs(method.settings))
