"""`python -m training.rivals`: train a rival, export its weights."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from asuka_infer.baselines.one_pass import WEIGHTS_FOLDER, save_one_pass
from training import chain
from training.cli import ERRORS, add_sources, sources_of
from training.loop import WEIGHTS, put_weights, read_state, train, weights_of
from training.rivals.table import RIVALS

DONE, IMPOSSIBLE, PAUSED = 0, 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 2 asked for something impossible, 3 paused before its end."""
    given = _parser().parse_args(arguments)
    try:
        return given.run_command(given)
    except ERRORS as error:
        print(error, file=sys.stderr)
        return IMPOSSIBLE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.rivals", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    training = commands.add_parser("train", help="train a rival, or go on where it stopped")
    export = commands.add_parser("export", help="write a rival's fp16 weights, ready for the catalog")
    for command in (training, export):
        command.add_argument("rival", choices=list(RIVALS))
        command.add_argument("--run", type=Path, required=True, help="folder of the run; resumed where it stopped")
        command.add_argument("--preset", choices=["gpu", "cpu", "tiny"], default="cpu")
    add_sources(training)
    budget = training.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=float, help="time budget over all restarts")
    budget.add_argument("--steps", type=int, help="length of the schedule instead: the same on every machine")
    training.add_argument("--pause-after", type=float, metavar="MINUTES", help="stop this call then, to be continued")
    training.set_defaults(run_command=_train)
    export.add_argument("--out", type=Path, default=WEIGHTS_FOLDER, help="folder for the file")
    export.set_defaults(run_command=_export)
    return parser


def _train(given: argparse.Namespace) -> int:
    bench = chain.prepare(sources_of(given, given.data), given.run, given.preset, processes=given.processes)
    rival = RIVALS[given.rival]
    torch.manual_seed(chain.MODEL_SEED)
    stage = rival.stage(given.preset, bench)
    if given.steps:
        stage = stage.lasting(given.steps)
    complete = train(stage, rival.build(given.preset), given.run, minutes=given.minutes, pause_after=given.pause_after)
    state = read_state(given.run / given.rival)
    print(f"{given.rival}: {state.step} steps, {state.seconds / 60:.1f} min.")
    if not complete:
        print("Paused before the end; the same command goes on from here.")
    return DONE if complete else PAUSED


def _export(given: argparse.Namespace) -> int:
    network, folder = RIVALS[given.rival].build(given.preset), given.run / given.rival
    put_weights(network, weights_of(folder), folder / WEIGHTS)
    print(f"{save_one_pass(network, given.rival, given.out)}  {given.rival}.safetensors")
    return DONE
