"""ZeroGPU: runs happen in a forked process where the package is, here where it is not, and look the same."""

import inspect
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pytest
import torch

from asuka_infer.catalog import METHODS, Method, Needs
from asuka_infer.images import Picture
from asuka_infer.inpainter import SILENT, Cancelled, Watch
from asuka_infer.request import Hole, InpaintRequest, InpaintResult
from asuka_infer.settings import Settings
from demo import spaces
from demo.engine import GPU_SECONDS, GPU_SECONDS_TO_START, LARGE_GPU_SECONDS, DemoEngine, DemoError, Finished, Job, Step
from demo.spaces import GpuSecondsError, on_zero_gpu
from tests.demo.painting import photo
from tests.demo.serve_demo import EXTRA

PATIENCE_S = 30
"""For a forked process to say anything; one that hangs says nothing for ever."""


class ForkingSpaces:
    """Does what `spaces` 0.51 does on ZeroGPU, without a GPU: forks, pickles, passes on that a generator was closed.

    Attributes:
        seconds: what was asked for, call by call.
        processes: those that were forked.
    """

    def __init__(self) -> None:
        self.seconds: list[int] = []
        self.processes: list[Any] = []

    def GPU(self, duration: Callable[..., int]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:  # noqa: N802 - the package's name
        def decorate(task: Callable[..., Any]) -> Callable[..., Any]:
            def generate(*arguments: Any) -> Iterator[Any]:
                self.seconds.append(duration(*arguments))
                yield from self._elsewhere(task, arguments)

            def call(*arguments: Any) -> Any:
                self.seconds.append(duration(*arguments))
                return next(self._elsewhere(lambda *given: iter([task(*given)]), arguments))

            return generate if inspect.isgeneratorfunction(task) else call

        return decorate

    def _elsewhere(self, task: Callable[..., Iterator[Any]], arguments: tuple[Any, ...]) -> Iterator[Any]:
        context = multiprocessing.get_context("fork")
        here, there = context.Pipe()
        stopped = context.Event()
        process = context.Process(target=_work, args=(task, there, stopped), daemon=True)
        process.start()
        self.processes.append(process)
        there.close()
        here.send(arguments)
        try:
            while True:
                assert here.poll(PATIENCE_S), "the forked process hangs"
                kind, value = here.recv()
                if kind == "raised":
                    raise RuntimeError(value)  # the real one, too, tells no more than the class
                if kind == "ended":
                    return
                yield value
        finally:
            stopped.set()
            here.close()
            process.join(PATIENCE_S)


def _work(task: Callable[..., Iterator[Any]], pipe: Any, stopped: Any) -> None:
    """In a thread of its own, as the real one does it."""
    thread = threading.Thread(target=_answer, args=(task, pipe, stopped))
    thread.start()
    thread.join()


def _answer(task: Callable[..., Iterator[Any]], pipe: Any, stopped: Any) -> None:
    values = task(*pipe.recv())
    try:
        for value in values:
            if stopped.is_set():
                values.close()  # type: ignore[attr-defined]
                return
            pipe.send(("value", value))
    except Exception as error:  # noqa: BLE001 - told to the parent
        pipe.send(("raised", type(error).__name__))
        return
    pipe.send(("ended", None))


@dataclass(frozen=True)
class NoSettings(Settings):
    """Nothing to set."""


@dataclass(frozen=True)
class Witness:
    """Fills the hole with the number of the process that it runs in."""

    settings: NoSettings = NoSettings()

    def __call__(self, request: InpaintRequest, watch: Watch = SILENT) -> InpaintResult:
        watch.step(1, 1)
        image = request.image.copy()
        image[request.hole] = (os.getpid() % 256, os.getpid() // 256 % 256, os.getpid() // 65536)
        return InpaintResult(image)

    def with_settings(self, **_changes: Any) -> Self:
        return self


WITNESS = Method("witness", "Witness", "For tests.", "nobody", "none", load=Witness)
LARGE = replace(WITNESS, key="large", needs=Needs(gpu=True))

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture
def lender(monkeypatch: pytest.MonkeyPatch) -> ForkingSpaces:
    lender = ForkingSpaces()
    monkeypatch.setattr(spaces, "spaces", lender)
    monkeypatch.delenv("ASUKA_GPU_SECONDS", raising=False)
    return lender


@pytest.fixture
def engine(lender: ForkingSpaces) -> DemoEngine:
    del lender  # it has to be there before the engine
    return DemoEngine(methods={**METHODS, **{method.key: method for method in (*EXTRA, WITNESS, LARGE)}})


@pytest.fixture
def picture() -> Picture:
    return Picture(photo(90, 60))


@pytest.fixture
def hole() -> Hole:
    hole = np.zeros((60, 90), np.bool_)
    hole[20:40, 30:60] = True
    return hole


def result(engine: DemoEngine, picture: Picture, hole: Hole, *jobs: Job) -> Finished:
    events = list(engine.run("me", picture, hole, jobs))
    assert isinstance(events[-1], Finished)
    return events[-1]


def test_a_run_happens_in_the_process_that_has_the_gpu(
    engine: DemoEngine, lender: ForkingSpaces, picture: Picture, hole: Hole
) -> None:
    done = result(engine, picture, hole, Job("witness", 0))
    number = lender.processes[0].pid
    assert (done.view[30, 45] == (number % 256, number // 256 % 256, number // 65536)).all()
    assert number != os.getpid()
    assert done.changed_outside == 0


def test_a_method_gives_the_same_pixels_there_as_here(picture: Picture, hole: Hole, engine: DemoEngine) -> None:
    there = result(engine, picture, hole, Job("telea", 3))
    with pytest.MonkeyPatch.context() as without:
        without.setattr(spaces, "spaces", None)
        alone = DemoEngine()
    assert result(alone, picture, hole, Job("telea", 3)).record.result_sha256 == there.record.result_sha256


def test_what_goes_wrong_there_is_said_in_words_here(engine: DemoEngine, picture: Picture, hole: Hole) -> None:
    with pytest.raises(DemoError, match="weights are damaged"):
        result(engine, picture, hole, Job("broken", 0))
    with pytest.raises(DemoError, match="weights are damaged"):
        engine.look(Job("broken", 0), picture, hole)


def test_cancelling_here_ends_the_work_there(
    engine: DemoEngine, lender: ForkingSpaces, picture: Picture, hole: Hole
) -> None:
    heard: list[Step] = []

    def listen() -> None:
        for event in engine.run("me", picture, hole, [Job("slow", 0)]):
            assert isinstance(event, Step) or event.picture.shape == (60, 90, 3)  # type: ignore[union-attr]
            heard.extend([event] if isinstance(event, Step) else [])
            if len(heard) == 3:
                engine.cancel("me")

    with pytest.raises(Cancelled):
        listen()
    assert len(heard) == 3
    assert not lender.processes[0].is_alive()


def test_a_look_before_the_run_happens_there_too(
    engine: DemoEngine, lender: ForkingSpaces, picture: Picture, hole: Hole
) -> None:
    seen = engine.look(Job("prior", 0), picture, hole)
    assert (seen["prior"] == 200).all()
    assert len(lender.processes) == 1


@pytest.mark.usefixtures("lender")
def test_torch_computes_in_a_fork_of_a_process_in_which_it_has_computed(picture: Picture, hole: Hole) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.nn.functional.conv2d(torch.zeros(4, 32, 128, 128), torch.zeros(32, 32, 3, 3))  # starts OpenMP's threads
        engine = DemoEngine(methods={"torch": replace(WITNESS, key="torch", load=Convolution)})
        assert (result(engine, picture, hole, Job("torch", 0)).view[30, 45] == 7).all()
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class Convolution(Witness):
    """Fills the hole with sevens that a convolution of several threads gives."""

    def __call__(self, request: InpaintRequest, watch: Watch = SILENT) -> InpaintResult:
        del watch
        ones = torch.nn.functional.conv2d(torch.ones(4, 32, 128, 128), torch.full((32, 32, 1, 1), 1 / 32))
        image = request.image.copy()
        image[request.hole] = round(7 * float(ones.exp().log().mean()))
        return InpaintResult(image)


def test_a_method_being_loaded_does_not_lock_out_the_fork(lender: ForkingSpaces, picture: Picture, hole: Hole) -> None:
    loading, may_end = threading.Event(), threading.Event()

    def load() -> Witness:
        loading.set()
        may_end.wait(1)
        return Witness()

    engine = DemoEngine(methods={"witness": WITNESS, "long": replace(WITNESS, key="long", load=load)})
    other = threading.Thread(target=engine.knobs, args=("long",))
    other.start()
    loading.wait()
    assert result(engine, picture, hole, Job("witness", 0)).changed_outside == 0
    other.join()
    assert len(lender.processes) == 1


def test_a_run_asks_for_the_seconds_that_it_needs(
    engine: DemoEngine, lender: ForkingSpaces, picture: Picture, hole: Hole, monkeypatch: pytest.MonkeyPatch
) -> None:
    result(engine, picture, hole, Job("witness", 0), Job("large", 0))
    assert lender.seconds == [GPU_SECONDS_TO_START + GPU_SECONDS + LARGE_GPU_SECONDS]
    monkeypatch.setenv("ASUKA_GPU_SECONDS", "25")
    result(DemoEngine(methods={"witness": WITNESS}), picture, hole, Job("witness", 0))
    assert lender.seconds[-1] == 25


def test_an_operator_who_gives_no_time_is_told(monkeypatch: pytest.MonkeyPatch, lender: ForkingSpaces) -> None:
    del lender
    monkeypatch.setenv("ASUKA_GPU_SECONDS", "long")
    with pytest.raises(GpuSecondsError, match="'long'; give seconds"):
        on_zero_gpu(print, seconds=lambda: 1)


def test_without_the_package_the_handler_is_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spaces, "spaces", None)
    assert on_zero_gpu(print, seconds=lambda: 1) is print
