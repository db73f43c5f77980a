"""What the paper's recipe costs: FLOPs of every stage counted on tensors without memory, and hours that follow."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from asuka_infer.asuka.alignment import Alignment
from asuka_infer.asuka.decoder import SCALE, ConditionalAutoencoderKL
from asuka_infer.asuka.mae import MaskedAutoencoder
from training.full import RECIPES, FullStage
from training.mae import REMOVED

ZHU_WIDTHS, ZHU_LAYERS = (192, 384, 768, 768), 3
"""Decoder of Zhu et al.'s autoencoder x1.5, the one that `fetch sd15-asymmetric` gets."""

PROMPT_TOKENS, PROMPT_WIDTH = 77, 768
"""Of Stable Diffusion 1.5's text."""

UTILISATION = 0.35
"""Share of a GPU's peak that training such models reaches (assumed, not measured: published figures are .3 to .45)."""


@dataclass(frozen=True)
class Gpu:
    """A GPU to rent: dense bfloat16 peak in FLOP/s, and US dollars an hour (assumed, middle of what is offered)."""

    name: str
    peak: float
    dollars: float


GPUS = (Gpu("RTX 4090 24 GB", 165e12, 0.5), Gpu("A100 80 GB", 312e12, 1.8), Gpu("H100 80 GB", 989e12, 3.0))


@dataclass(frozen=True)
class Cost:
    """Of one stage: FLOPs per sample with everything that is computed for it, samples, and what each part is."""

    per_sample: float
    samples: int
    parts: Mapping[str, float]

    def hours(self, gpu: Gpu, utilisation: float = UTILISATION) -> float:
        """On one GPU."""
        return self.per_sample * self.samples / (gpu.peak * utilisation) / 3600


def count_costs() -> dict[FullStage, Cost]:
    """Every stage's cost at full size; takes seconds and no memory to speak of."""
    with torch.device("meta"):
        unet = cast("nn.Module", UNet2DConditionModel(in_channels=9, cross_attention_dim=PROMPT_WIDTH))
        vae = ConditionalAutoencoderKL(up_block_out_channels=ZHU_WIDTHS, layers_per_up_block=ZHU_LAYERS)
        mae, alignment = MaskedAutoencoder(), Alignment()
        counted: dict[FullStage, dict[str, float]] = {
            "mae": {"auto-encoder, both ways": _flops(lambda: _mae_step(mae))},
            "alignment": {**_diffusion(unet, vae, tokens=256), **_prior(mae, alignment)},
            "decoder": _decoder(unet, vae),
            "prompt": _diffusion(unet, vae, tokens=PROMPT_TOKENS),
        }
    paces = {name: getattr(RECIPES["paper"], name).pace for name in counted}
    return {
        name: Cost(sum(parts.values()), paces[name].steps * paces[name].batch, parts) for name, parts in counted.items()
    }


def cost_table() -> list[str]:
    """The table of docs/full-recipe.md, in Markdown."""
    costs = count_costs()
    heads = " | ".join(f"{gpu.name}: h, $" for gpu in GPUS)
    lines = [f"| stage | GFLOP a sample | samples | EFLOP | {heads} |", "|" + "---|" * (4 + len(GPUS))]
    for name, cost in costs.items():
        spent = " | ".join(f"{cost.hours(gpu):,.0f}, {cost.hours(gpu) * gpu.dollars:,.0f}" for gpu in GPUS)
        exa = cost.per_sample * cost.samples / 1e18
        lines.append(f"| {name} | {cost.per_sample / 1e9:,.0f} | {cost.samples / 1e6:.2f} M | {exa:,.1f} | {spent} |")
    for name, cost in costs.items():
        lines += ["", f"{name}: " + ", ".join(f"{part} {flops / 1e9:,.0f}" for part, flops in cost.parts.items())]
    return lines


def _flops(run: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def _mae_step(mae: MaskedAutoencoder) -> None:
    tokens = mae.grid**2
    pictures, holes = torch.empty(1, 3, 256, 256), torch.empty(1, 1, 256, 256, dtype=torch.bool)
    removed = torch.empty(1, tokens, dtype=torch.bool)
    mae(pictures, holes, removed, visible=tokens - round(REMOVED * tokens)).sum().backward()


def _diffusion(unet: nn.Module, vae: ConditionalAutoencoderKL, *, tokens: int) -> dict[str, float]:
    """The frozen UNet between a loss and its condition, and the two pictures that are encoded."""
    side = RECIPES["paper"].pixels
    unet.requires_grad_(requires_grad=False)
    condition = torch.empty(1, tokens, PROMPT_WIDTH, requires_grad=True)

    def both_ways() -> None:
        _denoise(unet, side, condition).sum().backward()

    return {
        "UNet, both ways": _flops(both_ways),
        "2 x encoder": 2 * _encode(vae, side),
    }


def _prior(mae: MaskedAutoencoder, alignment: Alignment) -> dict[str, float]:
    tokens = mae.grid**2
    pictures, holes = torch.empty(1, 3, 256, 256), torch.empty(1, 1, 256, 256, dtype=torch.bool)

    def see() -> None:
        with torch.no_grad():
            # Every token for visible: more than any hole leaves, so that this is an upper bound.
            mae(pictures, holes, visible=tokens)

    return {
        "MAE": _flops(see),
        "alignment, both ways": _flops(lambda: alignment(torch.empty(1, tokens, 512)).sum().backward()),
    }


def _decoder(unet: nn.Module, vae: ConditionalAutoencoderKL) -> dict[str, float]:
    """The decoder both ways, and what the estimates of its share of the samples cost."""
    recipe = RECIPES["paper"].decoder
    side = recipe.sides.first
    share = (1 - recipe.plain) * recipe.augmented
    vae.requires_grad_(requires_grad=False)
    decoder: Any = vae.decoder
    cells = torch.empty(1, 4, side // SCALE, side // SCALE)
    with torch.no_grad():
        estimate = _flops(lambda: _denoise(unet, side, torch.empty(1, PROMPT_TOKENS, PROMPT_WIDTH)))
        teacher = _flops(lambda: decoder(cells))
        encoder = _encode(vae, side)
    decoder.requires_grad_(True)  # noqa: FBT003 - torch's signature
    image, hole = torch.empty(1, 3, side, side), torch.empty(1, 1, side, side)
    return {
        "decoder, both ways": _flops(lambda: decoder(cells, image, hole).sum().backward()),
        "encoder": encoder,
        f"{share:.0%} estimated": share * (estimate + teacher + encoder),
    }


def _denoise(unet: nn.Module, side: int, condition: Tensor) -> Tensor:
    latents = torch.empty(1, 9, side // SCALE, side // SCALE)
    return unet(latents, torch.empty(1), encoder_hidden_states=condition).sample


def _encode(vae: ConditionalAutoencoderKL, side: int) -> float:
    def run() -> None:
        with torch.no_grad():
            vae.encoder(torch.empty(1, 3, side, side))

    return _flops(run)
