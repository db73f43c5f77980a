"""The embedded family made at home in one kind of photographs, and measured before and after on some it never saw."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from asuka_infer.asuka.embedded_files import MANIFEST
from asuka_infer.asuka.mini import MiniModel
from asuka_infer.metrics.distributions import FEWEST
from asuka_infer.metrics.features import SqueezeNet, pooled_features
from training import chain, decoder, mae
from training.data import Supply, gather_holes
from training.loop import WEIGHTS, Pace, Stage, read_state, train
from training.masks import PAPER, Mixture, Silhouettes, numbered_hole, read_silhouettes
from training.measure import HOLE_SEED, Case, fill_all, measure, write_sheet, write_table
from training.photographs import SIDE, DataError, Photographs, gather_photographs
from training.presets import MODELS, Bench, Preset

LEAST_PHOTOGRAPHS = 10
"""Fewer cannot be split into some to learn from and some to measure on."""

GENTLER = 1 / 3
"""Of the peak learning rate from scratch: what was learnt from thousands of photographs is to stay (our choice)."""

SHARES: Mapping[Literal["mae", "decoder"], float] = {"mae": 0.2, "decoder": 0.8}
"""Of the minutes: the decoder is what minutes should go to (docs/training.md). The UNet stays as it is."""

NO_OBJECTS = Mixture(irregular=0.8, regular=0.2)
"""The paper's mixture without object shapes, for those who have none."""

METHOD = "asuka-mini"

SPLIT = "split.csv"
"""The file that says which photographs were learnt from and which measured on."""


@dataclass(frozen=True)
class Own:
    """One's own photographs and what is needed beside them.

    Attributes:
        data: a folder of photographs; the first folders below it are kinds, between which draws are balanced.
        perceptual: SqueezeNet 1.0 weights: of the loss and of the table.
        silhouettes: npz files of object shapes; without any, holes are strokes and rectangles.
        reserved: text file naming shapes kept for evaluation.
        share: of the photographs that is measured on and never learnt from.
        seed: names which.
    """

    data: Path
    perceptual: Path
    silhouettes: tuple[Path, ...] = ()
    reserved: Path | None = None
    share: float = 0.2
    seed: int = 0


def finetune(
    own: Own,
    weights: Path,
    run: Path,
    preset: Preset,
    *,
    minutes: float | None,
    pause_after: float | None = None,
    processes: int = 1,
) -> bool:
    """Go on training exported weights on one's own photographs; returns whether it is complete.

    Args:
        own: the photographs.
        weights: a folder that `export` wrote; it is not changed.
        run: the folder of the run, resumed where it stopped.
        preset: of the weights: "cpu" or "gpu" for the committed ones.
        minutes: of training in all; None takes the preset's steps.
        pause_after: stop this call after so many minutes, to be continued.
        processes: that decode and draw holes.

    Raises:
        DataError: when there are too few photographs.
        TrainingError: when the weights have other sizes than the preset.
    """
    bench = _bench(own, run, preset, processes)
    if not any((run / name / WEIGHTS).is_file() for name in SHARES):
        chain.adopt(weights, run, anew=list(SHARES))
    for name, share in SHARES.items():
        if read_state(run / name).complete:
            continue
        before: list[chain.StageName] = [each for each in chain.STAGES if each != name]
        model = chain.assemble(run, preset, before)
        budget = None if minutes is None else share * minutes
        if not train(_stage(name, preset, bench), model, run, minutes=budget, pause_after=pause_after):
            return False
    return True


def before_and_after(
    own: Own, before: Path, after: Path, run: Path, *, holes: int, most: int, processes: int = 1
) -> list[str]:
    """The table of the weights before, those after and Telea on the held-out photographs; lines to print.

    Args:
        own: the photographs.
        before: weights.
        after: weights.
        run: the table goes to `run/table`.
        holes: per photograph; more where there are too few photographs for the scores of a whole set.
        most: photographs at most.
        processes: that decode.
    """
    photographs = split_photographs(own, run, SIDE, processes)
    silhouettes, mixture = _shapes(own)
    holes = max(holes, ceil(FEWEST / min(most, len(photographs.evaluation))))
    cases = [
        Case(
            photographs.entries[index].name.replace("/", "_"),
            number,
            np.array(photographs.pixels[index]),
            numbered_hole(
                int(index) * holes + number, seed=HOLE_SEED, silhouettes=silhouettes, size=SIDE, mixture=mixture
            ),
        )
        for index in photographs.evaluation[:most]
        for number in range(holes)
    ]
    out = run / "table"
    network = SqueezeNet(own.perceptual)
    files = {
        "after": fill_all(METHOD, cases, out / "after", weights=after),
        "before": fill_all(METHOD, cases, out / "before", weights=before),
        "telea": fill_all("telea", cases, out),
    }
    measured = {name: measure(cases, results, network) for name, results in files.items()}
    truths = pooled_features([case.truth for case in cases], network)
    lines = write_table(measured, truths, [case.photograph for case in cases], out)
    write_sheet(cases, files, out)
    _write_split(photographs, out / SPLIT)
    shown = len({case.photograph for case in cases})
    told = (
        f"{METHOD} on {shown} of the {len(photographs.evaluation)} photographs held out of {len(photographs)} by seed "
        f"{own.seed}, {holes} holes each; {len(photographs.training)} were learnt from ({out / SPLIT})."
    )
    return [told, *lines]


def split_photographs(own: Own, run: Path, side: int, processes: int) -> Photographs:
    """The decoded photographs, some of them apart: drawn by the seed, whatever their names are.

    Raises:
        DataError: when there are too few.
    """
    found = gather_photographs(own.data, run / "cache", side=side, processes=processes)
    if len(found) < LEAST_PHOTOGRAPHS:
        raise DataError(f"{own.data} has {len(found)} photographs; fine-tuning needs {LEAST_PHOTOGRAPHS} at least.")
    count = min(len(found) - 2, max(2, round(own.share * len(found))))
    apart = np.random.default_rng(own.seed).permutation(len(found))[:count]
    return replace(found, apart=frozenset(apart.tolist()))


def _bench(own: Own, run: Path, preset: Preset, processes: int) -> Bench:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = MODELS[preset]
    photographs = split_photographs(own, run, min(SIDE, model.pixels), processes)
    silhouettes, mixture = _shapes(own)
    holes = {
        size: gather_holes(
            run / "cache",
            silhouettes,
            count=min(chain.HOLES[preset], 20 * len(photographs)),
            seed=chain.HOLE_SEED,
            size=size,
            mixture=mixture,
            processes=processes,
        )
        for size in sorted({model.pixels, model.mae.image_size} | decoder.PRESETS[preset].sides.sides)
    }
    return Bench(model, Supply(photographs, holes, device), SqueezeNet(own.perceptual).to(device))


def _shapes(own: Own) -> tuple[Silhouettes, Mixture]:
    if own.silhouettes:
        return read_silhouettes(own.silhouettes, own.reserved), PAPER
    return Silhouettes(np.zeros((0, SIDE * SIDE // 8), dtype=np.uint8), SIDE), NO_OBJECTS


def _stage(name: Literal["mae", "decoder"], preset: Preset, bench: Bench) -> Stage[MiniModel]:
    if name == "mae":
        recipe = mae.PRESETS[preset]
        return mae.MaeStage(replace(recipe, pace=_gentler(recipe.pace)), bench)
    recipe = decoder.PRESETS[preset]
    return decoder.DecoderStage(replace(recipe, pace=_gentler(recipe.pace)), bench)


def _gentler(pace: Pace) -> Pace:
    return replace(pace, peak=GENTLER * pace.peak)


def _write_split(photographs: Photographs, file: Path) -> None:
    apart = set(photographs.evaluation.tolist())
    with file.open("w", encoding="utf-8", newline="") as table:
        writer = csv.writer(table)
        writer.writerow(["photograph", "used_for"])
        for index, entry in enumerate(photographs.entries):
            writer.writerow([entry.name, "measuring" if index in apart else "learning"])


def notes_of(own: Own, weights: Path, minutes: float | None) -> dict[str, Any]:
    """What the exported weights say of their fine-tuning."""
    return {
        "fine_tuned": {
            "from": (weights / MANIFEST).as_posix(),
            "folder": own.data.name,
            "held_out": own.share,
            "seed": own.seed,
            "minutes": minutes,
            "stages": list(SHARES),
        }
    }
