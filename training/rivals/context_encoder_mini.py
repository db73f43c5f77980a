"""Training of context-encoder-mini: reconstruction and an adversary, as in Pathak et al. (2016), and a perceptual loss.

The paper weighs squared error 0.999 against 0.001 for the adversary. Ours leans on what all small models here are
trained with (absolute and perceptual distance); the squared error and a critic stay beside it.
"""

from collections.abc import Mapping
from dataclasses import replace

from jaxtyping import Bool, Float
from torch import Tensor

from asuka_infer.baselines.context_encoder_mini import KEY, ContextEncoder
from asuka_infer.baselines.one_pass import OnePass
from asuka_infer.metrics.features import SqueezeNet
from training.losses import Adversary
from training.presets import Bench, Growth, Preset
from training.rivals.one_pass import CPU_PACE, GPU_PACE, TINY_PACE, RivalObjective, RivalRecipe, RivalStage

PRESETS: Mapping[Preset, RivalRecipe] = {
    "gpu": RivalRecipe(GPU_PACE, squared=1.0, adversarial=0.02),
    "cpu": RivalRecipe(replace(CPU_PACE, batch=2), squared=1.0, adversarial=0.02),
    "tiny": RivalRecipe(TINY_PACE, sides=Growth(32), squared=1.0, adversarial=0.02, sharpen_from=0.0),
}

TINY_WIDTHS = (8, 8, 8)


class ContextObjective(RivalObjective):
    """The shared losses with a hinge critic."""

    def __init__(self, model: OnePass, perceptual: SqueezeNet | None, recipe: RivalRecipe) -> None:
        super().__init__(model, perceptual, recipe)
        self.adversary = Adversary()

    def opinion(
        self,
        real: Float[Tensor, "batch 3 size size"],
        made: Float[Tensor, "batch 3 size size"],
        holes: Bool[Tensor, "batch 1 size size"],
        step: int,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Of a critic that sees whole composites."""
        del holes, step
        return self.adversary(real, made)


def build(preset: Preset) -> ContextEncoder:
    """The network with random weights."""
    return ContextEncoder(TINY_WIDTHS) if preset == "tiny" else ContextEncoder()


def stage(preset: Preset, bench: Bench) -> RivalStage[ContextEncoder]:
    """How it is trained."""
    return RivalStage(KEY, PRESETS[preset], bench, ContextObjective)
