"""What the training of every rival shares: its batches, its losses, its sheet; the rest is one file per rival."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Generic, Self, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from asuka_infer.asuka.first_fill import first_fill
from asuka_infer.baselines.one_pass import OnePass, paint
from asuka_infer.request import RgbImage
from training.loop import Moment, Pace
from training.losses import Adversary, grid_left, weighted_mse
from training.pictures import sheet_of, with_hole
from training.presets import Bench, Growth

SHOWN = 8
"""Photographs on a sheet."""


@dataclass(frozen=True)
class RivalRecipe:
    """What a rival is trained with.

    Attributes:
        pace: see `Pace`.
        sides: of the squares in px; each shows between itself and the whole photograph.
        hole: weight of the absolute error inside the hole.
        squared: weight of the squared error inside the hole.
        early: weight of the absolute error of earlier stages inside the hole, at their own size.
        perceptual: weight of the SqueezeNet distance of the composite, in which a seam costs; 0 to do without, which
            is three times as fast. At 0.5 and above, hundreds of steps draw grids and nothing else (seen).
        grid: weight of what repeats from cell to cell in the hole, which the perceptual distance would reward.
        adversarial: weight of the critic's opinion, 0 for none.
        sharpen_from: share of the schedule after which the critic counts; it learns from the start.
    """

    pace: Pace
    sides: Growth = field(default_factory=lambda: Growth(128))
    hole: float = 1.0
    squared: float = 0.0
    early: float = 0.0
    perceptual: float = 0.1
    grid: float = 20.0
    adversarial: float = 0.0
    sharpen_from: float = 0.4


CPU_PACE = Pace(
    steps=20_000, batch=4, peak=8e-4, final=2e-5, warm_up=50, average=0.99, minutes_between_checkpoints=5, log_every=50
)
"""For half an hour on a share of a core, which ends before the steps do; steps count more than pixels there."""

GPU_PACE = Pace(steps=20_000, batch=64, peak=1e-3, final=2e-5, warm_up=200, minutes_between_checkpoints=3)
"""An estimate: nothing has run on a GPU yet."""

TINY_PACE = Pace(steps=4, batch=4, peak=1e-3, warm_up=2, log_every=2, precision="no")
"""A rehearsal, for tests."""

N = TypeVar("N", bound=OnePass)


class RivalStage(Generic[N]):
    """Photographs and holes in, filled photographs out."""

    trains: tuple[str, ...] = ("",)

    def __init__(self, name: str, recipe: RivalRecipe, bench: Bench, objective: type["RivalObjective"]) -> None:
        self.name = name
        self._settings, self._bench, self._objective = recipe, bench, objective
        self.pace = recipe.pace
        self.recipe: Mapping[str, Any] = {**asdict(recipe), "tier": bench.tier}

    def lasting(self, steps: int) -> Self:
        """The same stage over so many steps."""
        told = replace(self._settings, pace=replace(self.pace, steps=steps))
        return type(self)(self.name, told, self._bench, self._objective)

    def objective(self, model: N) -> nn.Module:
        """See `RivalObjective` and what a rival makes of it."""
        return self._objective(model, self._bench, self._settings)

    def batch(self, moment: Moment) -> dict[str, Tensor]:
        """Squares of photographs, holes, and whether the critic counts yet."""
        size, count = self._settings.sides.now(moment.progress, self.pace.batch)
        return {
            "pictures": self._bench.supply.pictures(moment.rng, count, size, smallest=size),
            "holes": self._bench.supply.holes(moment.rng, count, size),
            "sharpen": torch.tensor(float(moment.progress >= self._settings.sharpen_from), device=moment.device),
            "step": torch.tensor(moment.step),
        }

    def finish(self, model: N) -> None:
        """Nothing."""

    def sheet(self, model: N) -> RgbImage:
        """Hole, smoothest fill, the rival's fill, truth."""
        pictures, holes = self._bench.supply.shown(SHOWN, self._bench.model.pixels)
        painted = torch.where(holes, paint(model, pictures, holes), pictures)
        return sheet_of([with_hole(pictures, holes), first_fill(pictures, holes), painted, pictures])


class RivalObjective(nn.Module):
    """The losses that all rivals share; a rival with a critic overrides `opinion`."""

    def __init__(self, model: OnePass, bench: Bench, recipe: RivalRecipe) -> None:
        super().__init__()
        self.model, self.perceptual, self.told = model, bench.perceptual, recipe
        if isinstance(self.perceptual, nn.Module):
            # Measured on a CPU: a quarter less time in what takes most of it.
            self.perceptual.to(memory_format=torch.channels_last)

    def forward(
        self,
        *,
        pictures: Float[Tensor, "batch 3 size size"],
        holes: Bool[Tensor, "batch 1 size size"],
        sharpen: Float[Tensor, ""],
        step: Tensor,
    ) -> dict[str, Tensor]:
        """The losses of one batch."""
        *early, result = (stage.float() for stage in self.model(first_fill(pictures, holes), holes))
        # What the user gets: outside the hole the photograph itself, so that a seam is seen as one.
        shown = torch.where(holes, result, pictures)
        losses = {"hole": hole_l1(result, pictures, holes), "squared": weighted_mse(result, pictures, holes.float())}
        weights = {"hole": self.told.hole, "squared": self.told.squared}
        if early:
            losses["early"] = torch.stack([smaller_hole_l1(stage, pictures, holes) for stage in early]).mean()
            weights["early"] = self.told.early
        if self.perceptual is not None and self.told.perceptual:
            seen, truth = (picture.contiguous(memory_format=torch.channels_last) for picture in (shown, pictures))
            losses["perceptual"] = self.perceptual.distance(seen, truth).mean()
            losses["grid"] = grid_left(shown, holes, self.model.cell)
            weights |= {"perceptual": self.told.perceptual, "grid": self.told.grid}
        loss = torch.stack([weight * losses[name] for name, weight in weights.items()]).sum()
        if self.told.adversarial:
            fooled, losses["critic"] = self.opinion(pictures, shown, holes, int(step))
            losses["fooled"] = fooled.detach()
            loss = loss + self.told.adversarial * sharpen * fooled + losses["critic"]
        return {"loss": loss, **losses}

    def opinion(
        self,
        real: Float[Tensor, "batch 3 size size"],
        made: Float[Tensor, "batch 3 size size"],
        holes: Bool[Tensor, "batch 1 size size"],
        step: int,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """What the maker minimises (without moving the critic) and what the critic does (without moving the maker)."""
        raise NotImplementedError(f"{type(self).__name__} has no critic; set its weight 'adversarial' to 0.")


class HingeObjective(RivalObjective):
    """The shared losses with a hinge critic of patches, which sees whole composites."""

    def __init__(self, model: OnePass, bench: Bench, recipe: RivalRecipe) -> None:
        super().__init__(model, bench, recipe)
        self.adversary = Adversary()

    def opinion(
        self,
        real: Float[Tensor, "batch 3 size size"],
        made: Float[Tensor, "batch 3 size size"],
        holes: Bool[Tensor, "batch 1 size size"],
        step: int,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """As `RivalObjective.opinion`."""
        del holes, step
        return self.adversary(real, made)


def hole_l1(
    result: Float[Tensor, "batch 3 height width"],
    truth: Float[Tensor, "batch 3 height width"],
    holes: Bool[Tensor, "batch 1 height width"],
) -> Float[Tensor, ""]:
    """Mean absolute difference inside the holes; 0 where there is none."""
    inside = holes.expand_as(truth)
    return ((result - truth).abs() * inside).sum() / inside.sum().clamp(min=1)


def smaller_hole_l1(
    result: Float[Tensor, "batch 3 small_height small_width"],
    truth: Float[Tensor, "batch 3 height width"],
    holes: Bool[Tensor, "batch 1 height width"],
) -> Float[Tensor, ""]:
    """`hole_l1` of a picture of any whole fraction of the truth's size; a pixel the hole touches is inside."""
    shrink = truth.shape[-1] // result.shape[-1]
    touched = functional.max_pool2d(holes.float(), shrink) > 0
    return hole_l1(result, functional.avg_pool2d(truth, shrink), touched)
