"""Stage 4: the alignment alone, everything else frozen, with the paper's misalignment trick (paper 000 sec. 3.2)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from asuka_infer.asuka.family import Family
from asuka_infer.request import RgbImage
from training.backbone import BackboneRecipe, DiffusionObjective, draw_scenes, fills_sheet
from training.loop import Moment, Pace
from training.presets import Bench, Growth, Preset


@dataclass(frozen=True)
class AlignmentRecipe:
    """What the alignment is trained with.

    Attributes:
        pace: see `Pace`. The paper prints a rate of 5e-2, almost certainly a slip of the pen; 1e-4 to 5e-4 is sane.
        first, last: how often the prior is the MAE's view of the whole picture, at the first step and after `decay`
            steps (the paper decays it linearly over 2,000 steps; its values are not known, these are our choice).
        decay: steps of the decay.
        scenes: how scenes are drawn; its pace is not used.
    """

    pace: Pace
    first: float = 1.0
    last: float = 0.1
    decay: int = 2000
    scenes: BackboneRecipe = field(default_factory=lambda: BackboneRecipe(Pace(steps=1, batch=1, peak=0.0)))


PRESETS: Mapping[Preset, AlignmentRecipe] = {
    "gpu": AlignmentRecipe(
        Pace(steps=1500, batch=256, peak=2e-4, warm_up=100),
        decay=500,
        scenes=BackboneRecipe(Pace(steps=1, batch=1, peak=0.0), at_start=0.7),
    ),
    "cpu": AlignmentRecipe(
        Pace(steps=3000, batch=6, peak=2e-4, warm_up=5, average=0.95, log_every=5),
        decay=20,
        scenes=BackboneRecipe(Pace(steps=1, batch=1, peak=0.0), at_start=0.85),
    ),
    "tiny": AlignmentRecipe(
        Pace(steps=6, batch=4, peak=1e-3, warm_up=2, log_every=2, precision="no"),
        decay=3,
        scenes=BackboneRecipe(Pace(steps=1, batch=1, peak=0.0), sides=Growth(64)),
    ),
}


class AlignmentStage:
    """The MAE prior, said in the words that the frozen UNet already understands."""

    name = "alignment"
    trains = ("alignment.",)
    needs = ("vae", "mae", "backbone")

    def __init__(self, recipe: AlignmentRecipe, bench: Bench) -> None:
        self._settings, self._bench = recipe, bench
        self.pace = recipe.pace
        self.recipe: Mapping[str, Any] = {**asdict(recipe), "tier": bench.tier}

    def objective(self, model: Family) -> nn.Module:
        """The backbone's own objective."""
        return DiffusionObjective(model, self._settings.scenes.outside)

    def batch(self, moment: Moment) -> dict[str, Tensor]:
        """Scenes, none of whose conditions is dropped, some of them with the whole picture as prior."""
        share = misaligned_share(moment.step, self._settings)
        scenes = draw_scenes(self._bench, moment, self.pace.batch, self._settings.scenes)
        draws = torch.rand(len(scenes["pictures"]), generator=moment.generator, device=moment.device)
        return {**scenes, "misaligned": draws < share}

    def finish(self, model: Family) -> None:
        """Nothing."""

    def sheet(self, model: Family) -> RgbImage:
        """Hole, prior, fill without a condition, fill with the prior, truth."""
        return fills_sheet(model, self._bench)


def misaligned_share(step: int, recipe: AlignmentRecipe) -> float:
    """The probability of the reconstructed prior at a step: linear from `first` to `last`, then constant."""
    over = min(1.0, step / recipe.decay)
    return recipe.first + (recipe.last - recipe.first) * over
