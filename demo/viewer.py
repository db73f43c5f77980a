"""The result viewer: photo and result under one divider, and what was measured in the file."""

from typing import Any

import gradio as gr
from gradio.data_classes import FileData, GradioModel
from pydantic import Field

from demo.stub_files import no_stub_file
from demo.texts import TEXTS, static_text


class PreviewData(GradioModel):
    """One picture of how a method got to its result, "prior" for example."""

    name: str
    file: FileData


class ResultData(GradioModel):
    """One result as the browser shows it.

    Attributes:
        before, view: photo and result at the proxy's size, lossless.
        changes: what differs from the photo, transparent elsewhere, at the proxy's size.
        file: the result to download, at the photo's size.
        name: what the downloaded file is called.
        run: which run of the session made it.
        method: the method's key.
        title: the method's name for people.
        seed: that the method ran with, as text: JavaScript's numbers end at 2**53.
        changed: pixels outside the hole that differ, counted in `file`.
        ring: pixels that the compositing was free to change.
        seconds: wall time of the method.
        divider: where the divider comes to rest, as a share of the width: left of the hole.
        width, height: of `file`, in pixels.
        previews: what the method shows of its way there.
    """

    before: FileData
    view: FileData
    changes: FileData
    file: FileData
    name: str
    run: int
    method: str
    title: str
    seed: str
    changed: int
    ring: int
    seconds: float
    divider: float
    width: int
    height: int
    previews: list[PreviewData] = Field(default_factory=list[PreviewData])


class RunningData(GradioModel):
    """How far a run is; see `demo.engine.Step`. `preview` is a small picture as a data URL."""

    number: int = 0
    count: int = 0
    title: str = ""
    done: int = 0
    total: int = 0
    preview: str | None = None


class ConvertedData(GradioModel):
    """A result in another file format, to be downloaded at once, and in how many pixels it differs from the PNG."""

    file: FileData
    name: str
    changed: int


class ExampleData(GradioModel):
    """An example to click on: its words' key, and small pictures of photo with hole and result as data URLs."""

    key: str
    before: str
    after: str


class ViewerData(GradioModel):
    """The session's results, which to look at (-1: as it is), how far a run is, what went wrong, a file asked for.

    `examples` None leaves those that are shown; while `examples_coming` the browser asks for them again.
    """

    results: list[ResultData] = Field(default_factory=list[ResultData])
    selected: int = -1
    running: RunningData | None = None
    message: str = ""
    converted: ConvertedData | None = None
    examples: list[ExampleData] | None = None
    examples_coming: bool = False


with no_stub_file():

    class ResultViewer(gr.HTML):
        """Shows results.

        Listen to `.reuse(...)`, the visitor wants result number `event.result` as the new photo, to `.offer(...)`, the
        visitor offers it and its rivals to a study, to `.convert(...)`, it is wanted as `event.form`, to
        `.example(...)`, example number `event.example` is wanted, to `.examples(...)`, there may be more of them by
        now, and to `.cancel(...)`.
        """

        data_model = ViewerData

        def __init__(
            self, *, elem_id: str, offers: bool = False, value: ViewerData | None = None, **described: Any
        ) -> None:
            """`described` takes what `gr.Blocks.get_config` hands back when Gradio rebuilds the component."""
            super().__init__(
                value=value,
                elem_id=elem_id,
                html_template=static_text("viewer.html"),
                css_template=static_text("viewer.css"),
                js_on_load=static_text("zoom.js", "viewer.js"),
                apply_default_css=False,
                offers=offers,
                texts=TEXTS,
                padding=False,
                **described,
            )

        def preprocess(self, payload: ViewerData | None) -> None:  # type: ignore[override]
            """The browser has nothing to tell: results live with the session on the server."""

        def postprocess(self, value: ViewerData | None) -> ViewerData | None:  # type: ignore[override]
            """Handed on as it is; Gradio moves its files to where the browser may fetch them."""
            return value

        def api_info(self) -> dict[str, Any]:
            """The shape of the value."""
            return ViewerData.model_json_schema()

        def example_payload(self) -> None:
            """No results."""

        def example_value(self) -> None:
            """No results."""
