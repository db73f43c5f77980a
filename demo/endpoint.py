"""The one public function of the app for programs: a photo and a hole in, a file and its record out.

The same engine as the page and the same function as the command line, so the same pixels bit for bit. docs/api.md says
how to call it. Everything else that the page does is private.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import gradio as gr
from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder

from asuka_infer.compositing import Compositing
from asuka_infer.holes import read_hole
from asuka_infer.inpaint import DEFAULT_CONTEXT, Framing
from asuka_infer.request import LARGEST_SEED, RequestError
from demo.engine import DemoEngine, DemoError, Finished, Job, Painted, Step
from demo.files import FileFormat, FileFormatError, convert
from demo.tab import SLOT

NAME = "inpaint"
"""Clients call `/inpaint`."""

DESCRIPTION = (
    "Fill the hole of a photo. Returns the file and a record of how it was made, with `changed_outside`, the number of "
    "pixels outside the hole that differ from the photo. The same arguments give the same pixels as "
    "`python -m asuka_infer inpaint`."
)


def add_endpoint(engine: DemoEngine) -> None:
    """Offer `/inpaint` in the Blocks that are open; it waits in the same queue as the page's visitors."""
    with gr.Row(visible=False):
        inputs = [
            gr.File(label="photo", type="filepath"),
            gr.File(label="mask", type="filepath"),
            gr.Textbox(engine.favourite(), label="method"),
            gr.Number(0, precision=0, label="seed"),
            gr.JSON({}, label="settings"),
            gr.Number(DEFAULT_CONTEXT, label="context"),
            gr.Textbox("exact", label="compositing"),
            gr.Checkbox(value=True, label="tiles"),
            gr.Textbox("png", label="file_format"),
        ]
        outputs = [gr.File(label="file"), gr.JSON(label="record")]
        door = gr.Button()

    def inpaint(  # noqa: PLR0917 - Gradio hands inputs over by position, and clients name them as here
        photo: str | None,
        mask: str | None,
        method: str,
        seed: float,
        settings: Any,
        context: float | None,
        compositing: str,
        tiles: bool,  # noqa: FBT001 - same
        file_format: str,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio is asked for one
    ) -> tuple[str, dict[str, Any]]:
        try:
            asked = _Asked(
                job=_job(method, seed, settings),
                framing=Framing(context, tiles),
                compositing=cast("Compositing", _one_of(compositing, get_args(Compositing), "compositing")),
                form=cast("FileFormat", _one_of(file_format, get_args(FileFormat), "file format")),
            )
            return _inpaint(engine, photo, mask, asked, progress)
        except (DemoError, FileFormatError, RequestError, ValueError) as error:
            raise gr.Error(str(error), print_exception=False) from error

    door.click(
        inpaint, inputs, outputs, api_name=NAME, api_description=DESCRIPTION, concurrency_id=SLOT, concurrency_limit=1,
    )  # fmt: skip


@dataclass(frozen=True)
class _Asked:
    """What a program wants to be done with its photo and mask."""

    job: Job
    framing: Framing
    compositing: Compositing
    form: FileFormat


def _job(method: str, seed: float, settings: object) -> Job:
    settings = {} if settings is None else settings
    if not isinstance(settings, Mapping):
        raise DemoError(f"The settings are {settings!r}; give an object of names and values.")
    if seed != int(seed) or not 0 <= seed <= LARGEST_SEED:
        raise DemoError(f"The seed is {seed}; give a whole number from 0 to {LARGEST_SEED}.")
    return Job(method, int(seed), dict(cast("Mapping[str, Any]", settings)))


def _inpaint(
    engine: DemoEngine, photo: str | None, mask: str | None, asked: _Asked, progress: gr.Progress
) -> tuple[str, dict[str, Any]]:
    if mask is None:
        raise DemoError("There is no mask; send a picture of the photo's size, white where something is to be filled.")
    picture = engine.open_photo(Painted(photo=Path(photo) if photo else None))
    hole = read_hole(Path(mask), picture.size, max_pixels=engine.max_pixels)
    caller = f"api {secrets.token_hex(8)}"
    running = engine.run(
        caller, picture, hole, [asked.job], framing=asked.framing, compositing=asked.compositing,
        tiles=asked.framing.tiles,
    )  # fmt: skip
    for event in running:
        if isinstance(event, Step) and event.total:
            progress((event.done, event.total), unit="steps")
        if isinstance(event, Finished):
            return _answer(event, asked.form)
    raise DemoError("The run ended without a result; try again.")


def _answer(done: Finished, form: FileFormat) -> tuple[str, dict[str, Any]]:
    """The file where Gradio serves from, in a folder that nobody can guess, and what is to be known about it."""
    file = convert(done.png, form)
    path = save_bytes_to_cache(
        file.data, f"{done.record.method}-seed{done.record.seed}{file.suffix}", get_upload_folder()
    )
    told = {**vars(done.record), "changed_outside": done.changed_outside, "changed_by_format": file.changed}
    return path, told


def _one_of(said: str, words: tuple[str, ...], what: str) -> str:
    if said not in words:
        raise DemoError(f"The {what} is {said!r}; give {' or '.join(words)}.")
    return said
