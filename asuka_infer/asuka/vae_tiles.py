"""Autoencoders tile by tile, for small GPUs: overlapping tiles one after the other, blended where they overlap.

Group norms and attention of the autoencoder then see a tile instead of the picture, so tones may differ a little from
tile to tile; the blend spreads what differs. Pictures of one tile's size are untouched by it.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

TILE_CELLS = 64
"""Side of a tile in latent cells: the 512 pixels that Stable Diffusion's autoencoder was trained at."""

OVERLAP_CELLS = 16
"""Of neighbouring tiles: a quarter, as in diffusers."""


def in_tiles(
    call: Callable[..., Tensor],
    parts: Sequence[tuple[Tensor, int]],
    *,
    size: tuple[int, int],
    scale: int,
    side: int = TILE_CELLS,
    overlap: int = OVERLAP_CELLS,
) -> Tensor:
    """What `call` makes of the whole, made of its tiles.

    Args:
        call: takes the same tile of every part, gives (batch, channels, height, width) of it.
        parts: (batch, any channels, height, width) tensors, each with its pixels per cell and side.
        size: (height, width) of the whole in cells.
        scale: pixels per cell and side of what `call` gives.
        side: of a tile, in cells.
        overlap: of neighbouring tiles, in cells.
    """
    tiles = [
        (top * scale, left * scale, call(*(_cut(part, top, left, side, per_cell) for part, per_cell in parts)))
        for top in _starts(size[0], side, overlap)
        for left in _starts(size[1], side, overlap)
    ]
    first = tiles[0][2]
    total = first.new_zeros((*first.shape[:2], size[0] * scale, size[1] * scale), dtype=torch.float32)
    weights = total.new_zeros(total.shape[2:])
    for top, left, tile in tiles:
        height, width = tile.shape[2:]
        weight = _weight(height, overlap * scale, total)[:, None] * _weight(width, overlap * scale, total)
        total[:, :, top : top + height, left : left + width] += tile.float() * weight
        weights[top : top + height, left : left + width] += weight
    return (total / weights).to(first.dtype)


def _starts(length: int, side: int, overlap: int) -> list[int]:
    """Evenly spread first cells of the tiles along one axis."""
    count = 1 + max(0, math.ceil((length - side) / (side - overlap)))
    return [round(number * (length - side) / (count - 1)) for number in range(count)] if count > 1 else [0]


def _cut(part: Tensor, top: int, left: int, side: int, per_cell: int) -> Tensor:
    rows, columns = (slice(start * per_cell, (start + side) * per_cell) for start in (top, left))
    return part[:, :, rows, columns]


def _weight(length: int, overlap: int, like: Tensor) -> Tensor:
    """Rising from the tile's ends over the overlap, never 0, so that the sum of all weights is never 0."""
    steps = torch.arange(1, length + 1, device=like.device, dtype=torch.float32)
    return torch.minimum(steps, steps.flip(0)).clamp(max=overlap + 1) / (overlap + 1)
