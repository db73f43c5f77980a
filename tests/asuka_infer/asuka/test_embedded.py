"""The embedded family as methods: what every `Inpainter` promises, and batches that equal single runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from asuka_infer.asuka.embedded import (
    AsukaMiniSettings,
    Embedded,
    MaeMiniSettings,
    RepaintMiniSettings,
    SdMiniSettings,
    asuka_mini,
    load_embedded,
    mae_mini,
    sample,
    sd_mini,
    sd_mini_repaint,
)
from asuka_infer.asuka.mini import (
    LoadedMini,
    MiniModel,
    load_mini,
    save_mini,
)
from asuka_infer.asuka.scene import Scene
from asuka_infer.asuka.texture import continue_texture
from asuka_infer.inpaint import inpaint
from asuka_infer.inpainter import SILENT, Cancelled, Inpainter
from asuka_infer.prior_choice import prior_text
from asuka_infer.request import InpaintRequest
from asuka_infer.settings import SettingsError
from tests.asuka_infer.asuka.tiny import TINY

FAMILY: dict[str, Callable[[LoadedMini], Embedded[Any]]] = {
    "asuka-mini": asuka_mini, "sd-mini": sd_mini, "sd-mini-repaint": sd_mini_repaint, "mae-mini": mae_mini,
}  # fmt: skip
EVERYONE = pytest.mark.parametrize("key", FAMILY)


@pytest.fixture(scope="module")
def loaded() -> LoadedMini:
    torch.manual_seed(3)
    model = MiniModel(TINY).eval().requires_grad_(requires_grad=False)
    with torch.no_grad():  # a fresh decoder says nearly nothing; make it speak
        torch.nn.init.normal_(model.get_parameter("vae.decoder.conv_out.3.weight"), std=0.5)
    return LoadedMini(model)


def method(loaded: LoadedMini, key: str) -> Embedded[Any]:
    chosen = FAMILY[key](loaded)
    return chosen if key == "mae-mini" else chosen.with_settings(steps=3)


def picture(height: int = 64, width: int = 64) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    hole = np.zeros((height, width), np.bool_)
    hole[height // 4 : height // 2, width // 3 : width // 2 + 1] = True
    return image, hole


@EVERYONE
def test_it_is_an_inpainter_and_known_pixels_come_back_bit_for_bit(loaded: LoadedMini, key: str) -> None:
    image, hole = picture()
    chosen = method(loaded, key)
    assert isinstance(chosen, Inpainter)
    result = chosen(InpaintRequest(image, hole, 5))
    assert np.array_equal(result.image[~hole], image[~hole])
    assert not np.array_equal(result.image[hole], np.zeros_like(result.image[hole]))


@EVERYONE
@pytest.mark.parametrize("size", [(1, 2), (97, 61), (33, 400), (64, 64), (300, 200)])
def test_any_size_is_filled(loaded: LoadedMini, key: str, size: tuple[int, int]) -> None:
    image, hole = picture(*size)
    if not hole.any():
        hole[0, 0] = True
    result = method(loaded, key)(InpaintRequest(image, hole, 5))
    assert result.image.shape == image.shape
    assert np.array_equal(result.image[~hole], image[~hole])


@EVERYONE
def test_scattered_known_pixels_are_enough(loaded: LoadedMini, key: str) -> None:
    image, hole = picture(300, 200)
    hole[:] = True
    hole[::41, ::37] = False
    assert method(loaded, key)(InpaintRequest(image, hole, 5)).image.shape == image.shape


@EVERYONE
@pytest.mark.parametrize("size", [(64, 64), (150, 90)])
def test_what_lies_under_the_hole_never_matters(loaded: LoadedMini, key: str, size: tuple[int, int]) -> None:
    """Through the whole path, resizing included."""
    image, hole = picture(*size)
    other = image.copy()
    other[hole] = 255 - other[hole]
    first, second = (inpaint(method(loaded, key), key, each, hole, seed=2) for each in (image, other))
    assert np.array_equal(first.image[hole], second.image[hole])


@EVERYONE
def test_the_same_request_gives_the_same_answer_and_another_seed_another(loaded: LoadedMini, key: str) -> None:
    image, hole = picture()
    chosen = method(loaded, key)
    first, again, other = (chosen(InpaintRequest(image, hole, seed)).image for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert np.array_equal(first, other) == (key == "mae-mini")


@EVERYONE
def test_four_holes_together_equal_four_single_runs(loaded: LoadedMini, key: str) -> None:
    image, hole = torch.rand(4, 3, 64, 64), torch.zeros(4, 1, 64, 64, dtype=torch.bool)
    for row in range(4):
        hole[row, :, 5 + row : 30 + 8 * row, 9 : 20 + 11 * row] = True
    image = torch.where(hole, 0.5, image)
    chosen = method(loaded, key)

    class Silent:
        def step(self, done: int, total: int) -> None:
            del done, total

        def preview(self, picture: object) -> None:
            del picture

    with torch.inference_mode():
        together = chosen.fill(loaded.model, Scene(image, hole), [3, 4, 5, 6], chosen.settings, Silent()).image
        for row in range(4):
            one = Scene(image[row : row + 1], hole[row : row + 1])
            alone = chosen.fill(loaded.model, one, [3 + row], chosen.settings, Silent()).image
            assert torch.allclose(together[row : row + 1], alone, atol=1e-5)


def test_known_texture_goes_on_along_what_was_drawn_and_0_leaves_the_drawing(loaded: LoadedMini) -> None:
    image, hole = torch.rand(1, 3, 64, 64), torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    hole[..., 20:36, 24:40] = True
    scene = Scene(torch.where(hole, 0.5, image), hole)

    def filled(texture: float) -> torch.Tensor:
        settings = AsukaMiniSettings(texture=texture)
        with torch.inference_mode():
            made = asuka_mini(loaded).fill(loaded.model, scene, [3], settings, SILENT).image
        return torch.where(hole, made, scene.image)

    drawn = filled(0.0)
    assert torch.equal(filled(0.6), continue_texture(scene.image, hole, drawn, 0.6))
    assert not torch.equal(filled(0.6), drawn)


@pytest.mark.parametrize("key", ["asuka-mini", "sd-mini", "sd-mini-repaint"])
def test_every_step_is_told_and_previews_have_the_pictures_size(loaded: LoadedMini, key: str) -> None:
    image, hole = picture(97, 61)
    told: list[tuple[int, int]] = []
    shapes: set[tuple[int, ...]] = set()

    class Watching:
        def step(self, done: int, total: int) -> None:
            told.append((done, total))

        def preview(self, picture: Callable[[], NDArray[np.uint8]]) -> None:
            shapes.add(picture().shape)

    method(loaded, key)(InpaintRequest(image, hole, 5), Watching())
    total = told[0][1]
    assert told == [(done, total) for done in range(1, total + 1)]
    assert shapes == {image.shape}


@EVERYONE
def test_a_watch_that_cancels_stops_the_method_at_once(loaded: LoadedMini, key: str) -> None:
    steps: list[int] = []

    class Stopping:
        def step(self, done: int, total: int) -> None:
            del total
            steps.append(done)
            raise Cancelled

        def preview(self, picture: object) -> None:
            del picture

    with pytest.raises(Cancelled):
        method(loaded, key)(InpaintRequest(*picture(), 5), Stopping())
    assert steps == [1]


def test_asuka_shows_the_prior_it_was_steered_by_without_the_padding(loaded: LoadedMini) -> None:
    image, hole = picture(64, 32)
    previews = method(loaded, "asuka-mini")(InpaintRequest(image, hole, 5)).previews
    assert previews["prior"].shape == (32, 16, 3)
    known = ~hole.reshape(32, 2, 16, 2).any(axis=(1, 3))
    shrunk = image.reshape(32, 2, 16, 2, 3).mean(axis=(1, 3))
    assert np.abs(previews["prior"][known].astype(float) - shrunk[known]).max() <= 1


def test_the_prior_steers_asuka_and_blank_paper_steers_it_elsewhere(loaded: LoadedMini) -> None:
    image, hole = picture()
    request = InpaintRequest(image, hole, 5)
    chosen = method(loaded, "asuka-mini")
    blank = chosen.with_settings(prior="blank")
    assert not np.array_equal(chosen(request).image, blank(request).image)


def test_the_prior_can_be_looked_at_before_anything_is_filled_and_shows_what_it_is_given(loaded: LoadedMini) -> None:
    request = InpaintRequest(*picture(64, 32), 5)
    asuka = method(loaded, "asuka-mini")
    assert np.array_equal(asuka.prior_preview(request)["prior"], asuka(request).previews["prior"])
    red = np.full((32, 32, 3), (220, 20, 20), np.uint8)
    shown = asuka.with_settings(prior="picture", prior_picture=prior_text(red))
    coloured = asuka.with_settings(prior="colour", prior_colour="#dc1414")
    for other in (shown, coloured):
        seen = other.prior_preview(request)["prior"]
        assert np.abs(seen.astype(int) - (220, 20, 20)).max() <= 1  # all of it is seen, and what is seen is kept
    assert np.array_equal(shown(request).image, coloured(request).image)
    assert not np.array_equal(shown(request).image, asuka(request).image)
    assert method(loaded, "sd-mini").prior_preview(request) == {}


def test_guidance_goes_beyond_the_prior_away_from_no_condition(loaded: LoadedMini) -> None:
    """One Euler-like step of flow: the guided answer is linear in the two predictions."""
    image, hole = torch.rand(1, 3, 64, 64), torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    hole[..., 10:30, 10:30] = True
    scene = Scene(torch.where(hole, 0.5, image), hole)
    with torch.inference_mode():
        condition = loaded.model.condition(image, hole)
        without = sample(loaded.model, scene, loaded.model.null(1), [1], steps=1)
        plain, guided = (sample(loaded.model, scene, condition, [1], steps=1, guidance=g) for g in (1.0, 3.0))
    assert torch.allclose(guided, without + 3 * (plain - without), atol=1e-4)


@EVERYONE
def test_in_bfloat16_it_says_nearly_the_same(key: str, tmp_path: Path, loaded: LoadedMini) -> None:
    save_mini(loaded.model, tmp_path)
    image, hole = picture()
    request = InpaintRequest(image, hole, 5)
    exact = method(load_mini(tmp_path), key)(request).image.astype(float)
    rough = method(load_mini(tmp_path, dtype=torch.bfloat16), key)(request).image.astype(float)
    assert np.abs(exact - rough)[hole].mean() < 8


def test_settings_are_checked_and_defaults_are_valid(loaded: LoadedMini) -> None:
    for settings in (AsukaMiniSettings, SdMiniSettings, RepaintMiniSettings, MaeMiniSettings):
        settings()
    with pytest.raises(SettingsError, match="stepps"):
        asuka_mini(loaded).with_settings(stepps=3)
    with pytest.raises(SettingsError, match="steps = 0"):
        asuka_mini(loaded).with_settings(steps=0)


def test_weights_are_loaded_once_and_named_in_the_record(tmp_path: Path) -> None:
    files = save_mini(MiniModel(TINY), tmp_path)
    first, second = asuka_mini(load_embedded(tmp_path)), sd_mini(load_embedded(tmp_path))
    assert first.loaded is second.loaded
    assert dict(first.weights) == files
    record = inpaint(first.with_settings(steps=1), "asuka-mini", *picture()).record
    assert dict(record.weights) == files
