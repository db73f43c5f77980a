"""Folders of pictures and holes x methods -> one folder per method with a PNG and a run record for every picture.

A result is finished when its record says what would be asked for now (method, settings, seed, framing, compositing, the
pixels of picture and hole, weights) and its PNG holds the pixels the record names; everything else is made again. Only
the process that was started writes files, each of them whole or not at all, so it may be killed at any time.
"""

import hashlib
import importlib
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, fields
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import cv2

from asuka_infer.catalog import find_method
from asuka_infer.compositing import Compositing
from asuka_infer.holes import HoleError, read_hole
from asuka_infer.images import ImageError, Picture, encode_png, pixel_sha256, read_image, write_atomically
from asuka_infer.inpaint import Framing, describe_run, inpaint
from asuka_infer.inpainter import Inpainter
from asuka_infer.request import Hole
from asuka_infer.residency import MEMORY_VARIABLE, Residency, room_here
from asuka_infer.run_record import RecordError, RunRecord, record_path
from asuka_infer.settings import Value

EngineName = Literal["local", "ray"]

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".avif", ".jp2", ".ppm", ".pgm", ".pbm"}
)
"""File names that are looked at in a folder of pictures or holes; what is in them decides, not the name."""

WAITING_PER_WORKER = 2
"""Tasks handed out ahead of time: enough that no worker waits for a disk, few enough that memory stays small."""

ABANDONED_AFTER = 3600.0
"""Seconds after which the unfinished file of a killed run is swept away; a run that still writes needs milliseconds."""

PNG_TEXT_KEY = "asuka_infer"
"""Where a PNG carries its own run record."""


class BatchError(ValueError):
    """Folders, files or an engine that nothing can be done with; the message says what to change."""


class WorkerDiedError(RuntimeError):
    """A worker process ended in the middle of a picture; what was done before is kept."""


@dataclass(frozen=True)
class Choices:
    """What is the same for every picture of a batch.

    Attributes:
        methods: catalog keys, in the order they are run.
        seed: names the whole batch; each picture's own seed follows from it, see `seed_for`.
        framing, compositing: as for `asuka_infer.inpaint.inpaint`.
        settings: for each method key the settings that are changed.
    """

    methods: tuple[str, ...]
    seed: int = 0
    framing: Framing = field(default_factory=Framing)
    compositing: Compositing = "exact"
    settings: Mapping[str, Mapping[str, Value]] = field(default_factory=dict[str, Mapping[str, Value]])


@dataclass(frozen=True)
class Pair:
    """A picture and its hole."""

    stem: str
    image: Path
    hole: Path


@dataclass(frozen=True)
class Pairing:
    """What two folders have for each other.

    Attributes:
        pairs: pictures with a hole, by name.
        without_hole: pictures that have none, by file name.
        without_image: holes that belong to no picture, by file name.
    """

    pairs: tuple[Pair, ...]
    without_hole: tuple[str, ...]
    without_image: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """One picture for one method, with all that is needed to work on another machine."""

    method: str
    stem: str
    changes: tuple[tuple[str, Value], ...]
    seed: int
    framing: Framing
    compositing: Compositing
    image: bytes
    image_name: str
    hole: bytes
    hole_name: str
    earlier_png: bytes | None
    earlier_record: str | None


@dataclass(frozen=True)
class Outcome:
    """How a task ended.

    Attributes:
        method, stem: the task's.
        state: "made" anew, "kept" because an earlier result is what would be made, or "failed".
        message: why it failed, or why an earlier result was not kept; else empty.
        png, record: the files' contents when made.
    """

    method: str
    stem: str
    state: Literal["made", "kept", "failed"]
    message: str = ""
    png: bytes = b""
    record: str = ""


Engine = Callable[[Iterable[Task]], Iterator[Outcome]]
"""Runs tasks in any order and hands over each outcome as it comes."""


def pair_up(images: Path, holes: Path) -> Pairing:
    """Match the pictures of a folder with holes of the same name ("a.jpg" with "a.png"), or all of them with one file.

    Raises:
        BatchError: when a folder is missing or empty, two files share a name, or nothing matches.
    """
    pictures = _by_stem(images)
    if holes.is_file():
        return Pairing(tuple(Pair(stem, path, holes) for stem, path in pictures.items()), (), ())
    masks = _by_stem(holes)
    pairs = tuple(Pair(stem, path, masks[stem]) for stem, path in pictures.items() if stem in masks)
    if not pairs:
        raise BatchError(
            f"No picture in {images} has a hole of the same name in {holes} (the first picture is "
            f"{next(iter(pictures.values())).name}, the first hole {next(iter(masks.values())).name}); rename one side."
        )
    return Pairing(
        pairs,
        tuple(path.name for stem, path in pictures.items() if stem not in masks),
        tuple(path.name for stem, path in masks.items() if stem not in pictures),
    )


def seed_for(seed: int, stem: str) -> int:
    """The seed of one picture: the first 32 bits of SHA-256("<batch seed>/<file name without suffix>").

    So it is the same for every method, and depends neither on the other pictures nor on the order of the work.
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{stem}".encode()).digest()[:4], "big")


def run_batch(pairs: Iterable[Pair], choices: Choices, out: Path, engine: Engine) -> Iterator[Outcome]:
    """Make what is missing or stale below `out`, and report every picture of every method once, as it is done.

    Raises:
        ImageError: when `out` cannot be written to.
    """
    pairs = tuple(pairs)
    for key in choices.methods:
        _open_folder(out / key)
    unread: list[Outcome] = []
    for outcome in engine(_tasks(pairs, choices, out, unread)):
        if outcome.state == "made":
            target = out / outcome.method / f"{outcome.stem}.png"
            # The record comes last: without it the PNG does not count.
            write_atomically(target, outcome.png)
            write_atomically(record_path(target), outcome.record.encode())
        yield outcome
    yield from unread


def strangers(pairs: Iterable[Pair], choices: Choices, out: Path) -> list[Path]:
    """Results below `out` that belong to no picture given now; they are left alone, but somebody should know."""
    stems = {pair.stem for pair in pairs}
    found = (path for key in choices.methods for path in sorted((out / key).glob("*.png")))
    return [path for path in found if path.stem not in stems]


def run_task(task: Task) -> Outcome:
    """Fill one picture unless an earlier result is what would come out."""
    try:
        return _run_task(task)
    except Exception as error:  # noqa: BLE001 - one bad file must not end a night's work; it is reported by name
        known = type(error).__module__.startswith("asuka_infer.")
        message = str(error) if known else f"{type(error).__name__}: {error}"
        return Outcome(task.method, task.stem, "failed", message)


def local_engine(workers: int) -> Engine:
    """Run in this process, or in `workers` processes of this machine.

    Raises:
        BatchError: for fewer than one worker.
    """
    if workers < 1:
        raise BatchError(f"{workers} workers were asked for; give 1 or more.")
    return _run_here if workers == 1 else lambda tasks: _run_in_pool(tasks, workers)


def ray_engine(workers: int) -> Engine:
    """Run on the Ray cluster that RAY_ADDRESS names, or on one started here with `workers` processors.

    Raises:
        BatchError: when Ray is not installed or the cluster cannot be reached.
    """
    try:
        ray = importlib.import_module("ray")
    except ImportError as error:
        raise BatchError("Ray is not installed; run `pip install ray`, or leave out --engine ray.") from error
    return lambda tasks: _run_on_ray(ray, tasks, workers)


def _by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise BatchError(f"{folder} is no folder; give one that exists.")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith(".") or not path.is_file():
            continue
        if path.stem in found:
            raise BatchError(f"{found[path.stem].name} and {path.name} in {folder} share a name; rename one of them.")
        found[path.stem] = path
    if not found:
        raise BatchError(f"{folder} holds no pictures ({', '.join(sorted(SUFFIXES))}); give another folder.")
    return found


def _open_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for partial in folder.glob(".*.partial"):
            if time.time() - partial.stat().st_mtime > ABANDONED_AFTER:
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise ImageError(f"{folder} cannot be written to ({error.strerror}); choose another folder.") from error


def _tasks(pairs: tuple[Pair, ...], choices: Choices, out: Path, unread: list[Outcome]) -> Iterator[Task]:
    """Read files only when their turn has come; those that cannot be read are reported through `unread`."""
    for key in choices.methods:
        changes = tuple(sorted(choices.settings.get(key, {}).items()))
        for pair in pairs:
            target = out / key / f"{pair.stem}.png"
            try:
                yield Task(
                    key,
                    pair.stem,
                    changes,
                    seed_for(choices.seed, pair.stem),
                    choices.framing,
                    choices.compositing,
                    image=pair.image.read_bytes(),
                    image_name=pair.image.name,
                    hole=pair.hole.read_bytes(),
                    hole_name=pair.hole.name,
                    earlier_png=_read_if_there(target),
                    earlier_record=(_read_if_there(record_path(target)) or b"").decode(errors="replace") or None,
                )
            except OSError as error:
                message = f"{error.filename} could not be read ({error.strerror})."
                unread.append(Outcome(key, pair.stem, "failed", message))


def _read_if_there(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _run_task(task: Task) -> Outcome:
    picture, hole = _read_pair(task)
    with _home().borrow(task.method) as loaded:
        return _fill(task, loaded.with_settings(**dict(task.changes)), picture, hole)


def _fill(task: Task, method: Inpainter, picture: Picture, hole: Hole) -> Outcome:
    wanted = describe_run(
        method,
        task.method,
        picture.pixels,
        hole,
        seed=task.seed,
        framing=task.framing,
        compositing=task.compositing,
    )
    stale = _why_stale(task, wanted)
    if stale is None:
        return Outcome(task.method, task.stem, "kept")
    done = inpaint(
        method, task.method, picture, hole, seed=task.seed, framing=task.framing, compositing=task.compositing
    )
    record = done.record.to_json()
    png = encode_png(done.image, text={PNG_TEXT_KEY: record})
    return Outcome(task.method, task.stem, "made", stale, png, record)


def _read_pair(task: Task) -> tuple[Picture, Hole]:
    try:
        picture = read_image(task.image)
    except ImageError as error:
        raise BatchError(f"{task.image_name}: {error}") from error
    try:
        hole = read_hole(task.hole)
    except (ImageError, HoleError) as error:
        raise BatchError(f"{task.hole_name}: {error}") from error
    if hole.shape != picture.size:
        raise BatchError(
            f"The hole {task.hole_name} is {hole.shape[1]}x{hole.shape[0]} but {task.image_name} is "
            f"{picture.size[1]}x{picture.size[0]}; draw the hole at the picture's size."
        )
    return picture, hole


@cache
def _home() -> Residency:
    """This process's loaded methods; what a batch is done with makes room before the next is loaded, not after."""
    return Residency()


_MAY_DIFFER = frozenset({"result_sha256", "versions", "seconds", "created_at"})
"""What a record says about the making, not about what was asked for. (Another library version alone is no reason to
make 36,500 pictures again; delete the folder to do so.)"""


def _why_stale(task: Task, wanted: RunRecord) -> str | None:
    """None when the earlier result is finished; "" when there is none; else why it does not count."""
    if task.earlier_record is None:
        return ""
    try:
        record = RunRecord.from_json(task.earlier_record)
    except RecordError as error:
        return f"its record cannot be read: {error}"
    names = [item.name for item in fields(RunRecord) if item.name not in _MAY_DIFFER]
    differing = [name for name in names if getattr(record, name) != getattr(wanted, name)]
    if differing:
        return f"made with another {', '.join(differing)}"
    return _why_damaged(task.earlier_png, record)


def _why_damaged(png: bytes | None, record: RunRecord) -> str | None:
    if png is None:
        return "its PNG is missing"
    try:
        pixels = read_image(png).pixels
    except ImageError:
        return "its PNG is damaged"
    return None if pixel_sha256(pixels) == record.result_sha256 else "its PNG was changed"


def _run_here(tasks: Iterable[Task]) -> Iterator[Outcome]:
    return map(run_task, tasks)


def _run_in_pool(tasks: Iterable[Task], workers: int) -> Iterator[Outcome]:
    # Fresh processes, not forks: a fork of a process with running threads (OpenCV, torch) may hang.
    context = multiprocessing.get_context("spawn")
    threads = max(1, len(os.sched_getaffinity(0)) // workers)
    megabytes = max(1, room_here().together_mb // workers)
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(threads, megabytes))
    try:
        yield from _flow(tasks, partial(_submit_undisturbed, pool), workers * WAITING_PER_WORKER)
    except BaseException:
        # Nobody waits for the rest (Ctrl-C, say). Workers write nothing, so they can be stopped in the middle.
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _submit_undisturbed(pool: ProcessPoolExecutor, task: Task) -> "Future[Outcome]":
    """Submit a task; workers that start now inherit that Ctrl-C, which reaches all of them, is not for them."""
    if threading.current_thread() is not threading.main_thread():
        return pool.submit(run_task, task)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return pool.submit(run_task, task)
    finally:
        signal.signal(signal.SIGINT, before)


def _start_worker(threads: int, megabytes: int) -> None:
    """Share cores and memory fairly, and end with the process that gives the work."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ[MEMORY_VARIABLE] = str(megabytes)
    cv2.setNumThreads(threads)
    threading.Thread(target=_end_with_parent, name="parent watch", daemon=True).start()


def _end_with_parent() -> None:
    """A parent that is killed ends no worker: each waits for its next task, which never comes, with a model loaded."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # nothing is to be tidied up, workers write nothing


def _flow(tasks: Iterable[Task], submit: Callable[[Task], "Future[Outcome]"], most: int) -> Iterator[Outcome]:
    """Keep at most `most` tasks under way."""
    waiting: dict[Future[Outcome], Task] = {}
    for task in tasks:
        waiting[submit(task)] = task
        if len(waiting) >= most:
            yield from _finished(waiting)
    while waiting:
        yield from _finished(waiting)


def _finished(waiting: dict["Future[Outcome]", Task]) -> Iterator[Outcome]:
    for future in wait(waiting, return_when=FIRST_COMPLETED).done:
        task = waiting.pop(future)
        try:
            yield future.result()
        except BrokenProcessPool as error:
            raise WorkerDiedError(
                f"A worker process died during {task.method} of {task.stem} (out of memory?); "
                "run the same command again with fewer --workers to continue."
            ) from error


def _run_on_ray(ray: Any, tasks: Iterable[Task], workers: int) -> Iterator[Outcome]:
    address = os.environ.get("RAY_ADDRESS")
    here = {} if address else {"num_cpus": workers, "include_dashboard": False}
    package = str(Path(__file__).parent)
    try:
        ray.init(
            address=address,
            runtime_env={"py_modules": [package]},
            log_to_driver=False,
            logging_level=logging.WARNING,
            **here,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise BatchError(f"The Ray cluster {address or 'here'} could not be reached: {error}") from error
    try:
        run = ray.remote(run_task)
        most = WAITING_PER_WORKER * max(1, int(ray.cluster_resources().get("CPU", workers)))
        waiting: dict[Any, Task] = {}
        for task in tasks:
            waiting[run.options(num_gpus=1 if find_method(task.method).needs.gpu else 0).remote(task)] = task
            if len(waiting) >= most:
                yield _next_from_ray(ray, waiting)
        while waiting:
            yield _next_from_ray(ray, waiting)
    finally:
        ray.shutdown()


def _next_from_ray(ray: Any, waiting: dict[Any, Task]) -> Outcome:
    done, _ = ray.wait(list(waiting), num_returns=1)
    task = waiting.pop(done[0])
    try:
        return ray.get(done[0])
    except ray.exceptions.RayError as error:
        return Outcome(task.method, task.stem, "failed", f"Ray lost the task: {error}")
