"""Click-to-select: the clicked thing and nothing else, corrected by further clicks, with and without SAM's weights."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from transformers import Sam2Config, Sam2HieraDetConfig, Sam2ImageProcessor, Sam2Model, Sam2VisionConfig

from asuka_infer.request import Hole, RgbImage
from demo.selection import MOST_CLICKS, Click, ClickSelect, SelectionError, select_by_colour


def disc(size: tuple[int, int], centre: tuple[float, float], radius: float) -> Hole:
    y, x = np.mgrid[0 : size[0], 0 : size[1]]
    return np.hypot(x - centre[0], y - centre[1]) <= radius


def scene(size: tuple[int, int] = (300, 420)) -> tuple[RgbImage, Hole, Hole]:
    """Two orange discs on a noisy green ground."""
    random = np.random.default_rng(3)
    left, right = disc(size, (110, 140), 60), disc(size, (310, 160), 50)
    picture = np.full((*size, 3), (40, 110, 60), np.float64)
    picture[left | right] = (230, 140, 40)
    return np.clip(picture + random.normal(0, 5, picture.shape), 0, 255).astype(np.uint8), left, right


def overlap(selected: Hole, expected: Hole) -> float:
    return float((selected & expected).sum() / (selected | expected).sum())


def test_a_click_selects_the_thing_under_it_and_not_its_twin() -> None:
    picture, left, right = scene()
    assert overlap(select_by_colour(picture, [Click(110, 140)]), left) > 0.97
    assert overlap(select_by_colour(picture, [Click(310, 160)]), right) > 0.97


def test_two_clicks_select_two_things() -> None:
    picture, left, right = scene()
    assert overlap(select_by_colour(picture, [Click(110, 140), Click(310, 160)]), left | right) > 0.97


def test_a_click_outside_takes_that_place_away() -> None:
    picture, left, _right = scene()
    selected = select_by_colour(picture, [Click(80, 140), Click(150, 140, inside=False)])
    assert selected[140, 80]
    assert not selected[140, 150]
    assert overlap(selected, left) < 0.99


def test_a_large_picture_is_selected_at_its_own_size() -> None:
    picture, left, _right = scene()
    large = np.asarray(ndimage.zoom(picture, (4, 4, 1), order=0))
    expected = np.asarray(ndimage.zoom(left, (4, 4), order=0))
    selected = select_by_colour(large, [Click(440, 560)])
    assert selected.shape == (1200, 1680)
    assert overlap(selected, expected) > 0.95


def test_the_same_clicks_give_the_same_outline() -> None:
    picture, *_ = scene()
    clicks = [Click(110, 140), Click(200, 100, inside=False)]
    assert np.array_equal(select_by_colour(picture, clicks), select_by_colour(picture, clicks))


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (40, 40)])
def test_a_picture_without_any_edge_is_selected_whole(size: tuple[int, int]) -> None:
    plain = np.full((*size, 3), 90, np.uint8)
    assert select_by_colour(plain, [Click(0, 0)]).all()


@pytest.mark.parametrize(
    ("clicks", "words"),
    [
        ([], "0 points"),
        ([Click(5, 5)] * (MOST_CLICKS + 1), "65 points"),
        ([Click(5, 5, inside=False)], "click on it first"),
        ([Click(421, 5)], "beside the 420x300 picture"),
        ([Click(float("nan"), 5)], "beside"),
    ],
)
def test_clicks_that_select_nothing_are_explained(clicks: Sequence[Click], words: str) -> None:
    with pytest.raises(SelectionError, match=words):
        ClickSelect("nobody/has-this")(scene()[0], clicks)


def test_without_weights_colour_decides_and_nothing_is_fetched() -> None:
    select = ClickSelect("nobody/has-this")
    assert select.folder is None
    picture, left, _right = scene()
    selection = select(picture, [Click(110, 140)])
    assert selection.by == "colour"
    assert overlap(selection.hole, left) > 0.97


@pytest.fixture(scope="module")
def tiny_sam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SAM 2.1 of the right shape with random weights: what it outlines means nothing."""
    torch.manual_seed(0)
    hiera = Sam2HieraDetConfig(
        hidden_size=8, image_size=[128, 128], blocks_per_stage=[1, 1, 2, 1], embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 1, 1, 1], window_size_per_stage=[4, 4, 4, 2], global_attention_blocks=[3],
        window_positional_embedding_background_size=[2, 2],
    )  # fmt: skip
    vision = Sam2VisionConfig(
        backbone_config=hiera.to_dict(), backbone_channel_list=[64, 32, 16, 8], fpn_hidden_size=16,
        backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
    )  # fmt: skip
    config = Sam2Config(
        vision_config=vision.to_dict(),
        prompt_encoder_config={"hidden_size": 16, "image_size": 128, "patch_size": 16, "mask_input_channels": 8},
        mask_decoder_config={
            "hidden_size": 16, "mlp_dim": 16, "num_attention_heads": 2, "iou_head_hidden_dim": 16,
        },
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("sam")
    Sam2Model(config).save_pretrained(folder)
    Sam2ImageProcessor(size={"height": 128, "width": 128}).save_pretrained(folder)
    return folder


def test_with_weights_sam_outlines_and_looks_at_each_picture_once(
    tiny_sam: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    look = Sam2Model.get_image_embeddings

    def counted(model: Sam2Model, pixel_values: torch.Tensor) -> list[torch.Tensor]:
        looked.append(1)
        return look(model, pixel_values)

    monkeypatch.setattr(Sam2Model, "get_image_embeddings", counted)
    select = ClickSelect(str(tiny_sam))
    picture, *_ = scene()
    first = select(picture, [Click(110, 140)])
    assert (first.by, first.hole.shape, first.hole.dtype) == ("sam", (300, 420), np.bool_)
    select(picture, [Click(110, 140), Click(310, 160, inside=False)])
    assert np.array_equal(select(picture, [Click(110, 140)]).hole, first.hole)
    assert len(looked) == 1
    for shade in (1, 2):
        select(np.full((64, 64, 3), shade, np.uint8), [Click(3, 3)])
    select(picture, [Click(110, 140)])
    assert len(looked) == 4  # the first picture had to make room


def test_weights_below_the_weights_folder_are_found_by_their_hub_id(
    tiny_sam: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASUKA_WEIGHTS", str(tmp_path))
    select = ClickSelect("facebook/sam2.1-hiera-tiny")
    (tmp_path / "sam2.1-hiera-tiny").symlink_to(tiny_sam)
    assert select.folder == tmp_path / "sam2.1-hiera-tiny"
