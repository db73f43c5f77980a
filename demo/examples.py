"""Examples to look at before one paints: sample pictures with a hole, filled here, kept on disk and never stale.

`python -m demo.examples FOLDER` prepares them at build time; the app prepares what is missing in the background.
"""

import hashlib
import json
import logging
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import cv2
import numpy as np

import asuka_infer
from asuka_infer.datasets.sample_pictures import SAMPLE_PICTURES
from asuka_infer.images import Picture, write_atomically
from asuka_infer.request import Hole
from asuka_infer.run_record import RunRecord
from demo.engine import DemoEngine, DemoError, Finished, Job

RIVALS = ("sd-mini", "telea")
"""What the first method is shown beside: the first of these that is ready."""

SEED = 0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Example:
    """A sample picture and what to remove from it.

    Attributes:
        key: also of its words in texts.json ("example_" + key).
        sample: the sample picture's name.
        outline: corners of the hole as shares of width and height.
    """

    key: str
    sample: str
    outline: tuple[tuple[float, float], ...]

    def hole(self, size: tuple[int, int]) -> Hole:
        """(height, width) bool for a picture of that size."""
        canvas = np.zeros(size, np.uint8)
        corners = np.rint(np.array(self.outline) * (size[1], size[0])).astype(np.int32)
        return np.asarray(cv2.fillPoly(canvas, [corners], (1,))) > 0


EXAMPLES = (
    Example("rocket", "rocket", ((0.475, 0.27), (0.50, 0.22), (0.525, 0.27), (0.535, 0.97), (0.465, 0.97))),
    Example(
        "spoon",
        "coffee",
        (
            (0.66, 0.12),
            (0.72, 0.16),
            (0.71, 0.28),
            (0.665, 0.46),
            (0.66, 0.56),
            (0.69, 0.68),
            (0.68, 0.82),
            (0.57, 0.84),
            (0.53, 0.72),
            (0.56, 0.58),
            (0.62, 0.50),
            (0.65, 0.30),
        ),
    ),
    Example(
        "shuttle",
        "astronaut",
        ((0.73, 0.0), (0.92, 0.0), (0.94, 0.38), (0.90, 0.50), (0.80, 0.56), (0.72, 0.52), (0.70, 0.36)),
    ),
)
"""Something thin before an even sky, something on a patterned ground, a large hole that must keep its colours."""


@dataclass(frozen=True, eq=False)
class PreparedExample:
    """An example with its results, the first method's first."""

    example: Example
    picture: Picture
    hole: Hole
    results: tuple[Finished, ...]


@dataclass(eq=False)
class ExampleGallery:
    """Prepares the examples of an engine in a folder; a file is used only while everything that made it is the same.

    Attributes:
        engine: what fills the holes.
        folder: where results lie, each under a name made of its hash of methods, weights, settings, pictures and code.
        keys: the methods; empty for the engine's favourite and a rival.
    """

    engine: DemoEngine
    folder: Path
    keys: Sequence[str] = ()
    _ready: list[PreparedExample] = field(default_factory=list[PreparedExample], init=False)
    _preparing: bool = field(default=False, init=False)

    @property
    def ready(self) -> tuple[PreparedExample, ...]:
        """Those that are prepared by now."""
        return tuple(self._ready)

    @property
    def preparing(self) -> bool:
        """Whether `prepare_in_background` may still make more ready."""
        return self._preparing

    def prepare(self) -> None:
        """Make what is missing, read what is there, delete what nothing of today would make.

        Raises:
            DemoError: when a method cannot run.
            OSError: when the folder cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        used: set[str] = set()
        samples = {sample.name: sample for sample in self.engine.samples}
        for example in EXAMPLES:
            if example.sample in samples:
                pixels = samples[example.sample].load()
                picture, hole = Picture(pixels), example.hole((pixels.shape[0], pixels.shape[1]))
                results = tuple(self._result(Job(key, SEED), picture, hole, used) for key in self._methods())
                self._ready.append(PreparedExample(example, picture, hole, results))
        for path in self.folder.glob("*.png"):
            if path.name not in used:
                path.unlink()

    def prepare_in_background(self) -> threading.Thread:
        """`prepare` in a thread; what goes wrong is logged, the page goes on without examples."""

        def work() -> None:
            try:
                self.prepare()
            except Exception:  # noqa: BLE001 - the page goes on without examples, the log says why
                _log.exception("the examples could not be prepared")
            finally:
                self._preparing = False

        self._preparing = True
        thread = threading.Thread(target=work, name="examples", daemon=True)
        thread.start()
        return thread

    def _methods(self) -> list[str]:
        if self.keys:
            return list(self.keys)
        ready = {method.key for method in self.engine.ready_methods()}
        first = self.engine.favourite()
        return [first, *[key for key in RIVALS if key in ready and key != first][:1]]

    def _result(self, job: Job, picture: Picture, hole: Hole, used: set[str]) -> Finished:
        planned = self.engine.describe(job, picture, hole)
        path = self.folder / f"{job.method}-{fingerprint(planned)}.png"
        used.add(path.name)
        if path.is_file():
            try:
                return self.engine.reopen(job.method, picture, hole, path.read_bytes())
            except DemoError as error:
                _log.warning("%s is made anew: %s", path, error)
        for event in self.engine.run("examples", picture, hole, [job]):
            if isinstance(event, Finished):
                write_atomically(path, event.png)
                return event
        raise DemoError(f"{job.method} ended without a result.")


def fingerprint(planned: RunRecord) -> str:
    """Of everything that decides a result's pixels: the record of the run, weights and versions in it, and the code."""
    said = json.loads(planned.to_json())
    for chance in ("created_at", "seconds", "result_sha256"):
        said.pop(chance)
    return hashlib.sha256(json.dumps([said, code_sha256()], sort_keys=True).encode()).hexdigest()[:32]


@cache
def code_sha256() -> str:
    """Of every source file of the inference package, by name and content."""
    root = Path(asuka_infer.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


if __name__ == "__main__":
    ExampleGallery(DemoEngine(SAMPLE_PICTURES), Path(sys.argv[1])).prepare()
