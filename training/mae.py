"""Stage 2: the masked auto-encoder, from scratch or fine-tuned, on holes topped up to three quarters of the tokens."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from asuka_infer.asuka.family import Family
from asuka_infer.asuka.mae import MaskedAutoencoder
from asuka_infer.request import RgbImage
from training.loop import Moment, Pace
from training.losses import weighted_mse
from training.pictures import sheet_of, with_hole
from training.presets import Bench, Preset

REMOVED = 0.75
"""Exactly this share of the tokens is removed (He et al. 2022; the paper tops its holes up to it, sec. 3.1)."""

SHOWN = 8
"""Photographs on a sheet."""


@dataclass(frozen=True)
class MaeRecipe:
    """What the masked auto-encoder is trained with.

    Attributes:
        pace: see `Pace`.
        smallest_crop: squares of this share of the photograph's side up to all of it are shown (MAE: .45).
        bare: how many of the batches have their holes alone removed, as the prior is asked for later; the others are
            topped up (the paper tops up all; a short training has no time to bridge that gap).
    """

    pace: Pace
    smallest_crop: float = 0.5
    bare: float = 0.25


PRESETS: Mapping[Preset, MaeRecipe] = {
    "gpu": MaeRecipe(
        Pace(
            steps=8000,
            batch=512,
            peak=1e-3,
            warm_up=400,
            weight_decay=0.05,
            betas=(0.9, 0.95),
            minutes_between_checkpoints=3,
        )
    ),
    # Measured: batches of 16 beat 64 in equal time on a CPU.
    "cpu": MaeRecipe(
        Pace(
            steps=26_000,
            batch=16,
            peak=1e-3,
            warm_up=100,
            weight_decay=0.05,
            betas=(0.9, 0.95),
            average=0.995,
            log_every=50,
        ),
        bare=0.6,
    ),
    "tiny": MaeRecipe(Pace(steps=6, batch=4, peak=1e-3, warm_up=2, log_every=2, precision="no")),
}


class MaeStage:
    """Photographs with most of their tokens removed in, blurry but context-stable guesses out."""

    name = "mae"
    trains = ("mae.",)
    needs: tuple[str, ...] = ()

    def __init__(self, recipe: MaeRecipe, bench: Bench) -> None:
        self._settings, self._bench = recipe, bench
        self.pace = recipe.pace
        self.recipe: Mapping[str, Any] = {**asdict(recipe), "tier": bench.tier}

    def objective(self, model: Family) -> nn.Module:
        """See `MaeObjective`."""
        return MaeObjective(model.mae)

    def batch(self, moment: Moment) -> dict[str, Tensor]:
        """Pictures at the MAE's size, holes, and the order in which tokens are removed on top of the hole."""
        size, count = self._bench.model.mae.image_size, self.pace.batch
        smallest = round(self._settings.smallest_crop * self._bench.model.pixels)
        pictures = self._bench.supply.pictures(moment.rng, count, size, smallest=smallest)
        holes = self._bench.supply.holes(moment.rng, count, size)
        tokens = (size // self._bench.model.mae.patch_size) ** 2
        order = torch.rand((count, tokens), generator=moment.generator, device=moment.device)
        bare = torch.tensor(bool(moment.rng.random() < self._settings.bare))
        return {"pictures": pictures, "holes": holes, "order": order, "bare": bare}

    def finish(self, model: Family) -> None:
        """Nothing."""

    def sheet(self, model: Family) -> RgbImage:
        """Hole, what the auto-encoder imagines there, truth."""
        pictures, holes = self._bench.supply.shown(SHOWN, self._bench.model.mae.image_size)
        return sheet_of([with_hole(pictures, holes), model.mae.reconstruct(pictures, holes), pictures])


class MaeObjective(nn.Module):
    """Squared error of normalised pixels where they were removed (paper 000 sec. 3.1; MAE without patch norms)."""

    def __init__(self, mae: MaskedAutoencoder) -> None:
        super().__init__()
        self.mae = mae

    def forward(
        self,
        *,
        pictures: Float[Tensor, "batch 3 side side"],
        holes: Bool[Tensor, "batch 1 side side"],
        order: Float[Tensor, "batch tokens"],
        bare: Bool[Tensor, ""] | None = None,
    ) -> dict[str, Tensor]:
        """The loss over missing pixels of the hole and over all pixels of the tokens removed on top, if any are."""
        tokens = order.shape[1]
        removed = round(REMOVED * tokens)
        alone = bare is not None and bool(bare)
        if not alone:
            holes = without_oversized(holes, self.mae.tokens_touched(holes), removed)
        touched = self.mae.tokens_touched(holes)
        also = touched if alone else topped_up(touched, order, removed)
        predicted = self.mae(pictures, holes, also, visible=None if alone else tokens - removed)
        whole = self.mae.look(pictures, torch.zeros_like(holes)).pixels
        missing = self.mae.patchify(holes.float()).repeat_interleave(3, dim=2)
        weight = torch.where((also & ~touched)[..., None], torch.ones_like(missing), missing)
        return {"loss": weighted_mse(predicted.float(), self.mae.patchify(whole), weight)}


def without_oversized(
    holes: Bool[Tensor, "batch 1 side side"], touched: Bool[Tensor, "batch tokens"], removed: int
) -> Bool[Tensor, "batch 1 side side"]:
    """The holes, those that touch more tokens than may be removed being left out (random tokens take their place).

    The release lets such holes leak into what is visible; a hole of which a part is shown as black pixels would
    teach the encoder what no user ever shows it (our choice).
    """
    return holes & (touched.sum(1) <= removed).view(-1, 1, 1, 1)


def topped_up(
    touched: Bool[Tensor, "batch tokens"], order: Float[Tensor, "batch tokens"], removed: int
) -> Bool[Tensor, "batch tokens"]:
    """The touched tokens and as many others, lowest `order` first, as make it exactly `removed`."""
    ranks = torch.where(touched, order - 1, order).argsort(1).argsort(1)
    return ranks < removed
