"""The methods that run on published weights, with tiny random ones in their place, through the whole of `inpaint`."""

import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asuka_infer.catalog import METHODS, find_method
from asuka_infer.inpaint import Framing, inpaint
from asuka_infer.inpainter import Cancelled, Inpainter
from asuka_infer.request import Hole, InpaintRequest, RgbImage
from asuka_infer.settings import SettingsError, as_json, knobs
from asuka_infer.weighted import Weighted

DIFFUSION = [
    "asuka-sd15", "asuka-flux", "sd15", "sd15-text", "sd15-prompt", "sd15-repaint", "sd15-asymmetric", "sd2", "sdxl",
    "flux-fill",
]  # fmt: skip
KEYS = [*DIFFUSION, "mae"]
FEW_STEPS: dict[str, Any] = {"steps": 3, "largest_side": 64}

pytestmark = pytest.mark.usefixtures("tiny_folder")


@cache
def loaded(key: str) -> Inpainter:
    method = find_method(key).load()
    if key == "mae":
        return method
    more = {"jump_length": 2, "repeats": 2} if key == "sd15-repaint" else {}
    return method.with_settings(**FEW_STEPS, **more)


def photo(height: int = 70, width: int = 90) -> RgbImage:
    return np.random.default_rng(2).integers(0, 256, (height, width, 3), dtype=np.uint8)


def hole_in(height: int = 70, width: int = 90) -> Hole:
    hole = np.zeros((height, width), np.bool_)
    hole[height // 4 : height // 2, width // 3 : width // 2] = True
    return hole


class Listener:
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


@pytest.mark.parametrize("key", KEYS)
def test_it_is_ready_keeps_known_pixels_and_repeats_itself(key: str) -> None:
    assert METHODS[key].readiness().ready
    image, hole = photo(), hole_in()
    watch = Listener()
    done = inpaint(loaded(key), key, image, hole, seed=4, watch=watch)
    assert done.changed_outside == 0
    assert np.array_equal(done.image[~hole], image[~hole])
    assert np.array_equal(inpaint(loaded(key), key, image, hole, seed=4).image, done.image)
    assert watch.steps == [(step, watch.steps[0][1]) for step in range(1, watch.steps[0][1] + 1)]
    assert all(shown.shape == image.shape and np.array_equal(shown[~hole], image[~hole]) for shown in watch.pictures)
    assert ("prior" in done.previews) == key.startswith("asuka")


@pytest.mark.parametrize("key", [key for key in KEYS if key.startswith("asuka")])
def test_asuka_shows_its_prior_before_any_step_and_under_another_picture(key: str) -> None:
    asked = InpaintRequest(photo(), hole_in(), 4)
    method = loaded(key)
    assert isinstance(method, Weighted)
    assert np.array_equal(method.prior_preview(asked)["prior"], method(asked).previews["prior"])
    blue = method.with_settings(prior="colour", prior_colour="#0000ff")
    seen = blue.prior_preview(asked)["prior"]
    assert not np.array_equal(seen, method.prior_preview(asked)["prior"])
    assert np.array_equal(seen, blue(asked).previews["prior"])


@pytest.mark.parametrize("key", DIFFUSION)
def test_another_seed_gives_another_picture_and_there_is_something_to_watch(key: str) -> None:
    watch = Listener()
    first = inpaint(loaded(key), key, photo(), hole_in(), seed=4, watch=watch).image
    assert not np.array_equal(inpaint(loaded(key), key, photo(), hole_in(), seed=5).image, first)
    assert watch.pictures


@pytest.mark.parametrize("key", KEYS)
def test_what_lies_under_the_hole_never_matters(key: str) -> None:
    image, hole = photo(), hole_in()
    other = np.where(hole[..., None], 255 - image, image)
    method = loaded(key)
    answers = [inpaint(method, key, picture, hole, framing=Framing(None)).image for picture in (image, other)]
    assert np.array_equal(answers[0], answers[1])


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("size", [(1, 33), (130, 31)])
def test_odd_sizes_asked_directly_come_back_at_their_size(key: str, size: tuple[int, int]) -> None:
    image, hole = photo(*size), np.zeros(size, np.bool_)
    hole[:, 5:9] = True
    result = loaded(key)(InpaintRequest(image, hole, 1)).image
    assert result.shape == image.shape
    assert np.array_equal(result[~hole], image[~hole])


@pytest.mark.parametrize("key", DIFFUSION)
def test_it_stops_at_the_step_that_is_told_to_stop_and_works_afterwards(key: str) -> None:
    before = inpaint(loaded(key), key, photo(), hole_in(), seed=1).image
    watch = Listener(stop_at=1)
    with pytest.raises(Cancelled):
        inpaint(loaded(key), key, photo(), hole_in(), watch=watch)
    assert len(watch.steps) == 1
    assert np.array_equal(inpaint(loaded(key), key, photo(), hole_in(), seed=1).image, before)


@pytest.mark.parametrize("key", KEYS)
def test_the_record_names_every_weight_file_by_the_hash_of_its_bytes(key: str) -> None:
    record = inpaint(loaded(key), key, photo(), hole_in()).record
    root = Path(os.environ["ASUKA_WEIGHTS"])
    on_disk = {hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*") if path.is_file()}
    assert record.weights
    assert set(record.weights.values()) <= on_disk
    assert loaded(key).with_settings(**record.settings).settings == loaded(key).settings


@pytest.mark.parametrize("key", KEYS)
def test_settings_refuse_what_they_cannot_be(key: str) -> None:
    for knob in knobs(loaded(key).settings):
        with pytest.raises(SettingsError, match=knob.name):
            loaded(key).with_settings(**{knob.name: object()})
    assert as_json(loaded(key).settings) == as_json(find_method(key).load().settings) | {
        name: value for name, value in as_json(loaded(key).settings).items() if name not in {"prompt", "solver"}
    }


def test_rows_that_differ_in_their_text_alone_hold_the_same_weights() -> None:
    plain: Any = loaded("sd15")
    told: Any = loaded("sd15-text")
    assert plain.model.unet is told.model.unet


def test_an_empty_text_without_guidance_is_the_plain_row() -> None:
    silent = loaded("sd15-text").with_settings(prompt="", guidance=1.0)
    plain = inpaint(loaded("sd15"), "sd15", photo(), hole_in()).image
    assert np.array_equal(inpaint(silent, "sd15-text", photo(), hole_in()).image, plain)
    assert not np.array_equal(inpaint(loaded("sd15-text"), "sd15-text", photo(), hole_in()).image, plain)


def test_half_precision_files_are_read_where_a_folder_has_them(tiny_folder: Path) -> None:
    assert not list((tiny_folder / "sd2" / "unet").glob("diffusion_pytorch_model.safetensors"))
    method: Any = loaded("sd2")
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in method.weights
