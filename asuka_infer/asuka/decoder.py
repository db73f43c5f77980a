"""Autoencoders whose decoder also sees the known pixels and the hole (paper 000 sec. 3.3).

Two forms behind one interface, `encode(x).latent_dist` and `decode(z, image=, mask=).sample`: diffusers' classes for
Stable Diffusion and FLUX, and a small one made for CPUs. Diffusers calls a hole `mask`: 0/1 floats, 1 = missing.
"""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.autoencoder_asym_kl import AsymmetricAutoencoderKL
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution, MaskConditionDecoder
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from asuka_infer.asuka.vae_tiles import TILE_CELLS, in_tiles

SD_SCALING_FACTOR = 0.18215
"""Latent scale of Stable Diffusion 1.x."""

PIXEL_UNSHUFFLE = 4
"""The small autoencoder folds 4x4 pixels into channels first: measured 3-4x more training steps per second on a CPU."""

SCALE = 8
"""Pixels per latent cell and side, in every autoencoder here."""


class ConditionEncoder(nn.Module):
    """Features of the known pixels at every resolution of a decoder, given before their ReLU.

    A few 3x3 convolutions at full size, then one stride-2 convolution per halving; parameter names are diffusers'.
    """

    def __init__(self, in_channels: int, widths: Sequence[int], *, full_size_layers: int) -> None:
        """Build it: one layer per entry of `widths`, the first `full_size_layers` of them at full size."""
        super().__init__()
        inputs = [in_channels, *widths[:-1]]
        self.layers = nn.Sequential(
            *(
                nn.Conv2d(i, o, 3, padding=1) if level < full_size_layers else nn.Conv2d(i, o, 4, stride=2, padding=1)
                for level, (i, o) in enumerate(zip(inputs, widths, strict=True))
            )
        )

    def forward(self, known: Float[Tensor, "batch channels height width"]) -> list[Tensor]:
        """Features, coarsest first."""
        features: list[Tensor] = []
        for layer in self.layers:
            known = layer(functional.relu(known) if features else known)
            features.append(known)
        return features[::-1]


class ConditionalDecoder(MaskConditionDecoder):
    """Diffusers' mask-conditioned decoder, except that it sees the hole and holds it by area > 0.

    With a nearest-neighbour hole (diffusers', Zhu et al.'s) a stroke of two pixels does not exist at 1/8 size.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        up_block_types: tuple[str, ...],
        block_out_channels: tuple[int, ...],
        layers_per_block: int,
        norm_num_groups: int,
        act_fn: str,
        sees_hole: bool,
    ) -> None:
        super().__init__(
            in_channels, out_channels, up_block_types, block_out_channels, layers_per_block, norm_num_groups, act_fn
        )
        self.sees_hole = sees_hole
        self.condition_encoder = ConditionEncoder(
            out_channels + int(sees_hole),
            # Widths of what the up blocks take in, so that any widths fit and not diffusers' doubling alone.
            [*block_out_channels, block_out_channels[-1]],
            full_size_layers=2,
        )

    def forward(
        self,
        z: Float[Tensor, "batch latent_channels latent_height latent_width"],
        image: Float[Tensor, "batch 3 height width"] | None = None,
        mask: Float[Tensor, "batch 1 height width"] | None = None,
        latent_embeds: Tensor | None = None,
    ) -> Float[Tensor, "batch 3 height width"]:
        """Decode; outside the hole every level is replaced by the known pixels' features."""
        if image is None or mask is None:
            return self._finish(self._plain_levels(z, latent_embeds))
        known = (1 - mask) * image
        features = self.condition_encoder(torch.cat([known, mask], dim=1) if self.sees_hole else known)
        sample = self.mid_block(self.conv_in(z), latent_embeds)
        for up_block, feature in zip(self.up_blocks, features, strict=False):  # the last feature is for the output
            sample = up_block(keep_features(sample, feature, mask), latent_embeds)
        return self._finish(keep_features(sample, features[-1], mask))

    def _plain_levels(self, z: Tensor, latent_embeds: Tensor | None) -> Tensor:
        sample = self.mid_block(self.conv_in(z), latent_embeds)
        for up_block in self.up_blocks:
            sample = up_block(sample, latent_embeds)
        return sample

    def _finish(self, sample: Tensor) -> Tensor:
        return self.conv_out(self.conv_act(self.conv_norm_out(sample)))


class ConditionalAutoencoderKL(AsymmetricAutoencoderKL):
    """The paper's autoencoder for SD and FLUX latents.

    A subclass because `StableDiffusionInpaintPipeline` hands image and mask to `decode` for this class alone.
    `decode` without image and mask gives the plain decoding (everything is hole).
    """

    @register_to_config
    def __init__(
        self,
        *,
        in_channels: int = 3,
        out_channels: int = 3,
        down_block_types: Sequence[str] = ("DownEncoderBlock2D",) * 4,
        down_block_out_channels: Sequence[int] = (128, 256, 512, 512),
        layers_per_down_block: int = 2,
        up_block_types: Sequence[str] = ("UpDecoderBlock2D",) * 4,
        up_block_out_channels: Sequence[int] = (128, 256, 512, 512),
        layers_per_up_block: int = 2,
        act_fn: str = "silu",
        latent_channels: int = 4,
        norm_num_groups: int = 32,
        sample_size: int = 512,
        scaling_factor: float = SD_SCALING_FACTOR,
        shift_factor: float = 0.0,  # noqa: ARG002 - kept in the config, where pipelines look for it
        sees_hole: bool = True,
        use_quant_conv: bool = True,
        block_out_channels: Sequence[int] | None = None,  # noqa: ARG002 - the base writes it into saved configs
        force_upcast: bool = False,  # noqa: ARG002 - same
    ) -> None:
        """Build it with random weights; the defaults are SD 1.x's sizes.

        Args beyond diffusers': `shift_factor` (FLUX), `sees_hole` (the condition encoder takes the hole as a fourth
        channel; False is Zhu et al.'s three), `use_quant_conv` (False for FLUX). `block_out_channels` and
        `force_upcast` are taken and ignored, because the base class writes them into every saved config.
        """
        super().__init__(
            in_channels,
            out_channels,
            tuple(down_block_types),
            tuple(down_block_out_channels),
            layers_per_down_block,
            tuple(up_block_types),
            tuple(up_block_out_channels),
            layers_per_up_block,
            act_fn,
            latent_channels,
            norm_num_groups,
            sample_size,
            scaling_factor,
        )
        self.decoder = ConditionalDecoder(
            in_channels=latent_channels,
            out_channels=out_channels,
            up_block_types=tuple(up_block_types),
            block_out_channels=tuple(up_block_out_channels),
            layers_per_block=layers_per_up_block,
            norm_num_groups=norm_num_groups,
            act_fn=act_fn,
            sees_hole=sees_hole,
        )
        if not use_quant_conv:
            self.quant_conv, self.post_quant_conv = nn.Identity(), nn.Identity()
        self.use_tiling = False  # diffusers' `enable_tiling` asks for it by this name

    @apply_forward_hook
    def encode(
        self,
        x: Float[Tensor, "batch colours height width"],
        return_dict: bool = True,  # noqa: FBT001, FBT002 - diffusers' signature
    ) -> AutoencoderKLOutput | tuple[Any]:
        """As the base class; tile by tile where tiling is on and the picture is larger than a tile."""
        scale = 2 ** (len(self.config["down_block_out_channels"]) - 1)
        size = (x.shape[2] // scale, x.shape[3] // scale)

        def moments(part: Tensor) -> Tensor:
            return self.quant_conv(self.encoder(part))

        tiled = self.use_tiling and max(size) > TILE_CELLS
        found = in_tiles(moments, [(x, scale)], size=size, scale=1) if tiled else moments(x)
        latents = DiagonalGaussianDistribution(found)
        return AutoencoderKLOutput(latent_dist=latents) if return_dict else (latents,)

    def _decode(
        self,
        z: Tensor,
        image: Tensor | None = None,
        mask: Tensor | None = None,
        return_dict: bool = True,  # noqa: FBT001, FBT002 - diffusers' signature
    ) -> DecoderOutput | tuple[Tensor]:
        scale = 2 ** (len(self.config["up_block_out_channels"]) - 1)
        parts = [(self.post_quant_conv(z), 1)]
        if image is not None and mask is not None:
            parts += [(repeat_to(part, len(z)).to(z), scale) for part in (image, mask)]
        size = (z.shape[2], z.shape[3])
        tiled = self.use_tiling and max(size) > TILE_CELLS
        found = in_tiles(self.decoder, parts, size=size, scale=scale) if tiled else self.decoder(*(p for p, _ in parts))
        return DecoderOutput(sample=found) if return_dict else (found,)


class UnshuffleAutoencoder(ModelMixin, ConfigMixin):
    """A small 1/8-size autoencoder for CPUs: pixels folded 4x4, no group norm, ReLU, grid-free full-size output.

    Measured in minutes of CPU training: without group norm it gains 1.7 dB in equal time, and folding first trains
    3-4x faster than diffusers' full-size stem. The output is reached through two foldings of 2 with convolutions
    between them, because one folding of 4 leaves a visible grid.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        *,
        latent_channels: int = 4,
        encoder_widths: Sequence[int] = (96, 160),
        encoder_blocks: Sequence[int] = (1, 2),
        decoder_widths: Sequence[int] = (16, 48, 96, 192),
        decoder_blocks: Sequence[int] = (2, 3),
        decoder_dilations: Sequence[int] = (),
        decoder_heads: int = 0,
        decoder_blends: bool = False,
        conditional: bool = True,
        scaling_factor: float = 1.0,  # noqa: ARG002 - kept in the config, where pipelines look for it
        shift_factor: float = 0.0,  # noqa: ARG002 - same
    ) -> None:
        """Build it with random weights.

        Args:
            latent_channels: of the latents.
            encoder_widths: features at 1/4 and 1/8 size.
            encoder_blocks: residual blocks at 1/4 and 1/8 size.
            decoder_widths: features at full, 1/2, 1/4 and 1/8 size.
            decoder_blocks: residual blocks at 1/4 and 1/8 size.
            decoder_dilations: further blocks at 1/8 size whose convolutions reach this many cells far.
            decoder_heads: attention heads with which the hole looks at the known cells at 1/8 size; 0 = none.
            decoder_blends: under the mask, what is decoded is mixed with what the given image shows there (a first
                fill), in shares that the decoder chooses pixel by pixel. Otherwise that is never read.
            conditional: with a condition encoder; without one, image and mask are refused.
            scaling_factor: latents times this have about unit variance.
            shift_factor: subtracted before the scaling.
        """
        super().__init__()
        self.encoder = UnshuffleEncoder(2 * latent_channels, encoder_widths, encoder_blocks)
        self.quant_conv = nn.Conv2d(2 * latent_channels, 2 * latent_channels, 1)
        self.post_quant_conv = nn.Conv2d(latent_channels, latent_channels, 1)
        self.decoder = UnshuffleDecoder(
            latent_channels,
            decoder_widths,
            decoder_blocks,
            dilations=decoder_dilations,
            heads=decoder_heads,
            blends=decoder_blends,
            conditional=conditional,
        )

    def encode(self, x: Float[Tensor, "batch 3 height width"]) -> AutoencoderKLOutput:
        """The latent distribution of pictures in [-1, 1] whose sides are multiples of 8."""
        return AutoencoderKLOutput(latent_dist=DiagonalGaussianDistribution(self.quant_conv(self.encoder(x))))

    def decode(
        self,
        z: Float[Tensor, "batch latent_channels latent_height latent_width"],
        generator: torch.Generator | None = None,
        image: Float[Tensor, "known 3 height width"] | None = None,
        mask: Float[Tensor, "known 1 height width"] | None = None,
    ) -> DecoderOutput:
        """Pictures in about [-1, 1]; with image ([-1, 1]) and mask (1 = missing), continuing the known pixels.

        Raises:
            NoConditionError: when image and mask are given but the decoder has no condition encoder.
        """
        del generator
        known = None if image is None else repeat_to(image, len(z)).to(z)
        hole = None if mask is None else repeat_to(mask, len(z)).to(z)
        return DecoderOutput(sample=self.decoder(self.post_quant_conv(z), known, hole))

    def forward(
        self, x: Float[Tensor, "batch 3 height width"], mask: Float[Tensor, "batch 1 height width"] | None = None
    ) -> DecoderOutput:
        """Encode to the mean and decode again."""
        z = self.encode(x).latent_dist.mode()
        return self.decode(z) if mask is None else self.decode(z, image=x, mask=mask)


class UnshuffleEncoder(nn.Module):
    """Pictures to moments at 1/8 size."""

    def __init__(self, out_channels: int, widths: Sequence[int], blocks: Sequence[int]) -> None:
        super().__init__()
        fine, coarse = widths
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(PIXEL_UNSHUFFLE),
            nn.Conv2d(3 * PIXEL_UNSHUFFLE**2, fine, 3, padding=1),
            *(ReluBlock(fine) for _ in range(blocks[0])),
            nn.Conv2d(fine, coarse, 3, stride=2, padding=1),
            *(ReluBlock(coarse) for _ in range(blocks[1])),
            nn.Conv2d(coarse, out_channels, 3, padding=1),
        )

    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch moments latent_h latent_w"]:
        """Means and log-variances, side by side."""
        return self.layers(x)


class UnshuffleDecoder(nn.Module):
    """Latents to pictures through 1/8, 1/4, 1/2 and full size; known pixels' features replace it outside the hole."""

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int],
        blocks: Sequence[int],
        *,
        dilations: Sequence[int] = (),
        heads: int = 0,
        blends: bool = False,
        conditional: bool,
    ) -> None:
        super().__init__()
        full, half, quarter, eighth = widths
        self.conv_in = nn.Conv2d(in_channels, eighth, 3, padding=1)
        self.far = nn.Sequential(*(ReluBlock(eighth, dilation) for dilation in dilations))
        self.attention = KnownAttention(eighth, heads) if conditional and heads else None
        self.levels = nn.ModuleList(
            [
                nn.Sequential(*(ReluBlock(eighth) for _ in range(blocks[1])), UnfoldUp(eighth, quarter)),
                nn.Sequential(*(ReluBlock(quarter) for _ in range(blocks[0])), UnfoldUp(quarter, half)),
                nn.Sequential(nn.ReLU(), nn.Conv2d(half, half, 3, padding=1), nn.ReLU(), UnfoldUp(half, full)),
            ]
        )
        self.conv_out = nn.Sequential(
            nn.ReLU(), nn.Conv2d(full, full, 3, padding=1), nn.ReLU(), nn.Conv2d(full, 3, 3, padding=1)
        )
        self.condition_encoder = ConditionEncoder(4, widths, full_size_layers=1) if conditional else None
        self.share = nn.Conv2d(full, 1, 3, padding=1) if conditional and blends else None
        if self.share is not None:
            nn.init.zeros_(self.share.weight)

    def forward(
        self,
        z: Float[Tensor, "batch latent_channels latent_height latent_width"],
        image: Float[Tensor, "batch 3 height width"] | None = None,
        mask: Float[Tensor, "batch 1 height width"] | None = None,
    ) -> Float[Tensor, "batch 3 height width"]:
        """Decode, plainly where image and mask are not given."""
        sample = self.conv_in(z)
        if image is None or mask is None:
            sample = self.far(sample)
            for level in self.levels:
                sample = level(sample)
            return self.conv_out(sample)
        if self.condition_encoder is None:
            raise NoConditionError("This decoder was built without a condition encoder; call decode without an image.")
        features = self.condition_encoder(torch.cat([(1 - mask) * image, mask], dim=1))
        sample = self.far(keep_features(sample, features[0], mask))
        if self.attention is not None:
            sample = sample + self.attention(sample, features[0], touched_cells(mask, sample.shape[-2:]))
        for level, feature in zip(self.levels, [None, *features[1:-1]], strict=True):
            sample = level(sample if feature is None else keep_features(sample, feature, mask))
        hidden = self.conv_out[:-1](keep_features(sample, features[-1], mask))
        decoded = self.conv_out[-1](hidden)
        if self.share is None:
            return decoded
        return torch.where(mask > 0, torch.lerp(image.to(decoded), decoded, self.share(hidden).sigmoid()), decoded)


class KnownAttention(nn.Module):
    """Every cell looks for known cells like itself and takes over what their pixels look like: textures go on.

    Its output starts at zero, so a decoder learns to use it when there is something to gain.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ask = nn.Conv2d(width, width, 1)
        self.key = nn.Conv2d(width, width, 1)
        self.value = nn.Conv2d(width, width, 1)
        self.out = nn.Conv2d(width, width, 1)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self,
        sample: Float[Tensor, "batch width h w"],
        known: Float[Tensor, "batch width h w"],
        missing: Bool[Tensor, "batch 1 h w"],
    ) -> Float[Tensor, "batch width h w"]:
        """What the known cells have to say; where none is known, every cell counts as known."""
        blind = missing.flatten(1).all(1).view(-1, 1, 1, 1)
        seen = (~missing | blind).flatten(2)[:, :, None, :]
        asked, keys, values = self.ask(sample), self.key(sample), self.value(known)
        by_head = (part.unflatten(1, (self.heads, -1)).flatten(3).transpose(2, 3) for part in (asked, keys, values))
        heard = functional.scaled_dot_product_attention(*by_head, attn_mask=seen)
        return self.out(heard.transpose(2, 3).flatten(1, 2).unflatten(2, sample.shape[-2:]))


class ReluBlock(nn.Module):
    """relu(x + conv(relu(conv(x)))), without normalisation."""

    def __init__(self, width: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)
        self.conv2 = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)

    def forward(self, x: Float[Tensor, "batch width h w"]) -> Float[Tensor, "batch width h w"]:
        """The block's output."""
        return functional.relu(x + self.conv2(functional.relu(self.conv1(x))))


class UnfoldUp(nn.Module):
    """Twice the size by convolution and pixel shuffle, starting as nearest-neighbour (ICNR) and so without a grid."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 4 * out_channels, 3, padding=1)
        with torch.no_grad():
            for parameter in self.conv.parameters():
                parameter.copy_(parameter[::4].repeat_interleave(4, 0))

    def forward(self, x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch out_channels h2 w2"]:
        """Twice the height and width."""
        return functional.pixel_shuffle(self.conv(x), 2)


Autoencoder = ConditionalAutoencoderKL | UnshuffleAutoencoder
"""Either form; both have `encode`, `decode`, `quant_conv`, `post_quant_conv` and `config`."""


class ConditionCountError(ValueError):
    """As many known pictures as latents are needed, or a whole fraction of them."""


class NoConditionError(ValueError):
    """Known pixels were given to a decoder that cannot look at them."""


def keep_features(
    sample: Float[Tensor, "batch width h w"],
    known: Float[Tensor, "batch width h w"],
    mask: Float[Tensor, "batch 1 height_px width_px"],
) -> Float[Tensor, "batch width h w"]:
    """The sample inside the hole, the known pixels' features outside; a cell the hole merely touches is inside."""
    return torch.where(touched_cells(mask, sample.shape[-2:]), sample, known)


def touched_cells(mask: Float[Tensor, "batch 1 height width"], size: Sequence[int]) -> Tensor:
    """(batch, 1, *size) bool: cells whose area holds any part of the hole, however thin it is."""
    if tuple(mask.shape[-2:]) == tuple(size):
        return mask > 0
    return functional.adaptive_max_pool2d(mask, list(size)) > 0


def repeat_to(batch: Float[Tensor, "known c h w"], count: int) -> Float[Tensor, "count c h w"]:
    """The batch repeated whole until it has `count` members, as diffusers tiles its candidates.

    Raises:
        ConditionCountError: when `count` is no multiple of the batch.
    """
    if count % len(batch):
        raise ConditionCountError(f"{len(batch)} known pictures cannot be shared among {count} latents; give one each.")
    return batch.repeat(count // len(batch), 1, 1, 1)


@torch.no_grad()
def fold_latent_statistics(vae: Autoencoder, mean: Float[Tensor, " channels"], std: Float[Tensor, " channels"]) -> None:
    """Make the latents (z - mean) / std by changing the two 1x1 convolutions; what decodes from them stays the same.

    With it one scaling factor of 1 serves all channels. `mean` and `std` are of the un-scaled latents.
    """
    count = len(mean)
    weight, bias = vae.get_parameter("quant_conv.weight"), vae.get_parameter("quant_conv.bias")
    weight[:count] /= std.view(-1, 1, 1, 1)
    bias[:count] = (bias[:count] - mean) / std
    bias[count:] -= 2 * std.log()
    weight, bias = vae.get_parameter("post_quant_conv.weight"), vae.get_parameter("post_quant_conv.bias")
    bias += weight[:, :, 0, 0] @ mean
    weight *= std.view(1, -1, 1, 1)
