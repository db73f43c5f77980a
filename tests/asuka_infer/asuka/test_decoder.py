"""The conditional autoencoders: equal to the written facts in float64, to diffusers' classes, and blind to the hole."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_asym_kl import AsymmetricAutoencoderKL
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from asuka_infer.asuka.checkpoints import flux_autoencoder_names
from asuka_infer.asuka.decoder import (
    ConditionalAutoencoderKL,
    ConditionCountError,
    KnownAttention,
    NoConditionError,
    UnshuffleAutoencoder,
    fold_latent_statistics,
    touched_cells,
)
from tests.asuka_infer.asuka import latent_diffusion as ldm

WIDTHS = (32, 64, 96, 96)


def diffusers_sizes(latents: int = 4, widths: tuple[int, ...] = WIDTHS, layers: int = 1) -> dict[str, Any]:
    return {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "down_block_out_channels": widths,
        "layers_per_down_block": layers,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "up_block_out_channels": widths,
        "layers_per_up_block": layers,
        "latent_channels": latents,
    }


def small_diffusers(**changes: Any) -> Any:
    return ConditionalAutoencoderKL(**diffusers_sizes(), **changes).eval()


def small_unshuffle(**changes: Any) -> Any:
    return UnshuffleAutoencoder(
        encoder_widths=(16, 24), encoder_blocks=(1, 1), decoder_widths=(8, 12, 16, 24), decoder_blocks=(1, 1), **changes
    ).eval()


FORMS = pytest.mark.parametrize("make", [small_diffusers, small_unshuffle])


def picture(batch: int = 1, side: int = 64) -> Tensor:
    return torch.rand(batch, 3, side, side) * 2 - 1


def stroke(side: int = 64, at: int = 20, width: int = 2) -> Tensor:
    mask = torch.zeros(1, 1, side, side)
    mask[..., at : at + width] = 1
    return mask


def test_encoder_and_decoder_equal_the_release_written_out_in_float64() -> None:
    state = ldm.random_state(ldm.Shapes(WIDTHS, 16, 2))
    vae: Any = ConditionalAutoencoderKL(**diffusers_sizes(16, layers=2), use_quant_conv=False).double().eval()
    vae.load_state_dict(flux_autoencoder_names(state))
    image, z = picture(2, 32).double(), torch.randn(2, 16, 4, 4, dtype=torch.float64)
    mask = torch.zeros(2, 1, 32, 32, dtype=torch.float64)
    mask[0, :, 3:5, :] = 1
    mask[1, :, 10:29, 7:22] = 1
    with torch.no_grad():
        assert torch.allclose(vae.encoder(image), ldm.encode(state, image, 2), atol=1e-9)
        assert torch.allclose(
            vae.decode(z, image=image, mask=mask).sample, ldm.decode(state, z, image, mask, 2), atol=1e-9
        )


def test_any_widths_fit_not_only_doubling_ones() -> None:
    vae: Any = ConditionalAutoencoderKL(**diffusers_sizes(widths=(32, 32, 96, 64)), norm_num_groups=16).eval()
    with torch.no_grad():
        assert vae.decode(torch.randn(1, 4, 8, 8), image=picture(), mask=stroke()).sample.shape == (1, 3, 64, 64)


def test_zhus_three_channels_with_a_hole_on_the_grid_equal_diffusers_asymmetric_class() -> None:
    theirs: Any = AsymmetricAutoencoderKL(**diffusers_sizes(widths=(32, 64, 128, 128))).double().eval()
    sizes = diffusers_sizes(widths=(32, 64, 128, 128))
    ours: Any = ConditionalAutoencoderKL(**sizes, sees_hole=False).double().eval()
    ours.load_state_dict(theirs.state_dict())
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 16:40, 8:32] = 1
    image, z, mask = picture().double(), torch.randn(1, 4, 8, 8).double(), mask.double()
    with torch.no_grad():
        expected = theirs.decode(z, image=image, mask=mask).sample
        assert torch.allclose(ours.decode(z, image=image, mask=mask).sample, expected, atol=1e-10)


def test_decoding_without_known_pixels_equals_a_plain_autoencoder() -> None:
    kind: Any = AutoencoderKL
    plain = kind(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=WIDTHS, layers_per_block=1,
    ).eval()  # fmt: skip
    ours = small_diffusers()
    fresh = {name: value for name, value in ours.state_dict().items() if "condition_encoder" in name}
    ours.load_state_dict({**plain.state_dict(), **fresh})
    image, z = picture(), torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        assert torch.allclose(ours.decode(z).sample, plain.decode(z).sample, atol=1e-5)
        assert torch.equal(ours.encode(image).latent_dist.mode(), plain.encode(image).latent_dist.mode())


@FORMS
def test_when_everything_is_hole_the_condition_says_nothing(make: Any) -> None:
    vae, z = make(), torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        plain = vae.decode(z).sample
        assert torch.allclose(vae.decode(z, image=picture(), mask=torch.ones(1, 1, 64, 64)).sample, plain, atol=1e-5)


@FORMS
def test_pixels_under_the_hole_never_reach_the_decoder(make: Any) -> None:
    vae, z, image, mask = make(), torch.randn(1, 4, 8, 8), picture(), stroke(width=13)
    other = torch.where(mask > 0, torch.rand_like(image) * 1e4, image)
    with torch.no_grad():
        assert torch.equal(vae.decode(z, image=image, mask=mask).sample, vae.decode(z, image=other, mask=mask).sample)


@FORMS
def test_known_pixels_do_reach_the_decoder(make: Any) -> None:
    vae, z, mask = make(), torch.randn(1, 4, 8, 8), stroke(width=13)
    with torch.no_grad():
        a, b = (vae.decode(z, image=picture(), mask=mask).sample for _ in range(2))
    assert not torch.allclose(a, b, atol=1e-3)


@FORMS
def test_a_stroke_of_two_pixels_lets_the_latents_speak_at_every_alignment(make: Any) -> None:
    """With a nearest-neighbour hole the latents would change nothing at most offsets."""
    vae, image = make(), picture()
    with torch.no_grad():
        for at in range(16, 24):
            a, b = (vae.decode(torch.randn(1, 4, 8, 8), image=image, mask=stroke(at=at)).sample for _ in range(2))
            assert (a - b)[..., at : at + 2].abs().max() > 1e-4


@FORMS
def test_a_batch_equals_its_pictures_one_by_one(make: Any) -> None:
    vae, z, image = make().double(), torch.randn(3, 4, 8, 8).double(), picture(3).double()
    mask = torch.cat([stroke(at=at, width=5) for at in (3, 30, 58)]).double()
    with torch.no_grad():
        together = vae.decode(z, image=image, mask=mask).sample
        alone = [vae.decode(z[i : i + 1], image=image[i : i + 1], mask=mask[i : i + 1]).sample for i in range(3)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-10)


@FORMS
def test_candidates_share_one_known_picture_and_odd_counts_are_refused(make: Any) -> None:
    vae, z, image, mask = make().double(), torch.randn(2, 4, 8, 8).double(), picture().double(), stroke().double()
    with torch.no_grad():
        together = vae.decode(z, image=image, mask=mask).sample
        second = vae.decode(z[1:], image=image, mask=mask).sample
    assert torch.allclose(together[1:], second, atol=1e-10)
    with pytest.raises(ConditionCountError, match="2 known pictures cannot be shared among 3"):
        vae.decode(torch.cat([z, z[:1]]), image=picture(2), mask=torch.cat([mask, mask]))


@FORMS
def test_folding_the_latent_statistics_standardises_latents_and_keeps_pictures(make: Any) -> None:
    vae = make().double()
    image = picture(2).double()
    mean, std = torch.tensor([0.5, -1.0, 0.0, 3.0]).double(), torch.tensor([2.0, 0.1, 1.0, 0.7]).double()
    with torch.no_grad():
        before = vae.encode(image).latent_dist
        shown = vae.decode(before.mode()).sample
        fold_latent_statistics(vae, mean, std)
        after = vae.encode(image).latent_dist
        shape = (1, -1, 1, 1)
        assert torch.allclose(after.mean, (before.mean - mean.view(shape)) / std.view(shape), atol=1e-9)
        assert torch.allclose(after.std, before.std / std.view(shape), rtol=1e-6)
        assert torch.allclose(vae.decode(after.mode()).sample, shown, atol=1e-9)


@FORMS
def test_saving_and_loading_gives_the_same_pictures(make: Any, tmp_path: Path) -> None:
    vae, z, image, mask = make(), torch.randn(1, 4, 8, 8), picture(), stroke()
    vae.save_pretrained(tmp_path)
    again = type(vae).from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(again.decode(z, image=image, mask=mask).sample, vae.decode(z, image=image, mask=mask).sample)


def test_a_decoder_without_condition_refuses_known_pixels() -> None:
    with pytest.raises(NoConditionError, match="without a condition encoder"):
        small_unshuffle(conditional=False).decode(torch.randn(1, 4, 8, 8), image=picture(), mask=stroke())


def test_the_unshuffle_output_starts_without_a_grid() -> None:
    """The last doubling must give the 2x2 pixels of a cell one value at the start: ICNR."""
    vae = small_unshuffle()
    doubling = vae.decoder.levels[2][-1]
    out = doubling(torch.randn(1, 12, 6, 6))
    assert torch.allclose(out, out[:, :, ::2, ::2].repeat_interleave(2, 2).repeat_interleave(2, 3), atol=1e-6)


def test_touched_cells_are_counted_like_a_loop_over_pixels() -> None:
    mask = (torch.rand(2, 1, 48, 40) > 0.995).float()
    found = touched_cells(mask, (6, 5))
    for row in range(6):
        for column in range(5):
            cell = mask[:, :, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8]
            assert torch.equal(found[:, :, row, column], cell.flatten(2).sum(2) > 0)


def test_a_blending_decoder_mixes_the_given_picture_in_under_the_mask_alone() -> None:
    torch.manual_seed(0)
    vae = UnshuffleAutoencoder(decoder_widths=(4, 6, 8, 8), encoder_widths=(4, 4), decoder_blends=True).eval()
    torch.nn.init.normal_(vae.get_parameter("decoder.conv_out.3.weight"), std=0.5)
    z, image = torch.randn(1, 4, 4, 4), torch.rand(1, 3, 32, 32)
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 8:20, 4:17] = 1
    pictures: dict[float, torch.Tensor] = {}
    with torch.no_grad():
        for bias in (-50.0, 0.0, 50.0):
            torch.nn.init.constant_(vae.get_parameter("decoder.share.bias"), bias)
            pictures[bias] = vae.decode(z, image=image, mask=mask).sample
        other = vae.decode(z, image=torch.where(mask > 0, 1 - image, image), mask=mask).sample
    inside = (mask > 0).expand_as(image)

    assert torch.allclose(pictures[-50.0][inside], image[inside], atol=1e-5)
    assert torch.allclose(pictures[0.0][inside], ((image + pictures[50.0]) / 2)[inside], atol=1e-5)
    assert torch.equal(pictures[-50.0][~inside], pictures[50.0][~inside])
    assert torch.allclose(other, pictures[50.0], atol=1e-5)


def test_the_hole_attends_to_known_cells_alone_and_to_all_where_none_is_known() -> None:
    torch.manual_seed(0)
    attention = KnownAttention(8, heads=2).eval()
    torch.nn.init.normal_(attention.out.weight)
    sample, known = torch.randn(2, 8, 3, 3), torch.randn(2, 8, 3, 3)
    missing = torch.ones(2, 1, 3, 3, dtype=torch.bool)
    missing[0, 0, 1, 2] = False
    with torch.no_grad():
        heard = attention(sample, known, missing)
        only = attention.out(attention.value(known[:1, :, 1:2, 2:3]))

    assert torch.allclose(heard[:1], only.expand(-1, -1, 3, 3), atol=1e-5)
    assert torch.isfinite(heard[1]).all()
    assert torch.equal(KnownAttention(8, heads=2)(sample, known, missing), torch.zeros(2, 8, 3, 3))
