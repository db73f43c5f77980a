"""The commands that list, fetch, run and import: what a user says in, sentences and exit codes out.

Exit codes: 0 done; 1 some pictures of a batch failed, the others are done; 2 wrong usage or bad input, nothing was
written; 130 stopped with Ctrl-C.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from tqdm import tqdm

from asuka_infer import batch, imported
from asuka_infer.batch import PNG_TEXT_KEY, BatchError, Choices, Outcome
from asuka_infer.catalog import METHODS, Method, UnknownMethodError, find_method
from asuka_infer.compositing import CompositingError
from asuka_infer.geometry import GeometryError
from asuka_infer.holes import HoleError, looks_inverted, read_hole
from asuka_infer.images import ImageError, Picture, encode_like, read_image, write_atomically
from asuka_infer.imported import ResultsError
from asuka_infer.inpaint import DEFAULT_CONTEXT, Framing, Inpainted, inpaint
from asuka_infer.inpainter import Inpainter
from asuka_infer.metrics import cli as metrics
from asuka_infer.provenance import xmp_packet
from asuka_infer.request import LARGEST_SEED, Hole, RequestError
from asuka_infer.settings import Knob, SettingsError, Value, knobs, parse_changes
from asuka_infer.weight_sources import FetchError, WeightsNotHereError, fetch

DONE, SOME_FAILED, BAD_INPUT, STOPPED = 0, 1, 2, 130

MOST_THREADS = 4
"""torch gains little beyond four threads for one picture, and every further one is taken from somebody else."""

MOST_NAMED = 5
"""So many file names are listed in one message; the rest is a number."""

_BAD_INPUT_ERRORS = (
    BatchError,
    CompositingError,
    GeometryError,
    HoleError,
    ImageError,
    RequestError,
    ResultsError,
    SettingsError,
    UnknownMethodError,
)


class NotReadyError(RuntimeError):
    """A method that cannot run here; the message says what makes it ready."""


def main(words: Sequence[str]) -> int:
    """Run one command; returns the exit code."""
    calm_threads()
    said = _parser().parse_args(words)
    try:
        return said.run(said)
    except (*_BAD_INPUT_ERRORS, NotReadyError, FetchError, WeightsNotHereError) as error:
        print(f"asuka_infer: {error}", file=sys.stderr)
        return BAD_INPUT
    except batch.WorkerDiedError as error:
        print(f"asuka_infer: {error}", file=sys.stderr)
        return SOME_FAILED
    except KeyboardInterrupt:
        print("asuka_infer: stopped; the same command goes on where it was.", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:
        # `... methods | head`: nobody reads on. Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


def calm_threads() -> None:
    """Must happen before torch is imported: OpenMP reads its environment once.

    Waiting threads that spin instead of sleeping made the same run 6 times slower on shared cores (53 s against 8.8 s,
    measured with twenty steps of Stable Diffusion while the machine was busy).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OMP_NUM_THREADS", str(min(len(os.sched_getaffinity(0)), MOST_THREADS)))


def _list_methods(said: argparse.Namespace) -> int:
    if said.key is None:
        rows = [_describe(method) for method in METHODS.values()]
        print(json.dumps(rows, indent=2, ensure_ascii=False) if said.json else "\n".join(map(_line, rows)))
        return DONE
    method = find_method(said.key)
    # Settings are known once the method is loaded; the rest is worth reading before fetching anything.
    settings = knobs(_ready(method).settings) if method.readiness().ready else ()
    row = _describe(method) | {"settings": [_describe_knob(knob) for knob in settings]}
    print(json.dumps(row, indent=2, ensure_ascii=False) if said.json else _page(row))
    return DONE


def _describe(method: Method) -> dict[str, Any]:
    ready = method.readiness()
    return {
        "key": method.key,
        "title": method.title,
        "summary": method.summary,
        "citation": method.citation,
        "licence": method.licence,
        "needs": asdict(method.needs),
        "ready": ready.ready,
        "how_to": ready.how_to,
    }


def _describe_knob(knob: Knob) -> dict[str, Any]:
    return {"name": knob.name, "default": knob.default, "allowed": knob.allowed, "meaning": knob.meaning}


def _line(row: Mapping[str, Any]) -> str:
    widest = max(len(key) for key in METHODS)
    return f"{row['key']:<{widest}}  {row['summary'] if row['ready'] else 'NOT READY: ' + row['how_to']}"


def _page(row: Mapping[str, Any]) -> str:
    lines = [
        f"{row['key']}: {row['title']}",
        row["summary"],
        f"Source: {row['citation']}",
        f"Licence: {row['licence']}",
        f"Needs: {_needs(row['needs'])}",
    ]
    lines += [] if row["ready"] else [f"Not ready here: {row['how_to']}"]
    lines += [
        f"  --set {knob['name']}={knob['default']}  {knob['meaning']} ({knob['allowed']})" for knob in row["settings"]
    ]
    return "\n".join(lines)


def _needs(needs: Mapping[str, Any]) -> str:
    parts = [f"{needs['memory_mb'] or 100} MB of memory" + (", better a GPU's" if needs["gpu"] else "")]
    parts += [f"{needs['download_mb']} MB to fetch"] if needs["download_mb"] else []
    parts += [f"the packages {' and '.join(needs['packages'])}"] if needs["packages"] else []
    return ", ".join(parts)


def _fetch(said: argparse.Namespace) -> int:
    sources = find_method(said.key).sources
    for source in sources:
        print(f"{source.name}: {fetch(source)}")
    how_to = find_method(said.key).readiness().how_to
    print(f"{said.key} is not ready yet: {how_to}" if how_to else f"{said.key} is ready")
    return BAD_INPUT if how_to else DONE


def _inpaint(said: argparse.Namespace) -> int:
    out: Path = said.out
    _refuse_bad_target(out, said.image, said.hole)
    method = _ready(find_method(said.method))
    method = method.with_settings(**parse_changes(method.settings, said.set))
    picture = read_image(said.image)
    hole = read_hole(said.hole, picture.size)
    for note in picture.notes:
        print(f"asuka_infer: {said.image.name}: {note}", file=sys.stderr)
    if looks_inverted(hole):
        print(
            f"asuka_infer: {said.hole.name} marks most of the picture as missing; white means missing, "
            "so if it looks wrong, invert it.",
            file=sys.stderr,
        )
    with tqdm(unit="step", desc=said.method, leave=False, disable=None) as bar:
        done = inpaint(
            method,
            said.method,
            picture,
            hole,
            seed=said.seed,
            framing=Framing(said.context, said.tiles),
            compositing=said.compositing,
            watch=_BarWatch(bar),
        )
    write_atomically(out, _file(picture, done, hole))
    print(f"{out}: {said.method}, seed {said.seed}, {done.record.seconds:.1f} s, {_changes(done.changed_outside)}")
    return DONE


def _file(picture: Picture, done: Inpainted, hole: Hole) -> bytes:
    text = {PNG_TEXT_KEY: done.record.to_json()}
    return encode_like(picture, done.image, hole, text=text, xmp=xmp_packet(done.record))


def _changes(outside: int) -> str:
    return f"{outside} {'pixel' if outside == 1 else 'pixels'} changed outside the hole"


class _BarWatch:
    """Shows steps in a progress bar."""

    def __init__(self, bar: "tqdm[Any]") -> None:
        self._bar = bar

    def step(self, done: int, total: int) -> None:
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def preview(self, picture: object) -> None:
        del picture


def _refuse_bad_target(out: Path, *inputs: Path) -> None:
    if out.suffix.lower() != ".png":
        raise ImageError(f"{out} is no .png file, but results are written as PNG, which loses nothing; rename it.")
    if not out.parent.is_dir():
        raise ImageError(f"{out.parent} is no folder; make it first or write elsewhere.")
    for path in inputs:
        if out.exists() and path.exists() and out.samefile(path):
            raise ImageError(f"{out} is also an input and would be overwritten; write elsewhere.")


def _ready(method: Method) -> Inpainter:
    readiness = method.readiness()
    if not readiness.ready:
        raise NotReadyError(f"{method.key} is not ready here: {readiness.how_to}")
    return method.load()


def _run_batch(said: argparse.Namespace) -> int:
    methods = tuple(dict.fromkeys(key.strip() for key in said.methods.split(",") if key.strip()))
    if not methods:
        raise BatchError("No method was named; give --methods with keys separated by commas.")
    pairing = batch.pair_up(said.images, said.holes)
    choices = Choices(
        methods, said.seed, Framing(said.context, said.tiles), said.compositing, _settings(methods, said.set)
    )
    engine = batch.ray_engine(said.workers) if said.engine == "ray" else batch.local_engine(said.workers)
    _tell_names("pictures without a hole, left out", pairing.without_hole)
    _tell_names("holes without a picture", pairing.without_image)
    outcomes: list[Outcome] = []
    total = len(methods) * len(pairing.pairs)
    with tqdm(total=total, unit="picture", disable=said.quiet) as bar:
        for outcome in batch.run_batch(pairing.pairs, choices, said.out, engine):
            outcomes.append(outcome)
            bar.set_description(outcome.method, refresh=False)
            bar.update()
    _tell_names(
        "results of no picture given now", [str(path) for path in batch.strangers(pairing.pairs, choices, said.out)]
    )
    return _tell_outcomes(outcomes, len(pairing.without_hole) * len(methods))


def _import_results(said: argparse.Namespace) -> int:
    key = imported.read_manifest(said.results).key
    done = list(imported.import_results(said.results, said.images, said.holes, said.out, compositing=said.compositing))
    changed = sum(each.changed_before > 0 for each in done)
    print(f"{said.out / key}: {len(done)} results imported; {changed} had changed known pixels, now put back")
    return DONE


def _settings(methods: tuple[str, ...], words: Sequence[str]) -> dict[str, dict[str, Value]]:
    """Settings by method: "radius=3" is for every method of the batch, "telea.radius=3" for one."""
    for word in words:
        prefix, dot, _ = word.partition("=")[0].partition(".")
        if dot and prefix not in methods:
            raise SettingsError(f"{word!r} is for the method {prefix!r}, which is not among {', '.join(methods)}.")
    return {key: parse_changes(_ready(find_method(key)).settings, _words_for(key, words)) for key in methods}


def _words_for(key: str, words: Sequence[str]) -> list[str]:
    return [
        word.removeprefix(f"{key}.")
        for word in words
        if word.startswith(f"{key}.") or "." not in word.partition("=")[0]
    ]


def _tell_names(what: str, names: Sequence[str]) -> None:
    if names:
        shown = ", ".join(names[:MOST_NAMED]) + (
            f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        )
        print(f"asuka_infer: {what}: {shown}.", file=sys.stderr)


def _tell_outcomes(outcomes: Sequence[Outcome], left_out: int) -> int:
    """The account of a batch: failures by name on stderr, the sums on stdout."""
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    stale = sum(outcome.state == "made" and outcome.message != "" for outcome in outcomes)
    made = sum(outcome.state == "made" for outcome in outcomes) - stale
    kept = sum(outcome.state == "kept" for outcome in outcomes)
    for outcome in failed:
        print(f"asuka_infer: {outcome.method}/{outcome.stem}: {outcome.message}", file=sys.stderr)
    print(f"{made} made, {stale} stale ones made again, {kept} already there, {len(failed) + left_out} failed")
    return SOME_FAILED if failed or left_out else DONE


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="asuka_infer", description="Inpaint pictures with any method of the catalog.")
    commands = parser.add_subparsers(
        required=True, metavar="methods|fetch|inpaint|batch|import-results|evaluate|holes|misato"
    )
    listing = commands.add_parser("methods", help="list the methods, or one method and its settings")
    listing.add_argument("key", nargs="?", help="show this method and its settings")
    listing.add_argument("--json", action="store_true", help="for programs to read")
    listing.set_defaults(run=_list_methods)
    fetching = commands.add_parser("fetch", help="download the weights of a method that has public ones")
    fetching.add_argument("key", help="see `methods`")
    fetching.set_defaults(run=_fetch)
    _add_inpaint(commands.add_parser("inpaint", help="fill the hole of one picture"))
    _add_import(commands.add_parser("import-results", help="bring results of other programs to the form of a batch"))
    metrics.add_commands(commands)
    _add_batch(
        commands.add_parser(
            "batch",
            help="fill the holes of a folder of pictures with several methods",
            description="Writes OUT/METHOD/NAME.png and its run record NAME.json. Run it again to go on after a stop: "
            "finished results are kept, stale or damaged ones made again. Each picture's seed is the first 32 bits of "
            "SHA-256('SEED/NAME'), so it is the same for every method and independent of the other pictures.",
        )
    )
    return parser


def _add_inpaint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--method", required=True, metavar="KEY", help="see `methods`")
    parser.add_argument("--image", required=True, type=Path, metavar="FILE")
    parser.add_argument("--hole", required=True, type=Path, metavar="FILE", help="white = missing; the picture's size")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE.png")
    _add_shared(parser, tiles=True)
    parser.set_defaults(run=_inpaint)


def _add_batch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--methods", required=True, metavar="KEY,KEY", help="see `methods`")
    parser.add_argument("--images", required=True, type=Path, metavar="DIR")
    parser.add_argument("--holes", required=True, type=Path, metavar="DIR|FILE", help="by name, or one file for all")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument("--engine", choices=("local", "ray"), default="local", help="where to run (default: local)")
    parser.add_argument("--workers", type=_positive, default=1, metavar="N", help="pictures at a time (default: 1)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    _add_shared(parser, tiles=False)  # tables compare methods as their papers ran them: in one look
    parser.set_defaults(run=_run_batch)


def _add_import(parser: argparse.ArgumentParser) -> None:
    parser.description = imported.__doc__
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--results", required=True, type=Path, metavar="DIR", help="pictures and imported.toml")
    parser.add_argument("--images", required=True, type=Path, metavar="DIR", help="the photographs")
    parser.add_argument("--holes", required=True, type=Path, metavar="DIR|FILE", help="by name, or one file for all")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="where the batch wrote")
    parser.add_argument("--compositing", choices=("exact", "seamless"), default="exact", help="as in `batch`")
    parser.set_defaults(run=_import_results)


def _add_shared(parser: argparse.ArgumentParser, *, tiles: bool) -> None:
    parser.add_argument("--seed", type=_seed, default=0, metavar="N", help="same seed, same result (default: 0)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="change a setting of the method; repeatable"
    )
    parser.add_argument(
        "--context",
        type=_context,
        default=DEFAULT_CONTEXT,
        metavar="X|whole",
        help="surroundings the method sees, as a share of the hole's longer side, or the whole picture "
        f"(default: {DEFAULT_CONTEXT})",
    )
    parser.add_argument(
        "--tiles",
        action=argparse.BooleanOptionalAction,
        default=tiles,
        help="let diffusion methods fill a hole larger than their working size once more at full resolution "
        f"(default: {'yes' if tiles else 'no'})",
    )
    parser.add_argument(
        "--compositing",
        choices=("exact", "seamless"),
        default="exact",
        help="exact changes no pixel outside the hole, seamless blends a ring around it (default: exact)",
    )


def _positive(said: str) -> int:
    if not said.isdecimal() or int(said) < 1:
        raise argparse.ArgumentTypeError(f"{said!r} is no whole number of 1 or more")
    return int(said)


def _seed(said: str) -> int:
    if not said.isdecimal() or int(said) > LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"{said!r} is no whole number from 0 to {LARGEST_SEED}")
    return int(said)


def _context(said: str) -> float | None:
    if said == "whole":
        return None
    try:
        return Framing(float(said)).context
    except ValueError:
        raise argparse.ArgumentTypeError(f"{said!r} is neither 'whole' nor a number of 0 or more") from None


class _Parser(argparse.ArgumentParser):
    """Says in one sentence what is wrong."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: {message}; --help shows how to say it.\n")
