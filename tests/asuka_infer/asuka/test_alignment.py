"""The alignments against straightforward re-implementations in float64, and against the release's sizes."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor
from torch.nn import functional

from asuka_infer.asuka.alignment import Alignment, AlignmentKindError, FluxAlignment, from_null

OFFICIAL = Path(__file__).parents[2] / "golden" / "official_state_dicts"


def attention_by_hand(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    wide = q.shape[-1] // heads
    parts = []
    for head in range(heads):
        p = slice(head * wide, (head + 1) * wide)
        weights = (q[..., p] @ k[..., p].transpose(1, 2) / math.sqrt(wide)).softmax(-1)
        parts.append(weights @ v[..., p])
    return torch.cat(parts, -1)


def rms(x: Tensor, scale: Tensor) -> Tensor:
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6) * scale


def flux_block_by_hand(block: Any, x: Tensor) -> Tensor:
    """The release's single-stream block without modulation: one head at a time."""
    width, wide = x.shape[-1], 64
    centred = x - x.mean(-1, keepdim=True)
    y = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
    joined = y @ block.linear1.weight.T + block.linear1.bias
    q, k, v, m = (
        joined[..., :width],
        joined[..., width : 2 * width],
        joined[..., 2 * width : 3 * width],
        joined[..., 3 * width :],
    )
    parts = []
    for head in range(width // wide):
        p = slice(head * wide, (head + 1) * wide)
        a, b = rms(q[..., p], block.query_norm.weight), rms(k[..., p], block.key_norm.weight)
        parts.append((a @ b.transpose(1, 2) / math.sqrt(wide)).softmax(-1) @ v[..., p])
    tanh_gelu = 0.5 * m * (1 + torch.tanh(math.sqrt(2 / math.pi) * (m + 0.044715 * m**3)))
    return x + torch.cat([*parts, tanh_gelu], -1) @ block.linear2.weight.T + block.linear2.bias


def test_the_flux_alignment_equals_the_release_written_out_in_float64() -> None:
    alignment: Any = FluxAlignment(prior_width=40, condition_width=128).double()
    for block in alignment.blocks:
        torch.nn.init.normal_(block.query_norm.weight)
        torch.nn.init.normal_(block.key_norm.weight)
    prior = torch.randn(2, 7, 40, dtype=torch.float64)
    expected = prior @ alignment.proj.weight.T + alignment.proj.bias
    for block in alignment.blocks:
        expected = flux_block_by_hand(block, expected)
    expected = functional.layer_norm(expected, (128,), alignment.norm.weight, alignment.norm.bias)
    assert torch.allclose(alignment(prior), expected, atol=1e-12)


@pytest.mark.parametrize(("branch", "width"), [("clip", 768), ("t5", 4096)])
def test_the_flux_alignments_have_the_releases_parameters_less_the_unused_ones(branch: str, width: int) -> None:
    shapes = json.loads((OFFICIAL / f"asuka_alignment_{branch}.json").read_text())
    used = sum(math.prod(shape) for key, shape in shapes.items() if "modulation" not in key)
    with torch.device("meta"):
        alignment = FluxAlignment(condition_width=width)
    assert sum(parameter.numel() for parameter in alignment.parameters()) == used


def test_the_alignment_for_sd_is_a_linear_map_four_vit_blocks_and_a_norm() -> None:
    alignment: Any = Alignment(prior_width=24, condition_width=64, heads=2).double()
    x = torch.randn(2, 9, 24, dtype=torch.float64)
    expected = x @ alignment.proj.weight.T + alignment.proj.bias
    for block in alignment.blocks:
        y = functional.layer_norm(expected, (64,), block.norm1.weight, block.norm1.bias, 1e-6)
        q, k, v = (y @ block.attn.qkv.weight.T + block.attn.qkv.bias).chunk(3, -1)
        expected = expected + functional.linear(
            attention_by_hand(q, k, v, 2), block.attn.proj.weight, block.attn.proj.bias
        )
        y = functional.layer_norm(expected, (64,), block.norm2.weight, block.norm2.bias, 1e-6)
        y = functional.linear(y, block.mlp.fc1.weight, block.mlp.fc1.bias)
        y = 0.5 * y * (1 + torch.erf(y / math.sqrt(2)))
        expected = expected + functional.linear(y, block.mlp.fc2.weight, block.mlp.fc2.bias)
    expected = functional.layer_norm(expected, (64,), alignment.norm.weight, alignment.norm.bias, 1e-5)
    assert len(alignment.blocks) == 4
    assert torch.allclose(alignment(x), expected, atol=1e-12)


def test_cross_attention_asks_learned_queries_about_the_prior() -> None:
    alignment: Any = Alignment(prior_width=24, condition_width=64, kind="cross", depth=1, heads=2, tokens=5).double()
    x = torch.randn(2, 9, 24, dtype=torch.float64)
    known = x @ alignment.proj.weight.T + alignment.proj.bias
    block = alignment.blocks[0]
    asked = alignment.queries.expand(2, -1, -1)
    q = functional.layer_norm(asked, (64,), block.norm_queries.weight, block.norm_queries.bias)
    kv = functional.layer_norm(known, (64,), block.norm_known.weight, block.norm_known.bias)
    wq, wk, wv = block.attention.in_proj_weight.chunk(3)
    seen = attention_by_hand(q @ wq.T, kv @ wk.T, kv @ wv.T, 2)  # fresh attention biases are zero
    asked = asked + functional.linear(seen, block.attention.out_proj.weight, block.attention.out_proj.bias)
    y = functional.layer_norm(asked, (64,), block.norm_mlp.weight, block.norm_mlp.bias)
    y = functional.gelu(functional.linear(y, block.mlp.fc1.weight, block.mlp.fc1.bias))
    asked = asked + functional.linear(y, block.mlp.fc2.weight, block.mlp.fc2.bias)
    expected = functional.layer_norm(asked, (64,), alignment.norm.weight, alignment.norm.bias)
    assert torch.allclose(alignment(x), expected, atol=1e-12)


def test_the_default_for_sd_has_the_size_of_four_vit_base_blocks() -> None:
    """Linear 512 -> 768, four blocks of ViT-B (12 * 768**2 weights and 13 * 768 others each), a last norm."""
    with torch.device("meta"):
        alignment: Any = Alignment()
    assert sum(p.numel() for p in alignment.parameters()) == 513 * 768 + 4 * (12 * 768**2 + 13 * 768) + 2 * 768
    assert alignment.blocks[0].attn.num_heads == 12


@pytest.mark.parametrize(("kind", "blocks"), [("linear", 0), ("attn", 1), ("cross", 4), ("self", 4)])
def test_the_papers_ablation_is_a_setting_and_keeps_256_tokens(kind: Any, blocks: int) -> None:
    alignment: Any = Alignment(prior_width=16, condition_width=32, kind=kind)
    assert len(alignment.blocks) == blocks
    assert alignment(torch.randn(2, 256, 16)).shape == (2, 256, 32)


def test_the_linear_alignment_is_nothing_but_a_linear_map() -> None:
    alignment: Any = Alignment(prior_width=16, condition_width=32, kind="linear").double()
    a, b = torch.randn(2, 1, 4, 16, dtype=torch.float64)
    assert torch.allclose(alignment(a) + alignment(b) - alignment(torch.zeros_like(a)), alignment(a + b), atol=1e-12)


def test_an_unknown_kind_is_refused_by_name() -> None:
    unknown: Any = "conv"
    with pytest.raises((AlignmentKindError, TypeCheckError), match="conv"):
        Alignment(kind=unknown)


def test_half_way_from_the_empty_prompt_is_the_mean_of_both() -> None:
    condition, null = torch.randn(2, 2, 5, 8)
    assert torch.allclose(from_null(condition, null[:1]), (condition + null[:1]) / 2, atol=1e-6)
    assert torch.allclose(from_null(condition, null[:1], 1.0), condition, atol=1e-6)
    assert torch.allclose(from_null(condition, null[:1], 0.0), null[:1].expand_as(condition), atol=1e-6)
