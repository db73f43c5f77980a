"""What a feature network sees of pictures: every picture goes through it once, whatever is asked of it afterwards.

One picture at a time on a CPU and passes of one fixed size on a GPU, so that no number depends on which pictures
happened to be measured together.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asuka_infer.images import refuse_wrong_pixels
from asuka_infer.request import RgbImage

CPU_PASS = 1
"""Pictures per pass on a CPU: its cores are busy with one (measured: 8 together take as long as one by one), and no sum
depends on another picture."""

GPU_PASS = 32
"""Pictures per pass on a GPU, filled up by repeating the last (our choice; memory stays below 4 GB at 512 px)."""

_WHITE = 255


@dataclass(frozen=True, eq=False)
class Look:
    """What a network saw of some pictures.

    Attributes:
        taps: features of the layers that a distance compares, (batch, channels, height, width) each, every place
            brought to length 1; none for a network without a distance.
        vector: (batch, width): one vector per picture, or None for a network that only compares.
    """

    taps: tuple[Tensor, ...] = ()
    vector: Tensor | None = None

    def of(self, place: int) -> "Look":
        """What it saw of one picture of the batch."""
        only = slice(place, place + 1)
        return Look(tuple(tap[only] for tap in self.taps), None if self.vector is None else self.vector[only])

    def numbers(self) -> NDArray[np.float32]:
        """(width,): the vector of the first picture.

        Raises:
            ValueError: when the network makes none.
        """
        if self.vector is None:
            raise ValueError("This network compares pictures and has no vector of one; ask it for a distance.")
        return self.vector[0].float().cpu().numpy()


@torch.inference_mode()
def look_at(network: Any, pictures: Iterable[RgbImage], device: str) -> Iterator[Look]:
    """What the network sees of each picture, in their order; pictures are read when their pass is due.

    Args:
        network: has `look`, from RGB in [0, 1], (batch, 3, height, width), to a `Look`; no side may be below its
            `smallest`.
        pictures: of any sizes; those of one size that follow one another share a pass on a GPU.
        device: where the network is.
    """
    most = CPU_PASS if device == "cpu" else GPU_PASS
    for _, alike in groupby(pictures, key=lambda picture: picture.shape):
        while some := list(islice(alike, most)):
            seen = network.look(_batch(some, most).to(device))
            yield from (seen.of(place) for place in range(len(some)))


def _batch(pictures: list[RgbImage], size: int) -> Tensor:
    for picture in pictures:
        refuse_wrong_pixels(picture)
    stacked = torch.from_numpy(np.stack(pictures + pictures[-1:] * (size - len(pictures))))
    # The channels stay last in memory, which is what the convolutions of a CPU are quickest with.
    return stacked.permute(0, 3, 1, 2).float() / _WHITE
