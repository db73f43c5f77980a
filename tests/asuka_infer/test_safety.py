"""The safety checker: tiny and random, but diffusers' own class, and really asked."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPConfig

from asuka_infer.request import Hole, RgbImage
from asuka_infer.safety import SafetyCheckerError, load_safety_checker, safety_check_here

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # diffusers and its neighbours warn about each other while they load
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

SIDE = 32


def save_checker(folder: Path, *, threshold: float) -> Path:
    """One that finds every concept whose cosine with the picture exceeds `threshold`: 2 never, -2 always."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**sizes, "image_size": SIDE, "patch_size": 8}
    checker = StableDiffusionSafetyChecker(CLIPConfig(text_config=sizes, vision_config=vision, projection_dim=8))
    torch.nn.init.normal_(checker.concept_embeds)
    for name in ("concept_embeds_weights", "special_care_embeds_weights"):
        torch.nn.init.constant_(checker.get_parameter(name), threshold)
    checker.save_pretrained(folder)
    return folder


def picture() -> tuple[RgbImage, Hole]:
    hole = np.zeros((60, 200), np.bool_)
    hole[20:30, 180:190] = True
    return np.random.default_rng(0).integers(0, 256, (60, 200, 3), dtype=np.uint8), hole


@pytest.mark.parametrize(("threshold", "shown"), [(2.0, True), (-2.0, False)])
def test_its_word_counts(tmp_path: Path, threshold: float, shown: bool) -> None:  # noqa: FBT001 - a case, not a flag
    check = load_safety_checker(str(save_checker(tmp_path / "checker", threshold=threshold)))
    assert check(*picture()) is shown


def test_a_diffusers_folder_may_hold_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checker(tmp_path / "safety_checker", threshold=-2.0)
    monkeypatch.setenv("ASUKA_SAFETY_CHECKER", str(tmp_path))
    check = safety_check_here()
    assert check is not None
    assert not check(*picture())


def test_the_surroundings_of_the_hole_are_looked_at_wherever_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The middle square of a wide picture does not hold its right edge; the view around the hole does."""
    seen: list[torch.Tensor] = []

    def look(_self: object, clip_input: torch.Tensor, images: torch.Tensor) -> tuple[torch.Tensor, list[bool]]:
        seen.append(clip_input)
        return images, [False] * len(images)

    monkeypatch.setattr(StableDiffusionSafetyChecker, "forward", look)
    check = load_safety_checker(str(save_checker(tmp_path / "looking", threshold=2.0)))
    image, hole = picture()
    other = image.copy()
    other[hole] = 255 - other[hole]
    check(image, hole)
    check(other, hole)
    assert [len(views) for views in seen] == [2, 2]
    assert torch.equal(seen[0][0], seen[1][0])
    assert not torch.equal(seen[0][1], seen[1][1])


def test_without_a_name_nothing_is_checked_and_with_a_wrong_one_nothing_gets_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ASUKA_SAFETY_CHECKER", raising=False)
    assert safety_check_here() is None
    monkeypatch.setenv("ASUKA_SAFETY_CHECKER", str(tmp_path / "none"))
    check = safety_check_here()
    assert check is not None
    with pytest.raises(SafetyCheckerError, match="no safety checker with safetensors weights is there"):
        check(*picture())
