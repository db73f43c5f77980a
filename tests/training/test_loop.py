"""The loop: the same log whether killed or not, time budgets, refusals, averages."""

import json
import os
import signal
import time
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from asuka_infer.asuka.family import Family
from asuka_infer.asuka.mini import MiniModel
from training import loop, mae
from training.chain import assemble
from training.loop import CHECKPOINT, LOG, WEIGHTS, Moment, Pace, TrainingError, read_state, train, weights_of
from training.mae import MaeStage
from training.presets import MODELS, Bench

TINY = mae.PRESETS["tiny"]


def stage(bench: Bench, **pace: Any) -> MaeStage:
    return MaeStage(replace(TINY, pace=replace(TINY.pace, **pace)), bench)


def fresh(run: Path) -> MiniModel:
    return assemble(run, "tiny", [])


def log_of(run: Path, name: str = "mae") -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / name / LOG).read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "time"} for line in lines]


class StoppingAt(MaeStage):
    """Asks the run to stop, as an operator would, while a certain step is being drawn."""

    def __init__(self, bench: Bench, stop: int, **pace: Any) -> None:
        super().__init__(replace(TINY, pace=replace(TINY.pace, **pace)), bench)
        self._stop = stop

    def batch(self, moment: Moment) -> dict[str, Tensor]:
        if moment.step == self._stop:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().batch(moment)


def test_a_run_that_was_stopped_and_started_again_is_the_run_that_never_stopped(bench: Bench, tmp_path: Path) -> None:
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    assert train(stage(bench, steps=8), fresh(straight), straight)

    # Step 4 is the middle of a window of the log: its sums must travel too.
    assert not train(StoppingAt(bench, 4, steps=8), fresh(stopped), stopped)
    assert read_state(stopped / "mae").step == 5
    assert train(stage(bench, steps=8), fresh(stopped), stopped)

    assert log_of(stopped) == log_of(straight)
    assert len(log_of(straight)) == 4
    one, other = weights_of(straight / "mae"), weights_of(stopped / "mae")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_stop_in_the_last_step_keeps_the_next_stage_from_beginning(bench: Bench, tmp_path: Path) -> None:
    assert not train(StoppingAt(bench, 7, steps=8), fresh(tmp_path), tmp_path)

    assert read_state(tmp_path / "mae").complete
    assert train(stage(bench, steps=8), fresh(tmp_path), tmp_path)
    assert read_state(tmp_path / "mae").step == 8


def test_lines_after_the_checkpoint_are_taken_back_when_power_went_before_the_next(
    bench: Bench, tmp_path: Path
) -> None:
    train(StoppingAt(bench, 3, steps=8), fresh(tmp_path), tmp_path)
    kept = log_of(tmp_path)
    with (tmp_path / "mae" / LOG).open("a") as log:
        log.write('{"step": 6, "loss": 99.0}\n{"step": 8, "lo')

    train(StoppingAt(bench, 4, steps=8), fresh(tmp_path), tmp_path)

    assert log_of(tmp_path)[: len(kept)] == kept
    assert [line["step"] for line in log_of(tmp_path)] == [2, 4]


class OneOfTwo:
    """Of two processes, this one: what the other says at an exchange is written down beforehand."""

    num_processes = 2
    device = torch.device("cpu")

    def __init__(self, *, is_main_process: bool, other: list[float]) -> None:
        self.is_main_process = is_main_process
        self._other = torch.tensor(other, dtype=torch.float64)

    def reduce(self, own: Tensor, reduction: str) -> Tensor:
        assert reduction == "sum"
        return own + self._other


@pytest.mark.parametrize(
    ("main", "other", "heard", "stops"),
    [
        (True, [0.0, 0.0, 1.0], [], True),  # the other was asked to stop
        (True, [0.0, 0.0, 0.0], [15], True),  # this one was
        (True, [0.0, 0.0, 0.0], [], False),
        (False, [0.25, 0.0, 1.0], [], True),
        (False, [0.25, 0.0, 0.0], [15], True),
        (False, [0.25, 1.0, 0.0], [], True),  # the main process's pause is over
        (False, [1.0, 0.0, 0.0], [], True),  # so is its schedule
        (False, [0.25, 0.0, 0.0], [], False),
    ],
)
def test_what_one_process_hears_stops_all_at_the_same_step(
    bench: Bench, *, main: bool, other: list[float], heard: list[int], stops: bool
) -> None:
    clock = loop._Clock(stage(bench, steps=8), loop._Progress(step=2), None, None)  # pyright: ignore[reportPrivateUsage]
    here: Any = OneOfTwo(is_main_process=main, other=other)

    assert clock.over(here, heard) is stops
    assert clock.fraction == (0.25 if main else other[0])


@pytest.mark.parametrize(("other", "heard", "asked"), [(0.0, [], False), (1.0, [], True), (0.0, [15], True)])
def test_all_processes_know_of_a_stop_that_one_of_them_heard(*, other: float, heard: list[int], asked: bool) -> None:
    here: Any = OneOfTwo(is_main_process=False, other=[other])

    assert loop.asked_to_stop(here, heard) is asked


def test_one_of_several_processes_on_a_cpu_goes_on_from_the_checkpoint(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Accelerator, "device", torch.device("cpu", 0))  # as accelerate names it there
    train(StoppingAt(bench, 1, steps=4), fresh(tmp_path), tmp_path)

    assert train(stage(bench, steps=4), fresh(tmp_path), tmp_path)
    assert read_state(tmp_path / "mae").step == 4


def test_a_model_of_other_sizes_is_refused_when_a_run_goes_on(bench: Bench, tmp_path: Path) -> None:
    train(StoppingAt(bench, 1, steps=8), fresh(tmp_path), tmp_path)
    sizes = MODELS["tiny"]
    deeper = MiniModel(replace(sizes, mae=replace(sizes.mae, decoder_depth=sizes.mae.decoder_depth + 1)))

    with pytest.raises(TrainingError, match=r"does not fit this model: mae\.decoder_blocks\.2"):
        train(stage(bench, steps=8), deeper, tmp_path)


def test_a_step_in_two_passes_has_the_gradient_of_both(bench: Bench, tmp_path: Path) -> None:
    """One step of plain averaging: the losses told are the mean of the two batches, drawn one after the other."""
    one = stage(bench, steps=1, log_every=1)
    train(one, fresh(tmp_path), tmp_path, accumulate=2)

    model, told = fresh(tmp_path), log_of(tmp_path)[0]["loss"]
    clock = loop._Clock(one, loop._Progress(), None, None)  # pyright: ignore[reportPrivateUsage]
    moment = clock.moment(Accelerator())
    objective = one.objective(model)
    with torch.no_grad():
        losses = [float(objective(**one.batch(moment))["loss"]) for _ in range(2)]
    assert told == pytest.approx(sum(losses) / 2, rel=1e-4)


class PowerCut(BaseException):
    """The end of a process without goodbye."""


class CutAt(MaeStage):
    """Dies while a certain step is being drawn, later than its last checkpoint."""

    def batch(self, moment: Moment) -> dict[str, Tensor]:
        if moment.step == 7:
            raise PowerCut
        return super().batch(moment)


def test_a_run_cut_off_after_its_checkpoint_repeats_the_lost_steps_alike(bench: Bench, tmp_path: Path) -> None:
    straight, cut = tmp_path / "straight", tmp_path / "cut"
    train(stage(bench, steps=8), fresh(straight), straight)
    train(StoppingAt(bench, 3, steps=8), fresh(cut), cut)
    with pytest.raises(PowerCut):
        train(CutAt(replace(TINY, pace=replace(TINY.pace, steps=8)), bench), fresh(cut), cut)
    assert [line["step"] for line in log_of(cut)] == [2, 4, 6]
    assert read_state(cut / "mae").step == 4

    assert train(stage(bench, steps=8), fresh(cut), cut)

    assert log_of(cut) == log_of(straight)


def test_a_time_budget_ends_the_schedule_with_the_rate_at_its_end(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 5 ms for every look at the clock, however busy the machine is.
    ticking = SimpleNamespace(monotonic=partial(next, count(0, 0.005)), time=time.time)
    monkeypatch.setattr(loop, "time", ticking)

    assert train(stage(bench, steps=10_000, log_every=1), fresh(tmp_path), tmp_path, minutes=1 / 60)

    last = log_of(tmp_path)[-1]
    state = read_state(tmp_path / "mae")
    assert state.complete
    assert state.seconds == pytest.approx(1, abs=0.1)
    assert last["step"] < 10_000
    assert last["rate"] == pytest.approx(TINY.pace.final, rel=0.5)


def test_a_pause_leaves_the_schedule_alone(bench: Bench, tmp_path: Path) -> None:
    unhurried = stage(bench, steps=10_000, warm_up=1, log_every=1)
    assert not train(unhurried, fresh(tmp_path), tmp_path, pause_after=0.5 / 60)

    last = log_of(tmp_path)[-1]
    assert not read_state(tmp_path / "mae").complete
    assert last["fraction"] == pytest.approx((last["step"] - 1) / 10_000, abs=1e-6)
    assert last["rate"] == pytest.approx(TINY.pace.peak, rel=0.01)


def test_weights_without_an_optimizer_are_continued_after_a_new_warm_up(bench: Bench, tmp_path: Path) -> None:
    train(StoppingAt(bench, 3, steps=40, warm_up=4), fresh(tmp_path), tmp_path)
    (tmp_path / "mae" / CHECKPOINT).unlink()

    train(StoppingAt(bench, 5, steps=40, warm_up=4, log_every=1), fresh(tmp_path), tmp_path)

    steps = {line["step"]: line["rate"] for line in log_of(tmp_path)}
    assert steps[5] == pytest.approx(TINY.pace.peak / 4, rel=0.1)
    assert steps[6] == pytest.approx(TINY.pace.peak / 2, rel=0.1)


def test_another_recipe_is_refused_by_name(bench: Bench, tmp_path: Path) -> None:
    train(StoppingAt(bench, 1, steps=8), fresh(tmp_path), tmp_path)

    with pytest.raises(TrainingError, match=r"different: pace"):
        train(stage(bench, steps=8, peak=0.5), fresh(tmp_path), tmp_path)


class Bursting(MaeStage):
    """A stage whose loss is not a number from the third step on."""

    def objective(self, model: Family) -> nn.Module:
        return _Burst(super().objective(model))

    def batch(self, moment: Moment) -> dict[str, Tensor]:
        return {**super().batch(moment), "broken": torch.tensor(moment.step >= 2)}


class _Burst(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *, broken: Tensor, **batch: Tensor) -> dict[str, Tensor]:
        losses = self.inner(**batch)
        return {"loss": torch.where(broken, torch.nan, losses["loss"])}


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(bench: Bench, tmp_path: Path) -> None:
    broken = Bursting(replace(TINY, pace=replace(TINY.pace, steps=8)), bench)

    with pytest.raises(TrainingError, match=r"mae: .*loss.* not finite at step 4"):
        train(broken, fresh(tmp_path), tmp_path)
    assert not (tmp_path / "mae" / WEIGHTS).exists()


def test_only_what_a_stage_trains_changes(bench: Bench, tmp_path: Path) -> None:
    before = {name: value.detach().clone() for name, value in fresh(tmp_path).named_parameters()}
    model = fresh(tmp_path)
    train(stage(bench, steps=3), model, tmp_path)

    changed = {name.split(".")[0] for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {"mae"}


def test_the_averaged_weights_are_the_published_recursion(bench: Bench, tmp_path: Path) -> None:
    name = "mae.decoder_pred.bias"
    history = [dict(fresh(tmp_path).named_parameters())[name].detach().clone()]

    class Remembering(MaeStage):
        def batch(self, moment: Moment) -> dict[str, Tensor]:
            if moment.step:
                history.append(dict(model.named_parameters())[name].detach().clone())
            return super().batch(moment)

    model = fresh(tmp_path)
    train(Remembering(replace(TINY, pace=replace(TINY.pace, steps=4)), bench), model, tmp_path)
    history.append(dict(model.named_parameters())[name].detach().clone())

    average = history[0]
    for step, weights in enumerate(history[1:]):
        decay = min(TINY.pace.average, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weights
    assert torch.allclose(weights_of(tmp_path / "mae")[name], average, atol=1e-7)


def test_the_rate_warms_up_and_falls_as_a_cosine(bench: Bench, tmp_path: Path) -> None:
    pace = Pace(steps=8, batch=4, peak=1.0, final=0.0, warm_up=2, log_every=1, precision="no", clip=1e-9)
    train(MaeStage(replace(TINY, pace=pace), bench), fresh(tmp_path), tmp_path)

    # (1 + cos(pi n / 8)) / 2 for n = 0..7, the first step at half of it.
    expected = [0.5, 0.9619, 0.8536, 0.6913, 0.5, 0.3087, 0.1464, 0.0381]
    assert [line["rate"] for line in log_of(tmp_path)] == pytest.approx(expected, abs=1e-4)
