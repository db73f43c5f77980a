"""The mask painter: a Gradio component of our own, because the built-in editor sends the picture at every event.

The browser gets a small copy of the photo, the hole is painted there and sent as a few kB when a run asks for it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import gradio as gr
from gradio.data_classes import FileData, GradioModel
from pydantic import Field

from demo.engine import Painted
from demo.photos import LARGEST_HOLE_TEXT
from demo.selection import MOST_CLICKS, Click
from demo.stub_files import no_stub_file
from demo.texts import TEXTS, static_text

LONGEST_NAME = 300
"""Characters of a file name; file systems end at 255."""


LONGEST_AMOUNT = 12
"""Characters somebody writes for the width of a border: "33.33 %"."""

SIDES = 4

MOST_NOTES = 10
"""More than a photo can have."""


@dataclass(frozen=True)
class Pointed(Painted):
    """What the painter sends, with what only the page's own questions need.

    Attributes:
        proxy: the small copy, for questions that need no more than that.
        clicks: points on it, in its pixels.
        border: what was written for left, top, right and bottom.
    """

    proxy: Path | None = None
    clicks: tuple[Click, ...] = ()
    border: tuple[str, ...] = ()


class ClickData(GradioModel):
    """A point of the proxy, in its pixels."""

    x: float
    y: float
    inside: bool = True


class PainterData(GradioModel):
    """What the browser and the server tell each other. Files are `FileData`: Gradio refuses paths nobody uploaded.

    Attributes:
        serial: the browser's question number; an answer repeats it. Negative: the server speaks unasked.
        photo: the visitor's file as it was uploaded.
        proxy: the small copy on which the hole is painted.
        mask: an uploaded mask, asked about or in use.
        sample: a sample picture's name.
        name: what the photo's file is called.
        width, height: of the photo, upright, in pixels.
        proxy_width, proxy_height: of the proxy.
        hole: base64 of a PNG of the proxy's size, white = missing.
        mask_flipped: black is missing in `mask` (an answer's guess, a run's certainty).
        mask_hole: base64 of a PNG, `mask` (or what was selected) with white = missing at the proxy's size.
        clicks: points that say what to select.
        border: what is to be added on the left, at the top, on the right, at the bottom, as somebody wrote it.
        selected_by: which way `mask_hole` was selected; empty when it is an uploaded mask.
        notes: what opening the photo did to it, for the visitor.
        message: what went wrong, for the visitor.
    """

    serial: int = 0
    photo: FileData | None = None
    proxy: FileData | None = None
    mask: FileData | None = None
    sample: str | None = Field(default=None, max_length=LONGEST_NAME)
    name: str = Field(default="", max_length=LONGEST_NAME)
    width: int = 0
    height: int = 0
    proxy_width: int = 0
    proxy_height: int = 0
    hole: str | None = Field(default=None, max_length=LARGEST_HOLE_TEXT)
    mask_flipped: bool | None = None
    mask_hole: str | None = None
    clicks: list[ClickData] = Field(default_factory=list[ClickData], max_length=MOST_CLICKS + 1)
    border: list[Annotated[str, Field(max_length=LONGEST_AMOUNT)]] = Field(default_factory=list[str], max_length=SIDES)
    selected_by: str = ""
    notes: list[str] = Field(default_factory=list[str], max_length=MOST_NOTES)
    message: str = ""


with no_stub_file():

    class MaskPainter(gr.HTML):
        """Shows a photo and lets a visitor paint the hole; functions get `Painted` from it and give it `PainterData`.

        Listen to `.photo(...)`: the visitor has chosen a file, a sample or a mask. For anything that needs the hole
        give the event `js=flush_script(...)`, which fetches it from the page at that moment. `.pick(...)`: points of
        the proxy say what to select. `.extend(...)`: the canvas is to grow.
        """

        data_model = PainterData

        def __init__(
            self,
            *,
            elem_id: str,
            samples: list[dict[str, str]],
            max_megabytes: int,
            max_megapixels: int,
            sam: bool = False,
            value: PainterData | None = None,
            **described: Any,
        ) -> None:
            """`described` takes what `gr.Blocks.get_config` hands back when Gradio rebuilds the component."""
            super().__init__(
                value=value,
                elem_id=elem_id,
                html_template=static_text("painter.html"),
                css_template=static_text("painter.css"),
                js_on_load=static_text("raster.js", "zoom.js", "painter.js"),
                apply_default_css=False,
                samples=samples,
                max_megabytes=max_megabytes,
                max_megapixels=max_megapixels,
                sam=sam,
                texts=TEXTS,
                padding=False,
                **described,
            )

        def preprocess(self, payload: PainterData | None) -> Pointed:  # type: ignore[override]
            """Gradio has checked every path by now."""
            if payload is None:
                return Pointed()
            opening = payload.mask_flipped is None
            mask = Path(payload.mask.path) if payload.mask else None
            return Pointed(
                photo=Path(payload.photo.path) if payload.photo else None,
                name=payload.name,
                hole=payload.hole,
                mask=None if opening else mask,
                mask_flipped=bool(payload.mask_flipped),
                mask_to_open=mask if opening else None,
                sample=payload.sample,
                serial=payload.serial,
                proxy=Path(payload.proxy.path) if payload.proxy else None,
                clicks=tuple(Click(click.x, click.y, click.inside) for click in payload.clicks),
                border=tuple(payload.border),
            )

        def postprocess(self, value: PainterData | None) -> PainterData | None:  # type: ignore[override]
            """Handed on as it is; Gradio moves its files to where the browser may fetch them."""
            return value

        def api_info(self) -> dict[str, Any]:
            """The shape of the value."""
            return PainterData.model_json_schema()

        def example_payload(self) -> None:
            """No photo."""

        def example_value(self) -> None:
            """No photo."""


def flush_script(painter_id: str, *, then: str = "", otherwise: str = "") -> str:
    """JavaScript for an event whose first input is the painter: what is painted this moment goes along.

    Without a photo or a hole it says so on the page, does `otherwise`, and the event does not happen; else `then` is
    done first.
    """
    return (
        "async (...inputs) => {"
        f" try {{ inputs[0] = await document.querySelector('#{painter_id} .mp').flushToRun(); }}"
        f" catch (problem) {{ {otherwise}; throw problem; }}"
        f" {then};"
        " return inputs; }"
    )
