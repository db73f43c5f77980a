"""The paper's SD-prompt: tokens learned for all pictures alike as the UNet's condition, all else frozen (section 5).

They take the place of the null condition, start from it, and see what it sees; one stage serves every backbone.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from asuka_infer.asuka.embedded import sample
from asuka_infer.asuka.embedded_files import unet_of
from asuka_infer.asuka.family import Family
from asuka_infer.asuka.mini import load_mini
from asuka_infer.asuka.prompts import save_prompt
from asuka_infer.asuka.scene import Scene
from asuka_infer.request import RgbImage
from training.backbone import SHOWN, BackboneRecipe, denoising_losses, draw_scenes, sheet_steps
from training.loop import Moment, Pace, TrainingError, train, weights_of
from training.pictures import HOLE_GREY, sheet_of, with_hole
from training.presets import Bench, Growth, Preset

LEARNT = "null_condition"
"""The model's parameter that holds the tokens while they learn."""


@dataclass(frozen=True)
class PromptRecipe:
    """What the tokens are trained with: the paper says "the same training pipeline", so the alignment's.

    Attributes:
        pace: see `Pace`.
        scenes: how scenes are drawn; its pace is not used.
    """

    pace: Pace
    scenes: BackboneRecipe = field(default_factory=lambda: BackboneRecipe(Pace(steps=1, batch=1, peak=0.0)))


PRESETS: Mapping[Preset, PromptRecipe] = {
    "gpu": PromptRecipe(
        Pace(steps=1500, batch=256, peak=1e-3, warm_up=50, weight_decay=0.0),
        scenes=BackboneRecipe(Pace(steps=1, batch=1, peak=0.0), at_start=0.7),
    ),
    # A token is 128 numbers: it bears, and in so few steps needs, a higher rate than a matrix.
    "cpu": PromptRecipe(
        Pace(steps=4000, batch=8, peak=2e-3, warm_up=10, weight_decay=0.0, average=0.98, log_every=10),
        scenes=BackboneRecipe(Pace(steps=1, batch=1, peak=0.0), sides=Growth(128, 256, since=0.6), at_start=0.85),
    ),
    "tiny": PromptRecipe(
        Pace(steps=6, batch=4, peak=1e-2, warm_up=2, log_every=2, precision="no"),
        scenes=BackboneRecipe(Pace(steps=1, batch=1, peak=0.0), sides=Growth(64)),
    ),
}


class PromptStage:
    """One condition for all pictures, the best that the frozen UNet can be told."""

    name = "prompt"
    trains = (LEARNT,)

    def __init__(self, recipe: PromptRecipe, bench: Bench) -> None:
        self._settings, self._bench = recipe, bench
        self.pace = recipe.pace
        self.recipe: Mapping[str, Any] = {**asdict(recipe), "tier": bench.tier}

    def objective(self, model: Family) -> nn.Module:
        """See `PromptObjective`."""
        return PromptObjective(model, self._settings.scenes.outside)

    def batch(self, moment: Moment) -> dict[str, Tensor]:
        """Pictures, holes, noise and times."""
        return draw_scenes(self._bench, moment, self.pace.batch, self._settings.scenes)

    def finish(self, model: Family) -> None:
        """Nothing."""

    def sheet(self, model: Family) -> RgbImage:
        """Hole, fill under the tokens, truth."""
        pictures, holes = self._bench.supply.shown(SHOWN, self._bench.model.pixels)
        scene = Scene(pictures.masked_fill(holes, HOLE_GREY), holes)
        seeds = list(range(len(pictures)))
        latents = sample(model, scene, model.null(len(pictures)), seeds, steps=sheet_steps(self._bench.model))
        filled = torch.where(holes, model.decode_plain(latents), pictures)
        return sheet_of([with_hole(pictures, holes), filled, pictures])


class PromptObjective(nn.Module):
    """The backbone's own objective under the tokens; no prior is looked at."""

    def __init__(self, model: Family, outside: float) -> None:
        super().__init__()
        self.model, self._outside = model, outside

    def forward(
        self,
        *,
        pictures: Float[Tensor, "batch 3 size size"],
        holes: Bool[Tensor, "batch 1 size size"],
        noise: Float[Tensor, "batch channels h w"],
        time: Float[Tensor, " batch"],
    ) -> dict[str, Tensor]:
        """As `DiffusionObjective` with every condition dropped."""
        with torch.no_grad():
            known = self.model.encode_known(pictures, holes)
        condition = self.model.null(len(pictures))
        return denoising_losses(
            self.model,
            pictures,
            holes,
            known=known,
            condition=condition,
            noise=noise,
            time=time,
            outside=self._outside,
        )


def train_prompt(
    weights: Path,
    bench: Bench,
    run: Path,
    preset: Preset,
    *,
    minutes: float | None = None,
    pause_after: float | None = None,
) -> bool:
    """Learn tokens for the exported model in `weights`; returns whether the schedule is complete. See `loop.train`.

    Raises:
        TrainingError: when the bench was prepared for a model of other sizes.
    """
    model = load_mini(weights).model
    if model.config != bench.model:
        raise TrainingError(f"{weights} has other sizes than this preset; train tokens with the preset it is of.")
    return train(PromptStage(PRESETS[preset], bench), model, run, minutes=minutes, pause_after=pause_after)


def write_prompt(run: Path, weights: Path, out: Path) -> None:
    """Write what a run has learnt as the file that `sd-mini-prompt` loads.

    Raises:
        TrainingError: when nothing has been learnt yet.
    """
    learnt = weights_of(run / PromptStage.name)[LEARNT]
    save_prompt(learnt, out, learned_for=unet_of(load_mini(weights).files))
