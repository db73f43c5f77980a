"""context-encoder-mini: Context Encoders (Pathak et al., CVPR 2016) at small scale; one pass, no noise.

The layer table is that of the project's source 003 (seven convolutions of 4x4 and stride 2 down to a bottleneck, seven
transposed ones up, an adversary in training) with a quarter of its widths, three sixteenths where it is widest, which
keeps the file small. What differs from it, and why:

* no batch normalisation: on these few thousand steps it costs more than it gives (measured for the embedded family);
* the input is the smoothest fill and the hole instead of a mean colour, and the output is what is to be added to that
  fill instead of a picture through a tanh: seams would otherwise be all that minutes of training show;
* it works at 128 px, as both sources do, and its fill is scaled up;
* any hole, not the middle square alone, as in the paper's section on arbitrary regions.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from asuka_infer.baselines.one_pass import OnePass, OnePassSettings, load_one_pass
from asuka_infer.weighted import Weighted

KEY = "context-encoder-mini"

WIDTHS = (16, 32, 64, 96, 96, 96, 96)
"""Source 003 has 64, 128, 256 and four times 512."""


class ContextEncoder(OnePass):
    """Encoder, bottleneck and decoder; nothing but the bottleneck joins the two, so content is understood or lost."""

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        # At the side that its seven halvings bring down to one cell, as in source 003.
        self.side = self.multiple = 2 ** len(widths)
        self.cell = 8
        inputs = (4, *widths[:-1])
        self.encoder = nn.Sequential(*(_down(i, o) for i, o in zip(inputs, widths, strict=True)))
        narrowing = tuple(reversed(widths))
        self.decoder = nn.Sequential(*(_up(i, o) for i, o in pairwise(narrowing)))
        self.to_rgb = nn.ConvTranspose2d(widths[0], 3, 4, stride=2, padding=1)
        for parameter in self.to_rgb.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self, filled: Float[Tensor, "batch 3 height width"], hole: Bool[Tensor, "batch 1 height width"]
    ) -> tuple[Float[Tensor, "batch 3 height width"]]:
        """See `OnePass`; there is one stage."""
        code = self.encoder(torch.cat([filled * 2 - 1, hole.to(filled)], dim=1))
        return (filled + self.to_rgb(self.decoder(code)),)


def context_encoder_mini() -> Weighted[ContextEncoder, OnePassSettings]:
    """The method on its committed weights."""
    return load_one_pass(ContextEncoder, KEY)


def _down(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.ReLU())


def _up(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1), nn.ReLU())
