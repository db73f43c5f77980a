"""Learned tokens (the paper's SD-prompt, section 5): read, checked, written."""

from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from asuka_infer.asuka.embedded_files import LEARNED_FOR, TENSOR
from asuka_infer.weights import WeightsError, read_state


def read_prompt(path: Path, *, width: int) -> Float[Tensor, "1 tokens width"]:
    """The learned tokens of a weight file with one tensor, (tokens, width) or (1, tokens, width).

    Raises:
        WeightsError: when the file holds another number of tensors or another shape.
    """
    state = read_state(path)
    if len(state) != 1:
        raise WeightsError(f"{path} holds {len(state)} tensors, but one is needed: the learned tokens.")
    tokens = next(iter(state.values()))
    tokens = tokens[None] if tokens.ndim == 2 else tokens  # noqa: PLR2004 - (tokens, width)
    if tokens.ndim != 3 or len(tokens) != 1 or tokens.shape[2] != width:  # noqa: PLR2004 - (1, tokens, width)
        raise WeightsError(f"{path} holds a tensor {tuple(tokens.shape)}; (1, tokens, {width}) fits this backbone.")
    return tokens


def save_prompt(tokens: Float[Tensor, "1 tokens width"], path: Path, *, learned_for: str = "") -> None:
    """Write tokens in half precision, (tokens, width), with the UNet they were learned for.

    Raises:
        WeightsError: when a value is not finite in half precision.
    """
    half = tokens.detach().cpu()[0].half().contiguous()
    if not torch.isfinite(half).all():
        raise WeightsError("A learned token is too large for half precision or not a number; train more slowly.")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({TENSOR: half}, path, metadata={"format": "pt", LEARNED_FOR: learned_for})
