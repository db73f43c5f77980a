"""The embedded model: built from one config, saved in small files, and read back whole or not at all."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from asuka_infer.asuka.mini import (
    MANIFEST,
    DiffusersSizes,
    MiniConfig,
    MiniModel,
    MiniSizeError,
    UnetSizes,
    load_mini,
    save_mini,
)
from asuka_infer.weights import WeightsError
from tests.asuka_infer.asuka.tiny import TINY

FORMS = pytest.mark.parametrize(
    "config",
    [
        TINY,
        replace(TINY, separate_plain_decoder=True, objective="v_prediction", strength=1.0),
        replace(TINY, vae=DiffusersSizes(widths=(16, 16, 32, 32), norm_groups=8), separate_plain_decoder=True),
    ],
    ids=["unshuffle", "unshuffle-plain", "diffusers-plain"],
)


def scene(side: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    image, hole = torch.rand(1, 3, side, side), torch.zeros(1, 1, side, side, dtype=torch.bool)
    hole[..., 20:40, 17:50] = True
    return image, hole


@FORMS
def test_a_saved_model_says_the_same_as_before(config: MiniConfig, tmp_path: Path) -> None:
    model = MiniModel(config).eval()
    for parameter in model.parameters():
        parameter.data = parameter.data.half().float()  # what half precision keeps
    files = save_mini(model, tmp_path, notes={"seed": 1})
    loaded = load_mini(tmp_path)
    assert loaded.model.config == config
    assert loaded.files == files
    assert loaded.notes == {"seed": 1}
    image, hole = scene()
    with torch.no_grad():
        for each in (model, loaded.model):
            each.eval()
        latents = model.encode_known(image, hole)
        for before, after in (
            (model.condition(image, hole), loaded.model.condition(image, hole)),
            (latents, loaded.model.encode_known(image, hole)),
            (model.decode_plain(latents), loaded.model.decode_plain(latents)),
            (model.decode_known(latents, image, hole), loaded.model.decode_known(latents, image, hole)),
            (model.null(1), loaded.model.null(1)),
        ):
            assert torch.allclose(before, after, atol=1e-5)


@FORMS
def test_a_config_survives_json(config: MiniConfig) -> None:
    assert MiniConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_an_unknown_or_missing_size_is_refused_by_name() -> None:
    values: Any = json.loads(json.dumps(TINY.to_json()))
    with pytest.raises(WeightsError, match="flavour"):
        MiniConfig.from_json({**values, "flavour": 3})
    del values["unet"]["heads"]
    with pytest.raises(WeightsError, match="UnetSizes has missing or unknown sizes: heads"):
        MiniConfig.from_json(values)


def test_sizes_that_do_not_halve_evenly_are_refused() -> None:
    with pytest.raises(MiniSizeError, match="multiple of 32"):
        MiniConfig(pixels=240)
    with pytest.raises(MiniSizeError, match="one word on attention"):
        MiniConfig(unet=UnetSizes(widths=(32, 64)))


def test_the_default_fits_what_may_be_committed(tmp_path: Path) -> None:
    """At most 40 MB altogether, no file above 9 MiB."""
    save_mini(MiniModel(MiniConfig()), tmp_path)
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert sum(sizes) <= 40_000_000
    assert max(sizes) <= 9 * 2**20


def test_a_changed_or_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    save_mini(MiniModel(TINY), tmp_path)
    file = tmp_path / "mae.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(WeightsError, match=r"mae\.safetensors is missing or not the file"):
        load_mini(tmp_path)
    file.unlink()
    with pytest.raises(WeightsError, match=r"mae\.safetensors is missing or not the file"):
        load_mini(tmp_path)


def test_another_schema_is_refused(tmp_path: Path) -> None:
    save_mini(MiniModel(TINY), tmp_path)
    manifest = tmp_path / MANIFEST
    manifest.write_text(manifest.read_text().replace('"schema": 1', '"schema": 2'))
    with pytest.raises(WeightsError, match="schema 2"):
        load_mini(tmp_path)


def test_no_weights_at_all_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"mini\.json cannot be read"):
        load_mini(tmp_path / "nowhere")


def test_weights_too_large_for_half_precision_are_not_saved(tmp_path: Path) -> None:
    model = MiniModel(TINY)
    torch.nn.init.constant_(model.null_condition, 1e6)
    with pytest.raises(WeightsError, match="too large"):
        save_mini(model, tmp_path)


def test_the_hole_on_the_latent_grid_is_every_cell_it_touches() -> None:
    model = MiniModel(TINY)
    for at in range(8):
        hole = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
        hole[..., 30 + at : 32 + at] = True
        columns = {int(column) for column in model.cells(hole)[0, 0].any(0).nonzero().flatten()}
        assert columns == {(30 + at) // 8, (31 + at) // 8}


def test_the_unet_sees_noisy_latents_then_the_hole_then_the_known_latents() -> None:
    model: Any = MiniModel(TINY)
    image, hole = scene()
    seen: list[torch.Tensor] = []
    forward = model.unet.forward

    def listening(sample: torch.Tensor, *rest: Any, **named: Any) -> Any:
        seen.append(sample)
        return forward(sample, *rest, **named)

    model.unet.forward = listening
    latents, cells, known = torch.randn(1, 4, 8, 8), model.cells(hole), model.encode_known(image, hole)
    model.predict(latents, torch.tensor([500.0]), cells, known, model.null(1))
    assert torch.equal(seen[0], torch.cat([latents, cells, known], 1))


def test_training_reaches_every_weight_that_a_loss_on_predictions_can_reach() -> None:
    model = MiniModel(TINY)
    image, hole = scene()
    condition = torch.cat([model.condition(image, hole), model.null(1)])
    out = model.predict(
        torch.randn(2, 4, 8, 8),
        torch.tensor([100.0, 900.0]),
        torch.ones(2, 1, 8, 8),
        torch.randn(2, 4, 8, 8),
        condition,
    )
    out.square().mean().backward()
    for name, parameter in [*model.unet.named_parameters(), *model.alignment.named_parameters()]:
        assert parameter.grad is not None, name
    assert model.null_condition.grad is not None
    assert all(parameter.grad is None for parameter in model.mae.parameters())
