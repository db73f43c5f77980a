"""sdxl: Stable Diffusion XL inpainting with diffusers' own pipeline, its hole snapped so that no stroke vanishes.

The stock pipeline shrinks the hole by nearest pixels, where thin strokes vanish, and starts from the noised picture. So
the hole is grown to whole latent cells and filled with the colours around it.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl_inpaint import (
    StableDiffusionXLInpaintPipeline,
)

from asuka_infer.asuka.sd import DEFAULT_STEPS
from asuka_infer.baselines.latent_preview import LatentColours
from asuka_infer.baselines.stable_diffusion import HALF_MARK, LARGEST_SIDE, MULTIPLE, SIDE_MEANING, pipeline_files
from asuka_infer.geometry import extend_known
from asuka_infer.holes import snap_outward
from asuka_infer.images import to_float, to_uint8
from asuka_infer.inpainter import Watch
from asuka_infer.placement import accept_old_array_calls, choose_placement, quiet_libraries, settle
from asuka_infer.request import InpaintRequest
from asuka_infer.settings import FillSettings, WorkingSize, number, text, whole
from asuka_infer.weighted import Filled, Weighted, weight_files

TRAINED_SIDE = 1024

STRENGTH = 0.9999
"""Diffusers' default: at 1 this model's results are noisy (diffusers#8450)."""

GUIDANCE = 8.0
"""The model card's example."""

MEMORY_MB = 10500
"""Weights of 3.5 G parameters in half precision, the VAE in single precision at 1024 px and slack."""


@dataclass(frozen=True)
class SdxlSettings(FillSettings):
    """What can be turned on `sdxl`."""

    steps: int = whole(DEFAULT_STEPS, lowest=2, highest=100, meaning="Denoising steps; more is slower, rarely better.")
    prompt: str = text("", meaning="What the hole is said to show; empty leaves it to the surroundings.")
    guidance: float = number(
        GUIDANCE, lowest=1.0, highest=20.0, meaning="How far to go beyond the text, away from none; 1 is none."
    )
    largest_side: int = whole(TRAINED_SIDE, lowest=32, highest=LARGEST_SIDE, meaning=SIDE_MEANING)


def sdxl(folder: Path) -> Weighted[StableDiffusionXLInpaintPipeline, SdxlSettings]:
    """The method on a diffusers folder; nothing is downloaded, no pickle read."""
    placement = choose_placement(MEMORY_MB)
    quiet_libraries()
    half = any(HALF_MARK in name for name in weight_files(folder, "unet"))
    pipeline = StableDiffusionXLInpaintPipeline.from_pretrained(
        folder,
        dtype=placement.dtype,
        variant="fp16" if half else None,
        use_safetensors=True,
        local_files_only=True,
        # The watermark is a package of its own; run records and PNG texts say what is generated.
        add_watermarker=False,
    )
    return Weighted(_fill, settle(pipeline, placement), pipeline_files(folder), _sizes, SdxlSettings())


def _sizes(settings: SdxlSettings) -> WorkingSize:
    return WorkingSize(settings.largest_side, MULTIPLE, min(TRAINED_SIDE, settings.largest_side), continues=True)


@torch.no_grad()
def _fill(
    pipeline: StableDiffusionXLInpaintPipeline, request: InpaintRequest, settings: SdxlSettings, watch: Watch
) -> Filled:
    fresh = _with_own_scheduler(pipeline)
    colours = LatentColours(pipeline.vae)

    def after_step(running: Any, index: int, time: object, values: dict[str, Any]) -> dict[str, Any]:
        del time
        watch.preview(partial(colours.picture, values["latents"]))
        watch.step(index + 1, running.num_timesteps)
        return values

    height, width = request.size
    snapped = snap_outward(request.hole, MULTIPLE)
    done: Any = fresh(
        prompt=settings.prompt,
        image=torch.from_numpy(to_float(extend_known(request.image, request.hole)))[None],
        mask_image=torch.from_numpy(snapped)[None, None].float(),
        height=height,
        width=width,
        strength=STRENGTH,
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance,
        generator=torch.Generator("cpu").manual_seed(request.seed),
        output_type="pt",
        callback_on_step_end=cast("Any", after_step),
    )
    return Filled(to_uint8(done.images[0].float().cpu().numpy()))


def _with_own_scheduler(pipeline: StableDiffusionXLInpaintPipeline) -> StableDiffusionXLInpaintPipeline:
    """The same parts with a scheduler of its own: a running one keeps its place in there."""
    accept_old_array_calls()
    kind: Any = type(pipeline.scheduler)
    parts: dict[str, Any] = {**pipeline.components, "scheduler": kind.from_config(pipeline.scheduler.config)}
    fresh = StableDiffusionXLInpaintPipeline(**parts, add_watermarker=False)
    fresh.set_progress_bar_config(disable=True)
    return fresh
