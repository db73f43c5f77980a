"""Colour jitter of a batch, every picture by its own amount."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

GREY = (0.2989, 0.587, 0.114)
"""Weights of RGB in luma, as torchvision and Pillow use them."""

RGB_FROM_HUE = (5.0, 3.0, 1.0)
"""Where on the circle of six the red, green and blue ramps begin (the closed form of HSV to RGB)."""


@dataclass(frozen=True)
class Jitter:
    """How far colours may change (paper 000 sec. 3.3): factors 1 +- x, and turns of the hue by +- x of a circle."""

    brightness: float = 0.15
    contrast: float = 0.2
    saturation: float = 0.1
    hue: float = 0.03


@dataclass(frozen=True, eq=False)
class Change:
    """One change per picture: factors (1 = none) and turns of the hue (0 = none)."""

    brightness: Float[Tensor, " batch"]
    contrast: Float[Tensor, " batch"]
    saturation: Float[Tensor, " batch"]
    hue: Float[Tensor, " batch"]


def draw_change(count: int, jitter: Jitter, generator: torch.Generator, device: torch.device) -> Change:
    """Changes drawn uniformly from the jitter's ranges."""
    uniform = 2 * torch.rand((4, count), generator=generator, device=device) - 1
    return Change(
        1 + jitter.brightness * uniform[0],
        1 + jitter.contrast * uniform[1],
        1 + jitter.saturation * uniform[2],
        jitter.hue * uniform[3],
    )


def recolour(pictures: Float[Tensor, "batch 3 height width"], change: Change) -> Float[Tensor, "batch 3 height width"]:
    """The pictures (RGB in [0, 1]) changed in brightness, contrast, saturation and hue, in this order, each clamped.

    The same as torchvision's ColorJitter in a fixed order, which changes a whole batch by one amount.
    """
    wide = [value.view(-1, 1, 1, 1) for value in (change.brightness, change.contrast, change.saturation)]
    pictures = (pictures * wide[0]).clamp(0, 1)
    mean = _grey(pictures).mean((2, 3), keepdim=True)
    pictures = (mean + wide[1] * (pictures - mean)).clamp(0, 1)
    grey = _grey(pictures)
    pictures = (grey + wide[2] * (pictures - grey)).clamp(0, 1)
    return _turn_hue(pictures, change.hue).clamp(0, 1)


def _grey(pictures: Tensor) -> Tensor:
    return (pictures * pictures.new_tensor(GREY).view(1, 3, 1, 1)).sum(1, keepdim=True)


def _turn_hue(pictures: Tensor, turns: Float[Tensor, " batch"]) -> Tensor:
    """HSV's hue moved by a share of the circle."""
    value, brightest = pictures.max(1, keepdim=True)
    chroma = value - pictures.amin(1, keepdim=True)
    red, green, blue = pictures.split(1, dim=1)
    # Each channel's distance from the next tells where on its third of the circle a colour lies.
    thirds = torch.cat([green - blue, blue - red, red - green], dim=1).gather(1, brightest)
    hue = thirds / chroma.clamp(min=1e-8) + 2 * brightest + 6 * turns.view(-1, 1, 1, 1)
    ramps = (hue + pictures.new_tensor(RGB_FROM_HUE).view(1, 3, 1, 1)).remainder(6)
    return value - chroma * torch.minimum(ramps, 4 - ramps).clamp(0, 1)
