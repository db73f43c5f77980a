"""flux-fill: FLUX.1 Fill with diffusers' own pipeline and the noise that ASUKA on FLUX starts from."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.flux.pipeline_flux_fill import FluxFillPipeline
from torch import Tensor

from asuka_infer.asuka.flux import RELEASE_GUIDANCE, RELEASE_STEPS
from asuka_infer.baselines.latent_preview import LatentColours
from asuka_infer.baselines.stable_diffusion import LARGEST_SIDE, SIDE_MEANING, pipeline_files
from asuka_infer.images import to_float, to_uint8
from asuka_infer.inpainter import Watch
from asuka_infer.noise import noise_for_seeds
from asuka_infer.placement import choose_placement, quiet_libraries, settle
from asuka_infer.request import InpaintRequest
from asuka_infer.settings import FillSettings, WorkingSize, number, text, whole
from asuka_infer.weighted import Filled, Weighted

MULTIPLE = 16
"""Pixels per token and side: two latent cells of 8."""

USUAL_SIDE, SMALLEST_SIDE = 1024, 512
"""FLUX makes pictures of about a megapixel; below 512 px it loses its footing (our choice of limit)."""

PROMPT_TOKENS = 512
"""Of T5, as in the stock pipeline."""

MEMORY_MB = 36000
"""12 G parameters of the transformer and 4.8 G of T5 in bfloat16, and slack."""


@dataclass(frozen=True)
class FluxFillSettings(FillSettings):
    """What can be turned on `flux-fill`."""

    steps: int = whole(RELEASE_STEPS, lowest=1, highest=100, meaning="Euler steps.")
    prompt: str = text("", meaning="What the hole is said to show; empty leaves it to the surroundings.")
    guidance: float = number(
        RELEASE_GUIDANCE, lowest=1.0, highest=100.0, meaning="The guidance the model was taught to imitate."
    )
    largest_side: int = whole(USUAL_SIDE, lowest=32, highest=LARGEST_SIDE, meaning=SIDE_MEANING)


def flux_fill(folder: Path) -> Weighted[FluxFillPipeline, FluxFillSettings]:
    """The method on a diffusers folder; nothing is downloaded, no pickle read."""
    placement = choose_placement(MEMORY_MB, half=torch.bfloat16)
    quiet_libraries()
    pipeline = FluxFillPipeline.from_pretrained(
        folder, dtype=placement.dtype, use_safetensors=True, local_files_only=True
    )
    return Weighted(_fill, settle(pipeline, placement), pipeline_files(folder), flux_sizes, FluxFillSettings())


def flux_sizes(settings: FillSettings) -> WorkingSize:
    """Crops of about a megapixel."""
    return WorkingSize(settings.largest_side, MULTIPLE, min(SMALLEST_SIDE, settings.largest_side), continues=True)


def with_own_scheduler(pipeline: Any) -> Any:
    """A pipeline of the same kind and parts with a scheduler of its own: a running one keeps its place in there."""
    parts = {**pipeline.components, "scheduler": type(pipeline.scheduler).from_config(pipeline.scheduler.config)}
    fresh = type(pipeline)(**parts)
    fresh.set_progress_bar_config(disable=True)
    return fresh


def tell_flux_steps(watch: Watch, colours: LatentColours, size: tuple[int, int]) -> Callable[..., dict[str, Any]]:
    """Diffusers' callback: steps for the watch, and where the last step was heading."""
    earlier: list[Tensor] = []

    def after_step(pipeline: Any, index: int, time: object, values: dict[str, Any]) -> dict[str, Any]:
        del time
        latents: Tensor = values["latents"]
        sigmas = pipeline.scheduler.sigmas
        if earlier:
            # An Euler step is straight: its direction leads on to the clean picture that the model had in mind.
            direction = (latents - earlier[0]) / (sigmas[index + 1] - sigmas[index]).to(latents)
            clean = latents - sigmas[index + 1].to(latents) * direction
            watch.preview(lambda: colours.picture(pipeline._unpack_latents(clean, *size, pipeline.vae_scale_factor)))  # noqa: SLF001 - diffusers offers no public way
        earlier[:] = [latents]
        watch.step(index + 1, pipeline.num_timesteps)
        return values

    return after_step


@torch.no_grad()
def _fill(pipeline: FluxFillPipeline, request: InpaintRequest, settings: FluxFillSettings, watch: Watch) -> Filled:
    height, width = request.size
    fresh = with_own_scheduler(pipeline)
    done = fresh(
        prompt=settings.prompt,
        max_sequence_length=min(PROMPT_TOKENS, pipeline.tokenizer_2.model_max_length),
        image=torch.from_numpy(to_float(request.image))[None],
        mask_image=torch.from_numpy(request.hole.copy())[None, None].float(),
        height=height,
        width=width,
        guidance_scale=settings.guidance,
        num_inference_steps=settings.steps,
        generator=torch.Generator("cpu").manual_seed(request.seed),
        latents=_packed_noise(fresh, request),
        output_type="pt",
        callback_on_step_end=tell_flux_steps(watch, LatentColours(pipeline.vae), request.size),
    )
    return Filled(to_uint8(done.images[0].float().cpu().numpy()))


def _packed_noise(pipeline: Any, request: InpaintRequest) -> Tensor:
    """What `AsukaFluxFillPipeline` starts from for this seed, so that the two rows differ in the method alone."""
    channels = pipeline.vae.config["latent_channels"]
    height, width = (side // pipeline.vae_scale_factor for side in request.size)
    noise = noise_for_seeds([request.seed], (channels, height, width))
    place = partial(Tensor.to, device=pipeline._execution_device, dtype=pipeline.transformer.dtype)  # noqa: SLF001 - diffusers' own word for it under offloading
    return pipeline._pack_latents(place(noise), 1, channels, height, width)  # noqa: SLF001 - diffusers offers no public way
