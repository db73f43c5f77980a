"""dfnet-mini: deep fusion network (Hong et al., ACM MM 2019) at small scale; one pass, no noise.

A U-Net whose last decoder levels each compose their own completion with the input, pixel by pixel and colour by colour,
so that known and unknown join smoothly at every size. Written anew from the paper's equations. What differs, and why:

* five levels of 16 to 64 channels instead of eight of 64 to 512, fusion at the last three sizes instead of six; pixels
  folded 2x2 into channels first; no batch normalisation: a CPU shall train and run it;
* the input's hole holds the smoothest fill instead of nothing, so alpha mixes with something that is whole.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from asuka_infer.asuka.decoder import ReluBlock, UnfoldUp
from asuka_infer.baselines.one_pass import OnePass, OnePassSettings, load_one_pass
from asuka_infer.weighted import Weighted

KEY = "dfnet-mini"

WIDTHS = (16, 32, 48, 64, 64)
"""Features at full, 1/2, 1/4, 1/8 and 1/16 size."""

FIRST_ALPHA = -2.0
"""Where alpha starts, before its sigmoid: an eighth of the completion, so that training begins near the first fill."""


class FusionBlock(nn.Module):
    """Alpha composition of a completion with the input (paper equations 1 to 3)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.complete = nn.Conv2d(width, 3, 1)
        self.compose = nn.Sequential(nn.Conv2d(6, 12, 1), nn.LeakyReLU(0.2), nn.Conv2d(12, 3, 3, padding=1))
        last = self.compose[-1]
        nn.init.zeros_(last.get_parameter("weight"))
        nn.init.constant_(last.get_parameter("bias"), FIRST_ALPHA)

    def forward(
        self, features: Float[Tensor, "batch width h w"], known: Float[Tensor, "batch 3 h w"]
    ) -> Float[Tensor, "batch 3 h w"]:
        """Alpha * C + (1 - alpha) * I, where C = M(F) is the completion and alpha = A(C, I) has three colours.

        Args:
            features: F, of this level.
            known: I, the input at this size, in [0, 1].
        """
        completion = self.complete(features).float() + 0.5
        alpha = self.compose(torch.cat([completion, known], dim=1)).float().sigmoid()
        return alpha * completion + (1 - alpha) * known


class DeepFusion(OnePass):
    """Down with features kept, up with them joined, fused with the input at 1/4, 1/2 and full size."""

    multiple = 16
    cell = 8

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self._levels = len(widths) - 1
        self.multiple = 2**self._levels
        self.down = nn.ModuleList(
            [nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(16, widths[1], 3, padding=1), nn.ReLU())]
        )
        for finer, coarser in pairwise(widths[1:]):
            self.down.append(nn.Sequential(nn.Conv2d(finer, coarser, 3, stride=2, padding=1), nn.ReLU()))
        self.middle = nn.Sequential(*(ReluBlock(widths[-1], dilation) for dilation in (1, 2, 4)))
        self.rise = nn.ModuleList(UnfoldUp(i, o) for i, o in zip(widths[:0:-1], widths[-2::-1], strict=True))
        skipped = [*widths[-2:0:-1], 4]
        self.join = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width + skip, width, 3, padding=1), nn.ReLU())
            for width, skip in zip(widths[-2::-1], skipped, strict=True)
        )
        self.fuse = nn.ModuleList(FusionBlock(width) for width in widths[2::-1])

    def forward(
        self, filled: Float[Tensor, "batch 3 height width"], hole: Bool[Tensor, "batch 1 height width"]
    ) -> tuple[Float[Tensor, "batch 3 _ _"], ...]:
        """See `OnePass`: the compositions at 1/4, 1/2 and full size."""
        scene = torch.cat([filled * 2 - 1, hole.to(filled)], dim=1)
        kept: list[Tensor] = [scene]
        for layer in self.down:
            kept.append(layer(kept[-1]))
        features = self.middle(kept.pop())
        fused: list[Tensor] = []
        for level, (rise, join) in enumerate(zip(self.rise, self.join, strict=True)):
            features = join(torch.cat([rise(features).relu(), kept.pop()], dim=1))
            to_go = self._levels - 1 - level
            if to_go < len(self.fuse):
                known = functional.avg_pool2d(filled, 2**to_go)
                fused.append(self.fuse[len(self.fuse) - 1 - to_go](features, known))
        return tuple(fused)


def dfnet_mini() -> Weighted[DeepFusion, OnePassSettings]:
    """The method on its committed weights."""
    return load_one_pass(DeepFusion, KEY)
