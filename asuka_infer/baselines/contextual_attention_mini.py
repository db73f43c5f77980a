"""contextual-attention-mini: coarse to fine with contextual attention (Yu et al., CVPR 2018) at small scale.

A coarse network says which colours go where; a refining one has two branches, one that sees far through dilated
convolutions and one that rebuilds the hole from known patches that look alike. Written anew from the paper's equations.
What differs from it, and why:

* the coarse picture has a quarter of the size: it only has to say which colours go where, and a CPU shall train it;
* pixels folded 4x4 into channels instead of convolutions at full size; ReLU instead of ELU;
* both networks say what is to be added to the smoothest fill, which the hole holds instead of nothing.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from asuka_infer.asuka.decoder import PIXEL_UNSHUFFLE, ReluBlock, UnfoldUp, touched_cells
from asuka_infer.baselines.one_pass import OnePass, OnePassSettings, load_one_pass
from asuka_infer.weighted import Weighted

KEY = "contextual-attention-mini"

WIDTH = 64

SHARPNESS = 10.0
"""Lambda of the paper's softmax, from the authors' release."""

MATCHED = 3
"""Side of the patches that are compared, in cells at 1/8 size."""

TINY = 1e-4
"""Added to a patch's length before dividing by it (the authors' 1e-4)."""


def contextual_attention(
    features: Float[Tensor, "batch width height2 width2"], missing: Bool[Tensor, "batch 1 height width"]
) -> Float[Tensor, "batch width height2 width2"]:
    """Features rebuilt from known patches, each place from those that look like it (paper sec. 4.1).

    Patches of 3x3 cells at half the features' size are compared by their cosine; a match counts more where its
    neighbours match the neighbours (propagation: equation 3 for both directions, before the softmax as in the authors'
    release); a softmax over all known patches weighs the 4x4 features behind them, and where those overlap they are
    averaged.

    Args:
        features: of even height and width.
        missing: cells at half their size that hold some of the hole; only others are copied from. Where nothing is
            known, all are.
    """
    seen = (~missing | missing.flatten(1).all(1).view(-1, 1, 1, 1)).flatten(2)
    alike = _cosines(functional.interpolate(features, scale_factor=0.5, mode="nearest"))
    scores = propagated(alike, (missing.shape[-2], missing.shape[-1]))
    scores = (SHARPNESS * scores).masked_fill(~seen.transpose(1, 2), -torch.inf)
    shares = scores.softmax(dim=1)
    patches = functional.unfold(features, 4, stride=2, padding=1)
    size = (features.shape[-2], features.shape[-1])
    summed = functional.fold(patches @ shares.to(patches), size, 4, stride=2, padding=1)
    counted = functional.fold(torch.ones_like(patches[:1]), size, 4, stride=2, padding=1)
    return summed / counted


def propagated(scores: Float[Tensor, "batch patches places"], size: tuple[int, int]) -> Tensor:
    """Each score plus those of the neighbours on both sides, patch and place moved together; along rows, then columns.

    Args:
        scores: of patch p at place q, both counted row by row.
        size: rows and columns of that count.
    """
    grid = scores.unflatten(2, size).unflatten(1, size)
    for axis in (1, 2):
        ahead = _moved(_moved(grid, axis, 1), axis + 2, 1)
        behind = _moved(_moved(grid, axis, -1), axis + 2, -1)
        grid = grid + ahead + behind
    return grid.flatten(3, 4).flatten(1, 2)


class Coarse(nn.Module):
    """Colours at a quarter of the size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(PIXEL_UNSHUFFLE),
            nn.Conv2d(4 * PIXEL_UNSHUFFLE**2, width // 2, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width // 2, width, 3, stride=2, padding=1),
            nn.ReLU(),
            *(ReluBlock(width, dilation) for dilation in (2, 4, 8)),
            UnfoldUp(width, width // 2),
            nn.ReLU(),
        )
        self.to_rgb = _silent(width // 2)

    def forward(self, scene: Float[Tensor, "batch 4 height width"]) -> Float[Tensor, "batch 3 h w"]:
        """What is to be added to the smoothest fill, at a quarter of its size."""
        return self.to_rgb(self.layers(scene))


class Refinement(nn.Module):
    """Two branches, one of them rebuilt from known patches, and a decoder for both."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.fold = nn.Sequential(
            nn.PixelUnshuffle(PIXEL_UNSHUFFLE), nn.Conv2d(4 * PIXEL_UNSHUFFLE**2, half, 3, padding=1)
        )
        self.far = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(half, width, 3, stride=2, padding=1),
            nn.ReLU(),
            ReluBlock(width, 2),
            ReluBlock(width, 4),
        )
        self.before = nn.Sequential(nn.ReLU(), nn.Conv2d(half, half, 3, padding=1), nn.ReLU())
        self.after = nn.Sequential(nn.Conv2d(half, half, 3, padding=1), nn.ReLU())
        self.rise = UnfoldUp(width, half)
        self.up = nn.Sequential(
            nn.Conv2d(2 * half, width, 3, padding=1),
            nn.ReLU(),
            UnfoldUp(width, half),
            nn.ReLU(),
            UnfoldUp(half, width // 4),
            nn.ReLU(),
        )
        self.to_rgb = _silent(width // 4)

    def forward(
        self, scene: Float[Tensor, "batch 4 height width"], hole: Bool[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, "batch 3 height width"]:
        """What is to be added to the smoothest fill, at full size."""
        folded = self.fold(scene)
        asked = self.before(folded)
        missing = touched_cells(hole.to(scene), (asked.shape[-2] // 2, asked.shape[-1] // 2))
        copied = self.after(contextual_attention(asked.float(), missing))
        both = torch.cat([self.rise(self.far(folded)).relu(), copied], dim=1)
        return self.to_rgb(self.up(both))


class ContextualAttention(OnePass):
    """The coarse network, then the refining one on its picture."""

    multiple = 8
    cell = 8

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.coarse, self.refinement = Coarse(width), Refinement(width)

    def forward(
        self, filled: Float[Tensor, "batch 3 height width"], hole: Bool[Tensor, "batch 1 height width"]
    ) -> tuple[Float[Tensor, "batch 3 h w"], Float[Tensor, "batch 3 height width"]]:
        """See `OnePass`: the coarse picture at a quarter of the size, then the answer."""
        missing = hole.to(filled)
        added = self.coarse(torch.cat([filled * 2 - 1, missing], dim=1))
        coarse = functional.avg_pool2d(filled, PIXEL_UNSHUFFLE) + added
        risen = functional.interpolate(added.float(), size=filled.shape[-2:], mode="bilinear", align_corners=False)
        base = filled + missing * risen
        return coarse, base + self.refinement(torch.cat([base * 2 - 1, missing], dim=1), hole)


def contextual_attention_mini() -> Weighted[ContextualAttention, OnePassSettings]:
    """The method on its committed weights."""
    return load_one_pass(ContextualAttention, KEY)


def _cosines(features: Float[Tensor, "batch width h w"]) -> Float[Tensor, "batch patches places"]:
    patches = functional.unfold(features, MATCHED, padding=MATCHED // 2)
    unit = patches / (patches.square().sum(1, keepdim=True).sqrt() + TINY)
    return unit.transpose(1, 2) @ unit


def _moved(values: Tensor, axis: int, by: int) -> Tensor:
    """`values[i + by]` along an axis, 0 beyond the edge."""
    length = values.shape[axis]
    edge = torch.zeros_like(values.narrow(axis, 0, 1))
    kept = values.narrow(axis, max(by, 0), length - 1)
    return torch.cat([kept, edge] if by > 0 else [edge, kept], dim=axis)


def _silent(width: int) -> nn.Conv2d:
    """A last convolution that begins by adding nothing."""
    layer = nn.Conv2d(width, 3, 3, padding=1)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
