"""ASUKA at full size as the stages know it: SD's inpainting backbone, a public MAE, Zhu et al.'s autoencoder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from jaxtyping import Bool, Float
from torch import Tensor, nn

from asuka_infer.asuka.alignment import PAPER_DEPTH, Alignment
from asuka_infer.asuka.checkpoints import load_autoencoder, load_mae
from asuka_infer.asuka.decoder import ConditionalAutoencoderKL
from asuka_infer.asuka.family import Family
from asuka_infer.asuka.mae import MaskedAutoencoder
from asuka_infer.asuka.schedule import STEPS, Solver
from asuka_infer.asuka.sd import AsukaInpaintPipeline
from asuka_infer.placement import accept_old_array_calls, quiet_libraries
from asuka_infer.weights import WeightsError

GREY = 0.5
"""What stands in the hole when the known pixels are encoded: Stable Diffusion's inpainting models were trained so."""

MODEL_SEED = 2026
"""Names the alignment's random start; everything else is loaded."""

INPAINTING_CHANNELS = 9
"""Noisy latents, hole, latents of the known pixels: the UNet of an inpainting model takes so many."""


@dataclass(frozen=True, eq=False)
class SdNoise:
    """The noise a Stable Diffusion model was trained with, from its own scheduler; times are 0..999, whole.

    Attributes:
        powers: share of clean signal at each time.
        prediction: what its UNet predicts, "epsilon" or "v_prediction".
        scheduler: its configuration, of which solvers are made.
    """

    powers: Float[Tensor, " times"]
    prediction: str
    scheduler: Any

    def levels(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """How much of the clean latents and of the noise is in `alpha * clean + sigma * noise`."""
        power = self.powers.to(time.device)[time.long().clamp(0, STEPS - 1)].view(-1, 1, 1, 1)
        return power.sqrt(), (1 - power).sqrt()

    def add_noise(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """The latents at `time`."""
        alpha, sigma = self.levels(time)
        return alpha * clean + sigma * noise

    def target(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """What the UNet should say at `time`."""
        alpha, sigma = self.levels(time)
        return noise if self.prediction == "epsilon" else alpha * noise - sigma * clean

    def clean_and_noise(self, latents: Tensor, predicted: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """The clean latents and the noise that a prediction implies (equation 1 of the paper, for epsilon)."""
        alpha, sigma = self.levels(time)
        if self.prediction == "epsilon":
            return (latents - sigma * predicted) / alpha, predicted
        return alpha * latents - sigma * predicted, sigma * latents + alpha * predicted

    def solver(self, steps: int, kind: Solver = "dpm++") -> DPMSolverMultistepScheduler | UniPCMultistepScheduler:
        """A diffusers scheduler of the model's own noise with `steps` steps set."""
        accept_old_array_calls()
        made: Any = DPMSolverMultistepScheduler if kind == "dpm++" else UniPCMultistepScheduler
        scheduler = made.from_config(self.scheduler)
        scheduler.set_timesteps(steps)
        return scheduler


@dataclass(frozen=True)
class Grid:
    """At what size the masked auto-encoder sees pictures: side and side of a token, in px."""

    image_size: int
    patch_size: int


@dataclass(frozen=True, eq=False)
class FullSizes:
    """What batches must know of a full-size model; see `asuka_infer.asuka.family.Sizes`."""

    pixels: int
    latent_channels: int
    objective: str
    schedule: SdNoise
    mae: Grid
    strength: float = 1.0


class FullModel(Family):
    """The parts at full size; sampling starts from pure noise, the hole is grey while the known pixels are encoded."""

    def __init__(
        self,
        backbone: AsukaInpaintPipeline,
        mae: MaskedAutoencoder,
        vae: ConditionalAutoencoderKL,
        *,
        pixels: int,
        depth: int = PAPER_DEPTH,
    ) -> None:
        """Put loaded parts together; the alignment is new, the null condition is the empty prompt's.

        Args:
            backbone: a pipeline with UNet, scheduler and text encoder.
            mae: masked auto-encoder.
            vae: with the backbone's encoder.
            pixels: side of the pictures it is trained on.
            depth: blocks of the alignment.

        Raises:
            WeightsError: when the UNet is no inpainting UNet or there is no text encoder.
        """
        super().__init__()
        unet, scheduler = backbone.unet, backbone.scheduler
        if unet.config["in_channels"] != INPAINTING_CHANNELS:
            raise WeightsError(
                f"The UNet takes {unet.config['in_channels']} channels, but an inpainting UNet takes "
                f"{INPAINTING_CHANNELS}; give the folder of an inpainting model."
            )
        noise = SdNoise(scheduler.alphas_cumprod.float(), scheduler.config.prediction_type, scheduler.config)
        grid = Grid(mae.config["image_size"], mae.config["patch_size"])
        self.config = FullSizes(pixels, vae.config["latent_channels"], noise.prediction, noise, grid)
        self.mae, self.unet, self.vae = mae, unet, vae
        self.alignment = Alignment(
            prior_width=mae.config["decoder_width"],
            condition_width=unet.config["cross_attention_dim"],
            depth=depth,
            tokens=mae.grid**2,
        )
        self.null_condition = nn.Parameter(empty_prompt_of(backbone))

    def encode_known(
        self,
        image: Float[Tensor, "batch 3 height width"],
        hole: Bool[Tensor, "batch 1 height width"],
        filled: Float[Tensor, "batch 3 height width"] | None = None,
    ) -> Float[Tensor, "batch channels h w"]:
        """The latents of the known pixels with a grey hole, whatever a first fill says."""
        del filled
        return self.encode(torch.where(hole, GREY, image))

    def predict(
        self,
        latents: Float[Tensor, "batch channels h w"],
        time: Float[Tensor, " batch"],
        cells: Float[Tensor, "batch 1 h w"],
        known: Float[Tensor, "batch channels h w"],
        condition: Float[Tensor, "batch tokens condition_width"],
    ) -> Float[Tensor, "batch channels h w"]:
        """As everywhere, at whole times: the noise levels are a table."""
        return super().predict(latents, time.floor(), cells, known, condition)

    def decode_known(
        self,
        latents: Float[Tensor, "batch channels h w"],
        image: Float[Tensor, "batch 3 height width"],
        hole: Bool[Tensor, "batch 1 height width"],
        filled: Float[Tensor, "batch 3 height width"] | None = None,
    ) -> Float[Tensor, "batch 3 height width"]:
        """Pictures that continue the known pixels; the decoder blanks the hole itself."""
        del filled
        known = image * 2 - 1
        decoded = cast("Any", self.vae.decode(self.unscaled(latents), image=known, mask=hole.to(known))).sample
        return (decoded.to(latents) / 2 + 0.5).clamp(0, 1)


def load_full(backbone: Path, mae: Path, decoder: Path, *, pixels: int, depth: int = PAPER_DEPTH) -> FullModel:
    """The model that training at full size starts from; nothing is downloaded.

    Args:
        backbone: a diffusers folder of a Stable Diffusion inpainting model.
        mae: facebook's `mae_visualize_vit_base.pth`, a hub copy's `model.safetensors`, or `mae_300.pth`.
        decoder: a diffusers folder of Zhu et al.'s asymmetric autoencoder, or of the backbone's own.
        pixels: side of the pictures it is trained on.
        depth: blocks of the alignment.

    Raises:
        WeightsError: when a part is missing or does not fit.
    """
    pipeline = read_backbone(backbone)
    # Zhu et al. froze the encoder; ours is the backbone's to the last bit whatever the folder says.
    vae = load_autoencoder(decoder)
    _take_encoder(vae, cast("nn.Module", pipeline.vae), decoder)
    torch.manual_seed(MODEL_SEED)
    return FullModel(pipeline, load_mae(mae), vae, pixels=pixels, depth=depth)


def read_backbone(folder: Path) -> AsukaInpaintPipeline:
    """The backbone's parts in full precision, on the CPU.

    Raises:
        WeightsError: when the folder is not there or not whole.
    """
    quiet_libraries()
    if not (folder / "model_index.json").is_file():
        raise WeightsError(f"{folder} has no model_index.json; give a diffusers folder of an inpainting model.")
    half = any((folder / "unet").glob("*.fp16.safetensors"))
    return AsukaInpaintPipeline.from_pretrained(
        folder,
        dtype=torch.float32,
        variant="fp16" if half else None,
        use_safetensors=True,
        local_files_only=True,
        safety_checker=None,
        feature_extractor=None,
    )


@torch.no_grad()
def empty_prompt_of(backbone: AsukaInpaintPipeline) -> Float[Tensor, "1 tokens width"]:
    """What the backbone's text encoder makes of the prompt "".

    Raises:
        WeightsError: when it has none.
    """
    if backbone.text_encoder is None:
        raise WeightsError("The backbone has no text encoder, whose empty prompt is needed; give the whole folder.")
    embeds, _ = backbone.encode_prompt("", torch.device("cpu"), 1, False)  # noqa: FBT003 - diffusers' signature
    return embeds.float()


def export_full(model: FullModel, backbone: Path, out: Path, *, half: bool = True) -> None:
    """Write the folder that `asuka-sd15` loads: $ASUKA_WEIGHTS/asuka-sd15.

    Args:
        model: with all its trained weights.
        backbone: where its scheduler comes from.
        out: the folder.
        half: store half precision (about 2.4 GB instead of 4.8).
    """
    scheduler = read_backbone(backbone).scheduler
    vae: Any = model.vae
    pipeline: Any = AsukaInpaintPipeline(
        vae=vae, unet=model.unet, scheduler=scheduler, prior=model.mae, alignment=model.alignment
    )
    if half:
        pipeline.to(torch.float16, silence_dtype_warnings=True)
    pipeline.save_pretrained(out, variant="fp16" if half else None)


def _take_encoder(vae: nn.Module, backbone: nn.Module, decoder: Path) -> None:
    """The backbone's own encoder, whatever the decoder's folder has: latents of another would mean nothing to the UNet.

    Raises:
        WeightsError: when the decoder was made for an encoder of other sizes.
    """
    own = {name: value for name, value in backbone.state_dict().items() if name.startswith(("encoder.", "quant_conv."))}
    state = vae.state_dict()
    odd = sorted(name for name, value in own.items() if name not in state or state[name].shape != value.shape)
    if odd:
        raise WeightsError(
            f"{decoder} is made for another encoder than the backbone's ({', '.join(odd[:3])}); give one made for it."
        )
    vae.load_state_dict({**state, **own})
