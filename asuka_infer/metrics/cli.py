"""The commands that measure results, draw holes and build image sets: words in, sentences and exit codes out.

Nothing heavy is imported before a command runs, so that `--help` and the other commands stay quick.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

DONE, BAD_INPUT = 0, 2

DEVICE_VARIABLE = "ASUKA_DEVICE"
"""Overrides the device that networks run on, as everywhere in this package."""

RESULTS_PER_WORKER = 64
"""Below it another process costs more than it saves: it takes seconds to import torch (measured)."""

_ERRORS = frozenset(
    {
        "asuka_infer.compositing.CompositingError",
        "asuka_infer.datasets.hole_sets.HoleSetError",
        "asuka_infer.datasets.layouts.LayoutError",
        "asuka_infer.datasets.misato.MisatoError",
        "asuka_infer.evaluate.EvaluateError",
        "asuka_infer.holes.HoleError",
        "asuka_infer.images.ImageError",
        "asuka_infer.metrics.features.FeatureWeightsError",
        "asuka_infer.metrics.instruments.InstrumentError",
        "asuka_infer.metrics.pixels.MetricError",
        "asuka_infer.metrics.spread.SpreadError",
        "asuka_infer.metrics.store.StoreError",
        "asuka_infer.weights.WeightsError",
    }
)
"""What a user can do something about: one sentence and exit code 2. By name, because importing them costs seconds."""


def add_commands(commands: Any) -> None:
    """Register `evaluate`, `holes` and `misato` with the package's parser."""
    _add_evaluate(
        commands.add_parser(
            "evaluate",
            help="tables of results: metrics by published definitions, per domain, with intervals",
            description="Compares RESULTS/METHOD/NAME.png with IMAGES/NAME.* inside HOLES/NAME.png and writes "
            "table.csv, table.md, table.tex, table.json, comparison.html and scores.parquet to OUT. Run it again to "
            "go on after a stop: what was measured is kept by content. docs/metrics.md says what every number is.",
        )
    )
    _add_holes(commands.add_parser("holes", help="draw a seeded set of holes for pictures, with a manifest"))
    _add_misato(
        commands.add_parser("misato", help="choose representative pictures of folders, as the MISATO set was made")
    )


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results", required=True, type=Path, metavar="DIR", help="one folder per method")
    parser.add_argument("--images", required=True, type=Path, metavar="DIR", help="the photographs")
    parser.add_argument("--holes", required=True, type=Path, metavar="DIR|FILE", help="by name, or one file for all")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument(
        "--features",
        default="squeezenet",
        metavar="NAME,NAME",
        help="networks for FID, KID, U-IDS, P-IDS: squeezenet, inception (both conventions), clip, or none "
        "(default: squeezenet)",
    )
    parser.add_argument("--weights", type=Path, metavar="DIR", help="folder with the networks' files")
    parser.add_argument("--layout", default="plain", help="of IMAGES: plain, misato, places2, coco, celeba-hq, "
        "cityscapes, paris-streetview (default: plain)")  # fmt: skip
    parser.add_argument("--domains", type=Path, metavar="CSV", help="columns file and domain, instead of the layout's")
    parser.add_argument("--components", type=_positive, metavar="N", help="PCA dimension for U-IDS and P-IDS")
    parser.add_argument("--lenient", action="store_true", help="leave out pictures that some method lacks, and say so")
    parser.add_argument("--engine", choices=("local", "ray"), default="local", help="where to run (default: local)")
    parser.add_argument(
        "--workers",
        type=_positive,
        metavar="N",
        help=f"processes (default: one per core and {RESULTS_PER_WORKER} results; 1 beside a GPU)",
    )
    parser.add_argument("--batch", type=_positive, default=32, metavar="N", help="results per task (default: 32)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=_told(_evaluate))


def _evaluate(said: argparse.Namespace) -> int:
    from asuka_infer import evaluate  # noqa: PLC0415 - brings torch, scikit-learn and pandas: seconds
    from asuka_infer.metrics.instruments import find_instruments  # noqa: PLC0415 - same

    gathered = evaluate.gather(
        said.results, said.images, said.holes, layout=said.layout, domains=said.domains, lenient=said.lenient
    )
    instruments, notes = find_instruments(_families(said.features), said.weights)
    total = len(gathered.methods) * len(gathered.photographs)
    device = _device()
    choices = evaluate.Choices(
        instruments,
        engine=said.engine,
        workers=said.workers or _workers(total, device),
        batch=said.batch,
        device=device,
        components=said.components,
        lenient=said.lenient,
    )
    with tqdm(total=total, unit="result", disable=said.quiet) as bar:
        board = evaluate.evaluate(gathered, choices, said.out, notes=notes, step=bar.update)
    for note in board.notes:
        print(f"asuka_infer: {note}", file=sys.stderr)
    print((said.out / "table.md").read_text(encoding="utf-8"), end="")
    return DONE


def _add_holes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", required=True, type=Path, metavar="DIR", help="pictures the holes are for")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="NAME.png each, and holes.json")
    parser.add_argument("--layout", default="plain", help="of IMAGES, as in `evaluate`")
    parser.add_argument("--shapes", default="mixed", help="brush, rectangle, frame or mixed (default)")
    parser.add_argument("--smallest", type=float, default=0.1, metavar="SHARE", help="of the picture (default: 0.1)")
    parser.add_argument("--largest", type=float, default=0.6, metavar="SHARE", help="of the picture (default: 0.6)")
    parser.add_argument("--seed", type=int, default=0, help="same seed and name, same hole (default: 0)")
    parser.set_defaults(run=_told(_holes))


def _holes(said: argparse.Namespace) -> int:
    from asuka_infer.datasets.hole_sets import HoleSet, write_hole_set  # noqa: PLC0415 - brings OpenCV
    from asuka_infer.datasets.layouts import read_layout  # noqa: PLC0415 - same

    photographs = read_layout(said.layout, said.images)
    plan = HoleSet(seed=said.seed, shapes=said.shapes, smallest=said.smallest, largest=said.largest)
    with tqdm(total=len(photographs), unit="hole", disable=None) as bar:
        written = write_hole_set(photographs, plan, said.out, step=bar.update)
    print(f"{said.out}: {len(photographs)} holes, {written} of them new, and holes.json")
    return DONE


def _add_misato(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--domain",
        action="append",
        required=True,
        metavar="NAME=DIR[:SEGMENTATION]",
        help="pictures of one domain; SEGMENTATION is a folder of PNGs (not black = foreground) of the same names that "
        "holes keep clear of; repeatable, in the order of the numbers",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument("--clusters", type=_positive, default=500, metavar="K", help="images per domain (default: 500)")
    parser.add_argument("--size", type=_positive, default=512, metavar="PX", help="side of the images (default: 512)")
    parser.add_argument("--features", default="clip", help="clip (as the paper), squeezenet or inception")
    parser.add_argument("--weights", type=Path, metavar="DIR", help="folder with the network's files")
    parser.add_argument("--seed", type=int, default=0, help="of clusters and holes (default: 0)")
    parser.set_defaults(run=_told(_misato))


def _misato(said: argparse.Namespace) -> int:
    from asuka_infer.datasets.layouts import read_layout  # noqa: PLC0415 - brings OpenCV
    from asuka_infer.datasets.misato import build, parse_domain  # noqa: PLC0415 - brings torch and scikit-learn
    from asuka_infer.metrics.instruments import InstrumentError, find_instruments  # noqa: PLC0415 - same

    domains = [parse_domain(word) for word in said.domain]
    instruments, _ = find_instruments(_families(said.features), said.weights)
    network = next((one for one in instruments if one.kind == "features"), None)
    if network is None:
        raise InstrumentError("Pictures are grouped by features; name one network with --features.")
    total = sum(len(read_layout("plain", domain.folder)) for domain in domains)
    with tqdm(total=total, unit="picture", disable=None) as bar:
        made = build(
            domains,
            said.out,
            network,
            clusters=said.clusters,
            size=said.size,
            seed=said.seed,
            device=_device(),
            step=bar.update,
        )
    print(f"{said.out}: {made} images of {len(domains)} domains by {network.name}, their holes and manifest.json")
    return DONE


def _told(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Say what a user can mend in one sentence."""

    def command(said: argparse.Namespace) -> int:
        try:
            return run(said)
        except Exception as error:
            if f"{type(error).__module__}.{type(error).__name__}" not in _ERRORS:
                raise
            print(f"asuka_infer: {error}", file=sys.stderr)
            return BAD_INPUT

    return command


def _families(said: str) -> list[Any]:
    from asuka_infer.metrics.instruments import FAMILIES, InstrumentError  # noqa: PLC0415 - brings torch

    names = [name.strip() for name in said.split(",") if name.strip()]
    wrong = [name for name in names if name not in {*FAMILIES, "none"}]
    if wrong:
        raise InstrumentError(f"There are no features called {', '.join(wrong)}; choose {', '.join(FAMILIES)} or none.")
    return [name for name in names if name != "none"]


def _workers(results: int, device: str) -> int:
    """As many as there is work and a processor for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if device != "cpu" else max(1, min(cores, results // RESULTS_PER_WORKER))


def _device() -> str:
    import torch  # noqa: PLC0415 - seconds

    return os.environ.get(DEVICE_VARIABLE) or ("cuda" if torch.cuda.is_available() else "cpu")


def _positive(said: str) -> int:
    if not said.isdecimal() or int(said) < 1:
        raise argparse.ArgumentTypeError(f"{said!r} is no whole number of 1 or more")
    return int(said)
