"""The paper's SD-prompt at small scale: tokens are all that learns, and they become a file that fits one UNet alone."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from asuka_infer.asuka.embedded import sd_mini, sd_mini_prompt
from asuka_infer.asuka.embedded_files import PROMPT, prompt_of, told_in, unet_of
from asuka_infer.asuka.mini import MiniModel, load_mini, save_mini
from asuka_infer.asuka.prompts import save_prompt
from asuka_infer.images import read_image
from asuka_infer.inpaint import inpaint
from tests.training.test_stages import moment
from training.backbone import DiffusionObjective
from training.measure import Case, MeasureError, fill_all
from training.presets import MODELS, Bench
from training.prompt import PRESETS, PromptObjective, PromptStage, train_prompt, write_prompt


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    save_mini(MiniModel(MODELS["tiny"]), tmp_path / "weights", notes={"stages": {}})
    return tmp_path / "weights"


def test_tokens_learn_from_the_backbones_own_loss_with_every_condition_dropped(bench: Bench) -> None:
    torch.manual_seed(0)
    model = MiniModel(MODELS["tiny"])
    batch = PromptStage(PRESETS["tiny"], bench).batch(moment())
    everyone = torch.ones(len(batch["pictures"]), dtype=torch.bool)
    with torch.no_grad():
        ours = PromptObjective(model, outside=0.1)(**batch)
        theirs = DiffusionObjective(model, outside=0.1)(**batch, dropped=everyone, misaligned=~everyone)

    assert float(ours["loss"]) == pytest.approx(float(theirs["loss"]), rel=1e-5)


def test_learned_tokens_start_as_the_null_condition_and_fill_as_a_family_member(
    bench: Bench, exported: Path, tmp_path: Path
) -> None:
    loaded = load_mini(exported)
    null = loaded.model.null_condition.data.clone()
    save_prompt(null, tmp_path / PROMPT, learned_for=unet_of(loaded.files))
    image, hole = bench.supply.shown(1, 64)
    pixels = (image[0].permute(1, 2, 0) * 255).byte().numpy()
    missing = hole[0, 0].numpy()
    silent = inpaint(sd_mini(loaded), "sd-mini", pixels, missing, seed=1).image
    same = inpaint(sd_mini_prompt(loaded, tmp_path / PROMPT), "sd-mini-prompt", pixels, missing, seed=1).image
    assert (silent == same).all()

    assert train_prompt(exported, bench, tmp_path / "run", "tiny")
    write_prompt(tmp_path / "run", exported, exported / PROMPT)
    learnt = load_file(exported / PROMPT)["tokens"]
    assert learnt.shape == null.shape[1:]
    assert not torch.equal(learnt, null[0].half())
    assert told_in(exported / PROMPT)["learned_for"] == unet_of(loaded.files)
    method = sd_mini_prompt(loaded, exported / PROMPT)
    assert PROMPT in method.weights


def test_tokens_of_another_unet_are_not_used(exported: Path, tmp_path: Path) -> None:
    loaded = load_mini(exported)
    save_prompt(loaded.model.null_condition.data, exported / PROMPT, learned_for=unet_of(loaded.files))
    assert prompt_of(exported) == exported / PROMPT

    save_prompt(loaded.model.null_condition.data, exported / PROMPT, learned_for="another")
    assert prompt_of(exported) is None
    assert prompt_of(tmp_path / "nothing") is None


def test_the_table_measures_tokens_on_the_weights_it_was_given_and_on_no_others(
    bench: Bench, exported: Path, tmp_path: Path
) -> None:
    loaded = load_mini(exported)
    image, hole = bench.supply.shown(1, 64)
    case = Case("one", 0, (image[0].permute(1, 2, 0) * 255).byte().numpy(), hole[0, 0].numpy())
    with pytest.raises(MeasureError, match="has no tokens for its UNet"):
        fill_all("sd-mini-prompt", [case], tmp_path, weights=exported)

    save_prompt(loaded.model.null_condition.data, exported / PROMPT, learned_for=unet_of(loaded.files))
    (silent,) = fill_all("sd-mini", [case], tmp_path, weights=exported)
    (prompted,) = fill_all("sd-mini-prompt", [case], tmp_path, weights=exported)
    assert (read_image(prompted).pixels == read_image(silent).pixels).all()
