"""Stable Diffusion's inpainting models on the terms of ASUKA: sd15, sd15-text, sd15-prompt, sd15-asymmetric and sd2.

They run in ASUKA's own pipeline without its prior: the same hole on the latent grid, the same noise per seed, the
picture encoded once, nothing under the hole ever read. Only what the row's name says differs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakValueDictionary

import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor

from asuka_infer.asuka.checkpoints import load_autoencoder
from asuka_infer.asuka.prompts import read_prompt
from asuka_infer.asuka.sd import DEFAULT_STEPS, AsukaInpaintPipeline
from asuka_infer.baselines.latent_preview import LatentColours
from asuka_infer.images import to_float, to_uint8
from asuka_infer.inpainter import Watch
from asuka_infer.placement import accept_old_array_calls, choose_placement, quiet_libraries, settle
from asuka_infer.request import InpaintRequest
from asuka_infer.settings import FillSettings, WorkingSize, choice, number, text, whole
from asuka_infer.weighted import Filled, Weighted, weight_files

MULTIPLE = 8
"""Pixels per latent cell and side."""

TRAINED_SIDE = 512
"""Both models were trained at this side; smaller crops are enlarged to it."""

LARGEST_SIDE = 4096
"""Far beyond what the models were trained for; a limit for memory's sake."""

STOCK_GUIDANCE = 7.5
"""What diffusers' pipeline does with a text; the paper does not say what its rows with a text used."""

MEMORY_MB = 5000
"""Weights of 1.1 G parameters in half precision, the VAE's activations at 768 px and slack."""

HALF_MARK = ".fp16."
"""In the names of weight files stored in half precision."""

SIDE_MEANING = "Longest side in pixels at which the model works; larger crops are scaled down."


@dataclass(frozen=True)
class DiffusionSettings(FillSettings):
    """What can be turned on a method with a fixed condition."""

    steps: int = whole(DEFAULT_STEPS, lowest=1, highest=100, meaning="Denoising steps; more is slower, rarely better.")
    solver: str = choice("dpm++", options=("dpm++", "unipc"), meaning="The second-order solver that takes the steps.")
    largest_side: int = whole(TRAINED_SIDE, lowest=32, highest=LARGEST_SIDE, meaning=SIDE_MEANING)


@dataclass(frozen=True)
class TextSettings(DiffusionSettings):
    """What can be turned on `sd15-text`."""

    prompt: str = text("background", meaning="What the hole is said to show.")
    guidance: float = number(
        STOCK_GUIDANCE, lowest=1.0, highest=20.0, meaning="How far to go beyond the text, away from none; 1 is none."
    )


class HasSolver(Protocol):
    """Settings that name a solver."""

    @property
    def solver(self) -> str:
        """dpm++ or unipc."""
        ...


@dataclass(frozen=True, eq=False)
class LearnedPrompt:
    """A pipeline and the tokens that were learned for it."""

    pipeline: AsukaInpaintPipeline
    tokens: Tensor


_shared: "WeakValueDictionary[Path, AsukaInpaintPipeline]" = WeakValueDictionary()
"""Backbones that some method still holds: rows that differ in their text alone share the weights."""


def empty_prompt(folder: Path) -> Weighted[AsukaInpaintPipeline, DiffusionSettings]:
    """`sd15` and `sd2`: the prompt "", for which guidance has nothing to lead away from."""
    return Weighted(_fill_empty, load_backbone(folder), pipeline_files(folder), sizes, DiffusionSettings())


def text_prompt(folder: Path) -> Weighted[AsukaInpaintPipeline, TextSettings]:
    """`sd15-text`: a word for what should be there."""
    return Weighted(_fill_text, load_backbone(folder), pipeline_files(folder), sizes, TextSettings())


def learned_prompt(folder: Path, tokens: Path) -> Weighted[LearnedPrompt, DiffusionSettings]:
    """`sd15-prompt`: tokens learned for all pictures alike.

    Args:
        folder: the backbone.
        tokens: a weight file with one tensor, (tokens, width) or (1, tokens, width).

    Raises:
        WeightsError: when it holds something else or does not fit the backbone.
    """
    pipeline = load_backbone(folder)
    learned = read_prompt(tokens, width=pipeline.unet.config["cross_attention_dim"])
    files = {**pipeline_files(folder), tokens.name: tokens}
    return Weighted(_fill_learned, LearnedPrompt(pipeline, learned), files, sizes, DiffusionSettings())


def asymmetric(folder: Path, vae: Path) -> Weighted[AsukaInpaintPipeline, DiffusionSettings]:
    """`sd15-asymmetric`: the prompt "" and Zhu et al.'s decoder, which sees the known pixels (the row "+ cond.")."""
    base = load_backbone(folder)
    decoder: Any = load_autoencoder(vae, sees_hole=False).to(base.vae.device, base.vae.dtype)
    model = AsukaInpaintPipeline(**{**parts_of(base), "vae": decoder})
    files = {**pipeline_files(folder, without=("vae",)), **{f"vae/{n}": p for n, p in weight_files(vae).items()}}
    return Weighted(_fill_empty, model, files, sizes, DiffusionSettings())


def load_backbone(folder: Path) -> AsukaInpaintPipeline:
    """The pipeline of a diffusers folder, once for all methods that hold it. Nothing is downloaded, no pickle read."""
    found = _shared.get(folder)
    if found is None:
        placement = choose_placement(MEMORY_MB)
        quiet_libraries()
        half = any(HALF_MARK in name for name in weight_files(folder, "unet"))
        # Half-precision files, where the folder has them, hold the same numbers in half the room.
        pipeline = AsukaInpaintPipeline.from_pretrained(
            folder,
            dtype=placement.dtype,
            variant="fp16" if half else None,
            use_safetensors=True,
            local_files_only=True,
            safety_checker=None,
            feature_extractor=None,
        )
        found = settle(pipeline, placement)
        _shared[folder] = found
    return found


def pipeline_files(folder: Path, *, without: tuple[str, ...] = ()) -> Mapping[str, Path]:
    """The weight files that `load_backbone` and its like read, by their path in the folder."""
    chosen: dict[str, Path] = {}
    for name, path in weight_files(folder).items():
        part = name.split("/", 1)[0]
        if path.suffix == ".safetensors" and "/" in name and part not in {"safety_checker", *without}:
            chosen[name] = path
    halved = {name.split("/", 1)[0] for name in chosen if HALF_MARK in name}
    return {name: path for name, path in chosen.items() if HALF_MARK in name or name.split("/", 1)[0] not in halved}


def sizes(settings: FillSettings) -> WorkingSize:
    """Crops of the side the models were trained on."""
    return WorkingSize(settings.largest_side, MULTIPLE, min(TRAINED_SIDE, settings.largest_side), continues=True)


def parts_of(pipeline: AsukaInpaintPipeline) -> dict[str, Any]:
    """The pipeline's parts by name, as its constructor takes them."""
    return dict(pipeline.components)


def with_solver(pipeline: AsukaInpaintPipeline, solver: str) -> AsukaInpaintPipeline:
    """A pipeline of the same parts with a solver of its own: a running one keeps its history in there."""
    accept_old_array_calls()
    kind: Any = DPMSolverMultistepScheduler if solver == "dpm++" else UniPCMultistepScheduler
    fresh = AsukaInpaintPipeline(**{**parts_of(pipeline), "scheduler": kind.from_config(pipeline.scheduler.config)})
    fresh.set_progress_bar_config(disable=True)
    return fresh


def tell_steps(watch: Watch, colours: LatentColours) -> Callable[..., dict[str, Any]]:
    """Diffusers' callback: steps for the watch, and the solver's present guess of the clean picture."""

    def after_step(pipeline: Any, index: int, time: object, values: dict[str, Any]) -> dict[str, Any]:
        del time
        guess = next((output for output in pipeline.scheduler.model_outputs[::-1] if output is not None), None)
        if guess is not None:
            watch.preview(partial(colours.picture, guess))
        watch.step(index + 1, pipeline.num_timesteps)
        return values

    return after_step


def run(
    pipeline: AsukaInpaintPipeline, request: InpaintRequest, settings: DiffusionSettings, watch: Watch, **condition: Any
) -> Filled:
    """Fill a request whose sides the pipeline takes, under a condition of `AsukaInpaintPipeline`."""
    fresh = with_solver(pipeline, settings.solver)
    pixels = torch.from_numpy(to_float(request.image))[None]
    done = fresh(
        pixels,
        torch.from_numpy(request.hole.copy())[None, None].float(),
        seeds=request.seed,
        num_inference_steps=settings.steps,
        output_type="pt",
        callback_on_step_end=tell_steps(watch, LatentColours(pipeline.vae)),
        **condition,
    )
    images: Any = done.images
    return Filled(to_uint8(images[0].float().cpu().numpy()))


def _fill_empty(
    pipeline: AsukaInpaintPipeline, request: InpaintRequest, settings: DiffusionSettings, watch: Watch
) -> Filled:
    return run(pipeline, request, settings, watch, prompt="")


def _fill_text(pipeline: AsukaInpaintPipeline, request: InpaintRequest, settings: TextSettings, watch: Watch) -> Filled:
    return run(pipeline, request, settings, watch, prompt=settings.prompt, guidance_scale=settings.guidance)


def _fill_learned(model: LearnedPrompt, request: InpaintRequest, settings: DiffusionSettings, watch: Watch) -> Filled:
    return run(model.pipeline, request, settings, watch, prompt_embeds=model.tokens)
