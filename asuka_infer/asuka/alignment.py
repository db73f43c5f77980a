"""The modules that turn the MAE prior into what a diffusion model takes for a text (paper 000 sec. 3.2)."""

from typing import Literal, get_args

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float
from timm.layers.mlp import Mlp
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional

AlignmentKind = Literal["linear", "attn", "cross", "self"]
"""The paper's ablation (Tab. 2b): a linear map; one self-attention block; learned queries; self-attention."""

PAPER_DEPTH = 4
"""Blocks in the paper's alignment (sec. 5, "four self-attention blocks") and in the FLUX release."""

HEAD_WIDTH = 64
"""Features per attention head, as in SD's text encoder and the FLUX release."""

MLP_RATIO = 4
"""Hidden width of a block's MLP over its width; the FLUX release has it too."""

FLUX_NORM_EPSILON = 1e-6
"""Of the FLUX release's block norms and its query and key norms."""

FLUX_CONDITION_WEIGHT = 0.5
"""How far the FLUX release goes from the empty prompt to the prior (its "condition_weight")."""

QUERY_STD = 0.02
"""Standard deviation of fresh learned queries, as ViT draws its tokens."""


class Alignment(ModelMixin, ConfigMixin):
    """MAE prior to the cross-attention tokens of a Stable Diffusion UNet; the number of tokens is kept.

    The paper does not say what its blocks look like and no weights were released: pre-norm ViT blocks and a last
    LayerNorm are our choice, after the release for FLUX.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        *,
        prior_width: int = 512,
        condition_width: int = 768,
        kind: AlignmentKind = "self",
        depth: int = PAPER_DEPTH,
        heads: int | None = None,
        tokens: int = 256,
    ) -> None:
        """Build it with random weights.

        Args:
            prior_width: features of the prior.
            condition_width: features of the UNet's cross-attention.
            kind: "linear" has no blocks, "attn" exactly one, "cross" and "self" have `depth`.
            depth: blocks of "cross" and "self".
            heads: attention heads; None takes one per 64 features.
            tokens: number of learned queries; "cross" alone has them.

        Raises:
            AlignmentKindError: for an unknown kind.
        """
        super().__init__()
        if kind not in get_args(AlignmentKind):
            raise AlignmentKindError(
                f"There is no alignment {kind!r}; choose one of {', '.join(get_args(AlignmentKind))}."
            )
        heads = heads or max(1, condition_width // HEAD_WIDTH)
        self.proj = nn.Linear(prior_width, condition_width)
        self.queries = nn.Parameter(torch.randn(1, tokens, condition_width) * QUERY_STD) if kind == "cross" else None
        block = CrossBlock if kind == "cross" else _self_block
        count = {"linear": 0, "attn": 1}.get(kind, depth)
        self.blocks = nn.ModuleList(block(condition_width, heads) for _ in range(count))
        self.norm = nn.Identity() if kind == "linear" else nn.LayerNorm(condition_width)

    def forward(
        self, prior: Float[Tensor, "batch tokens prior_width"]
    ) -> Float[Tensor, "batch out_tokens condition_width"]:
        """Conditions for `encoder_hidden_states`, one per token of the prior ("cross": one per learned query)."""
        known = self.proj(prior)
        if self.queries is None:
            for block in self.blocks:
                known = block(known)
            return self.norm(known)
        asked = self.queries.to(known).expand(len(known), -1, -1)
        for block in self.blocks:
            asked = block(asked, known)
        return self.norm(asked)


class CrossBlock(nn.Module):
    """Pre-norm cross-attention from queries to the prior, then an MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_queries = nn.LayerNorm(width)
        self.norm_known = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = Mlp(width, width * MLP_RATIO)

    def forward(
        self, asked: Float[Tensor, "batch queries width"], known: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch queries width"]:
        """The queries, having looked at the prior once more."""
        keys = self.norm_known(known)
        asked = asked + self.attention(self.norm_queries(asked), keys, keys, need_weights=False)[0]
        return asked + self.mlp(self.norm_mlp(asked))


class FluxAlignment(ModelMixin, ConfigMixin):
    """One of FLUX's two alignments: 768 features for the CLIP-pooled branch, 4096 for the T5 branch.

    The release's blocks carry modulation weights that its forward never uses; they are not here.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        *,
        prior_width: int = 512,
        condition_width: int = 4096,
        depth: int = PAPER_DEPTH,
        head_width: int = HEAD_WIDTH,
    ) -> None:
        super().__init__()
        self.proj = nn.Linear(prior_width, condition_width)
        self.blocks = nn.ModuleList(FluxBlock(condition_width, head_width) for _ in range(depth))
        self.norm = nn.LayerNorm(condition_width)

    def forward(
        self, prior: Float[Tensor, "batch tokens prior_width"]
    ) -> Float[Tensor, "batch tokens condition_width"]:
        """Conditions in the place of T5's tokens; their mean over tokens stands in for CLIP's pooled vector."""
        condition = self.proj(prior)
        for block in self.blocks:
            condition = block(condition)
        return self.norm(condition)


class FluxBlock(nn.Module):
    """FLUX's single-stream block without modulation and without rotary positions: attention and MLP side by side."""

    def __init__(self, width: int, head_width: int) -> None:
        super().__init__()
        self.width, self.head_width = width, head_width
        self.linear1 = nn.Linear(width, (3 + MLP_RATIO) * width)
        self.linear2 = nn.Linear((1 + MLP_RATIO) * width, width)
        self.query_norm = nn.RMSNorm(head_width, eps=FLUX_NORM_EPSILON)
        self.key_norm = nn.RMSNorm(head_width, eps=FLUX_NORM_EPSILON)

    def forward(self, tokens: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        """The tokens after one block."""
        seen = functional.layer_norm(tokens, (self.width,), eps=FLUX_NORM_EPSILON)
        attended, hidden = self.linear1(seen).split([3 * self.width, MLP_RATIO * self.width], dim=2)
        query, key, value = attended.unflatten(2, (3, -1, self.head_width)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(self.query_norm(query), self.key_norm(key), value)
        mixed = mixed.transpose(1, 2).flatten(2)
        return tokens + self.linear2(torch.cat([mixed, functional.gelu(hidden, approximate="tanh")], dim=2))


class AlignmentKindError(ValueError):
    """An alignment that does not exist."""


def from_null(
    condition: Float[Tensor, "batch ..."],
    null: Float[Tensor, "one ..."],
    weight: float = FLUX_CONDITION_WEIGHT,
) -> Float[Tensor, "batch ..."]:
    """Go `weight` of the way from the empty prompt's condition to the prior's (0 = empty prompt, 1 = prior)."""
    return null + weight * (condition - null)


def _self_block(width: int, heads: int) -> Block:
    return Block(width, heads, MLP_RATIO, qkv_bias=True)
