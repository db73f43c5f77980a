"""Runs what the demo tab asks for: reads photos and holes, runs methods one at a time, measures what they changed."""

import io
import logging
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
from PIL import Image

from asuka_infer.catalog import METHODS, Method, find_method
from asuka_infer.compositing import Compositing
from asuka_infer.datasets.sample_pictures import SamplePicture
from asuka_infer.holes import looks_inverted, read_hole, resize
from asuka_infer.images import MAX_PIXELS, Picture, differing, encode_png, read_image
from asuka_infer.inpaint import Framing, Inpainted, describe_run, inpaint
from asuka_infer.inpainter import Cancelled, Inpainter
from asuka_infer.request import Hole, RequestError, RgbImage
from asuka_infer.residency import Residency, ResidencyError
from asuka_infer.run_record import RunRecord
from asuka_infer.safety import MayBeShown
from asuka_infer.settings import Knob, Settings, Value, knobs
from demo.files import encode_result
from demo.photos import on_proxy, proxy_of, proxy_size, read_painted_hole
from demo.sight import look
from demo.spaces import keep_forks_usable, on_zero_gpu

MOST_CANDIDATES = 8
MOST_METHODS = 4
"""Seeds per method and methods per run: what fits side by side and is waited for (our choice)."""

FAVOURITES = ("asuka", "nearest-neighbour")
"""The method chosen before the visitor chooses: the first ready one whose key starts so, in this order."""

PREVIEW_SIDE = 512
"""Longest side of the pictures shown while a method works, in pixels: they are looked at for a second."""

GPU_SECONDS_TO_START, GPU_SECONDS, LARGE_GPU_SECONDS = 20, 10, 45
"""What a run asks of ZeroGPU: to load, per result, and per result of a method that is bearable only with a GPU. Our
guess from steps and published speeds, not measured; a run that takes longer is ended."""

DEFAULT_FRAMING = Framing()

Choices = Mapping[str, Mapping[str, Value]]
"""Method key -> setting -> value, for what is not at its default."""

NO_CHOICES: Choices = MappingProxyType({})

_log = logging.getLogger(__name__)


class DemoError(Exception):
    """Something that the visitor has to know; the message is a sentence for them."""


@dataclass(frozen=True)
class Painted:
    """What the painter sends: where the photo lies and what is painted on it, nothing read yet.

    Attributes:
        photo: the uploaded file, a path that Gradio has checked; None without a photo.
        name: what the visitor's file was called.
        hole: base64 of a PNG of the proxy's size.
        mask: an uploaded mask that nothing was painted over since; its own resolution counts then.
        mask_flipped: black, not white, is missing in `mask`.
        mask_to_open: an uploaded mask whose polarity is still to be asked.
        sample: the name of the sample picture that was chosen instead of a photo.
        serial: the number of the question that the painter waits to be answered.
    """

    photo: Path | None = None
    name: str = ""
    hole: str | None = None
    mask: Path | None = None
    mask_flipped: bool = False
    mask_to_open: Path | None = None
    sample: str | None = None
    serial: int = 0


@dataclass(frozen=True, eq=False)
class OpenedMask:
    """An uploaded mask, white = missing at the proxy's size, and whether it looks the other way round."""

    hole: Hole
    flipped: bool


@dataclass(frozen=True)
class Job:
    """One result to make: a method, a seed, and those of the method's own settings that are not at their default."""

    method: str
    seed: int
    settings: Mapping[str, Value] = field(default_factory=dict[str, Value])


@dataclass(frozen=True)
class Step:
    """The running job has done `done` of `total` steps; 0 of 0 while it loads."""

    number: int
    count: int
    title: str
    done: int
    total: int


@dataclass(frozen=True, eq=False)
class Preview:
    """A look at the unfinished picture, `PREVIEW_SIDE` at most."""

    picture: RgbImage


@dataclass(frozen=True, eq=False)
class Finished:
    """One result.

    Attributes:
        title: the method's name for people.
        png: the file to download, metadata inside.
        view: the result as the browser shows it, (height, width, 3) uint8 of the proxy's size.
        changed: (height, width) bool of the proxy's size, where any pixel of the file differs from the photo.
        changed_outside: pixels outside the hole that differ from the photo, counted after reading `png` back.
        ring: pixels that the compositing was free to change.
        record: how it was made.
        previews: what the method shows of its way there.
    """

    title: str
    png: bytes
    view: RgbImage
    changed: Hole
    changed_outside: int
    ring: int
    record: RunRecord
    previews: Mapping[str, RgbImage]


Event = Step | Preview | Finished


@dataclass(frozen=True, eq=False)
class _Stop:
    """Passed from the worker to whoever listens: the work has ended, with an error or without."""

    error: BaseException | None = None


class _Flag(threading.Event):
    """Set by whoever wants a run to stop. Another process gets one of its own: closing its events stops that run."""

    def __reduce__(self) -> tuple[type["_Flag"], tuple[()]]:
        return _Flag, ()


@dataclass(frozen=True, eq=False)
class _Work:
    """What one run has to do, for which session, until it is cancelled."""

    session: str
    picture: Picture
    hole: Hole
    jobs: Sequence[Job]
    framing: Framing
    compositing: Compositing
    cancelled: _Flag = field(default_factory=_Flag)


@dataclass(frozen=True, eq=False)
class _Line:
    """Between the worker and whoever listens; a watch that passes on what it hears and stops the method when asked to.

    Attributes:
        cancelled: set by whoever wants the work to stop.
        events: what happened, oldest first.
        watched: not set while a preview is on its way.
        now: the job that is being done, at its start.
        shows: whether unfinished pictures may be seen; not where finished ones are checked first.
    """

    cancelled: _Flag
    events: "queue.SimpleQueue[Event | _Stop]" = field(default_factory=queue.SimpleQueue)
    watched: threading.Event = field(default_factory=threading.Event)
    now: Step = Step(0, 0, "", 0, 0)
    shows: bool = True

    def refuse_cancelled(self) -> None:
        if self.cancelled.is_set():
            raise Cancelled

    def step(self, done: int, total: int) -> None:
        self.refuse_cancelled()
        self.events.put(replace(self.now, done=done, total=total))

    def preview(self, picture: Callable[[], RgbImage]) -> None:
        self.refuse_cancelled()
        # A slow line cannot keep up with every preview: while one is still unread the next need not be made.
        if self.shows and self.watched.is_set():
            self.watched.clear()
            self.events.put(Preview(_small(picture())))


@dataclass(eq=False)
class DemoEngine:
    """One for the app. It keeps the methods that are loaded and who is running; pictures stay with their sessions.

    Attributes:
        samples: pictures to try without a photo of one's own.
        methods: what can be chosen from.
        max_pixels: the largest photo that is opened.
        memory_mb: for all methods that stay loaded; None is what the machine has (`asuka_infer.residency`).
        tiles: whether holes larger than a method's size are filled at full resolution (`asuka_infer.tiled`).
        may_be_shown: asked about every result before anybody sees it (`asuka_infer.safety`); None asks nobody.
    """

    samples: Sequence[SamplePicture] = ()
    methods: Mapping[str, Method] = field(default_factory=lambda: METHODS)
    max_pixels: int = MAX_PIXELS
    memory_mb: int | None = None
    tiles: bool = True
    may_be_shown: MayBeShown | None = None
    _home: Residency = field(init=False)
    _running: dict[str, _Flag] = field(default_factory=dict[str, _Flag], init=False)
    _slot: threading.Lock = field(default_factory=threading.Lock, init=False)
    _unforked: threading.Lock = field(default_factory=threading.Lock, init=False)
    _working: Callable[[_Work], Generator[Event | _Stop]] = field(init=False)
    _looking: Callable[[_Work], "Mapping[str, RgbImage] | _Stop"] = field(init=False)

    def __post_init__(self) -> None:
        self._home = Residency(self.memory_mb, self.methods)
        work, see = self._work, self._see
        self._working, self._looking = (
            on_zero_gpu(work, seconds=self._gpu_seconds),
            on_zero_gpu(see, seconds=self._gpu_seconds),
        )
        if self._working is not work:
            keep_forks_usable(self._unforked)

    def ready_methods(self) -> list[Method]:
        """The methods that can run here and now, in the catalog's order."""
        return [method for method in self.methods.values() if method.readiness().ready]

    def favourite(self) -> str:
        """The key of the method that is chosen before the visitor chooses."""
        ready = [method.key for method in self.ready_methods()]
        if not ready:
            raise DemoError("No method can run here; `python -m asuka_infer methods` says what each one needs.")
        preferred = [key for start in FAVOURITES for key in ready if key.startswith(start)]
        return (preferred or ready)[0]

    def open_photo(self, painted: Painted) -> Picture:
        """The photo, decoded.

        Raises:
            DemoError: when there is none or it cannot be read.
        """
        try:
            if painted.photo is None:
                raise DemoError("There is no photo yet; choose one first.")
            if not painted.photo.is_file():
                raise DemoError("The photo is no longer on the server (photos are deleted after a day); open it again.")
            return read_image(painted.photo, max_pixels=self.max_pixels)
        except ValueError as error:
            raise DemoError(str(error)) from error

    def sample_png(self, name: str) -> bytes:
        """A sample picture as a PNG file."""
        for sample in self.samples:
            if sample.name == name:
                return encode_png(sample.load())
        raise DemoError(f"There is no sample picture {name!r}; choose one of those shown.")

    def open_mask(self, mask: Path, size: tuple[int, int]) -> OpenedMask:
        """An uploaded mask fitted to a photo of `size`, for the painter to ask which part is meant."""
        try:
            hole = read_hole(mask, size, fit=True, max_pixels=self.max_pixels)
        except ValueError as error:
            raise DemoError(str(error)) from error
        return OpenedMask(resize(hole, proxy_size(size)), looks_inverted(hole))

    def read_hole(self, painted: Painted, size: tuple[int, int]) -> Hole:
        """What is painted, at the photo's own size.

        Raises:
            DemoError: when nothing or everything is painted, or what was sent is no hole for this photo.
        """
        try:
            if painted.mask is not None:
                hole = read_hole(painted.mask, size, fit=True, max_pixels=self.max_pixels)
                hole = ~hole if painted.mask_flipped else hole
            else:
                hole = read_painted_hole(painted.hole or "", size) if painted.hole else np.zeros(size, np.bool_)
        except ValueError as error:
            raise DemoError(str(error)) from error
        if not hole.any():
            raise DemoError("Nothing is painted yet: paint over what should be replaced.")
        if hole.all():
            raise DemoError("Everything is painted, so nothing is known to continue from: erase some of it.")
        return hole

    def find_ready(self, key: str) -> Method:
        """The method of that key.

        Raises:
            DemoError: when there is none or it cannot run here, saying what makes it ready.
        """
        try:
            method = self.methods[key] if key in self.methods else find_method(key)
        except LookupError as error:
            raise DemoError(str(error)) from error
        readiness = method.readiness()
        if not readiness.ready:
            raise DemoError(f"{method.title} cannot run here yet. {readiness.how_to}")
        return method

    def knobs(self, key: str) -> tuple[Knob, ...]:
        """What can be turned on a method, in the order it declares.

        Settings are known once a method is loaded. Light ones are loaded for it; one that needs a GPU or a download
        is not, for a visitor who only looks, so it answers with nothing until it has run once.

        Raises:
            DemoError: when it cannot be loaded.
        """
        method = self.methods.get(key)
        if method is None or not method.readiness().ready:
            return ()
        heavy = bool(method.needs.gpu or method.needs.download_mb)
        if heavy and key not in self._home.resident:
            return ()
        try:
            with self._borrow(key) as inpainter:
                settings = inpainter.settings
        except Exception as error:
            raise _in_words(error) from error
        return knobs(settings) if isinstance(settings, Settings) else ()

    def describe(self, job: Job, picture: Picture, hole: Hole, *, framing: Framing = DEFAULT_FRAMING) -> RunRecord:
        """The record of a run that has not happened, exact compositing; see `asuka_infer.inpaint.describe_run`.

        Raises:
            DemoError: when the method is not ready or a setting is not possible.
        """
        method = self.find_ready(job.method)
        try:
            with self._borrow(method.key, job.settings) as inpainter:
                return describe_run(
                    inpainter, method.key, picture.pixels, hole, seed=job.seed, framing=framing, compositing="exact"
                )
        except Exception as error:
            raise _in_words(error) from error

    def reopen(self, key: str, picture: Picture, hole: Hole, png: bytes) -> Finished:
        """A result that was made before, exact compositing, measured again from its file.

        Raises:
            DemoError: when the file says nothing of how it was made.
        """
        try:
            return _finished(self.methods[key], picture, hole, png, record=_record_in(png))
        except (ValueError, OSError) as error:
            raise DemoError(f"The file cannot be read again ({error}); delete it.") from error

    def look(
        self, job: Job, picture: Picture, hole: Hole, *, framing: Framing = DEFAULT_FRAMING
    ) -> Mapping[str, RgbImage]:
        """What the job's method would be shown of the first hole, and what it imagines there; see `demo.sight`.

        Raises:
            DemoError: for everything that went wrong, in words.
        """
        self.find_ready(job.method)
        seen = self._looking(_Work("", picture, hole, [job], framing, "exact"))
        if isinstance(seen, _Stop):
            raise seen.error or DemoError("The method showed nothing; try again.")
        return seen

    def plan(self, keys: Iterable[str], seed: int, candidates: int, choices: Choices = NO_CHOICES) -> list[Job]:
        """The jobs of a run: every method with every seed, seeds counted upwards from `seed`."""
        chosen = list(dict.fromkeys(keys))
        if not 1 <= len(chosen) <= MOST_METHODS:
            raise DemoError(f"{len(chosen)} methods are chosen; choose 1 to {MOST_METHODS}.")
        if not 1 <= candidates <= MOST_CANDIDATES:
            raise DemoError(f"{candidates} candidates are asked for; ask for 1 to {MOST_CANDIDATES}.")
        for key in chosen:
            self.find_ready(key)
        return [Job(key, seed + number, choices.get(key, {})) for number in range(candidates) for key in chosen]

    def run(
        self,
        session: str,
        picture: Picture,
        hole: Hole,
        jobs: Sequence[Job],
        *,
        framing: Framing = DEFAULT_FRAMING,
        compositing: Compositing = "exact",
        tiles: bool | None = None,
    ) -> Iterator[Event]:
        """Do the jobs one after the other and tell how it goes; `tiles` overrules the engine's own.

        The work is done in a thread of its own (on ZeroGPU in a process of its own that has the GPU), so that closing
        this iterator stops it like `cancel` does. One run at a time has the machine; another waits for it here.

        Raises:
            Cancelled: within a step of `cancel(session)`.
            DemoError: for everything that went wrong, in words.
        """
        framing = replace(framing, tiles=self.tiles if tiles is None else tiles)
        work = _Work(session, picture, hole, jobs, framing, compositing)
        self._running[session] = work.cancelled
        events = self._working(work)
        try:
            for event in events:
                if isinstance(event, _Stop):
                    if event.error is not None:
                        raise event.error
                    return
                if work.cancelled.is_set():
                    raise Cancelled
                yield event
        finally:
            work.cancelled.set()
            events.close()
            if self._running.get(session) is work.cancelled:
                del self._running[session]

    def cancel(self, session: str) -> bool:
        """Stop what `session` is running, within a step. Returns whether it was running anything."""
        running = self._running.get(session)
        if running is not None:
            running.set()
        return running is not None

    def _work(self, work: _Work) -> Generator[Event | _Stop]:
        """Do the work and tell how it goes; the last event is a `_Stop`. Nothing is raised: see `on_zero_gpu`."""
        line = _Line(work.cancelled, shows=self.may_be_shown is None)
        line.watched.set()
        threading.Thread(target=self._do, args=(work, line), name=f"demo run {work.session}", daemon=True).start()
        try:
            while not isinstance(event := line.events.get(), _Stop):
                yield event
                if isinstance(event, Preview):
                    line.watched.set()
            yield event
        finally:
            line.cancelled.set()

    def _see(self, work: _Work) -> "Mapping[str, RgbImage] | _Stop":
        """What the first job's method sees, or why it cannot be shown. Nothing is raised: see `on_zero_gpu`."""
        [job] = work.jobs
        try:
            with self._borrow(job.method, job.settings) as inpainter:
                return look(inpainter, work.picture, work.hole, framing=work.framing)
        except Exception as error:  # noqa: BLE001 - handed over to be raised
            return _Stop(_in_words(error))

    def _gpu_seconds(self, work: _Work) -> float:
        large = [self.find_ready(job.method).needs.gpu for job in work.jobs]
        return GPU_SECONDS_TO_START + sum(LARGE_GPU_SECONDS if each else GPU_SECONDS for each in large)

    @contextmanager
    def _borrow(self, key: str, settings: Mapping[str, Value] = MappingProxyType({})) -> Generator[Inpainter]:
        """A method with these settings; no process forks while it is fetched or given back."""
        borrowed: Any = self._home.borrow(key)
        with self._unforked:
            loaded = borrowed.__enter__()
        try:
            yield loaded.with_settings(**settings) if settings else loaded
        finally:
            with self._unforked:
                borrowed.__exit__(None, None, None)

    def _do(self, work: _Work, line: _Line) -> None:
        """The worker: job after job, everything that happens goes into the line, also an error."""
        try:
            with self._slot:
                for number, job in enumerate(work.jobs, 1):
                    line.events.put(self._result(job, work, line, number))
            line.events.put(_Stop())
        except BaseException as error:  # noqa: BLE001 - handed to the listener, which raises it
            line.events.put(_Stop(_in_words(error)))

    def _result(self, job: Job, work: _Work, line: _Line, number: int) -> Finished:
        method = self.find_ready(job.method)
        watch = replace(line, now=Step(number, len(work.jobs), method.title, 0, 0))
        watch.step(0, 0)
        with self._borrow(method.key, job.settings) as inpainter:
            done = inpaint(
                inpainter, method.key, work.picture, work.hole, seed=job.seed, framing=work.framing,
                compositing=work.compositing, watch=watch,
            )  # fmt: skip
        line.refuse_cancelled()  # a method of one step has no other chance to hear of it
        if self.may_be_shown is not None and not self.may_be_shown(done.image, work.hole):
            raise DemoError("The safety checker held this result back. Try another seed, method or photo.")
        return _measured(method, work.picture, work.hole, done)


def _measured(method: Method, picture: Picture, hole: Hole, done: Inpainted) -> Finished:
    png = encode_result(method, picture, hole, done)
    return _finished(method, picture, hole, png, record=done.record, ring=done.ring, previews=done.previews)


def _finished(
    method: Method,
    picture: Picture,
    hole: Hole,
    png: bytes,
    *,
    record: RunRecord,
    ring: int = 0,
    previews: Mapping[str, RgbImage] = MappingProxyType({}),
) -> Finished:
    """A result as its file says it is."""
    written = read_image(png)
    changed = differing(written.pixels, picture.pixels)
    return Finished(
        title=method.title,
        png=png,
        view=proxy_of(written.pixels, written.alpha),
        changed=on_proxy(changed),
        changed_outside=int(np.count_nonzero(changed & ~hole)),
        ring=ring,
        record=record,
        previews=previews,
    )


def _small(pixels: RgbImage) -> RgbImage:
    scale = min(1, PREVIEW_SIDE / max(pixels.shape[:2]))
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def _record_in(png: bytes) -> RunRecord:
    with Image.open(io.BytesIO(png)) as image:
        return RunRecord.from_json(str(image.info.get("asuka:run_record", "")))


def _in_words(error: BaseException) -> BaseException:
    """What the visitor gets to read about an error in the worker; what nobody foresaw is logged in full."""
    if isinstance(error, Cancelled | DemoError):
        return error
    if isinstance(error, RequestError | ResidencyError | ValueError | LookupError):
        return DemoError(str(error))
    _log.error("a demo run failed", exc_info=error)
    if isinstance(error, MemoryError):
        return DemoError("There is not enough memory for this photo and method; choose a smaller context or photo.")
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return DemoError(f"The method failed ({said}). Try another method; the server's log says more.")
