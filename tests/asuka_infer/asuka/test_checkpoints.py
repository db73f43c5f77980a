"""Published files under our names: synthetic ones with the published names and shapes load completely or not at all."""

import argparse
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_asym_kl import AsymmetricAutoencoderKL
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from safetensors.torch import save_file
from torch import Tensor
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from asuka_infer.asuka.alignment import FluxAlignment
from asuka_infer.asuka.checkpoints import (
    flux_alignment_names,
    flux_autoencoder_names,
    hub_mae_names,
    load_autoencoder,
    load_flux_alignment,
    load_mae,
    renamed,
    without_positions,
)
from asuka_infer.asuka.decoder import ConditionalAutoencoderKL
from asuka_infer.asuka.mae import MaskedAutoencoder, sincos_positions
from asuka_infer.weights import WeightsError, load_completely

OFFICIAL = Path(__file__).parents[2] / "golden" / "official_state_dicts"


def published(name: str) -> dict[str, Tensor]:
    """Tensors of the published names and shapes that take no memory."""
    shapes: dict[str, list[int]] = json.loads((OFFICIAL / f"{name}.json").read_text())
    return {key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}


def small_mae_state(*, cls: bool = False) -> dict[str, Tensor]:
    mae = MaskedAutoencoder(
        image_size=256, width=64, depth=2, heads=1, decoder_width=32, decoder_depth=2, prior_layer=1, use_cls_token=cls
    )
    state = {key: torch.randn_like(value) for key, value in mae.state_dict().items()}
    positions = {"pos_embed": sincos_positions(64, 16), "decoder_pos_embed": sincos_positions(32, 16)}
    if cls:
        positions = {key: torch.cat([torch.zeros_like(p[:, :1]), p], 1) for key, p in positions.items()}
    return {**state, **positions}


def test_every_published_mae_key_has_its_place_and_its_shape() -> None:
    state = published("mae_300")
    with torch.device("meta"):
        mae = MaskedAutoencoder()
    del state["pos_embed"], state["decoder_pos_embed"]
    assert {key: value.shape for key, value in mae.state_dict().items()} == {k: v.shape for k, v in state.items()}


def test_every_published_decoder_key_has_its_place_and_its_shape() -> None:
    with torch.device("meta"):
        vae = ConditionalAutoencoderKL(latent_channels=16, use_quant_conv=False)
    expected = {key: value.shape for key, value in vae.state_dict().items() if key.startswith("decoder.")}
    found = {key: value.shape for key, value in flux_autoencoder_names(published("asuka_decoder")).items()}
    assert found == expected


@pytest.mark.parametrize(("branch", "width"), [("clip", 768), ("t5", 4096)])
def test_every_published_alignment_key_has_its_place_and_its_shape(branch: str, width: int) -> None:
    with torch.device("meta"):
        alignment = FluxAlignment(condition_width=width)
    load_completely(alignment, flux_alignment_names(published(f"asuka_alignment_{branch}")), source=branch)
    assert not any(parameter.is_meta for parameter in alignment.parameters())


def test_a_flux_alignment_file_is_read_with_its_values_in_the_right_places(tmp_path: Path) -> None:
    shapes = json.loads((OFFICIAL / "asuka_alignment_clip.json").read_text())
    small = {key: [max(1, side * 128 // 768) if side > 64 else side for side in shape] for key, shape in shapes.items()}
    small["0.weight"] = [128, 40]
    state = {key: torch.randn(shape) for key, shape in small.items()}
    torch.save(state, tmp_path / "clip.pt")
    alignment: Any = load_flux_alignment(tmp_path / "clip.pt", dtype=torch.float32)
    assert torch.equal(alignment.blocks[2].key_norm.weight, state["3.norm.key_norm.scale"])
    assert torch.equal(alignment.blocks[0].linear2.bias, state["1.linear2.bias"])
    assert torch.equal(alignment.norm.bias, state["5.bias"])


def test_mae_files_with_optimizer_and_arguments_are_read_without_running_code(tmp_path: Path) -> None:
    state = small_mae_state()
    torch.save({"model": state, "optimizer": {"state": {}}, "args": argparse.Namespace(lr=1e-4)}, tmp_path / "mae.pth")
    mae = load_mae(tmp_path / "mae.pth", prior_layer=1)
    assert torch.equal(mae.get_parameter("blocks.1.mlp.fc2.weight"), state["blocks.1.mlp.fc2.weight"])
    assert mae.config["image_size"] == 256


def test_a_plain_mae_may_lack_exactly_the_three_extra_keys(tmp_path: Path) -> None:
    state = small_mae_state(cls=True)
    for key in ("alpha", "decoder_patch_embed.proj.weight", "decoder_patch_embed.proj.bias"):
        del state[key]
    torch.save({"model": state}, tmp_path / "facebook.pth")
    mae = load_mae(tmp_path / "facebook.pth", prior_layer=1)
    assert mae.config["use_cls_token"] is True
    assert mae.get_parameter("alpha").item() == 1.0


@pytest.mark.parametrize(
    ("lost", "added", "said"),
    [
        ("blocks.1.norm1.bias", {}, r"1 missing: blocks\.1\.norm1\.bias"),
        (None, {"surprise": torch.zeros(1)}, "1 unexpected: surprise"),
        (None, {"norm.bias": torch.zeros(7)}, r"mis-shaped: norm\.bias \(\(7,\) instead of \(64,\)\)"),
    ],
)
def test_one_wrong_key_is_refused_by_name(
    lost: str | None, added: dict[str, Tensor], said: str, tmp_path: Path
) -> None:
    state = {key: value for key, value in small_mae_state().items() if key != lost} | added
    torch.save({"model": state}, tmp_path / "mae.pth")
    with pytest.raises(WeightsError, match=said):
        load_mae(tmp_path / "mae.pth", prior_layer=1)


@pytest.mark.parametrize(("width", "patch", "heads"), [(768, 16, 12), (1024, 16, 16), (1280, 14, 16)])
def test_public_vits_get_their_own_heads_and_256_tokens(width: int, patch: int, heads: int, tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = MaskedAutoencoder(
            image_size=16 * patch, patch_size=patch, width=width, depth=1, heads=heads, decoder_width=32,
            decoder_depth=1, prior_layer=1,
        )  # fmt: skip
    # One zero seen through every shape: the file stays small.
    state = {key: torch.zeros(()).expand(value.shape) for key, value in shapes.state_dict().items()}
    state |= {"pos_embed": sincos_positions(width, 16), "decoder_pos_embed": sincos_positions(32, 16)}
    torch.save({"model": state}, tmp_path / "mae.pth")
    mae: Any = load_mae(tmp_path / "mae.pth", prior_layer=1)
    assert mae.grid == 16
    assert mae.blocks[0].attn.num_heads == heads


def test_learned_positions_are_refused_because_they_would_be_lost() -> None:
    state = small_mae_state()
    state["pos_embed"] = state["pos_embed"] + 0.1
    with pytest.raises(WeightsError, match="not the fixed sine-cosine of 16x16"):
        without_positions(state, "file")


def test_an_encoder_alone_is_refused(tmp_path: Path) -> None:
    torch.save(
        {"model": {k: v for k, v in small_mae_state().items() if "decoder" not in k and k != "mask_token"}},
        tmp_path / "e.pth",
    )
    with pytest.raises(WeightsError, match="no mask_token"):
        load_mae(tmp_path / "e.pth")


def hub_spellings(state: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """transformers 5 as in memory, and as the hub's files of version 4 spell it."""
    old = {}
    for key, value in state.items():
        name = re.sub(r"^vit\.layers\.", "vit.encoder.layer.", key)
        for new, before in (
            (".attention.q_proj.", ".attention.attention.query."), (".attention.k_proj.", ".attention.attention.key."),
            (".attention.v_proj.", ".attention.attention.value."), (".attention.o_proj.", ".attention.output.dense."),
            (".mlp.fc1.", ".intermediate.dense."), (".mlp.fc2.", ".output.dense."),
        ):  # fmt: skip
            name = name.replace(new, before)
        old[name] = value
    saved = {re.sub(r"^decoder\.decoder_layers\.", "decoder.decoder_encoder.layer.", k): v for k, v in old.items()}
    return {"new": state, "old": old, "saved by version 5": saved}


@pytest.mark.parametrize("spelling", ["new", "old", "saved by version 5"])
def test_hub_files_are_read_in_every_spelling(spelling: str, tmp_path: Path) -> None:
    theirs: Any = ViTMAEForPreTraining(
        ViTMAEConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=1, intermediate_size=256,
                     decoder_hidden_size=32, decoder_num_hidden_layers=2, decoder_intermediate_size=128)
    )  # fmt: skip
    state = {key: torch.randn_like(value) for key, value in theirs.state_dict().items()}
    for key, width in (("vit.embeddings.position_embeddings", 64), ("decoder.decoder_pos_embed", 32)):
        state[key] = torch.cat([torch.zeros(1, 1, width), sincos_positions(width, 14)], 1)
    assert any(".attention.q_proj." in key for key in state), "transformers changed its names; add the spelling"
    save_file(hub_spellings(state)[spelling], tmp_path / "model.safetensors")
    mae = load_mae(tmp_path / "model.safetensors", prior_layer=1)
    assert mae.config["image_size"] == 256
    q = state["vit.layers.1.attention.q_proj.weight"]
    v = state["vit.layers.1.attention.v_proj.weight"]
    qkv = mae.get_parameter("blocks.1.attn.qkv.weight")
    assert torch.equal(qkv[:64], q)
    assert torch.equal(qkv[128:], v)
    assert torch.equal(
        mae.get_parameter("decoder_blocks.0.mlp.fc2.bias"), state["decoder.decoder_layers.0.mlp.fc2.bias"]
    )


def test_a_hub_file_with_a_lost_value_matrix_is_refused_by_name() -> None:
    state = {
        "vit.layers.0.attention.q_proj.weight": torch.zeros(2, 2),
        "vit.layers.0.attention.k_proj.weight": torch.zeros(2, 2),
    }
    assert set(hub_mae_names(state)) == {"blocks.0.attn.query.weight", "blocks.0.attn.key.weight"}


def small_asymmetric() -> Any:
    kind: Any = AsymmetricAutoencoderKL
    return kind(
        down_block_types=("DownEncoderBlock2D",) * 4, down_block_out_channels=(32, 32, 64, 64),
        up_block_types=("UpDecoderBlock2D",) * 4, up_block_out_channels=(32, 64, 128, 128), layers_per_up_block=2,
    ).eval()  # fmt: skip


def test_zhus_autoencoder_starts_unchanged_with_a_fourth_channel_of_zeros(tmp_path: Path) -> None:
    theirs = small_asymmetric()
    theirs.save_pretrained(tmp_path)
    ours: Any = load_autoencoder(tmp_path)
    assert ours.config["sees_hole"] is True
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 16:40, 8:32] = 1
    image, z, mask = torch.rand(1, 3, 64, 64).double() * 2 - 1, torch.randn(1, 4, 8, 8).double(), mask.double()
    with torch.no_grad():
        expected = theirs.double().decode(z, image=image, mask=mask).sample
        assert torch.allclose(ours.double().decode(z, image=image, mask=mask).sample, expected, atol=1e-10)


def test_our_own_autoencoder_folder_comes_back_as_it_was(tmp_path: Path) -> None:
    theirs = small_asymmetric()
    theirs.save_pretrained(tmp_path / "zhu")
    ours: Any = load_autoencoder(tmp_path / "zhu")
    torch.nn.init.normal_(ours.decoder.condition_encoder.layers[0].weight)
    ours.save_pretrained(tmp_path / "ours")
    again: Any = load_autoencoder(tmp_path / "ours")
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("old_names", [False, True])
def test_a_plain_sd_autoencoder_decodes_as_before_in_both_spellings(old_names: bool, tmp_path: Path) -> None:  # noqa: FBT001
    kind: Any = AutoencoderKL
    plain = kind(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 32, 64, 64),
    ).eval()  # fmt: skip
    plain.save_pretrained(tmp_path)
    if old_names:
        file = tmp_path / "diffusion_pytorch_model.safetensors"
        rules = ((r"(.*)to_q(.*)", r"\1query\2"), (r"(.*)to_k(.*)", r"\1key\2"), (r"(.*)to_v(.*)", r"\1value\2"),
                 (r"(.*)to_out\.0(.*)", r"\1proj_attn\2"))  # fmt: skip
        save_file(renamed(plain.state_dict(), rules), file)
    ours: Any = load_autoencoder(tmp_path)
    z = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        assert torch.allclose(ours.decode(z).sample, plain.decode(z).sample, atol=1e-5)


def test_a_plain_autoencoder_lacking_a_decoder_layer_is_refused_by_name(tmp_path: Path) -> None:
    plain: Any = AutoencoderKL(block_out_channels=(32,))
    plain.save_pretrained(tmp_path)
    state = plain.state_dict()
    del state["decoder.conv_out.bias"]
    save_file(state, tmp_path / "diffusion_pytorch_model.safetensors")
    with pytest.raises(WeightsError, match=r"1 missing: decoder\.conv_out\.bias"):
        load_autoencoder(tmp_path)


def test_two_tensors_of_one_name_are_refused() -> None:
    with pytest.raises(WeightsError, match="both c"):
        renamed({"a": torch.zeros(1), "b": torch.zeros(1)}, (("a|b", "c"),))
