"""Training of dfnet-mini: absolute error at every fused size and a perceptual loss, no critic (Hong et al., 2019).

Their style loss and total variation are left out: the first needs the Gram matrices of a VGG, the second smooths what
minutes of training have made smooth enough.
"""

from collections.abc import Mapping

from asuka_infer.baselines.dfnet_mini import KEY, DeepFusion
from training.presets import Bench, Growth, Preset
from training.rivals.one_pass import CPU_PACE, GPU_PACE, TINY_PACE, RivalObjective, RivalRecipe, RivalStage

PRESETS: Mapping[Preset, RivalRecipe] = {
    "gpu": RivalRecipe(GPU_PACE, early=0.5),
    "cpu": RivalRecipe(CPU_PACE, sides=Growth(128, 256, since=0.7), early=0.5),
    "tiny": RivalRecipe(TINY_PACE, sides=Growth(32), early=0.5),
}

TINY_WIDTHS = (8, 8, 8, 8)


def build(preset: Preset) -> DeepFusion:
    """The network with random weights."""
    return DeepFusion(TINY_WIDTHS) if preset == "tiny" else DeepFusion()


def stage(preset: Preset, bench: Bench) -> RivalStage[DeepFusion]:
    """How it is trained."""
    return RivalStage(KEY, PRESETS[preset], bench, RivalObjective)
