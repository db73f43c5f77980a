"""What ASUKA costs over its backbone at full Stable Diffusion 1.5 size, in operations: no machine, no noise."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from asuka_infer.asuka.alignment import Alignment
from asuka_infer.asuka.decoder import ConditionalAutoencoderKL
from asuka_infer.asuka.mae import MaskedAutoencoder, Sight

STEPS = 20


def operations(call: Callable[[], object]) -> float:
    """Multiply-adds counted twice, of a forward pass that takes no memory."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return float(counter.get_total_flops())


@pytest.fixture(scope="module")
def cost() -> dict[str, float]:
    """Operations of every part for one picture of 512 px."""
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel(sample_size=64, in_channels=9, out_channels=4, cross_attention_dim=768)
        stock: Any = AutoencoderKL
        plain = stock(
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512), layers_per_block=2,
        )  # fmt: skip
        conditional: Any = ConditionalAutoencoderKL()
        mae: Any = MaskedAutoencoder()
        latents, image, mask = torch.zeros(1, 4, 64, 64), torch.zeros(1, 3, 512, 512), torch.zeros(1, 1, 512, 512)
        seen = Sight(
            torch.zeros(1, 3, 256, 256),
            torch.zeros(1, 1, 256, 256, dtype=torch.bool),
            torch.zeros(1, 256, dtype=torch.bool),
        )

        def ask(tokens: int) -> float:
            condition = torch.zeros(1, tokens, 768)
            noisy = torch.zeros(1, 9, 64, 64)
            return operations(lambda: unet(noisy, torch.zeros(1), encoder_hidden_states=condition))

        return {
            "step": ask(77),
            "step with 256 tokens": ask(256),
            "encode": operations(lambda: plain.encode(image)),
            "decode": operations(lambda: plain.decode(latents)),
            "decode conditionally": operations(lambda: conditional.decode(latents, image=image, mask=mask)),
            # Every token visible: the dearest case.
            "prior": operations(lambda: mae._run(mae.embed_for_decoder(seen, visible=256), first=0, last=6)),
            "align": operations(lambda: Alignment()(torch.zeros(1, 256, 512))),
        }


def asuka(cost: dict[str, float]) -> float:
    once = cost["encode"] + cost["prior"] + cost["align"] + cost["decode conditionally"]
    return once + STEPS * cost["step with 256 tokens"]


def test_asuka_costs_at_most_six_percent_more_than_its_backbone_without_guidance(cost: dict[str, float]) -> None:
    backbone = cost["encode"] + STEPS * cost["step"] + cost["decode"]
    assert asuka(cost) <= 1.06 * backbone


def test_asuka_costs_at_most_six_tenths_of_its_backbone_with_guidance(cost: dict[str, float]) -> None:
    guided = cost["encode"] + 2 * STEPS * cost["step"] + cost["decode"]
    assert asuka(cost) <= 0.6 * guided


def test_the_parts_have_the_published_sizes(cost: dict[str, float]) -> None:
    """SD 1.5's UNet: about 0.8 T operations at 64x64 latents; ViT-B at 256 tokens with six decoder layers: 57 G."""
    assert cost["step"] == pytest.approx(0.80e12, rel=0.02)
    assert cost["prior"] == pytest.approx(57e9, rel=0.02)
