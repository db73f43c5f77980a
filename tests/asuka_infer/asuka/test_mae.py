"""The MAE prior against independent computations: plain attention in float64, and transformers' own ViT-MAE."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from asuka_infer.asuka.checkpoints import hub_mae_names, without_positions
from asuka_infer.asuka.mae import MaeOutputError, MaeSizeError, MaskedAutoencoder

SIZES: Any = {
    "image_size": 64,
    "patch_size": 8,
    "width": 32,
    "depth": 3,
    "heads": 2,
    "decoder_width": 24,
    "decoder_depth": 3,
    "decoder_heads": 2,
    "prior_layer": 2,
}


def small(**changes: Any) -> Any:
    mae: Any = MaskedAutoencoder(**SIZES | {**changes}).double().eval()
    with torch.no_grad():
        for parameter in mae.parameters():
            if parameter.ndim < 2:  # biases and norms start at 0 and 1, which would hide mistakes
                parameter.add_(torch.randn_like(parameter) * 0.1)
        mae.alpha.fill_(1)
    return mae


def scene(batch: int = 2, side: int = 64) -> tuple[Tensor, Tensor]:
    image = torch.rand(batch, 3, side, side, dtype=torch.float64)
    hole = torch.zeros(batch, 1, side, side, dtype=torch.bool)
    for row in range(batch):
        hole[row, 0, 5 : 40 + 7 * row, 11 : 30 + 7 * row] = True
    return image, hole


def block_by_hand(block: Any, x: Tensor, visible: Tensor | None) -> Tensor:
    """A pre-norm ViT block written out: softmax over the visible keys only."""
    y = functional.layer_norm(x, x.shape[-1:], block.norm1.weight, block.norm1.bias, 1e-6)
    heads = block.attn.num_heads
    q, k, v = functional.linear(y, block.attn.qkv.weight, block.attn.qkv.bias).chunk(3, -1)
    out = torch.empty_like(q)
    wide = q.shape[-1] // heads
    for head in range(heads):
        part = slice(head * wide, (head + 1) * wide)
        logits = q[..., part] @ k[..., part].transpose(1, 2) / wide**0.5
        if visible is not None:
            logits = logits.masked_fill(~visible[:, None, :], float("-inf"))
        out[..., part] = logits.softmax(-1) @ v[..., part]
    x = x + functional.linear(out, block.attn.proj.weight, block.attn.proj.bias)
    y = functional.layer_norm(x, x.shape[-1:], block.norm2.weight, block.norm2.bias, 1e-6)
    y = functional.gelu(functional.linear(y, block.mlp.fc1.weight, block.mlp.fc1.bias))
    return x + functional.linear(y, block.mlp.fc2.weight, block.mlp.fc2.bias)


def sincos_by_hand(width: int, grid: int) -> Tensor:
    """MAE's fixed positions: the first half of the features tells x, the second y, each as sines then cosines."""
    rows = []
    for y in range(grid):
        for x in range(grid):
            rates = [10000 ** (-i / (width // 4)) for i in range(width // 4)]
            rows.append([f(p * r) for p in (x, y) for f in (np.sin, np.cos) for r in rates])
    return torch.tensor(np.array(rows))


def prior_by_hand(mae: Any, image: Tensor, hole: Tensor) -> Tensor:
    """The release's order of things, hole tokens kept in the sequence and excluded as keys."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]).double(), torch.tensor([0.229, 0.224, 0.225]).double()
    x = (image - mean.view(1, 3, 1, 1).float().double()) / std.view(1, 3, 1, 1).float().double() * ~hole
    patch, grid = mae.config["patch_size"], mae.grid
    area = functional.interpolate(hole.double(), (grid, grid), mode="area").flatten(1)
    hidden = area > 0
    z = functional.conv2d(x, mae.patch_embed.proj.weight, mae.patch_embed.proj.bias, stride=patch)
    z = z.flatten(2).transpose(1, 2) + sincos_by_hand(mae.config["width"], grid).float().double()
    for block in mae.blocks:
        z = block_by_hand(block, z, ~hidden)
    z = functional.layer_norm(z, z.shape[-1:], mae.norm.weight, mae.norm.bias, 1e-6)
    z = functional.linear(z, mae.decoder_embed.weight, mae.decoder_embed.bias)
    z = torch.where(hidden[..., None], mae.mask_token, z)
    seen = torch.cat([x, hole.double()], 1)
    extra = mae.decoder_patch_embed.proj
    seen = functional.conv2d(seen, extra.weight, extra.bias, stride=patch).flatten(2).transpose(1, 2)
    z = torch.where((hidden & (area < 1))[..., None], z * mae.alpha + seen * (1 - mae.alpha), z)
    z = z + sincos_by_hand(mae.config["decoder_width"], grid).float().double()
    for block in mae.decoder_blocks[: mae.config["prior_layer"]]:
        z = block_by_hand(block, z, None)
    return z


@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_the_prior_equals_the_releases_order_of_things_in_float64(alpha: float) -> None:
    mae = small()
    torch.nn.init.constant_(mae.alpha, alpha)
    image, hole = scene()
    assert torch.allclose(mae.prior(image, hole), prior_by_hand(mae, image, hole), atol=1e-10)


def test_gathering_visible_tokens_equals_masking_the_others_when_holes_differ() -> None:
    mae = small()
    image, hole = scene(3)
    hidden = mae.look(image, hole).hidden
    assert len({int(count) for count in hidden.sum(1)}) == 3
    assert torch.allclose(mae.prior(image, hole), prior_by_hand(mae, image, hole), atol=1e-10)


def test_with_a_cls_token_every_pixel_prediction_equals_transformers_vit_mae() -> None:
    config = ViTMAEConfig(
        image_size=64, patch_size=8, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=128,
        decoder_hidden_size=24, decoder_num_hidden_layers=3, decoder_num_attention_heads=2,
        decoder_intermediate_size=96, layer_norm_eps=1e-6, mask_ratio=0.5,
    )  # fmt: skip
    theirs: Any = ViTMAEForPreTraining(config).double().eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
        for embedding, width in (
            (theirs.vit.embeddings.position_embeddings, 32),
            (theirs.decoder.decoder_pos_embed, 24),
        ):
            embedding.zero_()
            embedding[0, 1:] = sincos_by_hand(width, 8).float()  # as ours stores them
    ours = small(use_cls_token=True)
    lacking = {"alpha", "decoder_patch_embed.proj.weight", "decoder_patch_embed.proj.bias"}
    kept = {name: value for name, value in ours.state_dict().items() if name in lacking}
    ours.load_state_dict({**without_positions(hub_mae_names(theirs.state_dict()), "theirs"), **kept})
    image = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    noise = torch.rand(2, 64)
    hidden = noise.argsort(1).argsort(1) >= 32
    hole = hidden.view(2, 1, 8, 8).repeat_interleave(8, 2).repeat_interleave(8, 3)
    pixels = (image - ours.mean) / ours.std
    with torch.no_grad():
        expected = theirs(pixels, noise=noise).logits
        found = ours(image, hole)
    assert torch.allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("use_cls_token", [False, True])
def test_a_batch_with_different_holes_equals_its_pictures_one_by_one(use_cls_token: bool) -> None:  # noqa: FBT001
    mae = small(use_cls_token=use_cls_token).float()
    image, hole = scene(4)
    hole[3] = True
    image = image.float()
    together = mae.prior(image, hole)
    alone = torch.cat([mae.prior(image[i : i + 1], hole[i : i + 1]) for i in range(4)])
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.isfinite(together).all()


@pytest.mark.parametrize("side", [64, 48, 97, 256])
def test_nothing_under_the_hole_reaches_the_prior_or_the_picture_at_any_size(side: int) -> None:
    mae = small()
    image, hole = scene(1, side)
    other = torch.where(hole, torch.rand_like(image) * 1e6, image)
    assert torch.equal(mae.prior(image, hole), mae.prior(other, hole))
    assert torch.equal(mae.reconstruct(image, hole), mae.reconstruct(other, hole))


def test_shrinking_keeps_a_thin_stroke_as_hole_at_every_alignment() -> None:
    mae = small()
    image = torch.rand(1, 3, 256, 256, dtype=torch.float64)
    for offset in range(8):
        hole = torch.zeros(1, 1, 256, 256, dtype=torch.bool)
        hole[..., :, 100 + offset : 102 + offset] = True
        sight = mae.look(image, hole)
        assert sight.missing.any(dim=3).all()
        assert (sight.hidden.view(8, 8).sum(1) >= 1).all()


def test_the_reconstructed_prior_is_the_prior_without_a_hole() -> None:
    mae = small()
    image, hole = scene()
    assert torch.allclose(mae.reconstructed_prior(image), prior_by_hand(mae, image, torch.zeros_like(hole)), atol=1e-10)


def test_the_reconstruction_keeps_known_pixels_and_paints_the_predicted_ones() -> None:
    mae = small()
    image, hole = scene()
    shown = mae.reconstruct(image, hole)
    predicted = mae.denormalise(mae.unpatchify(mae(image, hole))).clamp(0, 1)
    assert torch.allclose(shown, torch.where(hole, predicted, image), atol=1e-12)


def test_patches_lie_in_row_column_colour_order_and_come_back() -> None:
    mae = small()
    pixels = torch.arange(2 * 3 * 64 * 64, dtype=torch.float64).view(2, 3, 64, 64)
    patches = mae.patchify(pixels)
    assert torch.equal(patches[1, 8 * 3 + 2].view(8, 8, 3), pixels[1, :, 24:32, 16:24].permute(1, 2, 0))
    assert torch.equal(mae.unpatchify(patches), pixels)


def test_more_tokens_can_be_hidden_than_the_hole_touches() -> None:
    mae = small()
    image, hole = scene()
    sight = mae.look(image, hole)
    extra = torch.rand(2, 64) < 0.5
    assert not torch.allclose(mae(image, hole, extra), mae(image, hole))
    covered = hole | extra.view(2, 1, 8, 8).repeat_interleave(8, 2).repeat_interleave(8, 3)
    assert torch.allclose(mae(image, hole, extra), mae(image, covered), atol=1e-10)
    assert bool((sight.hidden | extra).any())


def test_knowing_the_visible_count_changes_nothing() -> None:
    mae = small()
    image, hole = scene(1)
    visible = int((~mae.look(image, hole).hidden).sum())
    assert torch.equal(mae(image, hole, visible=visible), mae(image, hole))


def test_broken_weights_are_told_and_not_hidden() -> None:
    mae = small()
    torch.nn.init.constant_(mae.mask_token, float("nan"))
    with pytest.raises(MaeOutputError, match="not finite"):
        mae.prior(*scene())


def test_the_default_is_the_papers_vit_b_with_256_tokens() -> None:
    with torch.device("meta"):
        mae = MaskedAutoencoder()
    # The release counts 112,507,393 with its two fixed position embeddings, which are no parameters here.
    positions = 256 * (768 + 512)
    assert sum(parameter.numel() for parameter in mae.parameters()) == 112_507_393 - positions


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(MaeSizeError, match="do not tile"):
        MaskedAutoencoder(**SIZES | {"patch_size": 9})
    with pytest.raises(MaeSizeError, match="1 to 3"):
        MaskedAutoencoder(**SIZES | {"prior_layer": 4})
