"""`python -m training`: train a stage or the whole small family, export it, carry it between machines, measure it."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from asuka_infer.catalog import UnknownMethodError
from asuka_infer.metrics.features import FeatureWeightsError, SqueezeNet, pooled_features
from asuka_infer.metrics.pixels import MetricError
from asuka_infer.weights import WeightsError, read_json
from training import chain
from training.loop import TrainingError
from training.masks import MaskError, read_silhouettes
from training.measure import MeasureError, fill_all, measure, read_cases, write_sheet, write_table
from training.pack import PackError, pack
from training.photographs import DataError

ERRORS = (
    DataError,
    FeatureWeightsError,
    MaskError,
    MeasureError,
    MetricError,
    PackError,
    TrainingError,
    UnknownMethodError,
    WeightsError,
)
"""What a user can do something about: one sentence and exit code 2."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 2 asked for something impossible, 3 paused before its end."""
    given = _parser().parse_args(arguments)
    try:
        return given.run_command(given)
    except ERRORS as error:
        print(error, file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in chain.STAGES:
        stage = commands.add_parser(name, help=f"train the stage '{name}'")
        _add_training(stage)
        stage.add_argument("--minutes", type=float, help="time budget of the stage over all restarts")
        stage.set_defaults(run_command=_train_stage, stage=name)
    mini = commands.add_parser("mini", help="train what is not complete of the whole small family")
    _add_training(mini)
    mini.set_defaults(run_command=_train_mini)
    export = commands.add_parser("export", help="write the family's fp16 safetensors from a run")
    _add_run(export)
    export.add_argument("--out", type=Path, required=True, help="folder for the files")
    export.add_argument("--notes", type=Path, help="JSON file whose values are kept in the manifest")
    export.set_defaults(run_command=_export)
    adopt = commands.add_parser("adopt", help="fill an empty run with exported weights, to train on")
    adopt.add_argument("--weights", type=Path, required=True, help="a folder that 'export' wrote")
    adopt.add_argument("--run", type=Path, required=True)
    adopt.set_defaults(run_command=_adopt)
    _add_measure(commands.add_parser("measure", help="the table over evaluation photographs, and a sheet"))
    rehearse = commands.add_parser("rehearse", help="train every stage for some seconds and tell its speed")
    _add_training(rehearse)
    rehearse.add_argument("--seconds", type=float, default=15.0, help="per stage")
    rehearse.set_defaults(run_command=_rehearse)
    pack = commands.add_parser("pack", help="photographs and all they need in one folder of limited size")
    add_sources(pack)
    pack.add_argument("--out", type=Path, required=True, help="folder to carry; train with --data OUT/train")
    pack.add_argument("--limit-mib", type=float, default=52.0, help="largest size of the folder")
    pack.set_defaults(run_command=_pack)
    state = commands.add_parser("state", help="say how far each stage is")
    state.add_argument("--run", type=Path, required=True)
    state.set_defaults(run_command=_state)
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", type=Path, required=True, help="folder of the run; resumed where it stopped")
    parser.add_argument("--preset", choices=["gpu", "cpu", "tiny"], default="cpu")


def _add_training(parser: argparse.ArgumentParser) -> None:
    _add_run(parser)
    add_sources(parser)
    parser.add_argument("--pause-after", type=float, metavar="MINUTES", help="stop this call then, to be continued")
    parser.add_argument("--compile", action="store_true", help="torch.compile the objective")


def _add_measure(table: argparse.ArgumentParser) -> None:
    table.add_argument("--eval", type=Path, required=True, help="folder with images/ and masks/")
    table.add_argument("--out", type=Path, required=True, help="results, table.csv, differences.csv, sheet.webp")
    table.add_argument("--methods", default="asuka-mini,sd-mini,mae-mini,telea,fsr,shift-map")
    table.add_argument("--weights", type=Path, help="measure the embedded family with these weights")
    table.add_argument("--size", type=int, default=256, help="side to which photographs are brought")
    table.add_argument("--holes", type=int, default=10, help="per photograph: the given one and drawn ones")
    table.add_argument("--photographs", type=int, help="only about so many, of all kinds")
    table.add_argument("--silhouettes", type=Path, nargs="+", help="npz files; default EVAL/../object_masks/*.npz")
    table.add_argument("--reserved", type=Path, help="shapes kept for evaluation; default beside the silhouettes")
    table.add_argument("--perceptual", type=Path, help="SqueezeNet weights; default EVAL/../weights/squeezenet*.pth")
    table.set_defaults(run_command=_measure, no_perceptual=False, tier="all")


def add_sources(parser: argparse.ArgumentParser) -> None:
    """The options that `sources_of` reads."""
    parser.add_argument("--data", type=Path, required=True, help="photographs: a folder of them or of tar shards")
    parser.add_argument("--tier", choices=["all", "open"], default="all", help="'open': only licences for any use")
    parser.add_argument("--silhouettes", type=Path, nargs="+", help="npz files; default DATA/../object_masks/*.npz")
    parser.add_argument("--reserved", type=Path, help="shapes kept for evaluation; default beside the silhouettes")
    parser.add_argument("--perceptual", type=Path, help="SqueezeNet weights; default DATA/../weights/squeezenet*.pth")
    parser.add_argument("--no-perceptual", action="store_true", help="train without a perceptual loss")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="that decode and draw holes")


def sources_of(given: argparse.Namespace, data: Path) -> chain.Sources:
    """What a run is made from: as told on the command line, the rest from beside the photographs.

    Raises:
        DataError: when silhouettes or perceptual weights are neither told nor found.
    """
    beside = data.parent
    silhouettes = given.silhouettes or sorted((beside / "object_masks").glob("*.npz"))
    if not silhouettes:
        raise DataError(f"There are no silhouettes in {beside / 'object_masks'}; name npz files with --silhouettes.")
    reserved = given.reserved or silhouettes[0].parent / "reserved_for_evaluation.txt"
    found = [given.perceptual] if given.perceptual else sorted((beside / "weights").glob("squeezenet*.pth"))
    if not found and not given.no_perceptual:
        raise DataError("There are no SqueezeNet weights; name them with --perceptual, or say --no-perceptual.")
    return chain.Sources(
        data=data,
        silhouettes=tuple(silhouettes),
        reserved=reserved if reserved.is_file() else None,
        perceptual=None if given.no_perceptual else found[0],
        tier=given.tier,
    )


def _train_stage(given: argparse.Namespace) -> int:
    bench = chain.prepare(sources_of(given, given.data), given.run, given.preset, processes=given.processes)
    complete = chain.train_stage(
        given.stage,
        bench,
        given.run,
        given.preset,
        minutes=given.minutes or chain.MINUTES[given.preset][given.stage],
        pause_after=given.pause_after,
        compiled=given.compile,
    )
    return _report(given.run, complete=complete)


def _train_mini(given: argparse.Namespace) -> int:
    bench = chain.prepare(sources_of(given, given.data), given.run, given.preset, processes=given.processes)
    complete = chain.train_mini(bench, given.run, given.preset, pause_after=given.pause_after, compiled=given.compile)
    return _report(given.run, complete=complete)


def _export(given: argparse.Namespace) -> int:
    notes = read_json(given.notes) if given.notes else {}
    for name, digest in chain.export(given.run, given.out, given.preset, notes=notes).items():
        print(f"{digest}  {given.out / name}")
    return 0


def _adopt(given: argparse.Namespace) -> int:
    print(f"Adopted {', '.join(chain.adopt(given.weights, given.run))} into {given.run}.")
    return 0


def _rehearse(given: argparse.Namespace) -> int:
    bench = chain.prepare(sources_of(given, given.data), given.run, given.preset, processes=given.processes)
    for line in chain.rehearse(bench, given.run, given.preset, seconds=given.seconds, compiled=given.compile):
        print(line, flush=True)
    return 0


def _pack(given: argparse.Namespace) -> int:
    sources = sources_of(given, given.data)
    size = pack(
        sources.data,
        given.out,
        silhouettes=sources.silhouettes,
        reserved=sources.reserved,
        perceptual=sources.perceptual,
        limit_mib=given.limit_mib,
        processes=given.processes,
    )
    print(f"{given.out} has {size / 2**20:.1f} MiB.")
    return 0


def _measure(given: argparse.Namespace) -> int:
    sources = sources_of(given, given.eval)
    if sources.perceptual is None or sources.reserved is None:
        raise MeasureError("Measuring needs SqueezeNet weights and the list of shapes kept for evaluation.")
    shapes = read_silhouettes(sources.silhouettes, sources.reserved, for_evaluation=True)
    cases = read_cases(given.eval, shapes, size=given.size, holes=given.holes, photographs=given.photographs)
    network = SqueezeNet(sources.perceptual)
    files = {key: fill_all(key, cases, given.out, weights=given.weights) for key in given.methods.split(",")}
    measured = {key: measure(cases, results, network) for key, results in files.items()}
    truths = pooled_features([case.truth for case in cases], network)
    print("\n".join(write_table(measured, truths, [case.photograph for case in cases], given.out)))
    print(write_sheet(cases, files, given.out))
    return 0


def _state(given: argparse.Namespace) -> int:
    print("\n".join(chain.describe(given.run)))
    return 0


def _report(run: Path, *, complete: bool) -> int:
    print("\n".join(chain.describe(run)))
    if not complete:
        print("Paused before the end; the same command goes on from here.")
    return 0 if complete else 3
