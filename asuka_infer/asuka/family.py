"""What the small family and Stable Diffusion share as latent inpainters, so that one loop samples and trains both."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol, cast, runtime_checkable

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from jaxtyping import Bool, Float
from torch import Tensor, nn

from asuka_infer.asuka.alignment import Alignment
from asuka_infer.asuka.decoder import SCALE as LATENT_SCALE
from asuka_infer.asuka.decoder import Autoencoder, touched_cells
from asuka_infer.asuka.mae import MaskedAutoencoder
from asuka_infer.asuka.schedule import Solver


@runtime_checkable
class Noise(Protocol):
    """A noise schedule; see `asuka_infer.asuka.schedule.Schedule`. Times are 0..1000, 0 = clean."""

    @property
    def add_noise(self) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """(clean, noise, time) -> the latents at that time."""
        ...

    @property
    def target(self) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """(clean, noise, time) -> what the UNet should say."""
        ...

    @property
    def clean_and_noise(self) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
        """(latents, prediction, time) -> the clean latents and the noise that it implies."""
        ...

    def solver(self, steps: int, kind: Solver = "dpm++") -> DPMSolverMultistepScheduler | UniPCMultistepScheduler:
        """A diffusers scheduler with that many steps set."""
        ...


@runtime_checkable
class MaeGrid(Protocol):
    """At what size the masked auto-encoder sees pictures."""

    @property
    def image_size(self) -> int:
        """Side in px."""
        ...

    @property
    def patch_size(self) -> int:
        """Side of a token in px."""
        ...


@runtime_checkable
class Sizes(Protocol):
    """What must be known of a model to draw batches for it; `MiniConfig` is one."""

    @property
    def pixels(self) -> int:
        """Side of the pictures it is trained on."""
        ...

    @property
    def latent_channels(self) -> int:
        """Of the autoencoder."""
        ...

    @property
    def objective(self) -> str:
        """What the UNet predicts: "flow", "v_prediction", or "epsilon"."""
        ...

    @property
    def strength(self) -> float:
        """Share of noise in what sampling starts from."""
        ...

    @property
    def schedule(self) -> Noise:
        """The noise it is trained with and sampled by."""
        ...

    @property
    def mae(self) -> MaeGrid:
        """The masked auto-encoder's grid."""
        ...


class Family(nn.Module, ABC):
    """The parts of one model and what they say to each other; no state but weights.

    Pictures are RGB in [0, 1], holes bool (True = missing), latents scaled to about unit variance, times 0..1000.
    """

    config: Sizes
    mae: MaskedAutoencoder
    alignment: Alignment
    unet: UNet2DConditionModel
    vae: Autoencoder
    null_condition: nn.Parameter

    @abstractmethod
    def encode_known(
        self,
        image: Float[Tensor, "batch 3 height width"],
        hole: Bool[Tensor, "batch 1 height width"],
        filled: Float[Tensor, "batch 3 height width"] | None = None,
    ) -> Float[Tensor, "batch channels h w"]:
        """The latents of the known pixels and of what stands in the hole before anything is drawn."""

    @abstractmethod
    def decode_known(
        self,
        latents: Float[Tensor, "batch channels h w"],
        image: Float[Tensor, "batch 3 height width"],
        hole: Bool[Tensor, "batch 1 height width"],
        filled: Float[Tensor, "batch 3 height width"] | None = None,
    ) -> Float[Tensor, "batch 3 height width"]:
        """Pictures that continue the known pixels, clamped to [0, 1] (not composited)."""

    def condition(
        self, image: Float[Tensor, "batch 3 height width"], hole: Bool[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, "batch tokens condition_width"]:
        """The aligned MAE prior of pictures of any size; pass a hole of False for the reconstructed prior."""
        return self.alignment(self.mae.prior(image, hole).to(self.alignment.dtype))

    def null(self, batch: int) -> Float[Tensor, "batch tokens condition_width"]:
        """The condition that says nothing."""
        return self.null_condition.expand(batch, -1, -1)

    def encode(self, image: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channels h w"]:
        """The mean latents of pictures whose sides are multiples of 8."""
        moments = self.vae.encode((image * 2 - 1).to(self.vae.dtype))
        mean = cast("Any", moments).latent_dist.mode()
        return (mean - self.vae.config["shift_factor"]) * self.vae.config["scaling_factor"]

    def start(
        self, known: Float[Tensor, "batch channels h w"], noise: Float[Tensor, "batch channels h w"]
    ) -> Float[Tensor, "batch channels h w"]:
        """Where sampling starts from: what stands there already (`encode_known`) under `strength` noise."""
        return (1 - self.config.strength) * known + self.config.strength * noise

    def cells(self, hole: Bool[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch 1 h w"]:
        """The hole on the latent grid: 1 for every cell that it touches at all."""
        size = (hole.shape[2] // LATENT_SCALE, hole.shape[3] // LATENT_SCALE)
        return touched_cells(hole.float(), size).to(self.unet.dtype)

    def predict(
        self,
        latents: Float[Tensor, "batch channels h w"],
        time: Float[Tensor, " batch"],
        cells: Float[Tensor, "batch 1 h w"],
        known: Float[Tensor, "batch channels h w"],
        condition: Float[Tensor, "batch tokens condition_width"],
    ) -> Float[Tensor, "batch channels h w"]:
        """What the UNet says about noisy latents: see `Schedule.target`."""
        seen = torch.cat([latents, cells, known], dim=1).to(self.unet.dtype)
        return cast("Any", self.unet)(seen, time, encoder_hidden_states=condition.to(seen)).sample.to(latents)

    def decode_plain(self, latents: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch 3 height width"]:
        """Pictures from latents alone, clamped to [0, 1]."""
        decoded = cast("Any", self.vae.decode(self.unscaled(latents))).sample
        return (decoded.to(latents) / 2 + 0.5).clamp(0, 1)

    def unscaled(self, latents: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch channels h w"]:
        """Latents as the autoencoder's decoder takes them."""
        own = latents / self.vae.config["scaling_factor"] + self.vae.config["shift_factor"]
        return own.to(self.vae.dtype)
