"""Stage 3: the inpainting UNet and the alignment together, with a learned null condition and condition dropout.

A UNet trained first with one constant condition learns no use of its cross-attention, and a frozen one then gives an
alignment nothing to steer (measured): so the small family trains both at once on the MAE prior, and stage 4 follows.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from asuka_infer.asuka.embedded import Scene, sample
from asuka_infer.asuka.first_fill import first_fill
from asuka_infer.asuka.mini import LATENT_SCALE, MiniConfig, MiniModel
from asuka_infer.asuka.schedule import STEPS
from asuka_infer.request import RgbImage
from training.loop import Moment, Pace
from training.losses import hole_weight, logit_normal_times, weighted_mse
from training.pictures import HOLE_GREY, sheet_of, with_hole
from training.presets import Bench, Growth, Preset

SHOWN = 6
"""Photographs on a sheet."""

SHEET_STEPS = 1
"""Sampling steps of the sheets, the family's default."""


@dataclass(frozen=True)
class BackboneRecipe:
    """What the UNet is trained with.

    Attributes:
        pace: see `Pace`.
        dropped: how often a sample's condition is the learned null one (the "sd" of the family; 20-30 % is usual).
        outside: weight of the error outside the hole, where the answer is known and pasted over anyway (our choice).
        time_mean: of the logit-normal times; above 0 leans towards noise, where what to draw is decided (our choice).
        smallest_crop: squares of this share of the photograph's side up to all of it are shown (our choice).
        sides: in px of what is shown.
    """

    pace: Pace
    sides: Growth = field(default_factory=lambda: Growth(256))
    dropped: float = 0.25
    outside: float = 0.1
    time_mean: float = 0.8
    smallest_crop: float = 0.7


PRESETS: Mapping[Preset, BackboneRecipe] = {
    "gpu": BackboneRecipe(Pace(steps=16_000, batch=256, peak=4e-4, minutes_between_checkpoints=3)),
    "cpu": BackboneRecipe(
        Pace(steps=30_000, batch=8, peak=5e-4, warm_up=100, average=0.995, log_every=50),
        sides=Growth(128, 256, since=0.6),
    ),
    "tiny": BackboneRecipe(
        Pace(steps=6, batch=4, peak=1e-3, warm_up=2, log_every=2, precision="no"), sides=Growth(32, 64, since=0.5)
    ),
}


class BackboneStage:
    """Known pixels, hole and prior in; latents of the whole picture out."""

    name = "backbone"
    trains = ("unet.", "alignment.", "null_condition")
    needs = ("vae", "mae")

    def __init__(self, recipe: BackboneRecipe, bench: Bench) -> None:
        self._settings, self._bench = recipe, bench
        self.pace = recipe.pace
        self.recipe: Mapping[str, Any] = {**asdict(recipe), "tier": bench.tier}

    def objective(self, model: MiniModel) -> nn.Module:
        """See `DiffusionObjective`."""
        return DiffusionObjective(model, self._settings.outside)

    def batch(self, moment: Moment) -> dict[str, Tensor]:
        """Pictures, holes, noise, times, and which conditions are dropped."""
        scenes = draw_scenes(self._bench, moment, self.pace.batch, self._settings)
        dropped = _chosen(moment, len(scenes["pictures"]), self._settings.dropped)
        return {**scenes, "dropped": dropped, "misaligned": torch.zeros_like(dropped)}

    def finish(self, model: MiniModel) -> None:
        """Nothing."""

    def sheet(self, model: MiniModel) -> RgbImage:
        """Hole, prior, fill without a condition, fill with the prior, truth."""
        return fills_sheet(model, self._bench)


class DiffusionObjective(nn.Module):
    """The backbone's own objective on noisy latents, under the aligned MAE prior (paper 000 sec. 3.2)."""

    def __init__(self, model: MiniModel, outside: float) -> None:
        super().__init__()
        self.model, self._outside = model, outside

    def forward(
        self,
        *,
        pictures: Float[Tensor, "batch 3 size size"],
        holes: Bool[Tensor, "batch 1 size size"],
        noise: Float[Tensor, "batch channels h w"],
        time: Float[Tensor, " batch"],
        dropped: Bool[Tensor, " batch"],
        misaligned: Bool[Tensor, " batch"],
    ) -> dict[str, Tensor]:
        """The weighted error; "hole" is the part inside the hole.

        Args:
            pictures: RGB in [0, 1].
            holes: what is to be filled.
            noise: for the latents.
            time: 0..1000.
            dropped: samples whose condition is the null one.
            misaligned: samples whose prior is the MAE's view of the whole picture (the misalignment trick).
        """
        schedule = self.model.config.schedule
        with torch.no_grad():
            clean = self.model.encode(pictures).float()
            prior, known = told(self.model, pictures, holes, dropped)
            if misaligned.any():
                whole = self.model.mae.reconstructed_prior(pictures).to(prior)
                prior = torch.where(misaligned.view(-1, 1, 1), whole, prior)
            cells = self.model.cells(holes)
            start = self.model.start(known.float(), noise)
        condition = self.model.alignment(prior)
        condition = torch.where(dropped.view(-1, 1, 1), self.model.null(len(pictures)).to(condition), condition)
        noisy, target = schedule.add_noise(clean, start, time), schedule.target(clean, start, time)
        predicted = self.model.predict(noisy, time, cells, known, condition).float()
        inside = cells > 0
        loss = weighted_mse(predicted, target, hole_weight(inside, self._outside))
        with torch.no_grad():
            hole = weighted_mse(predicted, target, inside.float())
        return {"loss": loss, "hole": hole}


def told(
    model: MiniModel,
    pictures: Float[Tensor, "batch 3 size size"],
    holes: Bool[Tensor, "batch 1 size size"],
    dropped: Bool[Tensor, " batch"],
) -> tuple[Float[Tensor, "batch tokens width"], Float[Tensor, "batch channels h w"]]:
    """The prior and the first-filled latents of each scene: the smoothest fill where the condition is dropped."""
    idea = model.mae.imagine(pictures, holes)
    filled = torch.where(dropped.view(-1, 1, 1, 1), first_fill(pictures, holes), idea.filled)
    return idea.prior, model.encode_known(pictures, holes, filled)


def draw_scenes(bench: Bench, moment: Moment, count: int, recipe: BackboneRecipe) -> dict[str, Tensor]:
    """Pictures, holes, noise and times of one batch."""
    size, count = recipe.sides.now(moment.progress, count)
    smallest = round(recipe.smallest_crop * bench.model.pixels)
    pictures = bench.supply.pictures(moment.rng, count, size, smallest=smallest)
    holes = bench.supply.holes(moment.rng, count, size)
    shape = (count, bench.model.latent_channels, size // LATENT_SCALE, size // LATENT_SCALE)
    noise = torch.randn(shape, generator=moment.generator, device=moment.device)
    time = draw_times(bench.model, moment, count, recipe.time_mean)
    return {"pictures": pictures, "holes": holes, "noise": noise, "time": time}


def draw_times(model: MiniConfig, moment: Moment, count: int, mean: float) -> Float[Tensor, " count"]:
    """Training times within 0..1000; whole ones for v-prediction, whose noise levels are a table."""
    share = logit_normal_times(count, mean=mean, spread=1.0, generator=moment.generator, device=moment.device)
    return share * STEPS if model.objective == "flow" else (share * STEPS).floor()


def fills_sheet(model: MiniModel, bench: Bench) -> RgbImage:
    """Hole, prior, plain fill without a condition, fill with prior and known pixels (both composited), truth."""
    pictures, holes = bench.supply.shown(SHOWN, bench.model.pixels)
    scene = Scene(pictures.masked_fill(holes, HOLE_GREY), holes)
    seeds = list(range(len(pictures)))
    condition = model.condition(pictures, holes)
    null = sample(model, scene, model.null(len(pictures)), seeds, steps=SHEET_STEPS)
    prior = model.mae.imagine(pictures, holes).filled
    known = model.encode_known(pictures, holes, prior)
    latents = sample(model, scene, condition, seeds, steps=SHEET_STEPS, known=known)
    plain = torch.where(holes, model.decode_plain(null), pictures)
    filled = torch.where(holes, model.decode_known(latents, pictures, holes, prior), pictures)
    return sheet_of([with_hole(pictures, holes), prior, plain, filled, pictures])


def _chosen(moment: Moment, count: int, share: float) -> Bool[Tensor, " count"]:
    return torch.rand(count, generator=moment.generator, device=moment.device) < share
