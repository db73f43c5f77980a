"""sd15-repaint: RePaint (Lugmayr et al. 2022) on Stable Diffusion's latents, with a 9- or a 4-channel UNet.

The paper's row does not say which; weights of plain Stable Diffusion 1.5 in the method's own folder give the latter.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asuka_infer.asuka.decoder import touched_cells
from asuka_infer.asuka.repaint import NoiseStream, count_predictions, repaint, resampling_path
from asuka_infer.asuka.sd import AsukaInpaintPipeline
from asuka_infer.baselines.latent_preview import LatentColours
from asuka_infer.baselines.stable_diffusion import (
    LARGEST_SIDE,
    SIDE_MEANING,
    TRAINED_SIDE,
    load_backbone,
    pipeline_files,
    sizes,
)
from asuka_infer.images import to_float, to_uint8
from asuka_infer.inpainter import Watch
from asuka_infer.request import InpaintRequest
from asuka_infer.settings import FillSettings, whole
from asuka_infer.weighted import Filled, Weighted

STEPS, JUMP_LENGTH, REPEATS = 50, 10, 10
"""410 UNet calls: RePaint's own jumps and repeats, of its 250 levels as many as take a minute on a GPU."""

WITH_HOLE = 9
"""Channels of a UNet that takes latents, hole and known latents; one with 4 takes the latents alone."""


@dataclass(frozen=True)
class RepaintSettings(FillSettings):
    """What can be turned on `sd15-repaint`."""

    steps: int = whole(STEPS, lowest=1, highest=250, meaning="Noise levels from noise to picture.")
    jump_length: int = whole(JUMP_LENGTH, lowest=1, highest=50, meaning="Levels gone up again at each jump.")
    repeats: int = whole(REPEATS, lowest=1, highest=20, meaning="How often each stretch is gone down in all.")
    largest_side: int = whole(TRAINED_SIDE, lowest=32, highest=LARGEST_SIDE, meaning=SIDE_MEANING)


class UnetChannelsError(ValueError):
    """A UNet that is neither for inpainting nor plain."""


def repaint_sd(folder: Path) -> Weighted[AsukaInpaintPipeline, RepaintSettings]:
    """RePaint on the backbone of a diffusers folder, under the prompt "".

    Raises:
        UnetChannelsError: for a UNet of other than 4 or 9 channels.
    """
    pipeline = load_backbone(folder)
    channels = pipeline.unet.config["in_channels"]
    if channels not in {4, WITH_HOLE}:
        raise UnetChannelsError(f"The UNet in {folder} takes {channels} channels; 4 or {WITH_HOLE} are needed.")
    return Weighted(_fill, pipeline, pipeline_files(folder), sizes, RepaintSettings())


@torch.no_grad()
def _fill(pipeline: Any, request: InpaintRequest, settings: RepaintSettings, watch: Watch) -> Filled:
    device, dtype = pipeline._execution_device, pipeline.unet.dtype  # noqa: SLF001 - diffusers' own word for it under offloading
    hole = torch.from_numpy(request.hole.copy())[None, None]
    grey = torch.where(hole, 0.5, torch.from_numpy(to_float(request.image))[None])
    vae, scale = pipeline.vae, pipeline.vae.config["scaling_factor"]
    known = (vae.encode((grey * 2 - 1).to(device, vae.dtype)).latent_dist.mode() * scale).float()
    cells = touched_cells(hole.float(), known.shape[2:]).to(known)
    condition, _ = pipeline.encode_prompt("", device, 1, False)  # noqa: FBT003 - diffusers' signature
    times, levels = noise_levels(pipeline.scheduler, settings.steps)
    colours = LatentColours(vae)
    ask = partial(_ask_unet, pipeline, torch.cat([cells, known], dim=1), condition.to(device, dtype))

    def predict(latents: Tensor, level: int) -> tuple[Tensor, Tensor]:
        clean, implied = clean_and_noise(pipeline.scheduler, latents, ask(latents, times[level]), levels(level))
        watch.preview(partial(colours.picture, clean))
        return clean, implied

    path = resampling_path(settings.steps, settings.jump_length, settings.repeats)
    noise = NoiseStream([request.seed], tuple(known.shape[1:]))
    latents = repaint(known, cells, path=path, levels=levels, predict=predict, noise=noise, watch=watch)
    decoded: Tensor = vae.decode((latents / scale).to(vae.dtype)).sample
    pipeline.maybe_free_model_hooks()
    return Filled(to_uint8((decoded[0].float().cpu() / 2 + 0.5).clamp(0, 1).numpy()))


def predictions(settings: RepaintSettings) -> int:
    """UNet calls that a picture costs."""
    return count_predictions(resampling_path(settings.steps, settings.jump_length, settings.repeats))


def noise_levels(scheduler: Any, steps: int) -> tuple[list[int], Callable[[int], tuple[float, float]]]:
    """The trained time of each level 0..steps, and its (alpha, sigma); level 0 is clean."""
    power = scheduler.alphas_cumprod.double()
    trained = len(power)
    times = [max(round(level * trained / steps) - 1, 0) for level in range(steps + 1)]

    def levels(level: int) -> tuple[float, float]:
        if level == 0:
            return 1.0, 0.0
        signal = float(power[times[level]])
        return signal**0.5, (1 - signal) ** 0.5

    return times, levels


def _ask_unet(pipeline: AsukaInpaintPipeline, known: Tensor, condition: Tensor, latents: Tensor, time: int) -> Tensor:
    unet = pipeline.unet
    seen = torch.cat([latents, known], dim=1) if unet.config["in_channels"] == WITH_HOLE else latents
    predicted: Any = unet(seen.to(unet.dtype), time, encoder_hidden_states=condition)
    return predicted.sample.float()


def clean_and_noise(
    scheduler: Any, latents: Tensor, predicted: Tensor, level: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """What a prediction says about the clean latents and the noise, for noise- and for v-prediction."""
    alpha, sigma = level
    if scheduler.config.prediction_type == "v_prediction":
        return alpha * latents - sigma * predicted, sigma * latents + alpha * predicted
    return (latents - sigma * predicted) / alpha, predicted
