"""Every rival that can be trained, by the key it has in the catalog."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from asuka_infer.baselines.one_pass import OnePass
from training.presets import Bench, Preset
from training.rivals import context_encoder_mini, contextual_attention_mini, dfnet_mini, lama_mini
from training.rivals.one_pass import RivalStage


@dataclass(frozen=True)
class Rival:
    """How to build a rival with random weights, and how it is trained."""

    build: Callable[[Preset], OnePass]
    stage: Callable[[Preset, Bench], RivalStage[Any]]


RIVALS: Mapping[str, Rival] = MappingProxyType(
    {
        "context-encoder-mini": Rival(context_encoder_mini.build, context_encoder_mini.stage),
        "lama-mini": Rival(lama_mini.build, lama_mini.stage),
        "contextual-attention-mini": Rival(contextual_attention_mini.build, contextual_attention_mini.stage),
        "dfnet-mini": Rival(dfnet_mini.build, dfnet_mini.stage),
    }
)
"""In the order in which they are trained."""
