"""Tiny random checkpoints in the real classes, file names and key names of the published ones."""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_asym_kl import AsymmetricAutoencoderKL
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.flux.pipeline_flux_fill import FluxFillPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_inpaint import StableDiffusionInpaintPipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl_inpaint import (
    StableDiffusionXLInpaintPipeline,
)
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from safetensors.torch import save_file
from tokenizers import Tokenizer, models
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from asuka_infer.asuka.alignment import Alignment, FluxAlignment
from asuka_infer.asuka.decoder import ConditionalAutoencoderKL
from asuka_infer.asuka.flux import AsukaFluxFillPipeline, NullPrompt
from asuka_infer.asuka.mae import MaskedAutoencoder
from asuka_infer.asuka.sd import AsukaInpaintPipeline

# Diffusers' annotations of sizes (tuple[int] for four of them) are narrower than what it takes.
Unet: Any = UNet2DConditionModel
Scheduler: Any = PNDMScheduler
Vae: Any = AutoencoderKL

WIDTH = 32
LEVELS = (8, 8, 16, 16)
NOISE: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def save_sd(folder: Path, *, channels: int = 9, prediction: str = "epsilon", variant: str | None = None) -> Path:
    """A folder as Stable Diffusion's inpainting models are published, with a PNDM scheduler like theirs."""
    torch.manual_seed(3)
    pipeline: Any = StableDiffusionInpaintPipeline(**_sd_parts(folder, channels, prediction))  # pyright: ignore[reportCallIssue]
    pipeline.save_pretrained(folder, variant=variant)
    return folder


def save_asuka_sd(folder: Path) -> Path:
    """What `AsukaInpaintPipeline.save_pretrained` writes."""
    torch.manual_seed(4)
    parts = _sd_parts(folder, 9, "epsilon")
    parts["vae"] = ConditionalAutoencoderKL(
        down_block_out_channels=LEVELS, layers_per_down_block=1, up_block_out_channels=LEVELS, layers_per_up_block=1,
        norm_num_groups=4,
    )  # fmt: skip
    parts["alignment"] = Alignment(prior_width=24, condition_width=WIDTH, depth=1)
    AsukaInpaintPipeline(**parts, prior=tiny_mae()).save_pretrained(folder)
    return folder


def save_asymmetric(folder: Path) -> Path:
    """Zhu et al.'s autoencoder: encoder of one width, decoder of another."""
    torch.manual_seed(5)
    AsymmetricAutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, down_block_out_channels=LEVELS, layers_per_down_block=1,
        up_block_types=("UpDecoderBlock2D",) * 4, up_block_out_channels=(8, 16, 32, 32), layers_per_up_block=1,
        norm_num_groups=4, latent_channels=4,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def save_sdxl(folder: Path) -> Path:
    """A folder as Stable Diffusion XL inpainting is published: two text encoders, sizes as conditions."""
    torch.manual_seed(6)
    unet = Unet(
        sample_size=16, in_channels=9, out_channels=4, block_out_channels=(16, 32), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=2 * WIDTH, attention_head_dim=(2, 4), norm_num_groups=8, use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=48 + WIDTH,
        transformer_layers_per_block=(1, 1),
    )  # fmt: skip
    build: Any = StableDiffusionXLInpaintPipeline
    build(
        vae=_vae(4), unet=unet, scheduler=EulerDiscreteScheduler(**NOISE), tokenizer=_clip_tokenizer(folder),
        tokenizer_2=_clip_tokenizer(folder), text_encoder=CLIPTextModel(_clip_config()),
        text_encoder_2=CLIPTextModelWithProjection(_clip_config()), add_watermarker=False,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def save_flux(folder: Path) -> Path:
    """A folder as FLUX.1 Fill is published: 384 channels in, CLIP's pooled vector and T5's tokens."""
    torch.manual_seed(7)
    transformer: Any = FluxTransformer2DModel(
        patch_size=1, in_channels=384, out_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=WIDTH, pooled_projection_dim=WIDTH, axes_dims_rope=(4, 4, 8),
        guidance_embeds=True,
    )  # fmt: skip
    config = T5Config(vocab_size=10, d_model=WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    build: Any = FluxFillPipeline
    build(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), vae=_vae(16, quant=False),
        text_encoder=CLIPTextModel(_clip_config()), tokenizer=_clip_tokenizer(folder),
        text_encoder_2=T5EncoderModel(config), tokenizer_2=_t5_tokenizer(), transformer=transformer,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def save_asuka_flux(folder: Path) -> Path:
    """What `AsukaFluxFillPipeline.save_pretrained` writes."""
    torch.manual_seed(10)
    transformer: Any = FluxTransformer2DModel(
        patch_size=1, in_channels=384, out_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=WIDTH, pooled_projection_dim=WIDTH, axes_dims_rope=(4, 4, 8),
        guidance_embeds=True,
    )  # fmt: skip
    vae = ConditionalAutoencoderKL(
        down_block_out_channels=LEVELS, layers_per_down_block=1, up_block_out_channels=LEVELS, layers_per_up_block=1,
        norm_num_groups=4, latent_channels=16, scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False,
    )  # fmt: skip
    AsukaFluxFillPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), vae=vae, transformer=transformer,
        prior=tiny_mae(), null=NullPrompt(pooled_width=WIDTH, width=WIDTH, tokens=256),
        pooled_alignment=FluxAlignment(prior_width=24, condition_width=WIDTH, depth=1, head_width=16),
        token_alignment=FluxAlignment(prior_width=24, condition_width=WIDTH, depth=1, head_width=16),
    ).save_pretrained(folder)  # fmt: skip
    return folder


def save_mae(path: Path) -> Path:
    """A checkpoint in the form of the MAE release: weights under "model", sine-cosine positions among them."""
    torch.manual_seed(8)
    mae = MaskedAutoencoder(
        image_size=64, patch_size=4, width=64, depth=1, heads=1, decoder_width=32, decoder_depth=6, decoder_heads=16
    )
    state = {**mae.state_dict(), "pos_embed": mae.pos_embed, "decoder_pos_embed": mae.decoder_pos_embed}
    torch.save({"model": state, "epoch": 300}, path)
    return path


def save_prompt(path: Path) -> Path:
    """Learned tokens for `save_sd`."""
    save_file({"tokens": torch.randn(77, WIDTH, generator=torch.Generator().manual_seed(9))}, path)
    return path


def tiny_mae() -> MaskedAutoencoder:
    return MaskedAutoencoder(
        image_size=64, patch_size=4, width=64, depth=1, heads=1, decoder_width=24, decoder_depth=2, decoder_heads=2,
        prior_layer=1,
    )  # fmt: skip


def _sd_parts(folder: Path, channels: int, prediction: str) -> dict[str, Any]:
    unet = Unet(
        sample_size=8, in_channels=channels, out_channels=4, block_out_channels=(16, 32), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH, attention_head_dim=2, norm_num_groups=8,
    )  # fmt: skip
    return {
        "vae": _vae(4),
        "unet": unet,
        "scheduler": Scheduler(**NOISE, skip_prk_steps=True, prediction_type=prediction),
        "text_encoder": CLIPTextModel(_clip_config()),
        "tokenizer": _clip_tokenizer(folder),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }


def _vae(channels: int, *, quant: bool = True) -> AutoencoderKL:
    more: dict[str, Any] = {} if quant else {"shift_factor": 0.1159, "scaling_factor": 0.3611}
    return Vae(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=LEVELS, layers_per_block=1, norm_num_groups=4, latent_channels=channels,
        use_quant_conv=quant, use_post_quant_conv=quant, **more,
    )  # fmt: skip


def _clip_config() -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=300, hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=77, projection_dim=WIDTH, bos_token_id=298, eos_token_id=299, pad_token_id=299,
    )  # fmt: skip


def _clip_tokenizer(folder: Path) -> CLIPTokenizer:
    """Letters and nothing learned, in CLIP's two files."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(code) for code in range(33, 127)]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    numbers = {word: number for number, word in enumerate(words)}
    numbers |= {"<|startoftext|>": 298, "<|endoftext|>": 299}
    vocabulary, merges = folder.parent / "vocab.json", folder.parent / "merges.txt"
    vocabulary.write_text(json.dumps(numbers))
    merges.write_text("#version: 0.2\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CLIPTokenizer(str(vocabulary), str(merges), model_max_length=77)


def _t5_tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=16
    )
