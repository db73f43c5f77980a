"""The autoencoder of the latent-diffusion code base, written out over a state dict in its own names: a test's truth."""

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

State = Mapping[str, Tensor]


def conv(state: State, name: str, x: Tensor, stride: int = 1, padding: int | None = None) -> Tensor:
    weight = state[f"{name}.weight"]
    padding = weight.shape[-1] // 2 if padding is None else padding
    return functional.conv2d(x, weight, state[f"{name}.bias"], stride=stride, padding=padding)


def norm(state: State, name: str, x: Tensor) -> Tensor:
    return functional.group_norm(x, 32, state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-6)


def swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def residual(state: State, name: str, x: Tensor) -> Tensor:
    y = conv(state, f"{name}.conv1", swish(norm(state, f"{name}.norm1", x)))
    y = conv(state, f"{name}.conv2", swish(norm(state, f"{name}.norm2", y)))
    return y + (conv(state, f"{name}.nin_shortcut", x) if f"{name}.nin_shortcut.weight" in state else x)


def attention(state: State, name: str, x: Tensor) -> Tensor:
    y = norm(state, f"{name}.norm", x)
    q, k, v = (conv(state, f"{name}.{part}", y).flatten(2) for part in "qkv")
    weights = (q.transpose(1, 2) @ k / q.shape[1] ** 0.5).softmax(-1)
    return x + conv(state, f"{name}.proj_out", (v @ weights.transpose(1, 2)).view_as(x))


def middle(state: State, name: str, x: Tensor) -> Tensor:
    x = residual(state, f"{name}.block_1", x)
    return residual(state, f"{name}.block_2", attention(state, f"{name}.attn_1", x))


def encode(state: State, x: Tensor, blocks: int) -> Tensor:
    """Moments of a picture; each halving pads below and right only."""
    x = conv(state, "encoder.conv_in", x)
    for level in range(4):
        for block in range(blocks):
            x = residual(state, f"encoder.down.{level}.block.{block}", x)
        if level < 3:
            x = conv(state, f"encoder.down.{level}.downsample.conv", functional.pad(x, (0, 1, 0, 1)), 2, 0)
    x = middle(state, "encoder.mid", x)
    return conv(state, "encoder.conv_out", swish(norm(state, "encoder.norm_out", x)))


def condition_features(state: State, image: Tensor, mask: Tensor) -> dict[int, Tensor]:
    """Features by feature height, before their ReLU; two at full size, so the first of them is under 0."""
    x = torch.cat([(1 - mask) * image, mask], 1)
    layers = "decoder.encoder.layers"
    features = {0: conv(state, f"{layers}.0", x)}
    x = conv(state, f"{layers}.1", features[0].relu())
    features[x.shape[2]] = x
    for layer in (2, 3, 4):
        x = conv(state, f"{layers}.{layer}", x.relu(), 2, 1)
        features[x.shape[2]] = x
    return features


def decode(state: State, z: Tensor, image: Tensor, mask: Tensor, blocks: int) -> Tensor:
    """ASUKA's conditional decoder: at every level known features replace what no part of the hole touches."""
    features = condition_features(state, image, mask)
    h = middle(state, "decoder.mid", conv(state, "decoder.conv_in", z))
    for level in (3, 2, 1, 0):
        m = (functional.interpolate(mask, size=h.shape[-2:], mode="area") > 0).to(h)
        h = h * m + features[h.shape[2]] * (1 - m)
        for block in range(blocks + 1):
            h = residual(state, f"decoder.up.{level}.block.{block}", h)
        if level:
            h = conv(state, f"decoder.up.{level}.upsample.conv", functional.interpolate(h, scale_factor=2.0))
    h = h * mask + features[0] * (1 - mask)
    return conv(state, "decoder.conv_out", swish(norm(state, "decoder.norm_out", h)))


class Shapes(dict[str, tuple[int, ...]]):
    """Names and shapes of encoder and conditional decoder at any widths."""

    def __init__(self, widths: tuple[int, int, int, int], z: int, blocks: int) -> None:
        super().__init__()
        self._encoder(widths, z, blocks)
        self._decoder(widths, z, blocks)
        for number, (into, out) in enumerate(pairwise([4, *widths, widths[3]])):
            self._layer(f"decoder.encoder.layers.{number}", out, into, 3 if number < 2 else 4)

    def _encoder(self, widths: tuple[int, int, int, int], z: int, blocks: int) -> None:
        self._layer("encoder.conv_in", widths[0], 3, 3)
        into = widths[0]
        for level, width in enumerate(widths):
            for number in range(blocks):
                self._block(f"encoder.down.{level}.block.{number}", into, width)
                into = width
            if level < 3:
                self._layer(f"encoder.down.{level}.downsample.conv", width, width, 3)
        self._middle("encoder", into)
        self._scale("encoder.norm_out", into)
        self._layer("encoder.conv_out", 2 * z, into, 3)

    def _decoder(self, widths: tuple[int, int, int, int], z: int, blocks: int) -> None:
        into = widths[3]
        self._layer("decoder.conv_in", into, z, 3)
        self._middle("decoder", into)
        for level in (3, 2, 1, 0):
            for number in range(blocks + 1):
                self._block(f"decoder.up.{level}.block.{number}", into, widths[level])
                into = widths[level]
            if level:
                self._layer(f"decoder.up.{level}.upsample.conv", into, into, 3)
        self._scale("decoder.norm_out", into)
        self._layer("decoder.conv_out", 3, into, 3)

    def _layer(self, name: str, out: int, into: int, side: int) -> None:
        self[f"{name}.weight"], self[f"{name}.bias"] = (out, into, side, side), (out,)

    def _scale(self, name: str, width: int) -> None:
        self[f"{name}.weight"] = self[f"{name}.bias"] = (width,)

    def _block(self, name: str, into: int, out: int) -> None:
        self._scale(f"{name}.norm1", into)
        self._layer(f"{name}.conv1", out, into, 3)
        self._scale(f"{name}.norm2", out)
        self._layer(f"{name}.conv2", out, out, 3)
        if into != out:
            self._layer(f"{name}.nin_shortcut", out, into, 1)

    def _middle(self, name: str, width: int) -> None:
        self._block(f"{name}.mid.block_1", width, width)
        self._block(f"{name}.mid.block_2", width, width)
        self._scale(f"{name}.mid.attn_1.norm", width)
        for part in ("q", "k", "v", "proj_out"):
            self._layer(f"{name}.mid.attn_1.{part}", width, width, 1)


def random_state(shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Weights of a size that keeps every layer's output near one."""
    state: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        spread = 0.3 if len(shape) < 2 else (shape[1] * shape[-1] ** 2) ** -0.5 if len(shape) == 4 else 0.1
        state[name] = torch.randn(tuple(shape), dtype=dtype) * spread + (1 if "norm" in name and len(shape) < 2 else 0)
    return state
