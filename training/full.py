"""The paper's recipe at full size: what each stage is trained with, from which files, and what comes out.

The stages are those of the small family; only their numbers and the model differ. Numbers that the paper states
(section 5) carry "paper", the others are our choice and docs/full-recipe.md says why.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from accelerate import PartialState

from asuka_infer.asuka.prompts import save_prompt
from training import alignment, decoder, mae, prompt
from training.backbone import BackboneRecipe
from training.data import gather_holes
from training.full_model import FullModel, export_full, load_full
from training.loop import WEIGHTS, Pace, Stage, TrainingError, put_weights, read_state, train, weights_of
from training.masks import read_silhouettes
from training.photographs import Tier
from training.presets import Bench, Growth, Perceptual
from training.prompt import LEARNT
from training.streaming import StreamedSupply, list_photographs

FullStage = Literal["mae", "alignment", "decoder", "prompt"]

Scale = Literal["paper", "rehearsal"]
"""The paper's numbers, or two steps of everything on small parts, for tests."""

PLACES2 = 1_803_460
"""Training photographs of Places2 (Places365-Standard)."""

HOLE_SEED = 4
"""Names the training holes."""

NOTES = "training.json"
"""The file in an exported folder that says how it was made."""


@dataclass(frozen=True)
class FullRecipe:
    """Every number of one scale; `pace.batch` is the whole batch, over all processes.

    Attributes:
        pixels: side of the pictures that the backbone was trained on.
        holes: drawn per size.
        depth: blocks of the alignment (paper: four self-attention blocks).
        mae, alignment, decoder, prompt: what the stages are trained with.
    """

    pixels: int
    holes: int
    depth: int
    mae: mae.MaeRecipe
    alignment: alignment.AlignmentRecipe
    decoder: decoder.DecoderRecipe
    prompt: prompt.PromptRecipe


_SCENES = BackboneRecipe(Pace(steps=1, batch=1, peak=0.0), sides=Growth(512), outside=1.0, smallest_crop=0.8)
_SMALL_SCENES = replace(_SCENES, sides=Growth(64))

RECIPES: Mapping[Scale, FullRecipe] = {
    "paper": FullRecipe(
        pixels=512,
        holes=50_000,
        depth=4,
        mae=mae.MaeRecipe(
            Pace(
                steps=50 * PLACES2 // 1024,
                batch=1024,  # paper
                peak=6e-4,
                final=0.0,
                warm_up=5 * PLACES2 // 1024,
                weight_decay=0.05,
                betas=(0.9, 0.95),
                average=0.9999,
            ),
            smallest_crop=0.45,
            bare=0.0,  # paper: every hole is topped up
        ),
        alignment=alignment.AlignmentRecipe(
            Pace(steps=50_000, batch=64, peak=1e-4, final=0.0, warm_up=500, betas=(0.9, 0.999), average=0.9999),
            decay=2000,  # paper
            scenes=_SCENES,
        ),
        decoder=decoder.DecoderRecipe(
            Pace(
                steps=50_000,  # paper
                batch=40,  # paper
                peak=8e-5,  # paper, with cosine decay
                final=0.0,
                warm_up=500,
                weight_decay=0.0,
                betas=(0.5, 0.9),
                average=0.9999,
            ),
            sides=Growth(256),
            sampled=0.0,
            most_steps=0,
            augmented=0.5,  # paper; the jitter's defaults are the paper's too
            plain=0.125,
            perceptual=1.0,
            grid=0.0,
            edges=0.0,
            hole=0.0,
        ),
        prompt=prompt.PromptRecipe(
            Pace(steps=10_000, batch=64, peak=1e-3, final=0.0, warm_up=500, weight_decay=0.0, average=0.999),
            scenes=_SCENES,
        ),
    ),
    "rehearsal": FullRecipe(
        pixels=64,
        holes=16,
        depth=1,
        mae=mae.MaeRecipe(Pace(steps=2, batch=4, peak=1e-3, warm_up=1, log_every=1, precision="no"), bare=0.0),
        alignment=alignment.AlignmentRecipe(
            Pace(steps=2, batch=4, peak=1e-3, warm_up=1, log_every=1, precision="no"), decay=2, scenes=_SMALL_SCENES
        ),
        decoder=decoder.DecoderRecipe(
            Pace(steps=2, batch=4, peak=1e-3, warm_up=1, log_every=1, precision="no"),
            sides=Growth(64),
            sampled=0.0,
            most_steps=0,
            plain=0.25,
            grid=0.0,
            edges=0.0,
            hole=0.0,
        ),
        prompt=prompt.PromptRecipe(
            Pace(steps=2, batch=4, peak=1e-2, warm_up=1, log_every=1, precision="no"), scenes=_SMALL_SCENES
        ),
    ),
}

ORDER: tuple[FullStage, ...] = ("mae", "alignment", "decoder")
"""What makes an ASUKA, in order; "prompt" makes the paper's SD-prompt from the backbone alone."""

LEAST: Mapping[FullStage, int] = {"mae": 1, "alignment": 1, "decoder": 4, "prompt": 1}
"""Fewest samples per pass: the decoder's batch has a plain, an estimated and a recoloured share."""

R = TypeVar("R", mae.MaeRecipe, alignment.AlignmentRecipe, decoder.DecoderRecipe, prompt.PromptRecipe)


@dataclass(frozen=True)
class Parts:
    """The published weights that training starts from; see `load_full`."""

    backbone: Path
    mae: Path
    decoder: Path


@dataclass(frozen=True)
class FullSources:
    """What a run is made from; all are read, none is changed.

    Attributes:
        data: folder of photographs or of tar shards (Places2 as it is downloaded).
        silhouettes: npz files of object shapes.
        reserved: text file naming the shapes kept for evaluation.
        perceptual: the perceptual network of the decoder's loss, or None.
        tier: which licences may be trained on.
        threads: that decode and draw holes.
    """

    data: Path
    silhouettes: tuple[Path, ...]
    reserved: Path | None
    perceptual: Perceptual | None
    tier: Tier = "all"
    threads: int = 1


def train_full(
    name: FullStage,
    parts: Parts,
    sources: FullSources,
    run: Path,
    scale: Scale,
    *,
    per_device: int | None = None,
    public_mae: bool = False,
    pause_after: float | None = None,
) -> bool:
    """Train one stage on what is trained before it; returns whether it is complete.

    Args:
        name: of the stage.
        parts: what it starts from.
        sources: photographs, holes, perceptual network.
        run: the folder of the run, seen by all hosts.
        scale: whose numbers.
        per_device: samples that fit into one GPU at a time; the whole batch stays the recipe's. None: in one pass.
        public_mae: leave the MAE as it was published (the paper's ablation 2a).
        pause_after: stop after so many minutes, to be continued.

    Raises:
        TrainingError: when a stage before it is missing or the batch cannot be shared out.
    """
    recipe = RECIPES[scale]
    needed: Sequence[FullStage] = ["mae"] if name == "alignment" and not public_mae else []
    model = assemble_full(parts, run, scale, needed=needed)
    bench = prepare_full(model, sources, run, scale)
    state = PartialState()
    micro, passes = shared_out(getattr(recipe, name).pace.batch, state.num_processes, per_device, LEAST[name])
    return train(build_stage(name, recipe, bench, micro), model, run, pause_after=pause_after, accumulate=passes)


def assemble_full(parts: Parts, run: Path, scale: Scale, *, needed: Sequence[FullStage] = ()) -> FullModel:
    """The model with the weights that the run has so far; `needed` must be among them and complete.

    Raises:
        TrainingError: when one of them is not.
    """
    lacking = [name for name in needed if not read_state(run / name).complete]
    if lacking:
        raise TrainingError(f"The stage {lacking[0]!r} is not complete in {run}; train it first.")
    recipe = RECIPES[scale]
    model = load_full(parts.backbone, parts.mae, parts.decoder, pixels=recipe.pixels, depth=recipe.depth)
    for name in ORDER:
        if (run / name / WEIGHTS).is_file():
            put_weights(model, weights_of(run / name), run / name / WEIGHTS)
    return model


def prepare_full(model: FullModel, sources: FullSources, run: Path, scale: Scale) -> Bench:
    """List photographs and draw holes into the run's cache, once per host.

    Raises:
        DataError, MaskError: for what cannot be read.
    """
    state = PartialState()
    device = torch.device(str(state.device) if torch.cuda.is_available() else "cpu")
    recipe, cache = RECIPES[scale], run / "cache"
    sides = recipe.alignment.scenes.sides.sides | recipe.decoder.sides.sides
    sizes = sorted({recipe.pixels, model.config.mae.image_size} | sides)
    with state.local_main_process_first():
        photographs = list_photographs(sources.data, cache, tier=sources.tier)
        silhouettes = read_silhouettes(sources.silhouettes, sources.reserved)
        holes = {
            size: gather_holes(
                cache, silhouettes, count=recipe.holes, seed=HOLE_SEED, size=size, processes=sources.threads
            )
            for size in sizes
        }
    supply = StreamedSupply(photographs, holes, device, side=recipe.pixels, threads=sources.threads)
    perceptual = sources.perceptual
    if isinstance(perceptual, torch.nn.Module):
        perceptual.to(device)
    return Bench(model.config, supply, perceptual, sources.tier)


def build_stage(name: FullStage, recipe: FullRecipe, bench: Bench, micro: int) -> Stage[FullModel]:
    """A stage that draws `micro` samples at a time and is known by its whole recipe, however they are shared out."""
    builders: Mapping[FullStage, Callable[[], Any]] = {
        "mae": lambda: mae.MaeStage(_in_parts(recipe.mae, micro), bench),
        "alignment": lambda: alignment.AlignmentStage(_in_parts(recipe.alignment, micro), bench),
        "decoder": lambda: decoder.DecoderStage(_in_parts(recipe.decoder, micro), bench),
        "prompt": lambda: prompt.PromptStage(_in_parts(recipe.prompt, micro), bench),
    }
    stage = builders[name]()
    stage.recipe = {**asdict(getattr(recipe, name)), "tier": bench.tier}
    return stage


def shared_out(batch: int, processes: int, per_device: int | None, least: int = 1) -> tuple[int, int]:
    """(samples in a pass, passes in a step) so that all processes together see exactly the whole batch.

    Raises:
        TrainingError: when it cannot be shared out evenly.
    """
    share, left = divmod(batch, processes)
    fits = [size for size in range(least, share + 1) if share % size == 0 and size <= (per_device or share)]
    if left or not fits:
        most = f", at most {per_device} at a time" if per_device else ""
        raise TrainingError(
            f"A batch of {batch} cannot be shared by {processes} processes in passes of at least {least}{most}; choose "
            f"a number of processes that divides it and another --per-device."
        )
    return fits[-1], share // fits[-1]


def export_run(
    parts: Parts, run: Path, out: Path, scale: Scale, *, half: bool = True, public_mae: bool = False
) -> list[str]:
    """Write the folder that `asuka-sd15` loads, and how it was made; returns what it was made of, a line each.

    Raises:
        TrainingError: when a stage is not complete.
    """
    needed: list[FullStage] = [name for name in ORDER if not (public_mae and name == "mae")]
    model = assemble_full(parts, run, scale, needed=needed)
    export_full(model, parts.backbone, out, half=half)
    stages = {name: vars(read_state(run / name)) for name in needed}
    notes = {"stages": stages, "recipe": asdict(RECIPES[scale]), "parts": {k: str(v) for k, v in vars(parts).items()}}
    (out / NOTES).write_text(json.dumps(notes, indent=1) + "\n", encoding="utf-8")
    return [f"{name}: {state['step']} steps, {state['seconds'] / 3600:.1f} h" for name, state in stages.items()]


def export_tokens(run: Path, out: Path) -> None:
    """Write the learned tokens as the file that `sd15-prompt` loads.

    Raises:
        TrainingError: when none were learnt.
    """
    save_prompt(weights_of(run / "prompt")[LEARNT], out)


def _in_parts(recipe: R, micro: int) -> R:
    return replace(recipe, pace=replace(recipe.pace, batch=micro))
