"""Training of context-encoder-mini: squared error and an adversary, weighed as in Pathak et al. (2016).

The absolute error beside them keeps colours from drifting towards grey; the critic is the hinge PatchGAN of this
project instead of the paper's, which scores a whole picture at once.
"""

from collections.abc import Mapping
from dataclasses import replace

from asuka_infer.baselines.context_encoder_mini import KEY, ContextEncoder
from training.presets import Bench, Growth, Preset
from training.rivals.one_pass import CPU_PACE, GPU_PACE, TINY_PACE, HingeObjective, RivalRecipe, RivalStage

PAPER = RivalRecipe(CPU_PACE, hole=0.5, squared=0.999, perceptual=0.0, grid=0.0, adversarial=0.001, sharpen_from=0.0)

PRESETS: Mapping[Preset, RivalRecipe] = {
    "gpu": replace(PAPER, pace=GPU_PACE),
    "cpu": PAPER,
    "tiny": replace(PAPER, pace=TINY_PACE, sides=Growth(32)),
}

TINY_WIDTHS = (8, 8, 8)


def build(preset: Preset) -> ContextEncoder:
    """The network with random weights."""
    return ContextEncoder(TINY_WIDTHS) if preset == "tiny" else ContextEncoder()


def stage(preset: Preset, bench: Bench) -> RivalStage[ContextEncoder]:
    """How it is trained."""
    return RivalStage(KEY, PRESETS[preset], bench, HingeObjective)
