"""Autoencoders tile by tile: exact where layers look less far than tiles overlap, close where they see everything."""

from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor, nn

from asuka_infer.asuka.decoder import ConditionalAutoencoderKL
from asuka_infer.asuka.vae_tiles import in_tiles

WIDTHS = (16, 16, 32, 32)
TOLERANCE = 0.06
"""Mean difference of tiles and whole over the spread of what is compared; random weights, which know no picture."""


def test_layers_that_look_less_far_than_the_overlap_give_the_same_but_at_the_tiles_own_edges() -> None:
    """A tile pads its edges with zeros; the weights there are the smallest, so what remains is small."""
    layers = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.Tanh(), nn.Upsample(scale_factor=2)).double().eval()
    x = torch.randn(2, 3, 50, 83, dtype=torch.float64)
    with torch.no_grad():
        tiled = in_tiles(layers, [(x, 1)], size=(50, 83), scale=2, side=32, overlap=8)
        whole = layers(x)
    difference = (tiled - whole).abs()
    assert tiled.shape == whole.shape
    assert difference.median() < 1e-6
    assert difference.max() < 0.3


def test_a_pointwise_call_is_the_same_everywhere_whatever_the_sizes() -> None:
    for height, width in ((1, 1), (7, 200), (64, 65), (130, 90)):
        x = torch.randn(1, 2, height, width, dtype=torch.float64)
        tiled = in_tiles(torch.sin, [(x, 1)], size=(height, width), scale=1, side=16, overlap=4)
        assert torch.allclose(tiled, torch.sin(x), atol=1e-6)


def test_every_part_is_cut_at_its_own_scale() -> None:
    cells, pixels = torch.randn(1, 1, 40, 30), torch.randn(1, 1, 160, 120)

    def call(coarse: Tensor, fine: Tensor) -> Tensor:
        return coarse.repeat_interleave(4, 2).repeat_interleave(4, 3) + fine

    tiled = in_tiles(call, [(cells, 1), (pixels, 4)], size=(40, 30), scale=4, side=16, overlap=4)
    assert torch.allclose(tiled, call(cells, pixels), atol=1e-5)


def conditional() -> Any:
    torch.manual_seed(0)
    return ConditionalAutoencoderKL(
        down_block_out_channels=WIDTHS, layers_per_down_block=1, up_block_out_channels=WIDTHS, layers_per_up_block=1,
        norm_num_groups=8,
    ).eval()  # fmt: skip


def smooth(height: int, width: int) -> tuple[Tensor, Tensor]:
    """A picture whose tiles resemble each other, as a photograph's do, and a hole across several tiles."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = torch.stack([torch.sin(rows / 9), torch.cos(columns / 7), torch.sin((rows + columns) / 11)])[None]
    mask = torch.zeros(1, 1, height, width)
    mask[:, :, height // 4 : height // 2, width // 8 : 7 * width // 8] = 1
    return image, mask


@torch.no_grad()
def test_the_conditional_autoencoder_tile_by_tile_is_close_to_the_whole_and_equal_on_one_tile() -> None:
    vae, (image, mask) = conditional(), smooth(64, 1040)
    whole = vae.encode(image).latent_dist.mode()
    decoded = vae.decode(whole, image=image, mask=mask).sample
    vae.enable_tiling()
    tiled = vae.encode(image).latent_dist.mode()
    assert (tiled - whole).abs().mean() < TOLERANCE * whole.std()
    again = vae.decode(whole, image=image, mask=mask).sample
    assert (again - decoded).abs().mean() < TOLERANCE * decoded.std()
    assert not torch.equal(again, decoded)
    small, hole = smooth(64, 512)
    latents = torch.randn(1, 4, 8, 64)
    tiled_small = vae.decode(latents, image=small, mask=hole).sample
    vae.disable_tiling()
    assert torch.equal(vae.decode(latents, image=small, mask=hole).sample, tiled_small)


@torch.no_grad()
def test_tiling_holds_a_fraction_of_the_memory() -> None:
    """Counted in the largest activation that the decoder hands on."""
    vae, (image, mask) = conditional(), smooth(64, 2048)
    largest: list[int] = []

    def note(_module: object, _inputs: object, output: Tensor) -> None:
        largest.append(output.numel())

    vae.decoder.conv_norm_out.register_forward_hook(note)
    vae.decode(torch.randn(1, 4, 8, 256), image=image, mask=mask)
    vae.enable_tiling()
    vae.decode(torch.randn(1, 4, 8, 256), image=image, mask=mask)
    assert max(largest[1:]) * 4 == largest[0]


@torch.no_grad()
def test_the_plain_autoencoder_of_diffusers_tiles_too() -> None:
    """What the rows without ASUKA's decoder use."""
    torch.manual_seed(0)
    build: Any = AutoencoderKL
    vae = build(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=WIDTHS, layers_per_block=1, norm_num_groups=8, sample_size=128,
    ).eval()  # fmt: skip
    image, _ = smooth(64, 320)
    whole = vae.encode(image).latent_dist.mode()
    vae.enable_tiling()
    assert (vae.encode(image).latent_dist.mode() - whole).abs().mean() < 0.25 * whole.std()
