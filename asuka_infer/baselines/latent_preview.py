"""What latents roughly look like, without decoding them: the linear map from a cell's channels to its mean colour."""

from weakref import WeakKeyDictionary

import torch
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor
from torch.nn import functional

from asuka_infer.images import to_uint8
from asuka_infer.request import RgbImage

CHART_SIDE = 128
"""Pixels of the colour chart the map is fitted on: 256 cells for at most 17 unknowns, a fraction of one step's time."""

CHART_SEED = 0

_maps: "WeakKeyDictionary[ModelMixin, Tensor]" = WeakKeyDictionary()


class LatentColours:
    """Makes previews of scaled latents, as denoisers see them.

    The map is fitted by least squares to what the autoencoder itself makes of a smooth colour chart, when the first
    preview is wanted; so it fits every autoencoder, and nobody who looks at nothing pays for it.
    """

    def __init__(self, vae: ModelMixin) -> None:
        self._vae = vae

    def picture(self, latents: Tensor) -> RgbImage:
        """One pixel per cell of the first picture of (batch, channels, height, width) latents."""
        cells = _with_one(latents[:1].float().cpu())
        height, width = latents.shape[2:]
        colours = (cells @ self._map()).clamp(0, 1)
        return to_uint8(colours.T.reshape(3, height, width).numpy())

    def _map(self) -> Tensor:
        found = _maps.get(self._vae)
        if found is None:
            found = _fit(self._vae)
            _maps[self._vae] = found
        return found


@torch.no_grad()
def _fit(vae: ModelMixin) -> Tensor:
    """(channels + 1, 3): colours in [0, 1] of latents with a one appended."""
    generator = torch.Generator("cpu").manual_seed(CHART_SEED)
    coarse = torch.rand((1, 3, 8, 8), generator=generator)
    chart = functional.interpolate(coarse, size=(CHART_SIDE, CHART_SIDE), mode="bilinear", align_corners=False)
    first = next(vae.parameters())
    encoded = vae.encode((chart * 2 - 1).to(first.device, first.dtype)).latent_dist.mode().float().cpu()
    latents = (encoded - (vae.config.get("shift_factor") or 0.0)) * vae.config["scaling_factor"]
    colours = functional.adaptive_avg_pool2d(chart, (latents.shape[2], latents.shape[3])).flatten(2)[0].T
    # gelsd copes with channels that a tiny or odd autoencoder never uses.
    return torch.linalg.lstsq(_with_one(latents), colours, driver="gelsd").solution


def _with_one(latents: Tensor) -> Tensor:
    cells = latents.flatten(2)[0].T
    return torch.cat([cells, torch.ones(len(cells), 1)], dim=1)
