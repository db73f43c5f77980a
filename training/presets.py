"""What every stage shares: the three places to train in, the model's sizes there, and what a stage is made from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from torch import Tensor

from asuka_infer.asuka.family import Sizes
from asuka_infer.asuka.mini import AlignmentSizes, MaeSizes, MiniConfig, UnetSizes, UnshuffleSizes
from training.photographs import Tier

Preset = Literal["gpu", "cpu", "tiny"]
"""A GPU for half an hour, two CPU cores for nights, or a minute's rehearsal of everything."""

MODELS: Mapping[Preset, MiniConfig] = {
    "gpu": MiniConfig(),
    "cpu": MiniConfig(),
    "tiny": MiniConfig(
        pixels=64,
        mae=MaeSizes(
            image_size=32,
            patch_size=8,
            width=32,
            depth=1,
            heads=2,
            decoder_width=32,
            decoder_depth=2,
            decoder_heads=2,
            prior_layer=1,
        ),
        alignment=AlignmentSizes(condition_width=32, depth=1),
        unet=UnetSizes(widths=(16, 32), attention=(False, True), heads=2, norm_groups=8),
        vae=UnshuffleSizes(
            encoder_widths=(16, 16),
            encoder_blocks=(1, 1),
            decoder_widths=(8, 8, 16, 16),
            decoder_blocks=(1, 1),
            decoder_dilations=(2,),
            decoder_heads=2,
        ),
    ),
}
"""A GPU and a CPU train the same model, so that one can go on where the other stopped."""


@dataclass(frozen=True)
class Growth:
    """Sides of training pictures in px: small ones first, because steps count more than pixels in the beginning.

    Attributes:
        first, last: before and after; the batch shrinks as the pictures grow, by half as much as their area.
        since: the share of the schedule after which they are larger; 1 = never.
    """

    first: int
    last: int = 0
    since: float = 1.0

    @property
    def sides(self) -> frozenset[int]:
        """All that occur."""
        return frozenset({self.first, self.last} - {0})

    def now(self, progress: float, batch: int) -> tuple[int, int]:
        """(side, pictures in a batch) at a share of the schedule."""
        if not self.last or progress < self.since:
            return self.first, batch
        return self.last, max(2, round(batch * 2 * self.first**2 / self.last**2))


class Draws(Protocol):
    """Where batches come from; see `training.data.Supply`."""

    def pictures(
        self, rng: np.random.Generator, batch: int, size: int, *, smallest: int, largest: int | None = None
    ) -> Tensor:
        """Squares of training photographs, RGB in [0, 1]."""
        ...

    def holes(self, rng: np.random.Generator, batch: int, size: int) -> Tensor:
        """Holes of the mixture, bool."""
        ...

    def shown(self, count: int, size: int) -> tuple[Tensor, Tensor]:
        """Photographs never trained on, and holes, always the same."""
        ...


class Perceptual(Protocol):
    """A frozen network that tells how unlike pictures look."""

    def distance(self, one: Tensor, other: Tensor) -> Tensor:
        """One number per pair of RGB pictures in [0, 1], 0 = alike."""
        ...


@dataclass(frozen=True, eq=False)
class Bench:
    """What a stage is made from.

    Attributes:
        model: the sizes of the model.
        supply: photographs and holes.
        perceptual: the perceptual network, or None to train without one.
        tier: which licences the photographs have.
    """

    model: Sizes
    supply: Draws
    perceptual: Perceptual | None
    tier: Tier = "all"
