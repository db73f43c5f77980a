"""The FLUX pipeline against the official formulas and diffusers' own pipeline, on tiny weights."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.pipelines.flux.pipeline_flux_fill import FluxFillPipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from asuka_infer.asuka.alignment import FluxAlignment
from asuka_infer.asuka.decoder import ConditionalAutoencoderKL
from asuka_infer.asuka.flux import AsukaFluxFillPipeline, NullPrompt
from asuka_infer.asuka.mae import MaskedAutoencoder
from asuka_infer.noise import noise_for_seeds
from asuka_infer.weights import WeightsError

WIDTHS = (16, 16, 32, 32)


def tiny_pipeline() -> Any:
    torch.manual_seed(1)
    scheduler = FlowMatchEulerDiscreteScheduler(
        shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, base_image_seq_len=256,
        max_image_seq_len=4096,
    )  # fmt: skip
    vae = ConditionalAutoencoderKL(
        down_block_out_channels=WIDTHS, layers_per_down_block=1, up_block_out_channels=WIDTHS, layers_per_up_block=1,
        norm_num_groups=8, latent_channels=16, scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False,
    ).eval()  # fmt: skip
    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=384, out_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=64, pooled_projection_dim=32, guidance_embeds=True,
        axes_dims_rope=(4, 4, 8),
    ).eval()  # fmt: skip
    prior = MaskedAutoencoder(
        image_size=64, patch_size=8, width=32, depth=2, heads=2, decoder_width=24, decoder_depth=2, decoder_heads=2,
        prior_layer=1,
    ).eval()  # fmt: skip
    null = NullPrompt(pooled_width=32, width=64, tokens=64)
    torch.nn.init.normal_(null.pooled_vector)
    torch.nn.init.normal_(null.token_sequence)
    pipeline: Any = AsukaFluxFillPipeline(
        scheduler=scheduler, vae=vae, transformer=transformer, prior=prior, null=null,
        pooled_alignment=FluxAlignment(prior_width=24, condition_width=32, depth=1, head_width=16).eval(),
        token_alignment=FluxAlignment(prior_width=24, condition_width=64, depth=1, head_width=16).eval(),
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def pictures(count: int = 2) -> tuple[Tensor, Tensor]:
    image, hole = torch.rand(count, 3, 64, 64), torch.zeros(count, 1, 64, 64)
    for row in range(count):
        hole[row, :, 10 + 3 * row : 40, 8 + 5 * row : 50] = 1
    return image, hole


def run(pipeline: Any, *arguments: Any, **named: Any) -> Tensor:
    return pipeline(*arguments, **{"num_inference_steps": 2, "output_type": "pt", **named}).images


def test_conditions_go_half_way_from_the_empty_prompt_to_the_aligned_prior() -> None:
    pipeline, (image, hole) = tiny_pipeline(), pictures()
    captured: dict[str, Tensor] = {}
    forward = pipeline.transformer.forward

    def listening(**named: Any) -> Any:
        captured.update({key: value for key, value in named.items() if isinstance(value, Tensor)})
        return forward(**named)

    pipeline.transformer.forward = listening
    run(pipeline, image, hole, num_inference_steps=1)
    with torch.no_grad():
        prior = pipeline.prior.prior(image, hole > 0)
        pooled = pipeline.pooled_alignment(prior).mean(1)
        tokens = pipeline.token_alignment(prior)
    assert torch.allclose(captured["pooled_projections"], (pipeline.null.pooled_vector + pooled) / 2, atol=1e-6)
    assert torch.allclose(captured["encoder_hidden_states"], (pipeline.null.token_sequence + tokens) / 2, atol=1e-6)
    assert torch.equal(captured["guidance"], torch.full((2,), 30.0))


def test_the_schedule_is_the_official_one() -> None:
    """get_schedule of the FLUX repository: mu linear in the number of tokens, times bent by it."""
    pipeline, (image, hole) = tiny_pipeline(), pictures(1)
    run(pipeline, image, hole, num_inference_steps=10)
    slope = (1.15 - 0.5) / (4096 - 256)
    mu = slope * (64 // 16) ** 2 + 0.5 - slope * 256
    official = [math.exp(mu) / (math.exp(mu) + 1 / t - 1) if t else 0.0 for t in torch.linspace(1, 0, 11).tolist()]
    assert torch.allclose(pipeline.scheduler.sigmas, torch.tensor(official), atol=1e-6)


def test_holes_and_latents_are_packed_as_the_official_code_packs_them() -> None:
    """Official: 2x2 neighbours into channels (c, dy, dx); the hole first 8x8 pixels into channels, then the same."""
    pipeline, (image, hole) = tiny_pipeline(), pictures(2)
    mask, known = pipeline.prepare_mask_latents(
        hole, image * 2 - 1, 4, 16, 1, 64, 64, torch.float32, torch.device("cpu"), None
    )
    for row, picture in enumerate((0, 0, 1, 1)):
        for token in range(16):
            y, x = divmod(token, 4)
            block = hole[picture, 0, 16 * y : 16 * y + 16, 16 * x : 16 * x + 16]
            expected = [
                block[8 * dy + v, 8 * dx + u] for v in range(8) for u in range(8) for dy in range(2) for dx in range(2)
            ]
            assert torch.equal(mask[row, token], torch.stack(expected))
    with torch.no_grad():
        latents = (pipeline.vae.encode(image * 2 - 1).latent_dist.mode() - 0.1159) * 0.3611
    expected = latents.unflatten(3, (4, 2)).unflatten(2, (4, 2)).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
    assert torch.allclose(known, expected.repeat_interleave(2, 0), atol=1e-5)


def test_at_weight_zero_it_is_flux_fill_with_an_empty_prompt() -> None:
    pipeline, (image, hole) = tiny_pipeline(), pictures(1)
    build: Any = FluxFillPipeline
    stock = build(
        scheduler=FlowMatchEulerDiscreteScheduler.from_config(pipeline.scheduler.config), vae=pipeline.vae,
        transformer=pipeline.transformer, text_encoder=None, tokenizer=None, text_encoder_2=None, tokenizer_2=None,
    )  # fmt: skip
    stock.set_progress_bar_config(disable=True)
    with torch.no_grad():  # a certain posterior, so that stock's sampling changes nothing
        pipeline.vae.encoder.conv_out.weight[16:] = 0
        pipeline.vae.encoder.conv_out.bias[16:] = -60
    found = run(pipeline, image, hole, condition_weight=0.0, seeds=4, output_type="latent")
    noise = noise_for_seeds([4], (16, 8, 8))
    packed = noise.unflatten(3, (4, 2)).unflatten(2, (4, 2)).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
    grey = torch.where(hole > 0, 0.5, image)
    with torch.no_grad():
        latents = stock(
            prompt_embeds=pipeline.null.token_sequence, pooled_prompt_embeds=pipeline.null.pooled_vector,
            image=grey, mask_image=hole,
            height=64, width=64, latents=packed, num_inference_steps=2, output_type="latent",
        ).images  # fmt: skip
    expected = latents.unflatten(1, (4, 4)).unflatten(3, (16, 2, 2)).permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
    assert torch.allclose(found, expected / 0.3611 + 0.1159, atol=1e-4)


def test_a_batch_with_candidates_equals_single_runs() -> None:
    pipeline, (image, hole) = tiny_pipeline(), pictures(2)
    many = run(pipeline, image, hole, seeds=[3, 8], candidates=2)
    for picture in range(2):
        for k in range(2):
            one = run(pipeline, image[picture : picture + 1], hole[picture : picture + 1], seeds=[3, 8][picture] + k)
            assert torch.allclose(many[2 * picture + k : 2 * picture + k + 1], one, atol=1e-5)


def test_nothing_under_the_hole_influences_the_result() -> None:
    pipeline, (image, hole) = tiny_pipeline(), pictures(1)
    other = torch.where(hole > 0, torch.rand_like(image), image)
    assert torch.equal(run(pipeline, image, hole), run(pipeline, other, hole))


def test_in_bfloat16_it_says_nearly_the_same() -> None:
    pipeline, (image, hole) = tiny_pipeline(), pictures(1)
    exact = run(pipeline, image, hole)
    rough = run(pipeline.to(torch.bfloat16), image, hole).float()
    assert (exact - rough).abs().mean() < 0.02


def test_saving_and_loading_gives_the_same_pictures(tmp_path: Path) -> None:
    pipeline, (image, hole) = tiny_pipeline(), pictures(1)
    before = run(pipeline, image, hole)
    pipeline.save_pretrained(tmp_path)
    again: Any = AsukaFluxFillPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert torch.allclose(run(again, image, hole), before, atol=1e-5)


def test_the_empty_prompt_is_read_from_the_releases_two_files(tmp_path: Path) -> None:
    vector, sequence = torch.randn(1, 8), torch.randn(1, 5, 12)
    torch.save(vector, tmp_path / "vec.pt")
    torch.save(sequence, tmp_path / "txt_256.pt")
    null = NullPrompt.from_files(tmp_path / "vec.pt", tmp_path / "txt_256.pt")
    assert torch.equal(null.pooled_vector, vector)
    assert torch.equal(null.token_sequence, sequence)
    with pytest.raises(WeightsError, match="one vector"):
        NullPrompt.from_files(tmp_path / "txt_256.pt", tmp_path / "vec.pt")
