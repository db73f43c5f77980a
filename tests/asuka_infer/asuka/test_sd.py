"""The Stable Diffusion pipeline: blind to the hole, fair to every picture of a batch, saved and loaded whole."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_inpaint import StableDiffusionInpaintPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor

from asuka_infer.asuka.alignment import Alignment
from asuka_infer.asuka.decoder import ConditionalAutoencoderKL
from asuka_infer.asuka.mae import MaskedAutoencoder
from asuka_infer.asuka.scene import SceneError
from asuka_infer.asuka.sd import AsukaInpaintPipeline
from asuka_infer.noise import noise_for_seeds

# diffusers hands tensors to numpy in a way that numpy 2 will stop accepting.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't:DeprecationWarning")

NOISE: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
WIDTHS = (16, 16, 32, 32)


def tiny_unet(channels: int = 9) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8, in_channels=channels, out_channels=4, block_out_channels=(16, 32), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32, attention_head_dim=2, norm_num_groups=8,
    ).eval()  # fmt: skip


def tiny_pipeline(scheduler: Any = None, channels: int = 9) -> Any:
    torch.manual_seed(1)
    vae = ConditionalAutoencoderKL(
        down_block_out_channels=WIDTHS, layers_per_down_block=1, up_block_out_channels=WIDTHS, layers_per_up_block=1,
        norm_num_groups=8,
    ).eval()  # fmt: skip
    prior = MaskedAutoencoder(
        image_size=64, patch_size=8, width=32, depth=2, heads=2, decoder_width=24, decoder_depth=2, decoder_heads=2,
        prior_layer=1,
    ).eval()  # fmt: skip
    alignment = Alignment(prior_width=24, condition_width=32, depth=1).eval()
    pipeline: Any = AsukaInpaintPipeline(
        vae=vae,
        unet=tiny_unet(channels),
        scheduler=scheduler or DDIMScheduler(**NOISE),
        prior=prior,
        alignment=alignment,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def pictures(count: int = 4, side: int = 64) -> tuple[Tensor, Tensor]:
    image = torch.rand(count, 3, side, side)
    hole = torch.zeros(count, 1, side, side)
    for row in range(count):
        hole[row, :, 10 + 3 * row : 40, 8 + 5 * row : 50] = 1
    return image, hole


def run(pipeline: Any, *arguments: Any, **named: Any) -> Tensor:
    return pipeline(*arguments, **{"num_inference_steps": 3, "output_type": "pt", **named}).images


def test_four_different_holes_together_equal_four_single_runs() -> None:
    pipeline, (image, hole) = tiny_pipeline(), pictures()
    together = run(pipeline, image, hole, seeds=[5, 6, 7, 8])
    alone = [run(pipeline, image[i : i + 1], hole[i : i + 1], seeds=5 + i) for i in range(4)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)


@pytest.mark.parametrize("scheduler", [EulerAncestralDiscreteScheduler, DDIMScheduler])
def test_candidate_k_does_not_depend_on_how_many_were_asked_for(scheduler: Any) -> None:
    pipeline, (image, hole) = tiny_pipeline(scheduler(**NOISE)), pictures(2)
    many = run(pipeline, image, hole, seeds=[40, 90], candidates=3)
    for picture in range(2):
        for k in range(3):
            one = run(pipeline, image[picture : picture + 1], hole[picture : picture + 1], seeds=[40, 90][picture] + k)
            assert torch.allclose(many[3 * picture + k : 3 * picture + k + 1], one, atol=1e-5)
    assert not torch.allclose(many[0], many[1], atol=1e-3)


def test_the_prior_and_the_encoder_run_once_per_picture_however_many_candidates() -> None:
    pipeline, (image, hole) = tiny_pipeline(), pictures(2)
    seen: list[tuple[str, int]] = []

    def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(first: Tensor, *rest: Any) -> Any:
            seen.append((name, len(first)))
            return call(first, *rest)

        return counting

    pipeline.prior.prior = counted("prior", pipeline.prior.prior)
    pipeline.vae.encode = counted("encode", pipeline.vae.encode)
    run(pipeline, image, hole, candidates=3)
    assert seen == [("prior", 2), ("encode", 2)]


@pytest.mark.parametrize("channels", [9, 4])
def test_nothing_under_the_hole_influences_the_result(channels: int) -> None:
    pipeline, (image, hole) = tiny_pipeline(channels=channels), pictures(2)
    other = torch.where(hole > 0, torch.rand_like(image), image)
    assert torch.equal(run(pipeline, image, hole), run(pipeline, other, hole))


def test_known_pixels_do_influence_the_result() -> None:
    pipeline, (image, hole) = tiny_pipeline(), pictures(1)
    assert not torch.allclose(run(pipeline, image, hole), run(pipeline, 1 - image, hole), atol=1e-3)


def test_a_stroke_of_two_pixels_is_a_hole_in_the_latent_mask_at_every_alignment() -> None:
    pipeline = tiny_pipeline()
    for at in range(8):
        for upright in (False, True):
            mask = torch.zeros(1, 1, 64, 64)
            mask[..., 24 + at : 26 + at] = 1
            mask = mask.mT if upright else mask
            cells, _ = pipeline.prepare_mask_latents(
                mask,
                torch.zeros(1, 4, 8, 8),
                1,
                64,
                64,
                torch.float32,
                torch.device("cpu"),
                None,
                do_classifier_free_guidance=False,
            )  # fmt: skip
            touched = {(24 + at) // 8, (25 + at) // 8}
            lines = cells[0, 0] if not upright else cells[0, 0].mT
            assert all(bool(lines[:, column].all()) == (column in touched) for column in range(8))


@pytest.mark.parametrize("kind", [DPMSolverMultistepScheduler, UniPCMultistepScheduler, DDIMScheduler])
def test_with_ready_conditions_it_equals_the_stock_pipeline_where_nothing_is_to_be_better(kind: Any) -> None:
    """A hole on the latent grid, a plain autoencoder whose posterior is certain: no difference may remain."""
    pipeline = tiny_pipeline(kind(**NOISE))
    plain: Any = AutoencoderKL(**VAE_SIZES).eval()
    with torch.no_grad():
        plain.quant_conv.weight[4:] = 0
        plain.quant_conv.bias[4:] = -60  # log-variance: the sample is the mean
    ours: Any = AsukaInpaintPipeline(vae=plain, unet=pipeline.unet, scheduler=pipeline.scheduler)
    build: Any = StableDiffusionInpaintPipeline
    stock = build(
        vae=plain, unet=pipeline.unet, scheduler=kind(**NOISE), text_encoder=None, tokenizer=None, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    for each in (ours, stock):
        each.set_progress_bar_config(disable=True)
    image, hole = torch.rand(1, 3, 64, 64), torch.zeros(1, 1, 64, 64)
    hole[..., 16:40, 24:48] = 1
    embeds, negative = torch.randn(2, 1, 9, 32)
    for guidance in (1.0, 4.0):
        found = run(
            ours, image, hole, prompt_embeds=embeds, negative_prompt_embeds=negative, guidance_scale=guidance, seeds=3
        )
        expected = stock(
            image=image, mask_image=hole, height=64, width=64, prompt_embeds=embeds, negative_prompt_embeds=negative,
            guidance_scale=guidance, latents=noise_for_seeds([3], (4, 8, 8)), num_inference_steps=3, output_type="pt",
        ).images  # fmt: skip
        assert torch.allclose(found, expected, atol=1e-5)


VAE_SIZES: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": WIDTHS, "layers_per_block": 1, "norm_num_groups": 8,
}  # fmt: skip


def test_saving_and_loading_gives_the_same_pictures(tmp_path: Path) -> None:
    pipeline, (image, hole) = tiny_pipeline(), pictures(1)
    before = run(pipeline, image, hole, seeds=9)
    pipeline.save_pretrained(tmp_path)
    again: Any = AsukaInpaintPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert isinstance(again.prior, MaskedAutoencoder)
    assert isinstance(again.vae, ConditionalAutoencoderKL)
    assert torch.allclose(run(again, image, hole, seeds=9), before, atol=1e-6)


def test_in_bfloat16_it_says_nearly_the_same() -> None:
    pipeline, (image, hole) = tiny_pipeline(), pictures(1)
    exact = run(pipeline, image, hole)
    rough = run(pipeline.to(torch.bfloat16), image, hole).float()
    assert (exact - rough).abs().mean() < 0.02


def test_a_prior_picture_takes_the_photos_place_and_blank_paper_is_white() -> None:
    pipeline, (image, hole) = tiny_pipeline(), pictures(2)
    white = torch.ones(1, 3, 64, 64)
    blank = run(pipeline, image, hole, prior_image="blank")
    assert torch.equal(blank, run(pipeline, image, hole, prior_image=white))
    assert not torch.allclose(blank, run(pipeline, image, hole), atol=1e-4)
    with pytest.raises(SceneError, match="'sky'"):
        run(pipeline, image, hole, prior_image="sky")


def test_pictures_come_in_as_pil_numpy_or_tensors_and_mean_the_same() -> None:
    pipeline = tiny_pipeline()
    levels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    white = np.zeros((64, 64), np.uint8)
    white[20:50, 10:30] = 255
    tensor = torch.from_numpy(levels.astype(np.float32) / 255).permute(2, 0, 1)[None]
    mask = torch.from_numpy(white > 0).float()[None, None]
    expected = run(pipeline, tensor, mask)
    assert torch.equal(run(pipeline, PIL.Image.fromarray(levels), PIL.Image.fromarray(white)), expected)
    assert torch.equal(run(pipeline, levels[None].astype(np.float32) / 255, white[None, ..., None] / 255.0), expected)
    assert run(pipeline, tensor, mask, output_type="pil")[0].size == (64, 64)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mask_image": torch.ones(1, 1, 32, 32)}, "32x32 but the picture is 64x64"),
        ({"image": torch.rand(1, 3, 60, 64), "mask_image": torch.ones(1, 1, 60, 64)}, "multiples of 8"),
        ({"image": torch.rand(1, 3, 64, 64) * 2 - 1}, r"0\.\.1 is needed"),
        ({"seeds": [1, 2]}, "2 seeds"),
        ({"guidance_scale": 2.0}, "negative_prompt_embeds"),
        ({"prompt": "a dog"}, "needs a text encoder"),
        ({"prompt_embeds": torch.randn(3, 9, 32)}, "3 conditions were given for 1 pictures"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(change: dict[str, Any], said: str) -> None:
    image, hole = pictures(1)
    with pytest.raises(SceneError, match=said):
        run(tiny_pipeline(), **{"image": image, "mask_image": hole, **change})


def test_without_a_prior_it_asks_for_conditions() -> None:
    pipeline: Any = AsukaInpaintPipeline(
        vae=AutoencoderKL(**VAE_SIZES), unet=tiny_unet(), scheduler=DDIMScheduler(**NOISE)
    )
    with pytest.raises(SceneError, match="no MAE prior"):
        run(pipeline, *pictures(1))
