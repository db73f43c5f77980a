"""Sheets of pictures for the eye: one row per photograph, one column per way to see it."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from asuka_infer.request import RgbImage

GAP = 4
"""White pixels between pictures."""

HOLE_GREY = 0.5
"""How a hole is shown."""


def sheet_of(columns: Sequence[Float[Tensor, "n 3 size size"]]) -> RgbImage:
    """Columns of pictures (RGB in [0, 1], each as many and as large) side by side."""
    arrays = [column.detach().float().cpu().clamp(0, 1).permute(0, 2, 3, 1).numpy() for column in columns]
    gap_across = ((0, 0), (0, 0), (0, GAP), (0, 0))
    rows = np.concatenate([np.pad(array, gap_across, constant_values=1) for array in arrays], axis=2)
    rows = np.pad(rows, ((0, 0), (0, GAP), (0, 0), (0, 0)), constant_values=1)
    return np.concatenate(list((rows * 255).round().astype(np.uint8)), axis=0)


def with_hole(
    pictures: Float[Tensor, "n 3 size size"], holes: Bool[Tensor, "n 1 size size"]
) -> Float[Tensor, "n 3 size size"]:
    """The pictures with grey holes."""
    return pictures.masked_fill(holes, HOLE_GREY)
