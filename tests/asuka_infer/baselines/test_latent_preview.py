"""Previews of latents against an autoencoder whose latents are a known linear map of the colours."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from asuka_infer.baselines.latent_preview import LatentColours


class LinearAutoencoder(nn.Module):
    """Latents are the cells' mean colours, mixed; scaled and shifted as pipelines expect."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.randn(4, 3, generator=torch.Generator().manual_seed(1)))
        self.config = {"scaling_factor": 0.5, "shift_factor": 0.3}

    def encode(self, image: Tensor) -> Any:
        cells = torch.einsum("lc,bchw->blhw", self.mix, functional.avg_pool2d(image, 8))
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: cells))


def test_a_picture_is_shown_in_its_own_colours_one_pixel_per_cell() -> None:
    vae: Any = LinearAutoencoder()
    cells = torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(2))
    picture = functional.interpolate(cells, scale_factor=8, mode="nearest")
    latents = (vae.encode(picture * 2 - 1).latent_dist.mode().detach() - 0.3) * 0.5
    shown = LatentColours(vae).picture(latents)
    expected = (cells[0].permute(1, 2, 0).numpy() * 255).round()
    assert shown.shape == (5, 7, 3)
    assert np.abs(shown.astype(int) - expected).max() <= 1
