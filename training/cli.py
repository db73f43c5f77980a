"""`python -m training`: train a stage or the whole small family, export it, carry it between machines, measure it."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from asuka_infer.asuka.embedded_files import COMMITTED, FOLDER_VARIABLE, PROMPT
from asuka_infer.catalog import UnknownMethodError
from asuka_infer.metrics.features import FeatureWeightsError, SqueezeNet, pooled_features
from asuka_infer.metrics.lpips import LpipsAlex
from asuka_infer.metrics.pixels import MetricError
from asuka_infer.settings import SettingsError
from asuka_infer.weights import WeightsError, read_json
from training import chain
from training.ablations import Setup, train_rows, write_ablations
from training.cost import cost_table
from training.finetune import Own, before_and_after, finetune, notes_of
from training.full import ORDER, RECIPES, FullSources, FullStage, Parts, export_run, export_tokens, train_full
from training.loop import TrainingError, read_state
from training.masks import MaskError, read_silhouettes
from training.measure import MeasureError, fill_all, measure, read_cases, write_sheet, write_table
from training.pack import PackError, pack
from training.photographs import DataError
from training.presets import Perceptual
from training.prompt import train_prompt, write_prompt
from training.silhouettes import MOST, from_coco, from_masks, pack_silhouettes

ERRORS = (
    DataError,
    FeatureWeightsError,
    MaskError,
    MeasureError,
    MetricError,
    PackError,
    SettingsError,
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
    prompt = commands.add_parser("prompt", help="learn tokens as the condition of frozen weights (SD-prompt)")
    _add_training(prompt, compiles=False)
    prompt.add_argument("--minutes", type=float, help="time budget over all restarts")
    prompt.add_argument("--weights", type=Path, default=COMMITTED, help="a folder that 'export' wrote")
    prompt.add_argument("--out", type=Path, help="where the tokens go when they are learnt; default RUN/" + PROMPT)
    prompt.set_defaults(run_command=_train_prompt)
    _add_finetune(commands.add_parser("finetune", help="go on from exported weights on one's own photographs"))
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
    _add_ablations(
        commands.add_parser("ablations", help="the paper's Table 2 a, b, d at small scale: docs/ablations.md")
    )
    rehearse = commands.add_parser("rehearse", help="train every stage for some seconds and tell its speed")
    _add_training(rehearse)
    rehearse.add_argument("--seconds", type=float, default=15.0, help="per stage")
    rehearse.set_defaults(run_command=_rehearse)
    pack = commands.add_parser("pack", help="photographs and all they need in one folder of limited size")
    add_sources(pack)
    pack.add_argument("--out", type=Path, required=True, help="folder to carry; train with --data OUT/train")
    pack.add_argument("--limit-mib", type=float, default=52.0, help="largest size of the folder")
    pack.set_defaults(run_command=_pack)
    _add_full(commands.add_parser("full", help="the paper's recipe on Stable Diffusion 1.5: docs/full-recipe.md"))
    cost = commands.add_parser("cost", help="FLOPs, hours and dollars of the paper's recipe, counted")
    cost.set_defaults(run_command=_cost)
    shapes = commands.add_parser("silhouettes", help="object shapes from COCO's annotations or PNG masks")
    source = shapes.add_mutually_exclusive_group(required=True)
    source.add_argument("--coco", type=Path, help="an instances_*.json")
    source.add_argument("--masks", type=Path, help="folder of PNG files, one object each, not black = object")
    shapes.add_argument("--out", type=Path, required=True, help="npz file; a CSV of the same name goes beside it")
    shapes.add_argument("--most", type=int, default=MOST, help="a random choice of so many is kept")
    shapes.set_defaults(run_command=_pack_silhouettes)
    state = commands.add_parser("state", help="say how far each stage is")
    state.add_argument("--run", type=Path, required=True)
    state.set_defaults(run_command=_state)
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", type=Path, required=True, help="folder of the run; resumed where it stopped")
    parser.add_argument("--preset", choices=["gpu", "cpu", "tiny"], default="cpu")


def _add_training(parser: argparse.ArgumentParser, *, compiles: bool = True) -> None:
    _add_run(parser)
    add_sources(parser)
    parser.add_argument("--pause-after", type=float, metavar="MINUTES", help="stop this call then, to be continued")
    if compiles:
        parser.add_argument("--compile", action="store_true", help="torch.compile the objective")


def _add_measure(table: argparse.ArgumentParser) -> None:
    table.add_argument("--eval", type=Path, required=True, help="folder with images/ and masks/")
    table.add_argument("--out", type=Path, required=True, help="results, table.csv, differences.csv, sheet.webp")
    table.add_argument(
        "--methods",
        default="asuka-mini,sd-mini,mae-mini,telea,fsr,shift-map",
        metavar="KEY[:NAME=VALUE...],...",
        help="with settings where they are not to be the usual ones: asuka-mini:texture=0 (default: %(default)s)",
    )
    table.add_argument("--weights", type=Path, help="measure the embedded family with these weights")
    table.add_argument("--size", type=int, default=256, help="side to which photographs are brought")
    table.add_argument("--holes", type=int, default=10, help="per photograph: the given one and drawn ones")
    table.add_argument("--photographs", type=int, help="only about so many, of all kinds")
    table.add_argument("--silhouettes", type=Path, nargs="+", help="npz files; default EVAL/../object_masks/*.npz")
    table.add_argument("--reserved", type=Path, help="shapes kept for evaluation; default beside the silhouettes")
    table.add_argument("--perceptual", type=Path, help="SqueezeNet weights; default EVAL/../weights/squeezenet*.pth")
    table.set_defaults(run_command=_measure, no_perceptual=False, tier="all")


def _add_ablations(parser: argparse.ArgumentParser) -> None:
    _add_run(parser)
    add_sources(parser)
    parser.add_argument("--eval", type=Path, required=True, help="folder with images/ and masks/ to measure on")
    parser.add_argument("--out", type=Path, required=True, help="folder for ablations.md, ablations.csv and sheets")
    parser.add_argument("--weights", type=Path, default=COMMITTED, help="what every row begins with")
    parser.add_argument("--vae", type=Path, help="RUN/vae of a chain, for the decoders to begin with; default random")
    parser.add_argument("--steps", type=int, help="of every training stage of every row; default the preset's")
    parser.add_argument("--size", type=int, help="side to which photographs are brought; default the model's")
    parser.add_argument("--holes", type=int, default=2, help="per photograph: the given one and drawn ones")
    parser.add_argument("--photographs", type=int, default=25, help="only about so many, of all kinds")
    parser.set_defaults(run_command=_ablations)


def _add_finetune(parser: argparse.ArgumentParser) -> None:
    _add_run(parser)
    parser.add_argument("--data", type=Path, required=True, help="a folder of your photographs, or of tar shards")
    parser.add_argument("--weights", type=Path, default=COMMITTED, help="what to go on from; it is not changed")
    parser.add_argument("--out", type=Path, required=True, help="folder for the new weights: ASUKA_MINI_WEIGHTS")
    parser.add_argument("--minutes", type=float, default=20.0, help="of training in all; 0 takes the preset's steps")
    parser.add_argument("--pause-after", type=float, metavar="MINUTES", help="stop this call then, to be continued")
    parser.add_argument("--perceptual", type=Path, help="SqueezeNet weights; default DATA/../weights/squeezenet*.pth")
    parser.add_argument("--silhouettes", type=Path, nargs="+", default=[], help="object shapes; without, strokes")
    parser.add_argument("--reserved", type=Path, help="text file naming shapes kept for evaluation")
    parser.add_argument("--held-out", type=float, default=0.2, help="share of the photographs measured on")
    parser.add_argument("--seed", type=int, default=0, help="names which photographs those are")
    parser.add_argument("--holes", type=int, default=2, help="per measured photograph")
    parser.add_argument("--photographs", type=int, default=50, help="measured at most")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="that decode and draw holes")
    parser.set_defaults(run_command=_finetune)


def _add_full(parser: argparse.ArgumentParser) -> None:
    what = [*ORDER, "all", "export", "prompt", "export-prompt"]
    parser.add_argument("what", choices=what, help="a stage, all of mae, alignment and decoder, or what they made")
    parser.add_argument("--backbone", type=Path, required=True, help="diffusers folder of SD 1.5 inpainting")
    parser.add_argument("--mae", type=Path, required=True, help="mae_visualize_vit_base.pth or a hub copy")
    parser.add_argument("--decoder", type=Path, required=True, help="diffusers folder of Zhu et al.'s autoencoder")
    parser.add_argument("--run", type=Path, required=True, help="folder of the run, seen by all hosts; resumed")
    parser.add_argument("--recipe", choices=list(RECIPES), default="paper", help="'rehearsal': two steps of each stage")
    parser.add_argument("--data", type=Path, help="photographs, e.g. Places2 as it is downloaded (tar or unpacked)")
    parser.add_argument("--tier", choices=["all", "open"], default="all", help="'open': only licences for any use")
    parser.add_argument("--silhouettes", type=Path, nargs="+", default=[], help="npz files that 'silhouettes' wrote")
    parser.add_argument("--reserved", type=Path, help="text file naming shapes kept for evaluation")
    parser.add_argument(
        "--lpips", type=Path, nargs=2, metavar=("ALEXNET", "HEADS"), help="the decoder's perceptual loss"
    )
    parser.add_argument("--perceptual", type=Path, help="SqueezeNet weights instead")
    parser.add_argument(
        "--per-device", type=int, help="samples that fit into a GPU at a time; steps stay whole batches"
    )
    parser.add_argument("--public-mae", action="store_true", help="leave the MAE as it was published (ablation 2a)")
    parser.add_argument("--pause-after", type=float, metavar="MINUTES", help="stop this call then, to be continued")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="that decode, per process")
    parser.add_argument(
        "--out", type=Path, help="of an export: $ASUKA_WEIGHTS/asuka-sd15, or sd15-prompt/NAME.safetensors"
    )
    parser.add_argument("--full-precision", action="store_true", help="export 32 bits a weight")
    parser.set_defaults(run_command=_run_full)


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


def _train_prompt(given: argparse.Namespace) -> int:
    bench = chain.prepare(sources_of(given, given.data), given.run, given.preset, processes=given.processes)
    complete = train_prompt(
        given.weights, bench, given.run, given.preset, minutes=given.minutes, pause_after=given.pause_after
    )
    out = given.out or given.run / PROMPT
    write_prompt(given.run, given.weights, out)
    print(out if complete else f"{out}, paused before the end; the same command goes on from here.")
    return 0 if complete else 3


def _ablations(given: argparse.Namespace) -> int:
    sources = sources_of(given, given.data)
    if sources.perceptual is None or sources.reserved is None:
        raise MeasureError("Ablations are measured: they need SqueezeNet weights and the shapes kept for evaluation.")
    bench = chain.prepare(sources, given.run, given.preset, processes=given.processes)
    setup = Setup(given.weights, bench, given.run, given.preset, given.steps, given.vae)
    if not train_rows(setup):
        print("Paused before the end; the same command goes on from here.")
        return 3
    shapes = read_silhouettes(sources.silhouettes, sources.reserved, for_evaluation=True)
    size = given.size or bench.model.pixels
    cases = read_cases(given.eval, shapes, size=size, holes=given.holes, photographs=given.photographs)
    print("\n".join(write_ablations(setup, cases, SqueezeNet(sources.perceptual), given.out)))
    return 0


def _finetune(given: argparse.Namespace) -> int:
    found = [given.perceptual] if given.perceptual else sorted((given.data.parent / "weights").glob("squeezenet*.pth"))
    if not found:
        raise DataError(
            "Fine-tuning needs SqueezeNet weights, for its loss and its table: fetch "
            "https://download.pytorch.org/models/squeezenet1_0-b66bff10.pth and name it with --perceptual."
        )
    own = Own(given.data, found[0], tuple(given.silhouettes), given.reserved, given.held_out, given.seed)
    minutes = given.minutes or None
    complete = finetune(
        own,
        given.weights,
        given.run,
        given.preset,
        minutes=minutes,
        pause_after=given.pause_after,
        processes=given.processes,
    )
    if not complete:
        return _report(given.run, complete=False)
    chain.export(given.run, given.out, given.preset, notes=notes_of(own, given.weights, minutes))
    table = before_and_after(
        own,
        given.weights,
        given.out,
        given.run,
        holes=given.holes,
        most=given.photographs,
        processes=given.processes,
    )
    print("\n".join([*table, f"To use them: {FOLDER_VARIABLE}={given.out} python app.py"]))
    return 0


def _run_full(given: argparse.Namespace) -> int:
    parts = Parts(given.backbone, given.mae, given.decoder)
    if given.what.startswith("export"):
        return _export_full(given, parts)
    if given.data is None or not given.silhouettes:
        raise DataError("Training needs --data with photographs and --silhouettes with object shapes.")
    sources = FullSources(
        data=given.data,
        silhouettes=tuple(given.silhouettes),
        reserved=given.reserved,
        perceptual=_perceptual_of(given),
        tier=given.tier,
        threads=given.threads,
    )
    order: Sequence[FullStage] = [name for name in ORDER if not (name == "mae" and given.public_mae)]
    stages: Sequence[FullStage] = order if given.what == "all" else [given.what]
    for name in stages:
        complete = read_state(given.run / name).complete or train_full(
            name,
            parts,
            sources,
            given.run,
            given.recipe,
            per_device=given.per_device,
            public_mae=given.public_mae,
            pause_after=given.pause_after,
        )
        if not complete:
            print(f"{name} paused before the end; the same command goes on from here.")
            return 3
    return 0


def _perceptual_of(given: argparse.Namespace) -> Perceptual | None:
    if given.lpips:
        return LpipsAlex(*given.lpips)
    if given.perceptual:
        return SqueezeNet(given.perceptual)
    if given.what in {"decoder", "all"} and given.recipe != "rehearsal":
        raise DataError("The decoder's loss needs a perceptual network: --lpips ALEXNET HEADS, or --perceptual FILE.")
    return None


def _export_full(given: argparse.Namespace, parts: Parts) -> int:
    if given.out is None:
        raise DataError("Say where the weights go with --out.")
    if given.what == "export-prompt":
        export_tokens(given.run, given.out)
        print(given.out)
        return 0
    half = not given.full_precision
    told = export_run(parts, given.run, given.out, given.recipe, half=half, public_mae=given.public_mae)
    print("\n".join([*told, str(given.out)]))
    return 0


def _cost(_given: argparse.Namespace) -> int:
    print("\n".join(cost_table()))
    return 0


def _pack_silhouettes(given: argparse.Namespace) -> int:
    found = from_coco(given.coco) if given.coco else from_masks(given.masks)
    print(f"{given.out} has {pack_silhouettes(found, given.out, most=given.most)} silhouettes.")
    return 0


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
