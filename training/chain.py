"""The whole chain from photographs to an embedded model: which stage needs what, and how weights get in and out."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from asuka_infer.asuka.mini import MiniModel, load_mini, save_mini
from asuka_infer.metrics.features import SqueezeNet
from training import alignment, backbone, decoder, mae, vae
from training.data import Supply, gather_holes
from training.loop import (
    LOG,
    WEIGHTS,
    Stage,
    StageState,
    TrainingError,
    put_weights,
    read_state,
    save_weights,
    train,
    weights_of,
    write_state,
)
from training.masks import read_silhouettes
from training.photographs import SIDE, Photographs, Tier, gather_photographs
from training.presets import MODELS, Bench, Preset

StageName = Literal["vae", "mae", "backbone", "alignment", "decoder"]

HOLES: Mapping[Preset, int] = {"gpu": 30_000, "cpu": 20_000, "tiny": 64}
"""Holes drawn per size; several for every photograph, and seconds of work for the cores that feed a GPU."""

HOLE_SEED = 4
"""Names the training holes."""

MINUTES: Mapping[Preset, Mapping[StageName, float | None]] = {
    # 22.5 minutes in all; what a half-hour loan leaves after starting, decoding and carrying.
    "gpu": {"vae": 5.0, "mae": 3.0, "backbone": 11.0, "alignment": 1.0, "decoder": 2.5},
    # An hour and a half; what is learnt at last, the decoder, shows most.
    "cpu": {"vae": 15.0, "mae": 10.0, "backbone": 15.0, "alignment": 2.0, "decoder": 45.0},
    "tiny": {"vae": None, "mae": None, "backbone": None, "alignment": None, "decoder": None},
}


@dataclass(frozen=True)
class Sources:
    """What a run is made from; all are read, none is changed.

    Attributes:
        data: folder of photographs or of tar shards.
        silhouettes: npz files of object shapes.
        reserved: text file naming the shapes kept for evaluation.
        perceptual: SqueezeNet 1.0 weights, or None to train without a perceptual loss.
        tier: which licences may be trained on.
    """

    data: Path
    silhouettes: tuple[Path, ...]
    reserved: Path | None
    perceptual: Path | None
    tier: Tier = "all"


Builder = Callable[[Preset, Bench], Stage[MiniModel]]

STAGES: Mapping[StageName, Builder] = {
    "vae": lambda preset, bench: vae.VaeStage(vae.PRESETS[preset], bench),
    "mae": lambda preset, bench: mae.MaeStage(mae.PRESETS[preset], bench),
    "backbone": lambda preset, bench: backbone.BackboneStage(backbone.PRESETS[preset], bench),
    "alignment": lambda preset, bench: alignment.AlignmentStage(alignment.PRESETS[preset], bench),
    "decoder": lambda preset, bench: decoder.DecoderStage(decoder.PRESETS[preset], bench),
}
"""In the order in which they are trained."""

MODEL_SEED = 2026
"""Names the random weights everything starts from."""


def prepare(sources: Sources, run: Path, preset: Preset, *, processes: int = 1) -> Bench:
    """Decode photographs and draw holes into the run's cache (once) and put them on the device.

    Raises:
        DataError, MaskError, FeatureWeightsError: for what cannot be read.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, cache = MODELS[preset], run / "cache"
    side = min(SIDE, model.pixels)
    photographs = gather_photographs(sources.data, cache, side=side, tier=sources.tier, processes=processes)
    silhouettes = read_silhouettes(sources.silhouettes, sources.reserved)
    growing = (vae.PRESETS[preset], backbone.PRESETS[preset], alignment.PRESETS[preset].scenes, decoder.PRESETS[preset])
    sizes = {model.pixels, model.mae.image_size}.union(*(recipe.sides.sides for recipe in growing))
    holes = {
        size: gather_holes(cache, silhouettes, count=HOLES[preset], seed=HOLE_SEED, size=size, processes=processes)
        for size in sorted(sizes)
    }
    _refuse_too_few(photographs, sources)
    perceptual = SqueezeNet(sources.perceptual).to(device) if sources.perceptual else None
    return Bench(model, Supply(photographs, holes, device), perceptual, sources.tier)


def train_stage(
    name: StageName,
    bench: Bench,
    run: Path,
    preset: Preset,
    *,
    minutes: float | None = None,
    pause_after: float | None = None,
    compiled: bool = False,
) -> bool:
    """Train one stage on the weights of those before it; returns whether it is complete. See `loop.train`."""
    stage = STAGES[name](preset, bench)
    model = assemble(run, preset, _stages_before(name))
    return train(stage, model, run, minutes=minutes, pause_after=pause_after, compiled=compiled)


def train_mini(
    bench: Bench, run: Path, preset: Preset, *, pause_after: float | None = None, compiled: bool = False
) -> bool:
    """Train what is not complete of the whole chain, stage after stage; returns whether all of it is.

    Args:
        bench: photographs and holes.
        run: the folder of the chain.
        preset: decides sizes and minutes.
        pause_after: stop after so many minutes, wherever that is; call again to go on.
        compiled: see `loop.train`.
    """
    started = time.monotonic()
    for name in STAGES:
        if read_state(run / name).complete:
            continue
        left = None if pause_after is None else pause_after - (time.monotonic() - started) / 60
        if left is not None and left <= 0:
            return False
        minutes = MINUTES[preset][name]
        if not train_stage(name, bench, run, preset, minutes=minutes, pause_after=left, compiled=compiled):
            return False
    return True


def rehearse(bench: Bench, run: Path, preset: Preset, *, seconds: float, compiled: bool) -> Iterator[str]:
    """Train every stage from random weights for some seconds in `run/rehearsal`; yields its speed as a line each."""
    for name in STAGES:
        scratch = run / "rehearsal" / f"{'compiled' if compiled else 'plain'}-{time.time_ns()}"
        stage = STAGES[name](preset, bench)
        train(stage, assemble(scratch, preset, []), scratch, pause_after=seconds / 60, compiled=compiled)
        state = read_state(scratch / name)
        memory = f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if torch.cuda.is_available() else ""
        speed = state.step / state.seconds
        yield f"{name:10} {speed:8.2f} steps/s {speed * stage.pace.batch:9.0f} pictures/s{memory}"


def assemble(run: Path, preset: Preset, stages: Sequence[StageName]) -> MiniModel:
    """The model with the weights that these stages have written.

    Raises:
        TrainingError: when one of them has not been trained.
    """
    torch.manual_seed(MODEL_SEED)
    model = MiniModel(MODELS[preset])
    for name in stages:
        put_weights(model, weights_of(run / name), run / name / WEIGHTS)
    return model


def export(run: Path, out: Path, preset: Preset, *, notes: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Write the family's fp16 files from all that has been trained so far; returns sha256 by file name.

    Untrained stages keep their random weights and the manifest says so under "stages".
    """
    trained: list[StageName] = [name for name in STAGES if (run / name / WEIGHTS).is_file()]
    if not trained:
        raise TrainingError(f"Nothing has been trained in {run} yet; there is nothing to export.")
    states = {name: vars(read_state(run / name)) for name in trained}
    out.mkdir(parents=True, exist_ok=True)
    return save_mini(assemble(run, preset, trained), out, notes={"stages": states, **(notes or {})})


def adopt(weights: Path, run: Path, *, anew: Sequence[str] = ()) -> list[str]:
    """Fill a run with exported weights, so that training goes on from them on another machine; returns the stages.

    What does not travel is the optimizers' memory; a stage that goes on warms up again. The stages `anew` begin a
    schedule of their own from these weights.

    Raises:
        TrainingError: when the run already has weights.
    """
    loaded = load_mini(weights)
    states: Mapping[str, Any] = loaded.notes["stages"]
    for name in states:
        folder = run / name
        if (folder / WEIGHTS).is_file():
            raise TrainingError(f"{folder} already has weights; adopt into an empty run folder.")
        prefixes = TRAINED[name]
        own = {key: value for key, value in loaded.model.named_parameters() if key.startswith(prefixes)}
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(own, folder / WEIGHTS)
        write_state(folder, StageState() if name in anew else StageState(**states[name]))
    return list(states)


TRAINED: Mapping[str, tuple[str, ...]] = {
    "vae": vae.VaeStage.trains,
    "mae": mae.MaeStage.trains,
    "backbone": backbone.BackboneStage.trains,
    "alignment": alignment.AlignmentStage.trains,
    "decoder": decoder.DecoderStage.trains,
}


def describe(run: Path) -> list[str]:
    """One line per stage: how far it is."""
    lines: list[str] = []
    for name in STAGES:
        state = read_state(run / name)
        last = (run / name / LOG).read_text(encoding="utf-8").splitlines()[-1:] if (run / name / LOG).is_file() else []
        word = "complete" if state.complete else "under way" if state.step else "not begun"
        lines.append(f"{name:10} {word:10} {state.step:7} steps {state.seconds / 60:6.1f} min  {''.join(last)}")
    return lines


def _stages_before(name: StageName) -> list[StageName]:
    order = list(STAGES)
    return order[: order.index(name)] if name != "mae" else []


def _refuse_too_few(photographs: Photographs, sources: Sources) -> None:
    if not len(photographs.training):
        raise TrainingError(f"All photographs of {sources.data} are held out by their names; add a few more.")
