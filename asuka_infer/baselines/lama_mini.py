"""lama-mini: LaMa's fast Fourier convolutions (Suvorov et al., WACV 2022; Chi et al., NeurIPS 2020) at small scale.

Every layer of the body has a local branch (3x3 convolutions) and a global one that works on the spectrum of the whole
picture, so that each layer sees everything. Written anew from the papers' equations. What differs from LaMa, and why:

* four residual blocks of width 128 at 1/8 size instead of 9 or 18 of width 512: a CPU shall train and run it;
* pixels folded 4x4 into channels instead of a 7x7 convolution at full size (3-4 times the steps per second, measured
  for the embedded family), no batch normalisation, edges padded with zeros instead of mirrored;
* the output is what is to be added to the smoothest fill.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, fft, nn
from torch.nn import functional

from asuka_infer.asuka.decoder import PIXEL_UNSHUFFLE, UnfoldUp
from asuka_infer.baselines.one_pass import OnePass, OnePassSettings, load_one_pass
from asuka_infer.weighted import Weighted

KEY = "lama-mini"

WIDTH, BLOCKS = 128, 4

GLOBAL_SHARE = 0.75
"""Share of the channels in the global branch, as in LaMa."""


class Branches(NamedTuple):
    """Local and global features of one size."""

    near: Float[Tensor, "batch near height width"]
    far: Float[Tensor, "batch far height width"]


class FourierUnit(nn.Module):
    """irfft2(relu(conv1x1(rfft2(x)))): real and imaginary parts are channels; each output pixel depends on all inputs.

    Chi et al. (2020), sec. 3.2, orthonormal transforms as in LaMa.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 * width, 2 * width, 1)

    def forward(self, x: Float[Tensor, "batch width h w"]) -> Float[Tensor, "batch width h w"]:
        """The filtered features."""
        # Transforms know no half precision on CPUs.
        spectrum = fft.rfft2(x.float(), norm="ortho")
        mixed = functional.relu(self.conv(torch.cat([spectrum.real, spectrum.imag], dim=1))).float()
        real, imaginary = mixed.chunk(2, dim=1)
        height, width = x.shape[-2:]
        return fft.irfft2(torch.complex(real, imaginary), s=(height, width), norm="ortho")


class SpectralTransform(nn.Module):
    """The global branch's own path: halve the channels, add what the Fourier unit says, widen again."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(width, width // 2, 1)
        self.unit = FourierUnit(width // 2)
        self.widen = nn.Conv2d(width // 2, width, 1)

    def forward(self, x: Float[Tensor, "batch width h w"]) -> Float[Tensor, "batch width h w"]:
        """Features in which every place has heard of every other."""
        narrow = functional.relu(self.narrow(x))
        return self.widen(narrow + self.unit(narrow))


class FourierConvolution(nn.Module):
    """A fast Fourier convolution: near = local(near) + local(far), far = local(near) + spectral(far)."""

    def __init__(self, near: int, far: int) -> None:
        super().__init__()
        self.near_to_near = nn.Conv2d(near, near, 3, padding=1)
        self.far_to_near = nn.Conv2d(far, near, 3, padding=1)
        self.near_to_far = nn.Conv2d(near, far, 3, padding=1)
        self.far_to_far = SpectralTransform(far)

    def forward(self, x: Branches) -> Branches:
        """Both branches, before any activation."""
        near = self.near_to_near(x.near) + self.far_to_near(x.far)
        return Branches(near, self.near_to_far(x.near) + self.far_to_far(x.far))


class FourierBlock(nn.Module):
    """x + convolution(relu(convolution(x))); it starts as the identity, because nothing normalises here."""

    def __init__(self, near: int, far: int) -> None:
        super().__init__()
        self.first, self.second = FourierConvolution(near, far), FourierConvolution(near, far)
        last = self.second
        for layer in (last.near_to_near, last.far_to_near, last.near_to_far, last.far_to_far.widen):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Branches) -> Branches:
        """The block's output."""
        hidden = self.first(x)
        change = self.second(Branches(functional.relu(hidden.near), functional.relu(hidden.far)))
        return Branches(x.near + change.near, x.far + change.far)


class Lama(OnePass):
    """Down to 1/8 size, Fourier blocks, up again."""

    multiple = 8
    cell = 8

    def __init__(self, width: int = WIDTH, blocks: int = BLOCKS) -> None:
        super().__init__()
        far = round(GLOBAL_SHARE * width)
        self._split = [width - far, far]
        self.down = nn.Sequential(
            nn.PixelUnshuffle(PIXEL_UNSHUFFLE),
            nn.Conv2d(4 * PIXEL_UNSHUFFLE**2, width // 2, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width // 2, width, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        self.body = nn.ModuleList(FourierBlock(*self._split) for _ in range(blocks))
        self.up = nn.Sequential(
            nn.ReLU(),
            UnfoldUp(width, width // 2),
            nn.ReLU(),
            UnfoldUp(width // 2, width // 4),
            nn.ReLU(),
            UnfoldUp(width // 4, width // 8),
            nn.ReLU(),
        )
        self.to_rgb = nn.Conv2d(width // 8, 3, 3, padding=1)
        for parameter in self.to_rgb.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self, filled: Float[Tensor, "batch 3 height width"], hole: Bool[Tensor, "batch 1 height width"]
    ) -> tuple[Float[Tensor, "batch 3 height width"]]:
        """See `OnePass`; there is one stage."""
        features = self.down(torch.cat([filled * 2 - 1, hole.to(filled)], dim=1))
        branches = Branches(*features.split(self._split, dim=1))
        for block in self.body:
            branches = block(branches)
        return (filled + self.to_rgb(self.up(torch.cat(branches, dim=1))),)


def lama_mini() -> Weighted[Lama, OnePassSettings]:
    """The method on its committed weights."""
    return load_one_pass(Lama, KEY)
