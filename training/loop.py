"""One resumable, seeded training loop for every stage.

Everything random in step n is a function of (seed, n) alone, so a run that was killed and started again is the run that
never stopped: on a CPU to the last bit, on GPUs up to their rounding.
"""

import json
import math
import signal
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Generic, Literal, Protocol, TypeVar
from zlib import crc32

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm import tqdm

from asuka_infer.request import RgbImage

CHECKPOINT = "checkpoint.pt"
WEIGHTS = "weights.safetensors"
LOG = "log.jsonl"
SHEETS = "sheets"
STATE = "state.json"

Net = TypeVar("Net", bound=nn.Module)
Net_contra = TypeVar("Net_contra", bound=nn.Module, contravariant=True)
"""What is trained: the small family's model, or a network of its own."""


class TrainingError(RuntimeError):
    """Training cannot go on; the message says which stage, what happened and what to do."""


@dataclass(frozen=True)
class Pace:
    """How fast and how long a stage learns.

    Attributes:
        steps: the length of the schedule, unless a time budget ends it earlier.
        batch: samples per step and process.
        peak, final: learning rate after the warm-up and at the end; a cosine between them.
        warm_up: steps from nothing to the peak.
        weight_decay: of AdamW, for matrices and kernels only.
        betas: of AdamW.
        clip: largest norm of the gradient.
        average: decay of the averaged weights, which are the ones that are used afterwards.
        log_every: steps per line of the log.
        minutes_between_checkpoints: at most this much is lost by a power cut.
        precision: "bf16" computes in bfloat16 where that is safe.
        seed: names everything random.
    """

    steps: int
    batch: int
    peak: float
    final: float = 1e-5
    warm_up: int = 500
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0
    average: float = 0.999
    log_every: int = 50
    minutes_between_checkpoints: float = 10.0
    precision: Literal["no", "bf16"] = "bf16"
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Moment:
    """One step as a stage sees it.

    Attributes:
        step: 0 for the first.
        progress: how much of the schedule is over, 0..1.
        rng: draws places and indices.
        generator: draws noise on the device.
        device: where the batch is wanted.
    """

    step: int
    progress: float
    rng: np.random.Generator
    generator: torch.Generator
    device: torch.device


class Stage(Protocol[Net_contra]):
    """What the loop must know of a stage."""

    @property
    def name(self) -> str:
        """The stage's folder in the run."""
        ...

    @property
    def trains(self) -> tuple[str, ...]:
        """Which parameters of the model learn, by the beginnings of their names."""
        ...

    @property
    def pace(self) -> Pace:
        """How fast and how long."""
        ...

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Everything that decides the outcome, as JSON values; a checkpoint of another recipe is refused."""
        ...

    def objective(self, model: Net_contra) -> nn.Module:
        """A module over (parts of) the model that turns a batch into named losses, "loss" being minimised."""
        ...

    def batch(self, moment: Moment) -> Mapping[str, Tensor]:
        """What the objective is called with."""
        ...

    def finish(self, model: Net_contra) -> None:
        """Changes the averaged model before its weights are written for the next stages."""
        ...

    def sheet(self, model: Net_contra) -> RgbImage:
        """Pictures that show how far the averaged model has got."""
        ...


@dataclass(frozen=True)
class StageState:
    """How far a stage's weights are: steps done, seconds spent, and whether its schedule is over."""

    step: int = 0
    seconds: float = 0.0
    complete: bool = False


@dataclass
class _Progress:
    """Where a run stands; kept in its checkpoint.

    Attributes:
        step, seconds: done and spent so far.
        optimizer_born: the step at which the optimizer began: later than 0 after a move without its moments.
        sums, counted: losses since the last line of the log.
    """

    step: int = 0
    seconds: float = 0.0
    optimizer_born: int = 0
    sums: dict[str, Tensor | float] = field(default_factory=dict[str, Tensor | float])
    counted: int = 0


def train(
    stage: Stage[Net],
    model: Net,
    run: Path,
    *,
    minutes: float | None = None,
    pause_after: float | None = None,
    compiled: bool = False,
    accumulate: int = 1,
) -> bool:
    """Train a stage from wherever its folder says it is; returns whether what comes after it may begin.

    That is when its schedule is complete, and nobody asked for a stop meanwhile (not even during the last step).

    Args:
        stage: what to learn.
        model: with the weights of the stages before.
        run: the folder of the whole chain; the stage writes `run/<name>/{log.jsonl,checkpoint.pt,weights.safetensors,
            sheets/}`.
        minutes: time budget of the stage over all its restarts: the schedule ends when it is used up, whatever the
            number of steps, with the learning rate at its end.
        pause_after: stop this call after so many minutes, to be continued; the schedule does not notice.
        compiled: `torch.compile` the objective.
        accumulate: batches in a step, where a whole one does not fit into memory.

    Raises:
        TrainingError: when a loss is not finite, or the folder belongs to another recipe.
    """
    pace = stage.pace
    accelerator = Accelerator(mixed_precision=pace.precision)
    folder = run / stage.name
    learner = _Learner(stage, model, accelerator, compiled=compiled, accumulate=accumulate)
    progress = learner.resume(folder)
    log = _Log(folder / LOG, progress.step) if accelerator.is_main_process else None
    bar = tqdm(total=pace.steps, initial=progress.step, desc=stage.name, mininterval=5.0, disable=log is None)
    with _stop_signals() as stopping, bar:
        clock = _Clock(stage, progress, minutes, pause_after)
        while not clock.over(accelerator, stopping):
            losses = learner.step(clock.moment(accelerator), progress.optimizer_born)
            _account(progress, losses, stage.name, last_of_window=(progress.step + 1) % pace.log_every == 0)
            progress.step += 1
            bar.update()
            if log and progress.counted == 0:
                bar.set_postfix_str(log.write(progress, clock.fraction))
            if clock.checkpoint_due():
                learner.save(folder, progress)
        progress.seconds = clock.spent()
        # Still deaf to signals: a launcher passes on to its processes what each of them has already heard.
        learner.save(folder, progress, complete=clock.complete)
        return clock.complete and not asked_to_stop(accelerator, stopping)


class _Clock:
    """Time and schedule: how far a run is, and when it pauses."""

    def __init__(
        self, stage: Stage[Any], progress: _Progress, minutes: float | None, pause_after: float | None
    ) -> None:
        self._progress, self._pace, self._name = progress, stage.pace, stage.name
        self._budget = math.inf if minutes is None else 60 * minutes
        self._pause = math.inf if pause_after is None else 60 * pause_after
        self._before = progress.seconds
        self._started = self._saved = time.monotonic()
        self.fraction = self._now()

    @property
    def complete(self) -> bool:
        return self.fraction >= 1

    def over(self, accelerator: Accelerator, heard: list[int]) -> bool:
        """Whether to stop: by the main process's time, or because any process was asked to; all at the same step."""
        self.fraction = self._now()
        paused = time.monotonic() - self._started >= self._pause
        stopped = bool(heard)
        if accelerator.num_processes > 1:
            # One signal reaches one process: unless all know, the others wait for it at the next exchange for ever.
            own = [self.fraction, float(paused)] if accelerator.is_main_process else [0.0, 0.0]
            told = torch.tensor([*own, float(stopped)], device=accelerator.device, dtype=torch.float64)
            self.fraction, paused, stopped = (float(value) for value in accelerator.reduce(told, "sum"))
        return bool(self.complete or paused or stopped)

    def moment(self, accelerator: Accelerator) -> Moment:
        # Each stage draws its own photographs: with one sequence for all, they would all see the same first ones.
        key = [self._pace.seed, crc32(self._name.encode()), self._progress.step, accelerator.process_index]
        rng = np.random.default_rng(key)
        generator = torch.Generator(accelerator.device).manual_seed(int(rng.integers(2**62)))
        return Moment(self._progress.step, self.fraction, rng, generator, accelerator.device)

    def checkpoint_due(self) -> bool:
        due = time.monotonic() - self._saved >= 60 * self._pace.minutes_between_checkpoints
        if due:
            self._saved = time.monotonic()
            self._progress.seconds = self.spent()
        return due

    def spent(self) -> float:
        return self._before + time.monotonic() - self._started

    def _now(self) -> float:
        return min(1.0, max(self._progress.step / self._pace.steps, self.spent() / self._budget))


def asked_to_stop(accelerator: Accelerator, heard: Sequence[int]) -> bool:
    """Whether any process has been asked to stop; the same answer in all."""
    told = torch.tensor(float(bool(heard)), device=accelerator.device)
    return bool(accelerator.reduce(told, "sum") if accelerator.num_processes > 1 else told)


class _Learner(Generic[Net]):
    """The model, its optimiser and its running average."""

    def __init__(
        self, stage: Stage[Net], model: Net, accelerator: Accelerator, *, compiled: bool, accumulate: int
    ) -> None:
        self._stage, self._pace, self._accelerator = stage, stage.pace, accelerator
        self._accumulate = accumulate
        self._model = model.to(accelerator.device).train()
        self._model.to(memory_format=torch.channels_last)
        self._learning = _choose(model, stage)
        self._averaged = {name: value.detach().clone() for name, value in self._learning.items()}
        objective = stage.objective(model).to(accelerator.device)
        own = {id(value) for value in self._learning.values()}
        # A critic, say: it learns beside the model but is neither averaged nor used afterwards.
        self._helpers = {n: p for n, p in objective.named_parameters() if p.requires_grad and id(p) not in own}
        optimizer = torch.optim.AdamW(
            _groups({**self._learning, **self._helpers}, self._pace.weight_decay),
            lr=self._pace.peak,
            betas=self._pace.betas,
            fused=accelerator.device.type == "cuda",
        )
        if compiled:
            objective.compile()
        self._objective, self._optimizer = accelerator.prepare(objective, optimizer)

    def step(self, moment: Moment, born: int) -> dict[str, Tensor]:
        rate = _rate(moment, self._pace, born)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        losses = self._learn_from(moment)
        for _ in range(1, self._accumulate):
            more = self._learn_from(moment)
            losses = {name: value + more[name] for name, value in losses.items()}
        norm = self._accelerator.clip_grad_norm_(list(self._learning.values()), self._pace.clip)
        self._optimizer.step()
        self._average(moment.step)
        return {**losses, "gradient": torch.as_tensor(norm), "rate": torch.tensor(rate)}

    def _learn_from(self, moment: Moment) -> dict[str, Tensor]:
        """Add one batch's share of the step's gradient; returns its share of the losses."""
        losses: dict[str, Tensor] = self._objective(**self._stage.batch(moment))
        if self._accumulate > 1:
            losses = {name: value / self._accumulate for name, value in losses.items()}
        self._accelerator.backward(losses["loss"])
        return {name: value.detach() for name, value in losses.items()}

    def resume(self, folder: Path) -> _Progress:
        """Continue from the checkpoint, or from carried weights, or from the start."""
        file = folder / CHECKPOINT
        if file.is_file():
            # By way of the CPU: several processes on one are devices "cpu:0", which torch.load does not know.
            saved: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
            _refuse_other_recipe(saved["recipe"], _plain(self._stage.recipe), file)
            _copy_into(self._learning, saved["learning"], file)
            _copy_into(self._averaged, saved["averaged"], file)
            _copy_into(self._helpers, saved["helpers"], file)
            self._optimizer.load_state_dict(saved["optimizer"])
            return _Progress(**saved["progress"])
        return self._adopt(folder) if (folder / WEIGHTS).is_file() else _Progress()

    def _adopt(self, folder: Path) -> _Progress:
        """Continue from weights without an optimizer, as they travel between machines: it warms up anew."""
        state = read_state(folder)
        for values in (self._learning, self._averaged):
            _copy_into(values, weights_of(folder), folder / WEIGHTS)
        return _Progress(step=state.step, seconds=state.seconds, optimizer_born=state.step)

    def save(self, folder: Path, progress: _Progress, *, complete: bool = False) -> None:
        """Write checkpoint, weights and sheet; each file appears whole or not at all."""
        if self._accelerator.is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            self._save_checkpoint(folder / CHECKPOINT, progress)
            write_state(folder, StageState(progress.step, progress.seconds, complete=complete))
            with self._as_averaged():
                self._stage.finish(self._model)
                save_weights(self._learning, folder / WEIGHTS)
                _save_sheet(self._stage.sheet(self._model), folder / SHEETS, progress.step)
        self._accelerator.wait_for_everyone()

    def _save_checkpoint(self, file: Path, progress: _Progress) -> None:
        state = {
            "recipe": _plain(self._stage.recipe),
            "progress": {**asdict(progress), "sums": {name: float(value) for name, value in progress.sums.items()}},
            "learning": {name: value.detach() for name, value in self._learning.items()},
            "averaged": self._averaged,
            "helpers": {name: value.detach() for name, value in self._helpers.items()},
            "optimizer": self._optimizer.state_dict(),
        }
        unfinished = file.with_suffix(".part")
        torch.save(state, unfinished)
        unfinished.replace(file)

    @torch.no_grad()
    def _average(self, step: int) -> None:
        decay = min(self._pace.average, (1 + step) / (10 + step))
        now = [value.detach() for value in self._learning.values()]
        get_ema_multi_avg_fn(decay)(list(self._averaged.values()), now, step)

    @contextmanager
    def _as_averaged(self) -> Generator[None]:
        """The model with its averaged weights, quiet; afterwards it is as it was, whatever was done to it."""
        kept = {name: value.detach().clone() for name, value in self._learning.items()}
        self._model.eval()
        try:
            with torch.no_grad():
                _copy_into(self._learning, self._averaged, None)
                yield
        finally:
            with torch.no_grad():
                _copy_into(self._learning, kept, None)
            self._model.train()


class _Log:
    """One JSON object a line, appended over restarts; lines after the checkpoint are taken back when it is resumed."""

    def __init__(self, file: Path, step: int) -> None:
        self._file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.is_file():
            lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
            # The last line may be half a line when the power went; it is always later than the checkpoint.
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
            file.write_text("".join(kept), encoding="utf-8")
        self._last: dict[str, float] = {}

    def write(self, progress: _Progress, fraction: float) -> str:
        """Append the averages of the last window, which `_account` left in `progress.sums`; returns a short form."""
        values = {name: float(f"{float(value):.6g}") for name, value in progress.sums.items()}
        line = {"step": progress.step, **values, "fraction": round(fraction, 6), "time": round(time.time(), 1)}
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        progress.sums = {}
        return f"loss {values['loss']:.4f}"


def read_state(folder: Path) -> StageState:
    """How far a stage's weights are; nothing done where it has none."""
    file = folder / STATE
    return StageState(**json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else StageState()


def write_state(folder: Path, state: StageState) -> None:
    """Say how far a stage's weights are."""
    unfinished = folder / f"{STATE}.part"
    unfinished.write_text(json.dumps(asdict(state)) + "\n", encoding="utf-8")
    unfinished.replace(folder / STATE)


def weights_of(folder: Path) -> dict[str, Tensor]:
    """The averaged weights a stage has written, by their names in the model.

    Raises:
        TrainingError: when the stage has not written any yet.
    """
    if not (folder / WEIGHTS).is_file():
        raise TrainingError(f"{folder / WEIGHTS} does not exist; train the stage {folder.name!r} first.")
    return load_file(folder / WEIGHTS)


def put_weights(model: nn.Module, weights: Mapping[str, Tensor], source: Path) -> None:
    """Copy a stage's weights into the model.

    Raises:
        TrainingError: when a name or shape does not belong to the model.
    """
    parameters = dict(model.named_parameters())
    strangers = sorted(weights.keys() - parameters.keys())
    if strangers:
        raise TrainingError(f"{source} holds weights of another model ({', '.join(strangers[:3])}, ...); retrain it.")
    with torch.no_grad():
        _copy_into({name: parameters[name] for name in weights}, weights, source)


def _choose(model: nn.Module, stage: Stage[Any]) -> dict[str, nn.Parameter]:
    model.requires_grad_(requires_grad=False)
    chosen = {name: value for name, value in model.named_parameters() if name.startswith(stage.trains)}
    for value in chosen.values():
        value.requires_grad = True
    return chosen


def _groups(learning: Mapping[str, nn.Parameter], decay: float) -> list[dict[str, Any]]:
    """Biases, norms and tokens are not pulled towards zero (as in MAE)."""
    flat = [value for value in learning.values() if value.ndim <= 1]
    return [
        {"params": [value for value in learning.values() if value.ndim > 1], "weight_decay": decay},
        {"params": flat, "weight_decay": 0.0},
    ]


def _rate(moment: Moment, pace: Pace, born: int) -> float:
    cosine = pace.final + (pace.peak - pace.final) * 0.5 * (1 + math.cos(math.pi * moment.progress))
    return cosine * min(1.0, (moment.step - born + 1) / max(1, pace.warm_up))


def _account(progress: _Progress, losses: Mapping[str, Tensor], stage: str, *, last_of_window: bool) -> None:
    """Add a step's losses to the window; at its end, make them averages.

    They are added up on the device and looked at once a window, so that a GPU never waits for us.
    """
    for name, value in losses.items():
        progress.sums[name] = progress.sums.get(name, 0.0) + value
    progress.counted += 1
    if last_of_window:
        means = {name: float(value) / progress.counted for name, value in progress.sums.items()}
        _refuse_odd(means, stage, progress.step + 1)
        progress.sums, progress.counted = {**means}, 0


def _refuse_odd(values: Mapping[str, float], stage: str, step: int) -> None:
    odd = sorted(name for name, value in values.items() if not math.isfinite(value))
    if odd:
        raise TrainingError(
            f"Stage {stage}: {', '.join(odd)} is not finite at step {step}. The last checkpoint is sound; lower the "
            "learning rate, or set the precision to 'no', and start again from it."
        )


def _plain(recipe: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(recipe))


def _refuse_other_recipe(saved: Mapping[str, Any], asked: Mapping[str, Any], file: Path) -> None:
    changed = sorted(name for name in saved.keys() | asked.keys() if saved.get(name) != asked.get(name))
    if changed:
        raise TrainingError(
            f"{file} was made by another recipe (different: {', '.join(changed)}); use another run folder, or delete "
            "this stage's folder to start it anew."
        )


def _copy_into(into: Mapping[str, Tensor], values: Mapping[str, Tensor], source: Path | None) -> None:
    odd = sorted(into.keys() ^ values.keys()) or [n for n in into if into[n].shape != values[n].shape]
    if odd:
        raise TrainingError(f"{source} does not fit this model: {', '.join(odd[:5])}; it was made with other sizes.")
    with torch.no_grad():
        for name, value in into.items():
            value.copy_(values[name])


def save_weights(weights: Mapping[str, Tensor], file: Path) -> None:
    """Write a stage's weights by their names in the model; the file appears whole or not at all."""
    unfinished = file.with_suffix(".part")
    save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, unfinished)
    unfinished.replace(file)


def _save_sheet(sheet: RgbImage, folder: Path, step: int) -> None:
    folder.mkdir(exist_ok=True)
    Image.fromarray(sheet).save(folder / f"{step:07}.webp", quality=90)


@contextmanager
def _stop_signals() -> Generator[list[int]]:
    """A list that fills when somebody asks the run to stop; the step in hand is finished and a checkpoint written."""
    heard: list[int] = []

    def hear(number: int, _frame: FrameType | None) -> None:
        heard.append(number)

    before = {number: signal.signal(number, hear) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
