"""Training of contextual-attention-mini: absolute error of both stages, perceptual, and a hinge critic.

Yu et al. (2018) weigh the absolute error down towards the middle of a hole and use two Wasserstein critics, one of the
whole and one of the hole; their later work (2019) needs one hinge critic of patches, and ours is of that kind.
"""

from collections.abc import Mapping

from asuka_infer.baselines.contextual_attention_mini import KEY, ContextualAttention
from training.presets import Bench, Growth, Preset
from training.rivals.one_pass import CPU_PACE, GPU_PACE, TINY_PACE, HingeObjective, RivalRecipe, RivalStage

PRESETS: Mapping[Preset, RivalRecipe] = {
    "gpu": RivalRecipe(GPU_PACE, early=0.5, adversarial=0.02),
    "cpu": RivalRecipe(CPU_PACE, sides=Growth(128, 256, since=0.7), early=0.5, adversarial=0.02),
    "tiny": RivalRecipe(TINY_PACE, sides=Growth(32), early=0.5, adversarial=0.02, sharpen_from=0.0),
}

TINY_WIDTH = 16


def build(preset: Preset) -> ContextualAttention:
    """The network with random weights."""
    return ContextualAttention(TINY_WIDTH) if preset == "tiny" else ContextualAttention()


def stage(preset: Preset, bench: Bench) -> RivalStage[ContextualAttention]:
    """How it is trained."""
    return RivalStage(KEY, PRESETS[preset], bench, HingeObjective)
