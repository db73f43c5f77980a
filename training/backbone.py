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
from asuka_infer.asuka.family import Family, Sizes
from asuka_infer.asuka.first_fill import first_fill
from asuka_infer.asuka.mini import LATENT_SCALE
from asuka_infer.asuka.schedule import STEPS
from asuka_infer.request import RgbImage
from training.loop import Moment, Pace
from training.losses import hole_weight, logit_normal_times, weighted_mse
from training.pictures import HOLE_GREY, sheet_of, with_hole
from training.presets import Bench, Growth, Preset

SHOWN = 6
"""Photographs on a sheet."""

SHEET_STEPS = 1
"""Sampling steps of the sheets, the small family's default."""

SHEET_STEPS_FROM_NOISE = 20
"""The same where sampling starts from pure noise, of which one step makes nothing."""


@dataclass(frozen=True)
class BackboneRecipe:
    """What the UNet is trained with.

    Attributes:
        pace: see `Pace`.
        dropped: how often a sample's condition is the learned null one (the "sd" of the family; 20-30 % is usual).
        outside: weight of the error outside the hole, where the answer is known and pasted over anyway (our choice).
        time_mean: of the logit-normal times; above 0 leans towards noise, where what to draw is decided (our choice).
        at_start: share of the samples that are shown just where sampling starts (our choice). With little noise there
            (`strength`), latents on the way give the truth away, as their difference from the known fill: a UNet that
            sees nothing else learns to enlarge that difference, and at the start, where there is none, it enlarges
            noise (measured: after 858 steps its first step ended further from the truth than it had begun).
        smallest_crop: squares of this share of the photograph's side up to all of it are shown (our choice).
        sides: in px of what is shown.
    """

    pace: Pace
    sides: Growth = field(default_factory=lambda: Growth(256))
    dropped: float = 0.25
    outside: float = 0.1
    time_mean: float = 0.8
    at_start: float = 0.0
    smallest_crop: float = 0.7


PRESETS: Mapping[Preset, BackboneRecipe] = {
    "gpu": BackboneRecipe(Pace(steps=16_000, batch=256, peak=4e-4, minutes_between_checkpoints=3), at_start=0.7),
    # Small pictures would save little: the MAE, which sees 128 px of any, takes more than half of their time.
    "cpu": BackboneRecipe(
        Pace(steps=30_000, batch=6, peak=5e-4, warm_up=40, average=0.99, log_every=20), at_start=0.85
    ),
    "tiny": BackboneRecipe(
        Pace(steps=6, batch=4, peak=1e-3, warm_up=2, log_every=2, precision="no"),
        sides=Growth(32, 64, since=0.5),
        at_start=0.5,
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

    def objective(self, model: Family) -> nn.Module:
        """See `DiffusionObjective`."""
        return DiffusionObjective(model, self._settings.outside)

    def batch(self, moment: Moment) -> dict[str, Tensor]:
        """Pictures, holes, noise, times, and which conditions are dropped."""
        scenes = draw_scenes(self._bench, moment, self.pace.batch, self._settings)
        dropped = _chosen(moment, len(scenes["pictures"]), self._settings.dropped)
        return {**scenes, "dropped": dropped, "misaligned": torch.zeros_like(dropped)}

    def finish(self, model: Family) -> None:
        """Nothing."""

    def sheet(self, model: Family) -> RgbImage:
        """Hole, prior, fill without a condition, fill with the prior, truth."""
        return fills_sheet(model, self._bench)


class DiffusionObjective(nn.Module):
    """The backbone's own objective on noisy latents, under the aligned MAE prior (paper 000 sec. 3.2)."""

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
        misaligned: Bool[Tensor, " batch"],
        dropped: Bool[Tensor, " batch"] | None = None,
    ) -> dict[str, Tensor]:
        """The weighted error; "hole" is the part inside the hole.

        Args:
            pictures: RGB in [0, 1].
            holes: what is to be filled.
            noise: for the latents.
            time: 0..1000.
            misaligned: samples whose prior is the MAE's view of the whole picture (the misalignment trick).
            dropped: samples whose condition is the null one, if there are any.
        """
        with torch.no_grad():
            prior, known = told(self.model, pictures, holes, dropped)
            if misaligned.any():
                whole = self.model.mae.reconstructed_prior(pictures).to(prior)
                prior = torch.where(misaligned.view(-1, 1, 1), whole, prior)
        condition = self.model.alignment(prior)
        if dropped is not None:
            condition = torch.where(dropped.view(-1, 1, 1), self.model.null(len(pictures)).to(condition), condition)
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


def denoising_losses(
    model: Family,
    pictures: Float[Tensor, "batch 3 size size"],
    holes: Bool[Tensor, "batch 1 size size"],
    *,
    known: Float[Tensor, "batch channels h w"],
    condition: Float[Tensor, "batch tokens width"],
    noise: Float[Tensor, "batch channels h w"],
    time: Float[Tensor, " batch"],
    outside: float,
) -> dict[str, Tensor]:
    """The UNet's weighted error on noisy latents under a condition, "loss"; "hole" is the part inside the hole."""
    schedule = model.config.schedule
    with torch.no_grad():
        clean = model.encode(pictures).float()
        cells = model.cells(holes)
        start = model.start(known.float(), noise)
    noisy, target = schedule.add_noise(clean, start, time), schedule.target(clean, start, time)
    predicted = model.predict(noisy, time, cells, known, condition).float()
    inside = cells > 0
    loss = weighted_mse(predicted, target, hole_weight(inside, outside))
    with torch.no_grad():
        hole = weighted_mse(predicted, target, inside.float())
    return {"loss": loss, "hole": hole}


def told(
    model: Family,
    pictures: Float[Tensor, "batch 3 size size"],
    holes: Bool[Tensor, "batch 1 size size"],
    dropped: Bool[Tensor, " batch"] | None = None,
) -> tuple[Float[Tensor, "batch tokens width"], Float[Tensor, "batch channels h w"]]:
    """The prior and the first-filled latents of each scene: the smoothest fill where the condition is dropped."""
    idea = model.mae.imagine(pictures, holes)
    filled = idea.filled
    if dropped is not None:
        filled = torch.where(dropped.view(-1, 1, 1, 1), first_fill(pictures, holes), filled)
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
    time = torch.where(_chosen(moment, count, recipe.at_start), float(STEPS - 1), time)
    return {"pictures": pictures, "holes": holes, "noise": noise, "time": time}


def draw_times(model: Sizes, moment: Moment, count: int, mean: float) -> Float[Tensor, " count"]:
    """Training times within 0..1000; whole ones where noise levels are a table, uniform ones as SD was trained."""
    if model.objective == "epsilon":
        return torch.randint(STEPS, (count,), generator=moment.generator, device=moment.device).float()
    share = logit_normal_times(count, mean=mean, spread=1.0, generator=moment.generator, device=moment.device)
    return share * STEPS if model.objective == "flow" else (share * STEPS).floor()


def fills_sheet(model: Family, bench: Bench) -> RgbImage:
    """Hole, prior, plain fill without a condition, fill with prior and known pixels (both composited), truth."""
    pictures, holes = bench.supply.shown(SHOWN, bench.model.pixels)
    scene = Scene(pictures.masked_fill(holes, HOLE_GREY), holes)
    seeds, steps = list(range(len(pictures))), sheet_steps(bench.model)
    condition = model.condition(pictures, holes)
    null = sample(model, scene, model.null(len(pictures)), seeds, steps=steps)
    prior = model.mae.imagine(pictures, holes).filled
    known = model.encode_known(pictures, holes, prior)
    latents = sample(model, scene, condition, seeds, steps=steps, known=known)
    plain = torch.where(holes, model.decode_plain(null), pictures)
    filled = torch.where(holes, model.decode_known(latents, pictures, holes, prior), pictures)
    return sheet_of([with_hole(pictures, holes), prior, plain, filled, pictures])


def sheet_steps(model: Sizes) -> int:
    """Sampling steps of a model's sheets."""
    return SHEET_STEPS if model.strength < 1 else SHEET_STEPS_FROM_NOISE


def _chosen(moment: Moment, count: int, share: float) -> Bool[Tensor, " count"]:
    return torch.rand(count, generator=moment.generator, device=moment.device) < share
