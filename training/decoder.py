"""Stage 5: the decoder learns local harmonisation (paper 000 sec. 3.3): inharmonious latents in, the original out."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from math import ceil
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from asuka_infer.asuka.family import Family
from asuka_infer.asuka.first_fill import first_fill
from asuka_infer.asuka.mini import LATENT_SCALE
from asuka_infer.asuka.schedule import STEPS
from asuka_infer.request import RgbImage
from training.backbone import fills_sheet
from training.colour import Jitter, draw_change, recolour
from training.loop import Moment, Pace
from training.losses import Adversary, edges_left, grid_left, multi_scale_l1, weighted_mse
from training.presets import Bench, Growth, Perceptual, Preset
from training.vae import decode, sharpening


@dataclass(frozen=True)
class DecoderRecipe:
    """What the decoder is trained with.

    Attributes:
        pace: see `Pace`.
        sides: of the squares in px.
        jitter: of the picture that is encoded; the target is always the original.
        sampled: share of the known-pixel samples whose latents are what the family draws into the hole, in one to
            `most_steps` steps from its start: a short training leaves latents that the decoder has to finish.
        most_steps: of those; 0 leaves the start as it is, for a decoder that begins before there is a UNet.
        augmented: share of the other known-pixel samples whose latents are the UNet's one-step estimate (paper: half).
        noisiest, least_noisy: times of that estimate as a share of all ("large" in the paper; the range is not known,
            .6 to 1 is our choice).
        plain: share of a batch that is decoded with nothing known from true latents, so that the plain decoder of
            `sd-mini` stays as good as stage 1 left it.
        adversarial: weight of a hinge PatchGAN that judges what is in the holes, 0 for none. At .05 its gradient is
            half of the perceptual one's, and fills have grain where there was a weave (looked at, side by side); two
            critics of two sizes at .1 drew worms within 400 steps.
        sharpen_from: share of the schedule after which the critic counts; it learns from the start.
        perceptual: weight of the SqueezeNet distance.
        grid: weight of what repeats from cell to cell in the hole, which the perceptual distance would reward.
        edges: weight of steps between cells beyond those inside them, at the two coarsest sizes: without it cells of
            different tones showed in large holes (steps 1.56 times as high between them; 1.01 in photographs).
        hole: weight of the squared error inside the hole, which is what is pasted into the user's photograph.
    """

    pace: Pace
    sides: Growth = field(default_factory=lambda: Growth(128))
    sampled: float = 0.5
    most_steps: int = 4
    jitter: Jitter = field(default_factory=Jitter)
    augmented: float = 0.5
    least_noisy: float = 0.6
    noisiest: float = 1.0
    plain: float = 0.25
    perceptual: float = 0.3
    grid: float = 3.0
    edges: float = 10.0
    adversarial: float = 0.0
    sharpen_from: float = 0.5
    hole: float = 1.0


PRESETS: Mapping[Preset, DecoderRecipe] = {
    "gpu": DecoderRecipe(Pace(steps=3000, batch=128, peak=3e-4, warm_up=100, minutes_between_checkpoints=3)),
    "cpu": DecoderRecipe(
        Pace(steps=20_000, batch=5, peak=6e-4, warm_up=20, average=0.99, log_every=20),
        sampled=0.9,
        most_steps=1,
        plain=0.125,
        perceptual=1.0,
        adversarial=0.05,
    ),
    "tiny": DecoderRecipe(Pace(steps=6, batch=8, peak=1e-3, warm_up=2, log_every=2, precision="no"), sides=Growth(32)),
}


class DecoderStage:
    """Latents that do not quite fit their surroundings in, a picture that does out."""

    name = "decoder"
    trains = ("vae.decoder.", "vae.post_quant_conv.")
    needs = ("vae", "mae", "backbone", "alignment")

    def __init__(self, recipe: DecoderRecipe, bench: Bench) -> None:
        self._settings, self._bench = recipe, bench
        self.pace = recipe.pace
        self.recipe: Mapping[str, Any] = {**asdict(recipe), "tier": bench.tier}

    def objective(self, model: Family) -> nn.Module:
        """See `HarmonyObjective`."""
        return HarmonyObjective(model, self._bench.perceptual, self._settings)

    def batch(self, moment: Moment) -> dict[str, Tensor]:
        """Crops, holes, their recoloured copies, noise and times for the one-step estimate."""
        size, count = self._settings.sides.now(moment.progress, self.pace.batch)
        pictures = self._bench.supply.pictures(moment.rng, count, size, smallest=size, largest=2 * size)
        holes = self._bench.supply.holes(moment.rng, count, size)
        change = draw_change(count, self._settings.jitter, moment.generator, moment.device)
        shape = (count, self._bench.model.latent_channels, size // LATENT_SCALE, size // LATENT_SCALE)
        noise = torch.randn(shape, generator=moment.generator, device=moment.device)
        low, high = self._settings.least_noisy, self._settings.noisiest
        time = low + (high - low) * torch.rand(count, generator=moment.generator, device=moment.device)
        return {
            "pictures": pictures,
            "holes": holes,
            "recoloured": recolour(pictures, change),
            "noise": noise,
            "sharpen": sharpening(moment, self._settings.sharpen_from),
            "steps": self._steps(moment),
            "time": (time * STEPS).clamp(max=STEPS - 1),
        }

    def finish(self, model: Family) -> None:
        """Nothing."""

    def sheet(self, model: Family) -> RgbImage:
        """Hole, prior, fill without a condition, fill with the prior, truth."""
        return fills_sheet(model, self._bench)

    def _steps(self, moment: Moment) -> Int[Tensor, ""]:
        most = self._settings.most_steps
        return torch.tensor(int(moment.rng.integers(min(1, most), most + 1)))


class HarmonyObjective(nn.Module):
    """The original picture from sampled, one-step-estimated and recoloured latents, given the known pixels."""

    def __init__(self, model: Family, perceptual: Perceptual | None, recipe: DecoderRecipe) -> None:
        super().__init__()
        self.model, self.perceptual, self._recipe = model, perceptual, recipe
        self.adversary = Adversary() if recipe.adversarial else None
        # The decoder as stage 1 left it draws the estimates; the one that learns would chase its own tail.
        self.teacher = deepcopy(model.vae).requires_grad_(requires_grad=False)

    def forward(
        self,
        *,
        pictures: Float[Tensor, "batch 3 size size"],
        holes: Bool[Tensor, "batch 1 size size"],
        recoloured: Float[Tensor, "batch 3 size size"],
        noise: Float[Tensor, "batch channels h w"],
        sharpen: Float[Tensor, ""],
        steps: Int[Tensor, ""],
        time: Float[Tensor, " batch"],
    ) -> dict[str, Tensor]:
        """The losses of one batch: decoded plainly, then sampled latents, then estimated ones, then recoloured ones."""
        plain, sampled, estimated = self._shares(len(pictures))
        with torch.no_grad():
            drawn, filled = self.draw(pictures[plain:sampled], holes[plain:sampled], noise[plain:sampled], int(steps))
            filled = torch.cat([filled, first_fill(pictures[sampled:], holes[sampled:])])
            latents = self.model.encode(torch.cat([pictures[:plain], recoloured[sampled:]]))
            true, recoloured_ones = latents[:plain], latents[plain:]
            count = estimated - sampled
            guess = self._one_step(recoloured_ones[:count], noise[sampled:estimated], time[sampled:estimated])
            latents = torch.cat([true, drawn.to(true), guess.to(true), recoloured_ones[count:]])
        known = filled * 2 - 1
        decoded = torch.cat(
            [
                decode(self.model.vae, latents[:plain]),
                decode(self.model.vae, latents[plain:], image=known, mask=holes[plain:].float()),
            ]
        )
        result = (decoded / 2 + 0.5).float()
        # What the user gets: outside the hole the photograph itself, so that a seam is seen as one.
        shown = torch.cat([result[:plain], torch.where(holes[plain:], result[plain:], pictures[plain:])])
        losses = appearance_losses(
            result, shown, pictures, holes, plain=plain, perceptual=self.perceptual, recipe=self._recipe
        )
        loss = losses.pop("loss")
        if self.adversary is not None:
            fooled, losses["critic"] = self.adversary(pictures[plain:], shown[plain:], holes[plain:])
            loss = loss + self._recipe.adversarial * sharpen * fooled + losses["critic"]
        losses["plain_mse"] = (result[:plain] - pictures[:plain]).square().mean().detach()
        return {"loss": loss, **losses}

    def draw(
        self,
        pictures: Float[Tensor, "batch 3 size size"],
        holes: Bool[Tensor, "batch 1 size size"],
        noise: Float[Tensor, "batch channels h w"],
        steps: int,
    ) -> tuple[Float[Tensor, "batch channels h w"], Float[Tensor, "batch 3 size size"]]:
        """What the family draws, step by step from its start, with the prior as condition; and its first fill."""
        model, schedule = self.model, self.model.config.schedule
        if not len(pictures):
            return noise, pictures
        prior, _, filled = model.mae.imagine(pictures, holes)
        known = model.encode_known(pictures, holes, filled)
        condition, cells = model.alignment(prior), model.cells(holes)
        latents = model.start(known.float(), noise)
        for left in range(steps, 0, -1):
            time = noise.new_full((len(noise),), min(left * STEPS / steps, STEPS - 1))
            predicted = model.predict(latents, time, cells, known, condition).float()
            clean, start = schedule.clean_and_noise(latents, predicted, time)
            after = noise.new_full((len(noise),), (left - 1) * STEPS / steps)
            latents = schedule.add_noise(clean, start, after)
        return latents, filled.float()

    def _shares(self, count: int) -> tuple[int, int, int]:
        """Where the plain, the sampled and the estimated share of a batch end."""
        plain = ceil(count * self._recipe.plain)
        sampled = plain + round((count - plain) * self._recipe.sampled)
        return plain, sampled, sampled + round((count - sampled) * self._recipe.augmented)

    def _one_step(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Encoded again: the picture that the UNet guesses in one step when told the truth and given no hole."""
        if not len(clean):
            return clean
        schedule = self.model.config.schedule
        noisy = schedule.add_noise(clean, self.model.start(clean, noise), time)
        no_hole = torch.zeros_like(clean[:, :1])
        predicted = self.model.predict(noisy, time, no_hole, clean, self.model.null(len(clean)))
        guess, _ = schedule.clean_and_noise(noisy, predicted, time)
        pictures = decode(self.teacher, guess) / 2 + 0.5
        return self.model.encode(pictures.clamp(0, 1).float())


def appearance_losses(
    result: Float[Tensor, "batch 3 size size"],
    shown: Float[Tensor, "batch 3 size size"],
    pictures: Float[Tensor, "batch 3 size size"],
    holes: Bool[Tensor, "batch 1 size size"],
    *,
    plain: int,
    perceptual: Perceptual | None,
    recipe: DecoderRecipe,
) -> dict[str, Tensor]:
    """How unlike the originals decoded pictures are: each loss, and "loss", their weighted sum.

    Args:
        result: what was decoded, RGB in about [0, 1].
        shown: what the user gets of it.
        pictures: the originals.
        holes: True = missing; the first `plain` samples were decoded without one, so nothing of theirs is held to it.
        plain: how many.
        perceptual: see `Bench`.
        recipe: the weights.
    """
    losses = {
        "l1": multi_scale_l1(result, pictures),
        "hole": weighted_mse(result[plain:], pictures[plain:], holes[plain:].float()),
    }
    loss = losses["l1"] + recipe.hole * losses["hole"]
    if perceptual is not None:
        losses["grid"] = grid_left(shown[plain:], holes[plain:], LATENT_SCALE)
        losses["edges"] = sum(
            (edges_left(shown[plain:], holes[plain:], period) for period in (LATENT_SCALE, LATENT_SCALE // 2)),
            start=torch.zeros((), device=shown.device),
        )
        loss = loss + recipe.grid * losses["grid"] + recipe.edges * losses["edges"]
        losses["perceptual"] = perceptual.distance(shown, pictures).mean()
        loss = loss + recipe.perceptual * losses["perceptual"]
    return {"loss": loss, **losses}
