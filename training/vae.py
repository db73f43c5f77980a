"""Stage 1: the autoencoder; its decoder learns at once to decode plainly and to continue known pixels."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import numpy as np
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from jaxtyping import Bool, Float
from torch import Tensor, nn

from asuka_infer.asuka.decoder import fold_latent_statistics
from asuka_infer.asuka.first_fill import first_fill
from asuka_infer.asuka.mini import LATENT_SCALE, MiniModel
from asuka_infer.request import RgbImage
from training.loop import Moment, Pace
from training.losses import Adversary, kl_to_unit_gaussian, multi_scale_l1
from training.pictures import sheet_of, with_hole
from training.presets import Bench, Growth, Perceptual, Preset

STATISTICS_BATCHES = 16
"""Batches of 16 over which the latents' mean and spread are measured: 256 photographs settle them to about 1 %."""

STATISTICS_BATCH = 16

SHOWN = 8
"""Photographs on a sheet."""


@dataclass(frozen=True)
class VaeRecipe:
    """What the autoencoder is trained with.

    Attributes:
        pace: see `Pace`.
        sides: of the squares in px.
        adversarial: weight of a hinge PatchGAN, 0 for none: it sharpens textures and invents them (our choice: none
            until it has been tried on a GPU).
        sharpen_from: share of the schedule after which the critic counts; it learns from the start.
        perceptual: weight of the SqueezeNet distance (0.3 in the CPU pilot).
        kl: weight of the KL divergence (mean per latent value), as faint as in SD's autoencoder.
        plain: share of a batch that is decoded with nothing known (half, as Zhu et al. 2023 do).
    """

    pace: Pace
    sides: Growth = field(default_factory=lambda: Growth(128))
    perceptual: float = 0.3
    adversarial: float = 0.0
    sharpen_from: float = 0.5
    kl: float = 1e-4
    plain: float = 0.5


PRESETS: Mapping[Preset, VaeRecipe] = {
    "gpu": VaeRecipe(Pace(steps=8000, batch=128, peak=1e-3, warm_up=200, minutes_between_checkpoints=3)),
    # Measured: small crops and batches give more steps, which matter more than pixels on a CPU.
    "cpu": VaeRecipe(
        Pace(steps=70_000, batch=8, peak=1e-3, warm_up=200, average=0.998, log_every=100),
        sides=Growth(64, 128, since=0.5),
    ),
    "tiny": VaeRecipe(Pace(steps=6, batch=4, peak=1e-3, warm_up=2, log_every=2, precision="no"), sides=Growth(32)),
}


class VaeStage:
    """Photographs in, latents and photographs out."""

    name = "vae"
    trains = ("vae.",)
    needs: tuple[str, ...] = ()

    def __init__(self, recipe: VaeRecipe, bench: Bench) -> None:
        self._settings, self._bench = recipe, bench
        self.pace = recipe.pace
        self.recipe: Mapping[str, Any] = {**asdict(recipe), "tier": bench.tier}

    def objective(self, model: MiniModel) -> nn.Module:
        """See `VaeObjective`."""
        return VaeObjective(model, self._bench.perceptual, self._settings)

    def batch(self, moment: Moment) -> dict[str, Tensor]:
        """Crops, holes, and noise for the latents."""
        size, count = self._settings.sides.now(moment.progress, self.pace.batch)
        cells = size // LATENT_SCALE
        noise = torch.randn(
            (count, self._bench.model.latent_channels, cells, cells), generator=moment.generator, device=moment.device
        )
        pictures = self._bench.supply.pictures(moment.rng, count, size, smallest=size, largest=size)
        holes = self._bench.supply.holes(moment.rng, count, size)
        return {
            "pictures": pictures,
            "holes": holes,
            "noise": noise,
            "sharpen": sharpening(moment, self._settings.sharpen_from),
        }

    def finish(self, model: MiniModel) -> None:
        """Give the latents zero mean and unit spread, channel by channel, without changing what decodes from them."""
        rng, size = np.random.default_rng(self.pace.seed), self._bench.model.pixels
        pictures = (
            self._bench.supply.pictures(rng, STATISTICS_BATCH, size, smallest=size) for _ in range(STATISTICS_BATCHES)
        )
        latents = torch.cat([model.encode(batch) for batch in pictures])
        fold_latent_statistics(model.vae, latents.mean((0, 2, 3)), latents.std((0, 2, 3)))

    def sheet(self, model: MiniModel) -> RgbImage:
        """Truth, plain round trip, hole, round trip that knows what is outside the hole."""
        pictures, holes = self._bench.supply.shown(SHOWN, self._bench.model.pixels)
        latents = model.encode(pictures)
        known = model.decode_known(latents, pictures, holes)
        return sheet_of([pictures, model.decode_plain(latents), with_hole(pictures, holes), known])


class VaeObjective(nn.Module):
    """Reconstruction at several scales, a perceptual distance, and a faint pull of the latents to a unit Gaussian."""

    def __init__(self, model: MiniModel, perceptual: Perceptual | None, recipe: VaeRecipe) -> None:
        super().__init__()
        self.vae, self.perceptual, self._recipe = model.vae, perceptual, recipe
        self.adversary = Adversary() if recipe.adversarial else None

    def forward(
        self,
        *,
        pictures: Float[Tensor, "batch 3 size size"],
        holes: Bool[Tensor, "batch 1 size size"],
        noise: Float[Tensor, "batch channels h w"],
        sharpen: Float[Tensor, ""],
    ) -> dict[str, Tensor]:
        """The losses of one batch; the first share of it is decoded plainly, the rest with its known pixels."""
        spread = pictures * 2 - 1
        latents = cast("DiagonalGaussianDistribution", cast("Any", self.vae.encode(spread)).latent_dist)
        drawn = latents.mean + latents.std * noise
        plain = round(len(pictures) * self._recipe.plain)
        filled = first_fill(pictures[plain:], holes[plain:])
        decoded = torch.cat(
            [
                decode(self.vae, drawn[:plain]),
                decode(self.vae, drawn[plain:], image=filled * 2 - 1, mask=holes[plain:].float()),
            ]
        )
        result = (decoded / 2 + 0.5).float()
        losses = {"l1": multi_scale_l1(result, pictures), "kl": kl_to_unit_gaussian(latents.mean, latents.logvar)}
        loss = losses["l1"] + self._recipe.kl * losses["kl"]
        if self.perceptual is not None:
            losses["perceptual"] = self.perceptual.distance(result, pictures).mean()
            loss = loss + self._recipe.perceptual * losses["perceptual"]
        if self.adversary is not None:
            fooled, losses["critic"] = self.adversary(pictures, result)
            loss = loss + self._recipe.adversarial * sharpen * fooled + losses["critic"]
        # Over the plain half alone: known pixels are a copy, they would flatter.
        losses["plain_mse"] = (result[:plain] - pictures[:plain]).square().mean().detach()
        return {"loss": loss, **losses}


def sharpening(moment: Moment, start: float) -> Float[Tensor, ""]:
    """1 once the critic counts, 0 before."""
    return torch.tensor(float(moment.progress >= start), device=moment.device)


def decode(vae: nn.Module, latents: Tensor, **known: Tensor) -> Tensor:
    """Pictures in about [-1, 1] from latents as `Family.encode` scales them."""
    config = cast("Any", vae).config
    own = latents / config["scaling_factor"] + config["shift_factor"]
    return cast("Any", vae).decode(own, **known).sample
