"""Results of any methods on any image set -> the tables of the paper, with intervals and per domain.

Whatever was measured is kept by content in OUT/measured.sqlite, so that a run that was killed goes on where it was, and
a new method costs only itself. Memory does not grow with the pictures: features lie on disk.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from asuka_infer.datasets.layouts import SUFFIXES, Photograph, read_domains, read_layout
from asuka_infer.metrics.instruments import OUTSIDE, Instrument, Vector
from asuka_infer.metrics.pieces import Piece, Task, measure_task
from asuka_infer.metrics.published import write_all, write_scores
from asuka_infer.metrics.scoreboard import Collected, Scoreboard, build_scoreboard
from asuka_infer.metrics.spread import EngineName, spread
from asuka_infer.metrics.store import Store

STORE_FILE = "measured.sqlite"
"""Everything that was measured, below OUT; may be deleted at the price of measuring again."""

BATCH = 32
"""Results per task: what a GPU sees in one pass. Decoded at 512 px they are some 50 MB in a worker."""

MOST_TOLD = 10
"""Problems that can still be read; the rest is counted."""


class EvaluateError(ValueError):
    """Folders or files that cannot be compared; the message names them."""


@dataclass(frozen=True)
class Case:
    """One result of one method."""

    method: str
    key: str
    result: Path


@dataclass(frozen=True)
class Gathered:
    """What there is to compare.

    Attributes:
        methods: by folder name.
        photographs: those that every method has a result of.
        holes: by photograph.
        results: by method and photograph.
        notes: what was left out and why, for the table.
    """

    methods: tuple[str, ...]
    photographs: tuple[Photograph, ...]
    holes: Mapping[str, Path]
    results: Mapping[tuple[str, str], Path]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Choices:
    """How to measure.

    Attributes:
        instruments: see `metrics.instruments.find_instruments`.
        engine, workers, batch: where and in what portions; no number depends on them.
        device: as torch names it.
        components: of the IDS scores; None: a quarter of the pictures, at most 64.
        lenient: leave out pictures that are missing or damaged for some method, for all of them, and say so.
    """

    instruments: tuple[Instrument, ...]
    engine: EngineName = "local"
    workers: int = 1
    batch: int = BATCH
    device: str = "cpu"
    components: int | None = None
    lenient: bool = False


def gather(
    results: Path,
    images: Path,
    holes: Path,
    *,
    layout: str = "plain",
    domains: Path | None = None,
    lenient: bool = False,
) -> Gathered:
    """Match results, photographs and holes by name.

    Args:
        results: one folder per method, as `batch` writes them, or the pictures of a single method.
        images: the photographs.
        holes: their holes by name, or one file for all.
        layout: of `images`, see `datasets.layouts`.
        domains: CSV that names domains instead.
        lenient: leave out photographs without a hole or without some method's result instead of refusing.

    Raises:
        EvaluateError: naming what is missing.
        LayoutError: when `images` is not of that layout.
    """
    photographs = read_layout(layout, images)
    if domains is not None:
        by_key = read_domains(domains)
        photographs = tuple(Photograph(one.key, one.file, by_key.get(one.key, "")) for one in photographs)
    masks = {one.key: holes for one in photographs} if holes.is_file() else _by_stem(holes)
    methods = _methods(results)
    known = {one.key for one in photographs}
    problems = [f"{one.file.name} has no hole in {holes}" for one in photographs if one.key not in masks]
    notes: list[str] = []
    found: dict[tuple[str, str], Path] = {}
    for method, files in methods.items():
        missing = [one.key for one in photographs if one.key not in files]
        extra = sorted(files.keys() - known)
        if missing:
            problems.append(_misses(method, missing, extra))
        if extra:
            notes.append(f"{method}: {len(extra)} extra files of no photograph were ignored ({_few(extra)})")
        found |= {(method, key): file for key, file in files.items() if key in known}
    if problems and not lenient:
        raise EvaluateError(_told(problems) + " Complete them, or leave these pictures out with --lenient.")
    kept = tuple(one for one in photographs if one.key in masks and all((m, one.key) in found for m in methods))
    if not kept:
        raise EvaluateError(f"No photograph has a hole and a result of every method. {_told(problems)}")
    if len(kept) < len(photographs):
        notes.append(f"{len(photographs) - len(kept)} of {len(photographs)} images left out: {_told(problems)}")
    return Gathered(tuple(methods), kept, masks, found, tuple(notes))


def evaluate(
    gathered: Gathered,
    choices: Choices,
    out: Path,
    *,
    notes: Sequence[str] = (),
    step: Callable[[int], object] | None = None,
) -> Scoreboard:
    """Measure what is not yet measured and write all tables below `out`.

    Args:
        gathered: from `gather`.
        choices: how.
        out: made when it is not there.
        notes: further sentences for the table.
        step: hears how many results were measured or found measured.

    Raises:
        EvaluateError: when results cannot be read or are of another size, naming them (unless lenient).
    """
    out.mkdir(parents=True, exist_ok=True)
    # Features are laid out for this run alone; what they are made of stays in the store.
    with Store(out / STORE_FILE) as store, TemporaryDirectory(prefix=".features", dir=out) as features:
        keys, problems = _measure(gathered, choices, store, step or (lambda _: None))
        places = _kept(gathered, problems, lenient=choices.lenient)
        left_out = [f"left out for all methods: {name}: {problem}" for name, problem in problems.items()]
        collected, truths = _collect(keys, places, choices.instruments, store=store, folder=Path(features))
        kept = [gathered.photographs[place] for place in places]
        domains = [one.domain for one in kept]
        said = [*gathered.notes, *left_out, *_changed(collected), *notes]
        board = build_scoreboard(collected, truths, domains, components=choices.components, notes=said)
    write_all(board, out)
    write_scores(collected, [one.key for one in kept], domains, board, out)
    return board


def _kept(gathered: Gathered, problems: Mapping[str, str], *, lenient: bool) -> list[int]:
    """Where the photographs are that every method's result could be measured of."""
    told = _told([f"{name}: {problem}" for name, problem in problems.items()])
    if problems and not lenient:
        raise EvaluateError(f"{told} Mend them, or leave these pictures out with --lenient; the rest is kept.")
    broken = {name.partition("/")[2] for name in problems}
    kept = [place for place, one in enumerate(gathered.photographs) if one.key not in broken]
    if not kept:
        raise EvaluateError(f"Nothing can be compared. {told}")
    return kept


@dataclass
class _Keys:
    """Content keys, in the order of the photographs: of every method's results, and of the photographs themselves."""

    results: dict[str, list[str]]
    truths: list[str]


def _measure(
    gathered: Gathered, choices: Choices, store: Store, step: Callable[[int], object]
) -> tuple[_Keys, dict[str, str]]:
    """Content keys of everything, and problems by "method/photograph"."""
    keys = _Keys({method: [] for method in gathered.methods}, [])
    problems: dict[str, str] = {}
    tasks = _tasks(gathered, choices, store, keys, step)
    gpus = 0 if choices.device == "cpu" else 1
    for answer in spread(measure_task, tasks, engine=choices.engine, workers=choices.workers, gpus=gpus):
        store.keep(answer.scores, answer.features)
        problems |= answer.problems
        step(answer.done)
    return keys, problems


def _tasks(
    gathered: Gathered, choices: Choices, store: Store, keys: _Keys, step: Callable[[int], object]
) -> Iterator[Task]:
    """Pieces that need measuring, all methods of a photograph in a row, read only when their turn has come."""
    under_way: set[tuple[str, str]] = set()
    waiting: list[Piece] = []
    for photograph in gathered.photographs:
        pieces = _pieces(gathered, photograph, choices.instruments, store=store, under_way=under_way)
        keys.truths.append(pieces[0].truth_key)
        for method, piece in zip(gathered.methods, pieces, strict=True):
            keys.results[method].append(piece.key)
            if not (piece.scores or piece.features or piece.truth_features):
                step(1)
                continue
            waiting.append(piece)
            if len(waiting) == choices.batch:
                yield Task(tuple(waiting), choices.device)
                waiting = []
    if waiting:
        yield Task(tuple(waiting), choices.device)


def _pieces(
    gathered: Gathered,
    photograph: Photograph,
    instruments: Sequence[Instrument],
    *,
    store: Store,
    under_way: set[tuple[str, str]],
) -> list[Piece]:
    """Every method's result of one photograph, with what is not in the store yet."""
    truth, hole = photograph.file.read_bytes(), gathered.holes[photograph.key].read_bytes()
    truth_key, hole_key = (hashlib.sha256(data).hexdigest() for data in (truth, hole))
    networks = [one for one in instruments if one.kind == "features"]
    numbers = [one for one in instruments if one.kind != "features"]
    pieces: list[Piece] = []
    for method in gathered.methods:
        result = gathered.results[method, photograph.key].read_bytes()
        key = hashlib.sha256(f"{hashlib.sha256(result).hexdigest()}{truth_key}{hole_key}".encode()).hexdigest()
        unseen = [
            one
            for one in networks
            if (truth_key, one.identity) not in under_way and not store.has("feature", truth_key, one.identity)
        ]
        # The same truth comes again with the next method, before the first answer is in the store.
        under_way |= {(truth_key, one.identity) for one in unseen}
        missing = tuple(one for one in numbers if not store.has("score", key, one.identity))
        vectors = tuple(one for one in networks if not store.has("feature", key, one.identity))
        name = f"{method}/{photograph.key}"
        pieces.append(Piece(name, key, truth_key, result, truth, hole, missing, vectors, tuple(unseen)))
    return pieces


def _collect(
    keys: _Keys,
    places: Sequence[int],
    instruments: Sequence[Instrument],
    *,
    store: Store,
    folder: Path,
) -> tuple[dict[str, Collected], dict[str, Vector]]:
    """Scores and features of the photographs at these places."""
    networks = [one for one in instruments if one.kind == "features"]
    numbers = [one.identity for one in instruments if one.kind != "features"]
    collected: dict[str, Collected] = {}
    for method, of_all in keys.results.items():
        own = [of_all[place] for place in places]
        features = {
            one.name: store.write_matrix(own, one.identity, folder / f"{method}.{one.name}.npy") for one in networks
        }
        collected[method] = Collected(store.columns(own, numbers), features)
    real = [keys.truths[place] for place in places]
    truths = {one.name: store.write_matrix(real, one.identity, folder / f"truths.{one.name}.npy") for one in networks}
    return collected, truths


def _changed(collected: Mapping[str, Collected]) -> list[str]:
    """Who changed known pixels; every metric puts them back first."""
    told: list[str] = []
    for method, one in collected.items():
        changed = one.scores[OUTSIDE]
        if changed.any():
            told.append(
                f"{method} changed known pixels in {int((changed > 0).sum())} of {len(changed)} images, "
                f"{changed.mean():.0f} on average; they were put back before measuring"
            )
    return told


def _methods(results: Path) -> dict[str, dict[str, Path]]:
    if not results.is_dir():
        raise EvaluateError(f"{results} is no folder; give one with a folder of results per method.")
    folders = [folder for folder in sorted(results.iterdir()) if folder.is_dir() and not folder.name.startswith(".")]
    found = {folder.name: files for folder in folders if (files := _by_stem(folder))}
    if not found and (files := _by_stem(results)):
        found = {results.resolve().name: files}
    if not found:
        raise EvaluateError(f"{results} holds no results; expected METHOD/NAME.png, as `batch` writes them.")
    return found


def _by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise EvaluateError(f"{folder} is no folder; give one that exists.")
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file():
            if file.stem in found:
                raise EvaluateError(f"{found[file.stem].name} and {file.name} in {folder} share a name; keep one.")
            found[file.stem] = file
    return found


def _misses(method: str, missing: Sequence[str], extra: Sequence[str]) -> str:
    told = f"{method} has no result of {len(missing)} photographs ({_few(missing)})"
    if extra:
        told += f", but {len(extra)} of other names ({_few(extra)}): rename them, or see `import-results`"
    return told


def _few(names: Sequence[str]) -> str:
    shown = 3
    return ", ".join(names[:shown]) + (", ..." if len(names) > shown else "")


def _told(problems: Sequence[str]) -> str:
    more = f"; and {len(problems) - MOST_TOLD} more" if len(problems) > MOST_TOLD else ""
    return "; ".join(problem.removesuffix(".") for problem in problems[:MOST_TOLD]) + more + "."
