"""ASUKA at full size as inpainting methods: asuka-sd15 on Stable Diffusion 1.5 and asuka-flux on FLUX.1 Fill."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from asuka_infer.asuka.checkpoints import load_flux_alignment, load_flux_autoencoder, load_mae
from asuka_infer.asuka.flux import RELEASE_GUIDANCE, RELEASE_STEPS, AsukaFluxFillPipeline, NullPrompt
from asuka_infer.asuka.sd import AsukaInpaintPipeline
from asuka_infer.baselines.flux_fill import USUAL_SIDE, flux_sizes, tell_flux_steps, with_own_scheduler
from asuka_infer.baselines.latent_preview import LatentColours
from asuka_infer.baselines.stable_diffusion import (
    LARGEST_SIDE,
    SIDE_MEANING,
    DiffusionSettings,
    load_backbone,
    pipeline_files,
    run,
    sizes,
)
from asuka_infer.images import to_float, to_uint8
from asuka_infer.inpainter import Watch
from asuka_infer.placement import choose_placement, quiet_libraries, settle
from asuka_infer.prior_choice import PICTURE_SIDE, PriorSettings, prior_pixels
from asuka_infer.request import InpaintRequest, RgbImage
from asuka_infer.settings import FillSettings, number, whole
from asuka_infer.weighted import Filled, Weighted, weight_files
from asuka_infer.weights import WeightsError

FLUX_MEMORY_MB = 30000
"""12 G parameters of the transformer and 1 G of alignments, prior and decoder in bfloat16, and slack."""

RELEASE_FILES = (
    "mae_300.pth", "asuka_alignment_clip.pt", "asuka_alignment_t5.pt", "asuka_decoder.ckpt", "vec.pt", "txt_256.pt",
)  # fmt: skip
"""Of the release's folder `ckpt`."""


@dataclass(frozen=True)
class AsukaSettings(PriorSettings, DiffusionSettings):
    """What can be turned on `asuka-sd15`; guidance is off, as in the paper."""


@dataclass(frozen=True)
class AsukaFluxSettings(PriorSettings, FillSettings):
    """What can be turned on `asuka-flux`."""

    steps: int = whole(RELEASE_STEPS, lowest=1, highest=100, meaning="Euler steps.")
    guidance: float = number(
        RELEASE_GUIDANCE, lowest=1.0, highest=100.0, meaning="The guidance the model was taught to imitate."
    )
    condition_weight: float = number(
        0.5, lowest=0.0, highest=1.0, meaning="How far from the empty prompt towards the prior; the release's is 0.5."
    )
    largest_side: int = whole(USUAL_SIDE, lowest=32, highest=LARGEST_SIDE, meaning=SIDE_MEANING)


def asuka_sd(folder: Path) -> Weighted[AsukaInpaintPipeline, AsukaSettings]:
    """ASUKA on Stable Diffusion, from what `AsukaInpaintPipeline.save_pretrained` wrote.

    Raises:
        WeightsError: when the folder has no prior or no alignment: it is the backbone alone.
    """
    pipeline = load_backbone(folder)
    if pipeline.prior is None or pipeline.alignment is None:
        raise WeightsError(f"{folder} has no prior or no alignment, so it is no ASUKA; use what save_pretrained wrote.")
    return Weighted(_fill_sd, pipeline, pipeline_files(folder), sizes, AsukaSettings(), _imagine)


def asuka_flux(release: Path, base: Path) -> Weighted[AsukaFluxFillPipeline, AsukaFluxSettings]:
    """ASUKA on FLUX.1 Fill, from the release's files and the base model's transformer.

    Args:
        release: with `RELEASE_FILES`, in it or in its `ckpt`; or what `AsukaFluxFillPipeline.save_pretrained` wrote.
        base: the diffusers folder of FLUX.1 Fill; not looked at when `release` is a saved pipeline.
    """
    placement = choose_placement(FLUX_MEMORY_MB, half=torch.bfloat16)
    quiet_libraries()
    if (release / "model_index.json").is_file():
        pipeline = AsukaFluxFillPipeline.from_pretrained(
            release, dtype=placement.dtype, use_safetensors=True, local_files_only=True
        )
        files: Mapping[str, Path] = pipeline_files(release)
    else:
        folder = release / "ckpt" if (release / "ckpt").is_dir() else release
        pipeline = _assemble(folder, base, placement.dtype)
        files = {name: folder / name for name in RELEASE_FILES} | weight_files(base, "transformer")
    return Weighted(_fill_flux, settle(pipeline, placement), files, flux_sizes, AsukaFluxSettings(), _imagine)


def _assemble(release: Path, base: Path, dtype: torch.dtype) -> AsukaFluxFillPipeline:
    alignments: tuple[Any, ...] = tuple(
        load_flux_alignment(release / f"asuka_alignment_{branch}.pt", dtype=dtype) for branch in ("clip", "t5")
    )
    vae: Any = load_flux_autoencoder(release / "asuka_decoder.ckpt")
    transformer: Any = FluxTransformer2DModel.from_pretrained(
        base, subfolder="transformer", dtype=dtype, use_safetensors=True, local_files_only=True
    )
    scheduler: Any = FlowMatchEulerDiscreteScheduler.from_pretrained(base, subfolder="scheduler", local_files_only=True)
    return AsukaFluxFillPipeline(
        scheduler=scheduler,
        vae=vae.to(dtype),
        transformer=transformer,
        prior=load_mae(release / "mae_300.pth"),
        pooled_alignment=alignments[0],
        token_alignment=alignments[1],
        null=NullPrompt.from_files(release / "vec.pt", release / "txt_256.pt"),
    )


def _fill_sd(pipeline: AsukaInpaintPipeline, request: InpaintRequest, settings: AsukaSettings, watch: Watch) -> Filled:
    seen = _prior_image(settings)
    filled = run(pipeline, request, settings, watch, prior_image=seen)
    return Filled(filled.image, _prior_preview(pipeline.prior, request, seen))


@torch.no_grad()
def _fill_flux(
    pipeline: AsukaFluxFillPipeline, request: InpaintRequest, settings: AsukaFluxSettings, watch: Watch
) -> Filled:
    pixels, hole = _tensors(request)
    seen = _prior_image(settings)
    done: Any = with_own_scheduler(pipeline)(
        pixels,
        hole.float(),
        seeds=request.seed,
        prior_image=seen,
        condition_weight=settings.condition_weight,
        guidance_scale=settings.guidance,
        num_inference_steps=settings.steps,
        output_type="pt",
        callback_on_step_end=tell_flux_steps(watch, LatentColours(pipeline.vae), request.size),
    )
    image = to_uint8(done.images[0].float().cpu().numpy())
    return Filled(image, _prior_preview(pipeline.prior, request, seen))


def _imagine(
    pipeline: AsukaInpaintPipeline | AsukaFluxFillPipeline, request: InpaintRequest, settings: PriorSettings
) -> dict[str, RgbImage]:
    return _prior_preview(pipeline.prior, request, _prior_image(settings))


def _prior_image(settings: PriorSettings) -> Tensor | None:
    """What the auto-encoder sees instead of the photo, as the pipelines take it."""
    other = prior_pixels(settings, PICTURE_SIDE)
    return None if other is None else torch.from_numpy(to_float(other))[None]


@torch.no_grad()
def _prior_preview(prior: Any, request: InpaintRequest, seen: Tensor | None) -> dict[str, RgbImage]:
    """What the auto-encoder imagines; of another picture than the photo, what it makes of that."""
    pixels, hole = _tensors(request)
    pixels = torch.where(hole, 0.5, pixels) if seen is None else seen
    hole = hole if seen is None else torch.zeros_like(seen[:, :1], dtype=torch.bool)
    device = next(prior.parameters()).device
    imagined: Tensor = prior.reconstruct(pixels.to(device), hole.to(device))
    return {"prior": to_uint8(imagined[0].float().clamp(0, 1).cpu().numpy())}


def _tensors(request: InpaintRequest) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(to_float(request.image))[None], torch.from_numpy(request.hole.copy())[None, None]
