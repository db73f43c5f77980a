"""The fill that knows nothing: the known colours carried into the hole as smoothly as possible (a harmonic membrane).

The embedded family starts from it instead of from pure noise, and its auto-encoder learns what is to be added to it.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

SWEEPS = 8
"""Relaxations per resolution; coarse resolutions carry colours far, so a few suffice."""

NOTHING_KNOWN = 0.5
"""The colour of a picture of which nothing is known, in the units of the picture."""


@torch.no_grad()
def first_fill(
    image: Float[Tensor, "batch colours height width"],
    hole: Bool[Tensor, "batch 1 height width"],
    *,
    nothing_known: float = NOTHING_KNOWN,
) -> Float[Tensor, "batch colours height width"]:
    """The picture with each hole filled by (nearly) the solution of Laplace's equation; known pixels stay as they are.

    Nested iteration from one pixel up to full size: what a coarse pixel knows is the mean of its known pixels, the
    others relax towards the mean of their four neighbours. What lies under the hole is never read.

    Args:
        image: any number of colours, any size, any units.
        hole: True = missing.
        nothing_known: the colour where a picture is all hole.
    """
    known = (~hole).to(image)
    levels = [(torch.where(hole, 0.0, image), known)]
    while max(levels[-1][0].shape[-2:]) > 1:
        levels.append((_halved(levels[-1][0]), _halved(levels[-1][1])))
    filled = torch.full_like(levels[-1][0], nothing_known)
    for total, weight in reversed(levels):
        size = (total.shape[-2], total.shape[-1])
        filled = functional.interpolate(filled, size=size, mode="bilinear", align_corners=False)
        fixed = weight > 0
        filled = torch.where(fixed, total / weight.clamp(min=torch.finfo(weight.dtype).tiny), filled)
        for _ in range(SWEEPS):
            filled = torch.where(fixed, filled, _mean_of_neighbours(filled))
    return torch.where(hole, filled, image)


def _halved(values: Tensor) -> Tensor:
    return functional.avg_pool2d(values, 2, ceil_mode=True, count_include_pad=False)


def _mean_of_neighbours(values: Tensor) -> Tensor:
    edged = functional.pad(values, (1, 1, 1, 1), mode="replicate")
    vertical = edged[..., :-2, 1:-1] + edged[..., 2:, 1:-1]
    return (vertical + edged[..., 1:-1, :-2] + edged[..., 1:-1, 2:]) / 4
