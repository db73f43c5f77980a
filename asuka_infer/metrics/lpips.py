"""LPIPS with AlexNet (Zhang et al., CVPR 2018, version 0.1): the perceptual distance of the paper's tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models import alexnet

from asuka_infer.metrics.looks import Look
from asuka_infer.weights import load_completely, read_state

TAPS = (1, 4, 7, 9, 11)
"""Layers of torchvision's AlexNet whose output is compared: its five ReLUs."""

SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
"""ImageNet's mean and deviation for RGB in [-1, 1], as LPIPS rounds them."""

EPSILON = 1e-10
"""Added to the length of a feature vector before dividing by it, as in the published code."""


class LpipsAlex(nn.Module):
    """The distance, from torchvision's AlexNet and the published heads."""

    name: ClassVar[str] = "lpips-alex"
    smallest: ClassVar[int] = 31

    def __init__(self, backbone: Path, heads: Path) -> None:
        """Load `alexnet-owt-7be5be79.pth` and `lpips_v0.1_lin_alex.pth`.

        Raises:
            WeightsError: when a file is missing or another network's.
        """
        super().__init__()
        with torch.device("meta"):  # its classifier, 220 MB, is never needed
            self.layers = alexnet(weights=None).features
        prefix = "features."
        state = {k.removeprefix(prefix): v for k, v in read_state(backbone).items() if k.startswith(prefix)}
        load_completely(self.layers, state, source=backbone.name)
        widths = (64, 192, 384, 256, 256)
        self.heads = nn.ParameterDict({f"lin{tap}": torch.zeros(1, width, 1, 1) for tap, width in enumerate(widths)})
        named = {key.partition(".")[0]: value for key, value in read_state(heads).items()}
        load_completely(self.heads, named, source=heads.name)
        self.shift = nn.Buffer(torch.tensor(SHIFT).view(1, 3, 1, 1))
        self.scale = nn.Buffer(torch.tensor(SCALE).view(1, 3, 1, 1))
        self.requires_grad_(requires_grad=False).eval()

    def look(self, images: Float[Tensor, "batch 3 height width"]) -> Look:
        """Unit features of the five layers of RGB pictures in [0, 1]."""
        features = (images * 2 - 1 - self.shift) / self.scale
        taps: list[Tensor] = []
        for number, layer in enumerate(self.layers[: TAPS[-1] + 1]):
            features = layer(features)
            if number in TAPS:
                taps.append(features / (features.norm(dim=1, keepdim=True) + EPSILON))
        return Look(tuple(taps))

    def between(self, one: Sequence[Tensor], other: Sequence[Tensor]) -> Float[Tensor, " batch"]:
        """LPIPS of each pair of pictures that were looked at before; 0 = alike."""
        heads = [self.heads[f"lin{tap}"] for tap in range(len(TAPS))]
        told = [((a - b).square() * head).sum(1).mean((1, 2)) for a, b, head in zip(one, other, heads, strict=True)]
        return torch.stack(told).sum(0)

    def distance(
        self, one: Float[Tensor, "batch 3 height width"], other: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, " batch"]:
        """LPIPS of each pair of RGB pictures in [0, 1]."""
        return self.between(self.look(one).taps, self.look(other).taps)
