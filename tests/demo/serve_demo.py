"""Serves the demo tab alone: `python tests/demo/serve_demo.py PORT`, with one method slow enough to be cancelled."""

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import gradio as gr
import numpy as np

from asuka_infer.catalog import METHODS, Method, Readiness, always_ready
from asuka_infer.datasets.sample_pictures import SAMPLE_PICTURES
from asuka_infer.inpainter import SILENT, Inpainter, Watch
from asuka_infer.prior_choice import PriorSettings, prior_pixels
from asuka_infer.request import InpaintRequest, InpaintResult, RgbImage
from asuka_infer.settings import change, choice, number, switch, text, whole
from demo.engine import DemoEngine
from demo.examples import ExampleGallery
from demo.offer import Offer
from demo.tab import CSS, build_demo_tab
from demo.texts import interface

CLASSICAL = ("telea", "navier-stokes", "shift-map", "fsr", "biharmonic", "nearest-neighbour")
"""What the catalog has without torch: importing that takes longer than most tests, and none looks at its methods."""

SLOW_STEPS = 1200
STEP_SECONDS = 0.05


@dataclass(frozen=True)
class SlowSettings:
    """Nothing to set."""


@dataclass(frozen=True)
class KnobsOfPrior(PriorSettings):
    """One knob of every kind beside the prior."""

    level: int = whole(128, lowest=0, highest=255, meaning="The grey that is filled in.")
    strength: float = number(1.0, lowest=0.0, highest=1.0, meaning="How much of it.")
    side: str = choice("left", options=("left", "right"), meaning="Where it begins.")
    marked: bool = switch(default=False, meaning="Whether the first missing pixel is black.")
    words: str = text("", meaning="What is said about it.")


@dataclass(frozen=True)
class Prior:
    """Fills with grey and shows a prior: light grey, or what it is told to see."""

    settings: KnobsOfPrior = KnobsOfPrior()

    def __call__(self, request: InpaintRequest, watch: Watch = SILENT) -> InpaintResult:
        """One step."""
        watch.step(1, 1)
        image = request.image.copy()
        image[request.hole] = round(self.settings.level * self.settings.strength)
        if self.settings.marked:
            image[tuple(np.argwhere(request.hole)[0])] = 0
        return InpaintResult(image, self.prior_preview(request))

    def prior_preview(self, request: InpaintRequest) -> dict[str, RgbImage]:
        """The picture that stands in for the photo, as it is."""
        del request
        seen = prior_pixels(self.settings, 64)
        return {"prior": np.full((64, 64, 3), 200, np.uint8) if seen is None else seen}

    def with_settings(self, **changes: Any) -> Self:
        """The same with other settings."""
        return replace(self, settings=change(self.settings, changes))


@dataclass(frozen=True)
class Slow:
    """Fills with grey, in a minute, and shows every step."""

    settings: SlowSettings = SlowSettings()

    def __call__(self, request: InpaintRequest, watch: Watch = SILENT) -> InpaintResult:
        """Take `SLOW_STEPS` steps."""
        image = request.image.copy()
        image[request.hole] = 128
        for done in range(1, SLOW_STEPS + 1):
            threading.Event().wait(STEP_SECONDS)
            watch.step(done, SLOW_STEPS)
            watch.preview(lambda: image)
        return InpaintResult(np.ascontiguousarray(image))

    def with_settings(self, **_changes: Any) -> Self:
        """Itself."""
        return self


def _fail() -> Slow:
    raise RuntimeError("the weights are damaged")


def _method(
    key: str, title: str, *, load: Callable[[], Inpainter] = Slow, readiness: Callable[[], Readiness] = always_ready
) -> Method:
    return Method(key, title, f"{title} for tests.", "nobody", "none", load=load, readiness=readiness)


EXTRA = (
    _method("slow", "Slow method"),
    _method("prior", "Prior method", load=Prior),
    _method("broken", "Broken method", load=_fail),
    _method("far", "Far method", readiness=lambda: Readiness(ready=False, how_to="Download its weights first.")),
)


def take_offer(offer: Offer) -> str:
    """Says what came, as an operator's own function would keep it."""
    methods = ", ".join(result.record.method for result in offer.results)
    return f"Thank you: {methods}, {int(offer.hole.sum())} missing pixels, {len(offer.photo)} bytes."


if __name__ == "__main__":
    methods = {key: METHODS[key] for key in CLASSICAL} | {method.key: method for method in EXTRA}
    engine = DemoEngine(samples=SAMPLE_PICTURES[:4], methods=methods)
    with TemporaryDirectory() as folder:
        gallery = ExampleGallery(engine, Path(folder), keys=("telea", "navier-stokes"))
        gallery.prepare()
    with gr.Blocks(title="Demo", delete_cache=(3600, 86400)) as page:
        with gr.Tab("Inpaint", elem_id="demo-tab"):
            build_demo_tab(engine, max_megabytes=20, offer=take_offer, gallery=gallery)
        with gr.Tab("Other"):
            gr.Markdown("Something else.")
    page.queue(max_size=20).launch(
        server_name="127.0.0.1",
        server_port=int(sys.argv[1]),
        ssr_mode=False,
        run_history=False,
        footer_links=[],
        max_file_size="20mb",
        i18n=interface,
        css=CSS,
        quiet=True,
        app_kwargs={"docs_url": None, "redoc_url": None, "openapi_url": None},
    )
