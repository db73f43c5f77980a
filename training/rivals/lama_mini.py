"""Training of lama-mini: absolute, perceptual, and a non-saturating adversary with R1, as in Suvorov et al. (2022).

LaMa's perceptual network is a dilated segmentation ResNet and it matches the critic's features too; ours is SqueezeNet,
the one network that is here, and no features are matched.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from asuka_infer.baselines.lama_mini import KEY, Lama
from asuka_infer.baselines.one_pass import OnePass
from training.losses import PatchCritic
from training.presets import Bench, Growth, Preset
from training.rivals.one_pass import CPU_PACE, GPU_PACE, TINY_PACE, RivalObjective, RivalRecipe, RivalStage

R1_EVERY = 16
"""The gradient penalty costs as much as the rest, so it is taken now and then, as often times as heavy."""

R1_WEIGHT = 0.001
"""LaMa's."""

PRESETS: Mapping[Preset, RivalRecipe] = {
    "gpu": RivalRecipe(GPU_PACE, adversarial=0.02),
    "cpu": RivalRecipe(CPU_PACE, sides=Growth(128, 256, since=0.7), adversarial=0.02),
    "tiny": RivalRecipe(TINY_PACE, sides=Growth(32), adversarial=0.02, sharpen_from=0.0),
}

TINY_WIDTH = 16


class LamaObjective(RivalObjective):
    """The shared losses with LaMa's adversary, which judges patches of the hole alone."""

    def __init__(self, model: OnePass, bench: Bench, recipe: RivalRecipe) -> None:
        super().__init__(model, bench, recipe)
        self.critic = PatchCritic()

    def opinion(
        self,
        real: Float[Tensor, "batch 3 size size"],
        made: Float[Tensor, "batch 3 size size"],
        holes: Bool[Tensor, "batch 1 size size"],
        step: int,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Patches of the composite that hold some of the hole are made ones, all others are real (LaMa sec. 2.3.2)."""
        as_it_is = {name: value.detach() for name, value in self.critic.named_parameters()}
        towards_real = functional.softplus(-functional_call(self.critic, as_it_is, (made,)))
        touched = functional.adaptive_max_pool2d(holes.float(), list(towards_real.shape[-2:]))
        fooled = (towards_real * touched).sum() / touched.sum()
        of_made = self.critic(made.detach())
        lies = touched * functional.softplus(of_made) + (1 - touched) * functional.softplus(-of_made)
        critic = functional.softplus(-self.critic(real)).mean() + lies.mean()
        if step % R1_EVERY == 0:
            critic = critic + R1_EVERY * R1_WEIGHT * self._steepness(real)
        return fooled, critic

    def _steepness(self, real: Float[Tensor, "batch 3 size size"]) -> Float[Tensor, ""]:
        """R1: the squared gradient of the scores of real pictures by their pixels (Mescheder et al., 2018)."""
        real = real.detach().requires_grad_()
        (slope,) = torch.autograd.grad(self.critic(real).sum(), real, create_graph=True)
        return slope.square().flatten(1).sum(1).mean()


def build(preset: Preset) -> Lama:
    """The network with random weights."""
    return Lama(TINY_WIDTH, blocks=1) if preset == "tiny" else Lama()


def stage(preset: Preset, bench: Bench) -> RivalStage[Lama]:
    """How it is trained."""
    return RivalStage(KEY, PRESETS[preset], bench, LamaObjective)
