"""The demo tab: wiring between painter, settings, engine and result viewer. Nothing is computed here."""

import base64
import io
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import gradio as gr
import numpy as np
from gradio.components import Component
from gradio.context import Context
from gradio.data_classes import FileData
from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder
from PIL import Image

from asuka_infer.catalog import Method
from asuka_infer.compositing import Compositing
from asuka_infer.holes import encode_hole_png, read_hole, resize
from asuka_infer.images import ImageError, Picture, encode_like, encode_png, read_image
from asuka_infer.inpaint import DEFAULT_CONTEXT, Framing
from asuka_infer.inpainter import Cancelled
from asuka_infer.request import Hole, RgbImage
from asuka_infer.run_record import RunRecord
from asuka_infer.settings import Value
from demo.engine import (
    MOST_CANDIDATES,
    MOST_METHODS,
    PREVIEW_SIDE,
    Choices,
    DemoEngine,
    DemoError,
    Finished,
    Job,
    Painted,
    Step,
)
from demo.examples import ExampleGallery, PreparedExample
from demo.files import SUFFIXES, FileFormatError, convert
from demo.method_panel import LookData, MethodData, MethodPanel, PanelData, knob_data
from demo.offer import Offer, OfferedResult, TakeOffer
from demo.outpainting import CanvasError, extend, read_border
from demo.painter import MaskPainter, PainterData, Pointed, flush_script
from demo.photos import LONGEST_PROXY_SIDE, on_proxy, proxy_of, proxy_size
from demo.selection import ClickSelect, SelectionError
from demo.texts import TEXTS, Language, interface, language_of, static_text, summary_of, translated
from demo.viewer import ConvertedData, ExampleData, PreviewData, ResultData, ResultViewer, RunningData, ViewerData

CSS = static_text("tab.css")
"""For `launch(css=...)`: the few rules that concern Gradio's own components."""

MAX_MEGABYTES = 50
"""The largest file that is sent: 40-megapixel JPEGs have 10 to 25 MB, PNGs of them up to 100 (our choice)."""

PAINTER_ID = "demo-painter"
VIEWER_ID = "demo-viewer"
PANEL_ID = "demo-panel"

SLOT = "inpainting"
"""Gradio's queue lets one event of this name run at a time: there is one CPU or GPU."""

MOST_RESULTS = 24
"""Results that a session keeps in its strip; older ones stay on disk until they are swept (our choice)."""

WIDEST_CONTEXT = 3.0
"""In sizes of the hole: beyond that the crop is the whole picture for most holes."""

LARGEST_SEED_HERE = 2**32 - 1
"""Browsers keep whole numbers exact up to 2**53; ten digits are what somebody copies by hand."""

THUMBNAIL_SIDE = 168
"""Pixels: twice the size at which the sample pictures are shown."""

GONE = "That result is no longer on the server; run again."

CHANGED_INSIDE, CHANGED_OUTSIDE, CHANGE_ALPHA = (244, 63, 94), (245, 158, 11), 200
"""Rose as on the painter, amber for what lies outside the hole: the seamless ring, or nothing."""

DIVIDER_GAP = 0.04
"""Share of the width between the divider's first place and the hole: its knob must not cover the result."""

STEP_PAUSE = 0.1
"""Seconds between progress messages: a bar that moves ten times a second moves smoothly."""

PREVIEW_PAUSE = 0.4
"""Seconds between previews, so that looking costs a slow line nothing worth mentioning."""


@dataclass(frozen=True)
class _Kept:
    """A result of the session, with where its files lie on the server.

    Attributes:
        shown: what the browser gets.
        path: the result's file.
        photo: the file it was made from.
        hole: a PNG of its hole, at the photo's size; some kB, never a file that would have to be deleted.
        record: how it was made.
    """

    shown: ResultData
    path: str
    photo: str
    hole: bytes
    record: RunRecord

    def files(self) -> list[FileData]:
        """Everything that the browser may ask for."""
        shown = self.shown
        return [shown.before, shown.view, shown.changes, shown.file, *(preview.file for preview in shown.previews)]


@dataclass(frozen=True)
class _Controls:
    """What a visitor chooses before a run; the components whose values make an `_Asked`."""

    run: gr.Button
    methods: gr.Dropdown
    panel: MethodPanel
    settings: list[Component]

    def inputs(self) -> list[Component]:
        """In the order in which `_asked` takes them."""
        return [self.methods, self.panel, *self.settings]


def build_demo_tab(
    engine: DemoEngine,
    *,
    max_megabytes: int = MAX_MEGABYTES,
    select: ClickSelect | None = None,
    offer: TakeOffer | None = None,
    gallery: ExampleGallery | None = None,
) -> None:
    """Put the demo into the Blocks or Tab that is open.

    Args:
        engine: what runs the methods.
        max_megabytes: what `launch(max_file_size=...)` allows, to say so before a visitor waits for the upload.
        select: finds the thing that is clicked on.
        offer: keeps what visitors offer to a study; without it they are not asked.
        gallery: examples to look at; it shows those that are prepared when a visitor comes.
    """
    select = select or ClickSelect()
    with gr.Row(equal_height=False):
        with gr.Column(min_width=340):
            painter = MaskPainter(
                elem_id=PAINTER_ID,
                samples=_sample_buttons(engine),
                max_megabytes=max_megabytes,
                max_megapixels=engine.max_pixels // 1_000_000,
                sam=select.folder is not None,
            )
            controls = _controls(engine)
        with gr.Column(min_width=340):
            viewer = ResultViewer(elem_id=VIEWER_ID, offers=offer is not None)
    kept = gr.State(list[_Kept]())
    _wire_painter(engine, painter, select)
    _wire(engine, painter, viewer, controls, kept)
    _wire_look(engine, painter, controls)
    if offer is not None:
        _wire_offer(engine, viewer, kept, offer)
    if gallery is not None:
        _wire_examples(gallery, painter, viewer, kept)


def _controls(engine: DemoEngine) -> _Controls:
    """The method, the button and the settings; none has to be touched."""
    with gr.Row(equal_height=False, elem_id="demo-run-row"):
        methods = gr.Dropdown(
            choices=_method_choices(engine, "en"),
            value=[engine.favourite()],
            multiselect=True,
            max_choices=MOST_METHODS,
            label=interface("methods"),
            info=interface("methodsInfo"),
            elem_id="demo-methods",
            scale=3,
            min_width=220,
        )
        run_button = gr.Button(
            interface("run"), variant="primary", size="lg", elem_id="demo-run", scale=1, min_width=120
        )
    about = gr.Markdown(_about(engine, [engine.favourite()], "en"), elem_id="demo-about")
    panel = MethodPanel(elem_id=PANEL_ID)
    settings = _settings()
    _wire_panel(engine, methods, about, panel)
    return _Controls(run_button, methods, panel, settings)


def _settings() -> list[Component]:
    with gr.Accordion(interface("settings"), open=False, elem_id="demo-settings"):
        with gr.Row():
            seed = gr.Number(
                0, precision=0, minimum=0, maximum=LARGEST_SEED_HERE, label=interface("seedLabel"),
                info=interface("seedInfo"), elem_id="demo-seed",
            )  # fmt: skip
            candidates = gr.Slider(
                1, MOST_CANDIDATES, 1, step=1, label=interface("candidates"), info=interface("candidatesInfo"),
                elem_id="demo-candidates",
            )  # fmt: skip
        with gr.Row():
            context = gr.Slider(
                0, WIDEST_CONTEXT, DEFAULT_CONTEXT, step=0.1, label=interface("context"), info=interface("contextInfo"),
                elem_id="demo-context",
            )  # fmt: skip
            compositing = gr.Radio(
                [(interface("exact"), "exact"), (interface("seamless"), "seamless")], value="exact",
                label=interface("compositing"), info=interface("compositingInfo"), elem_id="demo-compositing",
            )  # fmt: skip
        tiles = gr.Checkbox(value=True, label=interface("tilesOn"), info=interface("tilesInfo"), elem_id="demo-tiles")
    return [seed, candidates, context, compositing, tiles]


_QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""For events that answer at once and say for themselves what they do."""


def _wire_panel(engine: DemoEngine, methods: gr.Dropdown, about: gr.Markdown, panel: MethodPanel) -> None:
    """Words and knobs follow the chosen methods; the first visit loads the first method while a photo is looked for."""

    def describe(keys: list[str], request: gr.Request) -> str:
        return _about(engine, keys, language_of(request))

    def show_knobs(keys: list[str], turned: Choices, request: gr.Request) -> PanelData:
        return PanelData(methods=_method_data(engine, keys, language_of(request)), values=_as_values(turned))

    def name_choices(request: gr.Request) -> Any:
        language = language_of(request)
        return gr.skip() if language == "en" else gr.Dropdown(choices=_method_choices(engine, language))

    # Apart, because a method that has not been loaded yet knows its knobs only some seconds later.
    methods.change(describe, methods, about, **_QUIET)
    methods.change(show_knobs, [methods, panel], panel, **_QUIET)
    if Context.root_block is not None:
        Context.root_block.load(describe, methods, about, **_QUIET)
        Context.root_block.load(show_knobs, [methods, panel], panel, **_QUIET)
        Context.root_block.load(name_choices, None, methods, **_QUIET)


def _wire_painter(engine: DemoEngine, painter: MaskPainter, select: ClickSelect) -> None:
    def open_photo(painted: Pointed, request: gr.Request) -> PainterData:
        return _said_to(request, _open(engine, painted))

    def pick(painted: Pointed, request: gr.Request) -> PainterData:
        return _said_to(request, _select(select, painted))

    def grow(painted: Pointed, request: gr.Request) -> PainterData:
        return _said_to(request, _extend(engine, painted))

    painter.photo(open_photo, painter, painter, **_QUIET)
    painter.pick(pick, painter, painter, **_QUIET)
    painter.extend(grow, painter, painter, **_QUIET)


def _wire(
    engine: DemoEngine,
    painter: MaskPainter,
    viewer: ResultViewer,
    controls: _Controls,
    kept: gr.State,
) -> None:
    def run(painted: Painted, request: gr.Request, *inputs: Any) -> Iterator[tuple[ViewerData, list[_Kept]]]:
        *chosen, results = inputs
        for shown, made in _run(engine, painted, _asked(*chosen), results, str(request.session_hash)):
            yield _said_to(request, shown), made

    def cancel(results: list[_Kept], request: gr.Request) -> ViewerData:
        engine.cancel(str(request.session_hash))
        return _shown(results, message="stopped")

    def reuse(results: list[_Kept], event: gr.EventData, request: gr.Request) -> PainterData:
        return _said_to(request, _reuse(engine, results, event))

    def convert_result(results: list[_Kept], event: gr.EventData, request: gr.Request) -> ViewerData:
        return _said_to(request, _convert(results, event))

    def leave(request: gr.Request) -> None:
        engine.cancel(str(request.session_hash))

    screen = f"document.querySelector('#{VIEWER_ID} .rv')"
    running = controls.run.click(
        run, [painter, *controls.inputs(), kept], [viewer, kept],
        js=flush_script(PAINTER_ID, then=f"{screen}.waiting()", otherwise=f"{screen}.idle()"),
        show_progress="minimal", concurrency_id=SLOT, concurrency_limit=1, api_visibility="private",
    )  # fmt: skip
    running.failure(None, js=f"() => {screen}.idle()", api_visibility="private")
    viewer.cancel(cancel, kept, viewer, cancels=[running], **_QUIET)
    viewer.reuse(reuse, kept, painter, **_QUIET)
    viewer.convert(convert_result, kept, viewer, **_QUIET)
    if Context.root_block is not None:
        Context.root_block.unload(leave)


def _wire_look(engine: DemoEngine, painter: MaskPainter, controls: _Controls) -> None:
    def look(painted: Painted, request: gr.Request, *inputs: Any) -> PanelData:
        return _said_to(request, _look(engine, painted, _asked(*inputs), language_of(request)))

    looking = controls.panel.look(
        look, [painter, *controls.inputs()], controls.panel, js=flush_script(PAINTER_ID), show_progress="hidden",
        concurrency_id=SLOT, concurrency_limit=1, api_visibility="private",
    )  # fmt: skip
    looking.failure(None, js=f"() => document.querySelector('#{PANEL_ID} .kp').idle()", api_visibility="private")


def _wire_offer(engine: DemoEngine, viewer: ResultViewer, kept: gr.State, take: TakeOffer) -> None:
    def offer(results: list[_Kept], event: gr.EventData, request: gr.Request) -> ViewerData:
        return _said_to(request, _offer(engine, take, results, event))

    viewer.offer(offer, kept, viewer, **_QUIET)


def _wire_examples(gallery: ExampleGallery, painter: MaskPainter, viewer: ResultViewer, kept: gr.State) -> None:
    def offer_examples(results: list[_Kept]) -> ViewerData:
        coming = gallery.preparing  # asked first: what is ready after it has ended is all there is
        examples = [_example_data(each) for each in gallery.ready]
        return _shown(results).model_copy(update={"examples": examples, "examples_coming": coming})

    def show(
        results: list[_Kept], event: gr.EventData, request: gr.Request
    ) -> tuple[PainterData, ViewerData, list[_Kept]]:
        painter_data, viewer_data, kept_now = _show_example(gallery, results, event)
        return _said_to(request, painter_data), viewer_data, kept_now

    viewer.example(show, kept, [painter, viewer, kept], **_QUIET)
    viewer.examples(offer_examples, kept, viewer, **_QUIET)
    if Context.root_block is not None:
        Context.root_block.load(offer_examples, kept, viewer, **_QUIET)


_Data = TypeVar("_Data", PainterData, ViewerData, PanelData)


def _said_to(request: gr.Request, data: _Data) -> _Data:
    """What is shown, with message and notes in the visitor's language; the rest of the demo speaks English."""
    language = language_of(request)
    update: dict[str, Any] = {"message": translated(data.message, language)}
    if isinstance(data, PainterData):
        update["notes"] = [translated(note, language) for note in data.notes]
    return data.model_copy(update=update)


def _open(engine: DemoEngine, painted: Painted) -> PainterData:
    """Answer the painter's question: here is your photo's proxy, or your mask, or what is wrong with it."""
    try:
        if painted.sample is not None:
            path = _save(engine.sample_png(painted.sample), f"{painted.sample}.png")
            painted = Painted(photo=Path(path), name=painted.sample, serial=painted.serial)
        picture = engine.open_photo(painted)
        if painted.mask_to_open is not None:
            opened = engine.open_mask(painted.mask_to_open, picture.size)
            return PainterData(
                serial=painted.serial,
                mask=FileData(path=str(painted.mask_to_open)),
                mask_hole=_hole_text(opened.hole),
                mask_flipped=opened.flipped,
            )
        return _photo_data(picture, str(painted.photo), painted.name, painted.serial)
    except DemoError as error:
        return PainterData(serial=painted.serial, message=str(error))


def _select(select: ClickSelect, painted: Pointed) -> PainterData:
    """Answer the painter's question: this is the thing that the points are on."""
    if painted.proxy is None or not painted.proxy.is_file():
        return PainterData(serial=painted.serial, message="The photo is no longer on the server; open it again.")
    try:
        found = select(read_image(painted.proxy, max_pixels=LONGEST_PROXY_SIDE**2).pixels, painted.clicks)
    except (ImageError, SelectionError) as error:
        return PainterData(serial=painted.serial, message=str(error))
    return PainterData(serial=painted.serial, mask_hole=_hole_text(found.hole), selected_by=found.by)


def _extend(engine: DemoEngine, painted: Pointed) -> PainterData:
    """Answer the painter's question: here is your photo on a larger canvas, its border to be filled."""
    try:
        picture = engine.open_photo(painted)
        left, top, right, bottom = painted.border
        border = read_border((left, top, right, bottom), picture.size)
        grown, hole = extend(picture, border, max_pixels=engine.max_pixels)
    except (DemoError, CanvasError) as error:
        return PainterData(serial=painted.serial, message=str(error))
    name = f"{Path(painted.name).stem or 'photo'}-extended"
    path = _save(encode_like(grown, grown.pixels, np.zeros_like(hole)), f"{name}.png")
    mask = FileData(path=_save(encode_hole_png(hole), "border.png"))
    data = _photo_data(grown, path, f"{name}.png", painted.serial)
    return data.model_copy(update={"mask": mask, "mask_hole": _hole_text(on_proxy(hole))})


def _hole_text(hole: Hole) -> str:
    return base64.b64encode(encode_hole_png(hole)).decode()


def _photo_data(picture: Picture, path: str, name: str, serial: int) -> PainterData:
    proxy = proxy_of(picture.pixels, picture.alpha)
    return PainterData(
        serial=serial,
        photo=FileData(path=path),
        proxy=FileData(path=_save(encode_png(proxy), "proxy.png")),
        name=name,
        width=picture.size[1],
        height=picture.size[0],
        proxy_width=proxy.shape[1],
        proxy_height=proxy.shape[0],
        notes=list(picture.notes),
    )


@dataclass(frozen=True)
class _Asked:
    """The settings of one run."""

    keys: list[str]
    turned: Choices
    seed: int
    candidates: int
    framing: Framing
    compositing: Compositing


def _asked(  # noqa: PLR0917 - Gradio hands inputs over by position, in the order of `_Controls.inputs`
    keys: list[str],
    turned: Choices,
    seed: float | None,
    candidates: float | None,
    context: float | None,
    compositing: Compositing,
    tiles: bool,  # noqa: FBT001 - by position, as above
) -> _Asked:
    """A field that was emptied counts as untouched."""
    framing = Framing(DEFAULT_CONTEXT if context is None else context, tiles=tiles)
    return _Asked(keys, turned, int(seed or 0), int(candidates or 1), framing, compositing)


def _run(
    engine: DemoEngine, painted: Painted, asked: _Asked, results: list[_Kept], session: str
) -> Iterator[tuple[ViewerData, list[_Kept]]]:
    """Run the jobs, showing progress and every result as it comes."""
    made, preview, looked, told = 0, None, 0.0, 0.0
    number = 1 + max((kept.shown.run for kept in results), default=0)
    try:
        jobs = engine.plan(asked.keys, asked.seed, asked.candidates, asked.turned)
        picture = engine.open_photo(painted)
        hole = engine.read_hole(painted, picture.size)
        source = _Source(painted, number, picture, hole)
        step = RunningData(count=len(jobs))
        for event in engine.run(session, picture, hole, jobs, framing=asked.framing, compositing=asked.compositing):
            if isinstance(event, Finished):
                results = [*results, source.keep(event)][-MOST_RESULTS:]
                made, preview = made + 1, None
            elif isinstance(event, Step):
                step = RunningData(**vars(event))
                if 0 < event.done < event.total and time.monotonic() - told < STEP_PAUSE:
                    continue
            elif time.monotonic() - looked > PREVIEW_PAUSE:
                preview, looked = _small_jpeg(event.picture), time.monotonic()
            told = time.monotonic()
            yield _shown(results, made, running=step.model_copy(update={"preview": preview})), results
        yield _shown(results, made), results
    except Cancelled:
        yield _shown(results, message="stopped"), results
    except DemoError as error:
        yield _shown(results, message=str(error)), results


def _look(engine: DemoEngine, painted: Painted, asked: _Asked, language: Language) -> PanelData:
    """Answer the panel's question: this is what the chosen methods see."""
    answer = PanelData(
        methods=_method_data(engine, asked.keys, language),
        values=_as_values(asked.turned),
        told=time.monotonic_ns() // 1_000_000,
    )
    try:
        picture = engine.open_photo(painted)
        hole = engine.read_hole(painted, picture.size)
        looks = [
            LookData(method=method.title, name=name, picture=_small_png(shown))
            for method in answer.methods
            if method.shows_prior
            for name, shown in engine.look(
                Job(method.key, asked.seed, asked.turned.get(method.key, {})), picture, hole, framing=asked.framing
            ).items()
        ]
    except DemoError as error:
        return answer.model_copy(update={"message": str(error)})
    return answer.model_copy(update={"looks": looks})


def _method_data(engine: DemoEngine, keys: list[str], language: Language) -> list[MethodData]:
    return [_one_method(engine, engine.methods[key], language) for key in keys[:MOST_METHODS] if key in engine.methods]


def _one_method(engine: DemoEngine, method: Method, language: Language) -> MethodData:
    try:
        knobs = engine.knobs(method.key)
    except DemoError:
        knobs = ()  # it is in the log, and whoever runs the method reads why it cannot be loaded
    shows_prior = any(knob.name == "prior" for knob in knobs)
    return MethodData(
        key=method.key,
        title=method.title,
        knobs=[knob_data(knob, translated(knob.meaning, language)) for knob in knobs],
        shows_prior=shows_prior,
    )


def _as_values(turned: Choices) -> dict[str, dict[str, Value]]:
    return {key: dict(values) for key, values in turned.items()}


def _example_data(prepared: PreparedExample) -> ExampleData:
    painted = proxy_of(prepared.picture.pixels)
    small = resize(prepared.hole, (painted.shape[0], painted.shape[1]))
    painted[small] = np.rint(0.4 * painted[small] + 0.6 * np.array(CHANGED_INSIDE)).astype(np.uint8)
    return ExampleData(
        key=prepared.example.key,
        before=_data_url(painted, THUMBNAIL_SIDE),
        after=_data_url(prepared.results[0].view, THUMBNAIL_SIDE),
    )


def _show_example(
    gallery: ExampleGallery, results: list[_Kept], event: gr.EventData
) -> tuple[PainterData, ViewerData, list[_Kept]]:
    """An example as if the visitor had painted and run it: photo and hole on the painter, results in the strip."""
    number: object = getattr(event, "example", None)
    ready = gallery.ready
    if not isinstance(number, int) or not 0 <= number < len(ready):
        return PainterData(serial=-1, message=GONE), _shown(results), results
    prepared = ready[number]
    name = f"{prepared.example.sample}.png"
    path = _save(encode_png(prepared.picture.pixels), name)
    run = 1 + max((each.shown.run for each in results), default=0)
    source = _Source(Painted(photo=Path(path), name=name), run, prepared.picture, prepared.hole)
    results = [*results, *map(source.keep, prepared.results)][-MOST_RESULTS:]
    photo = _photo_data(prepared.picture, path, name, serial=-1)
    hole = {"mask": FileData(path=_save(source.hole, "hole.png")), "mask_hole": _hole_text(on_proxy(prepared.hole))}
    return photo.model_copy(update=hole), _shown(results, len(prepared.results)), results


def _reuse(engine: DemoEngine, results: list[_Kept], event: gr.EventData) -> PainterData:
    """A result as the new photo."""
    result = _named(results, event)
    if result is None:
        return PainterData(serial=-1, message=GONE)
    try:
        picture = engine.open_photo(Painted(photo=Path(result.path)))
    except DemoError as error:
        return PainterData(serial=-1, message=str(error))
    return _photo_data(picture, result.path, result.shown.name, serial=-1)


class _Source:
    """What all results of one run were made from, with the files that belong to it."""

    def __init__(self, painted: Painted, run: int, picture: Picture, hole: Hole) -> None:
        self.run = run
        self.photo = str(painted.photo)
        self.stem = Path(painted.name).stem or "photo"
        self.small_hole = resize(hole, proxy_size(picture.size))
        self.hole = encode_hole_png(hole)
        self.before = FileData(path=_save(encode_png(proxy_of(picture.pixels, picture.alpha)), "proxy.png"))
        left = int(np.flatnonzero(hole.any(axis=0))[0]) / picture.size[1]
        self.divider = max(0.0, left - DIVIDER_GAP)

    def keep(self, done: Finished) -> _Kept:
        """A result with its files saved where the browser may fetch them."""
        record = done.record
        name = f"{self.stem}-{record.method}-seed{record.seed}.png"
        path = _save(done.png, name)
        shown = ResultData(
            before=self.before,
            view=FileData(path=_save(encode_png(done.view), "view.png")),
            changes=FileData(path=_save(_changes_png(done.changed, self.small_hole), "changes.png")),
            file=FileData(path=path),
            name=name,
            run=self.run,
            method=record.method,
            title=done.title,
            seed=str(record.seed),
            changed=done.changed_outside,
            ring=done.ring,
            seconds=round(record.seconds, 1),
            divider=self.divider,
            width=record.width,
            height=record.height,
            previews=[
                PreviewData(name=key, file=FileData(path=_save(encode_png(proxy_of(seen)), "preview.png")))
                for key, seen in done.previews.items()
            ],
        )
        return _Kept(shown, path, self.photo, self.hole, record)


def _changes_png(changed: Hole, hole: Hole) -> bytes:
    """What differs from the photo as a transparent picture: one colour inside the hole, another outside it."""
    colours = np.where(hole[..., None], np.array(CHANGED_INSIDE, np.uint8), np.array(CHANGED_OUTSIDE, np.uint8))
    return encode_png(np.ascontiguousarray(colours), alpha=np.where(changed, np.uint8(CHANGE_ALPHA), np.uint8(0)))


def _convert(results: list[_Kept], event: gr.EventData) -> ViewerData:
    """A result in another file format."""
    result, form = _named(results, event), str(getattr(event, "form", ""))
    if result is None or form not in SUFFIXES:
        return _shown(results, message=GONE)
    try:
        made = convert(Path(result.path), form)
    except (FileFormatError, ImageError) as error:
        return _shown(results, message=str(error))
    name = Path(result.shown.name).with_suffix(made.suffix).name
    data = ConvertedData(file=FileData(path=_save(made.data, name)), name=name, changed=made.changed)
    return _shown(results).model_copy(update={"converted": data})


def _named(results: list[_Kept], event: gr.EventData) -> _Kept | None:
    """The result that the browser means: it only names its number, the files come from the session."""
    number: object = getattr(event, "result", None)
    results = _there(results)
    return results[number] if isinstance(number, int) and 0 <= number < len(results) else None


def _offer(engine: DemoEngine, take: TakeOffer, results: list[_Kept], event: gr.EventData) -> ViewerData:
    """Hand the chosen result and its rivals (same run, same seed, other methods) to whoever takes offers."""
    chosen = _named(results, event)
    if chosen is None:
        return _shown(results, message=GONE)
    rivals = [kept for kept in results if (kept.shown.run, kept.shown.seed) == (chosen.shown.run, chosen.shown.seed)]
    try:
        picture = engine.open_photo(Painted(photo=Path(chosen.photo)))
        offered = tuple(OfferedResult(Path(kept.path).read_bytes(), kept.record) for kept in rivals)
        return _shown(results, message=take(Offer(encode_png(picture.pixels), read_hole(chosen.hole), offered)))
    except FileNotFoundError:
        return _shown(results, message="The result's files are no longer on the server; run again.")
    except (DemoError, ValueError) as error:
        return _shown(results, message=str(error))


def _shown(results: list[_Kept], made: int = 0, *, running: RunningData | None = None, message: str = "") -> ViewerData:
    """What the viewer shows; if this run has `made` any, the first of those is the one to look at."""
    shown = [kept.shown for kept in _there(results)]
    return ViewerData(results=shown, selected=len(shown) - made if made else -1, running=running, message=message)


def _there(results: list[_Kept]) -> list[_Kept]:
    """Those whose files `delete_cache` has not swept away: Gradio fails on a file that is gone."""
    return [kept for kept in results if all(Path(file.path).is_file() for file in kept.files())]


def _save(data: bytes, name: str) -> str:
    """Put a file where Gradio serves from, in a folder that nobody can guess, to be swept by `delete_cache`."""
    return save_bytes_to_cache(data, name, get_upload_folder())


def _method_choices(engine: DemoEngine, language: Language) -> list[tuple[str, str]]:
    """(what is shown, key): ready ones first, the others with what they lack."""
    ready = [(method.title, method.key) for method in engine.ready_methods()]
    there = {key for _title, key in ready}
    waiting = [
        (f"{method.title} ({_lack(method, language)})", key)
        for key, method in engine.methods.items()
        if key not in there
    ]
    return ready + waiting


def _lack(method: Method, language: Language) -> str:
    needs, words = method.needs, TEXTS[language]
    parts = [
        "GPU" if needs.gpu else "",
        words["needsDownload"].format(megabytes=f"{needs.download_mb:,}") if needs.download_mb else "",
        ", ".join(needs.packages),
    ]
    return words["needs"].format(things=", ".join(part for part in parts if part) or words["settingUp"])


def _about(engine: DemoEngine, keys: list[str], language: Language) -> str:
    """What the chosen methods are, in Markdown; every English word comes from the catalog."""
    lines: list[str] = []
    for key in keys:
        method = engine.methods[key]
        readiness = method.readiness()
        summary = summary_of(key, method.summary, language)
        lines.append(f"**{method.title}.** {summary} _{method.citation}. {method.licence}._")
        if not readiness.ready:
            lines.append(f"{TEXTS[language]['notReady']} {readiness.how_to}")
    return "\n\n".join(lines)


def _sample_buttons(engine: DemoEngine) -> list[dict[str, str]]:
    return [
        {"name": sample.name, "title": sample.title, "credit": sample.credit, "thumbnail": _thumbnail(sample.load())}
        for sample in engine.samples
    ]


def _thumbnail(pixels: RgbImage) -> str:
    side = min(pixels.shape[:2])
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    return _data_url(pixels[top : top + side, left : left + side], THUMBNAIL_SIDE)


def _small_jpeg(pixels: RgbImage) -> str:
    return _data_url(pixels, PREVIEW_SIDE)


def _small_png(pixels: RgbImage) -> str:
    scale = min(1, PREVIEW_SIDE / max(pixels.shape[:2]))
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    small = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    return "data:image/png;base64," + base64.b64encode(encode_png(small)).decode()


def _data_url(pixels: RgbImage, longest: int) -> str:
    scale = min(1, longest / max(pixels.shape[:2]))
    width, height = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    small = np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
