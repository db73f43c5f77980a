"""The embedded family: a complete small ASUKA (MAE, alignment, UNet, autoencoder), its sizes, its files, its parts.

`embedded.py` makes inpainting methods of it; training fills its weights.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar, cast, get_type_hints

import torch
from diffusers.models.autoencoders.vae import Decoder
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from jaxtyping import Bool, Float
from torch import Tensor, nn

from asuka_infer.asuka.alignment import PAPER_DEPTH, QUERY_STD, Alignment, AlignmentKind
from asuka_infer.asuka.decoder import (
    Autoencoder,
    ConditionalAutoencoderKL,
    UnshuffleAutoencoder,
    UnshuffleDecoder,
)
from asuka_infer.asuka.embedded_files import MANIFEST
from asuka_infer.asuka.family import Family
from asuka_infer.asuka.first_fill import first_fill
from asuka_infer.asuka.mae import MaskedAutoencoder
from asuka_infer.asuka.schedule import Objective, Schedule
from asuka_infer.weights import WeightsError, load_completely, read_json, read_shards, save_shards, sha256_of

SCHEMA = 1
"""Version of the manifest."""

LATENT_SCALE = 8
"""Pixels per latent cell and side."""


@dataclass(frozen=True)
class MaeSizes:
    """Sizes of the masked auto-encoder; see `MaskedAutoencoder`."""

    image_size: int = 128
    patch_size: int = 8
    width: int = 192
    depth: int = 6
    heads: int = 3
    decoder_width: int = 128
    decoder_depth: int = 4
    decoder_heads: int = 4
    prior_layer: int = 3
    residual: bool = True


@dataclass(frozen=True)
class AlignmentSizes:
    """Sizes of the alignment; see `Alignment`."""

    condition_width: int = 128
    kind: AlignmentKind = "self"
    depth: int = PAPER_DEPTH


@dataclass(frozen=True)
class UnetSizes:
    """Sizes of the UNet, finest level first; `heads` is a number of attention heads, not their width."""

    widths: tuple[int, ...] = (64, 128, 160)
    attention: tuple[bool, ...] = (False, True, True)
    layers: int = 1
    heads: int = 8
    norm_groups: int = 16


@dataclass(frozen=True)
class UnshuffleSizes:
    """Sizes of the autoencoder made for CPUs; see `UnshuffleAutoencoder`."""

    encoder_widths: tuple[int, int] = (96, 160)
    encoder_blocks: tuple[int, int] = (1, 2)
    decoder_widths: tuple[int, int, int, int] = (16, 48, 96, 192)
    decoder_blocks: tuple[int, int] = (1, 1)
    decoder_dilations: tuple[int, ...] = (1, 2, 4, 8)
    decoder_heads: int = 4
    decoder_blends: bool = True
    form: Literal["unshuffle"] = "unshuffle"


@dataclass(frozen=True)
class DiffusersSizes:
    """Sizes of the autoencoder made of diffusers' classes; see `ConditionalAutoencoderKL`."""

    widths: tuple[int, ...] = (32, 64, 128, 128)
    encoder_layers: int = 1
    decoder_layers: int = 2
    norm_groups: int = 16
    form: Literal["diffusers"] = "diffusers"


@dataclass(frozen=True)
class MiniConfig:
    """All sizes of an embedded model; the default is 19.4 M parameters, 39 MB in half precision.

    Attributes:
        pixels: side of the pictures it is trained on.
        latent_channels: of the autoencoder.
        separate_plain_decoder: whether a decoder without condition is kept beside the conditional one (for the
            "plain decoder" methods); without it they call the conditional decoder with nothing known.
        objective, shift: see `Schedule`.
        strength: share of noise in what sampling starts from; the rest is the latents of a first fill. 1 is pure
            noise. Training draws its noisy latents on the way between the clean ones and exactly such starts, so a
            small UNet learns that way alone (a coupling of data and start: Albergo et al., "Stochastic interpolants
            with data-dependent couplings", 2023).
    """

    pixels: int = 256
    latent_channels: int = 4
    mae: MaeSizes = field(default_factory=MaeSizes)
    alignment: AlignmentSizes = field(default_factory=AlignmentSizes)
    unet: UnetSizes = field(default_factory=UnetSizes)
    vae: UnshuffleSizes | DiffusersSizes = field(default_factory=UnshuffleSizes)
    separate_plain_decoder: bool = False
    objective: Objective = "flow"
    shift: float = 1.0
    strength: float = 0.1

    def __post_init__(self) -> None:
        if self.objective != "flow" and self.strength != 1:
            raise MiniSizeError(f"{self.objective} starts from pure noise, not at strength {self.strength}; choose 1.")
        multiple = LATENT_SCALE * 2 ** (len(self.unet.widths) - 1)
        if self.pixels % multiple:
            raise MiniSizeError(
                f"{self.pixels} px do not halve evenly through the UNet; choose a multiple of {multiple}."
            )
        if len(self.unet.widths) != len(self.unet.attention):
            raise MiniSizeError(f"{self.unet} needs one word on attention for every width.")

    @property
    def schedule(self) -> Schedule:
        """The noise it is trained with and sampled by."""
        return Schedule(self.objective, self.shift)

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` gives the config back."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "MiniConfig":
        """Read what `to_json` wrote.

        Raises:
            WeightsError: for a missing or unknown size, naming it.
        """
        return _read_dataclass(cls, values)


class MiniSizeError(ValueError):
    """Sizes of an embedded model that do not fit each other."""


class MiniModel(Family):
    """The parts of one embedded model; sampling starts from a first fill."""

    config: MiniConfig  # pyright: ignore[reportIncompatibleVariableOverride] - set once, never another kind

    def __init__(self, config: MiniConfig) -> None:
        super().__init__()
        self.config = config  # pyright: ignore[reportIncompatibleVariableOverride] - same
        self.mae = MaskedAutoencoder(**asdict(config.mae))
        self.alignment = Alignment(
            prior_width=config.mae.decoder_width, tokens=self.mae.grid**2, **asdict(config.alignment)
        )
        self.unet = build_unet(config)
        self.vae = build_autoencoder(config)
        self.plain_decoder = build_plain_decoder(config) if config.separate_plain_decoder else None
        tokens = torch.randn(1, self.mae.grid**2, config.alignment.condition_width) * QUERY_STD
        self.null_condition = nn.Parameter(tokens)

    def encode_known(
        self,
        image: Float[Tensor, "batch 3 height width"],
        hole: Bool[Tensor, "batch 1 height width"],
        filled: Float[Tensor, "batch 3 height width"] | None = None,
    ) -> Float[Tensor, "batch channels h w"]:
        """The latents of the known pixels and a first fill: the given one, or else the smoothest."""
        filled = first_fill(image, hole) if filled is None else filled
        return self.encode(torch.where(hole, filled.to(image), image))

    def decode_plain(self, latents: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch 3 height width"]:
        """Pictures from latents alone, clamped to [0, 1]."""
        if self.plain_decoder is None:
            return super().decode_plain(latents)
        decoded = self.plain_decoder(cast("nn.Module", self.vae.post_quant_conv)(self.unscaled(latents)))
        return (decoded.to(latents) / 2 + 0.5).clamp(0, 1)

    def decode_known(
        self,
        latents: Float[Tensor, "batch channels h w"],
        image: Float[Tensor, "batch 3 height width"],
        hole: Bool[Tensor, "batch 1 height width"],
        filled: Float[Tensor, "batch 3 height width"] | None = None,
    ) -> Float[Tensor, "batch 3 height width"]:
        """Pictures that continue the known pixels, clamped to [0, 1] (not composited).

        `filled` is the first fill that a blending decoder mixes in; the smoothest one where it is not given.
        """
        filled = first_fill(image, hole) if filled is None else filled
        known = torch.where(hole, filled.to(image), image) * 2 - 1
        decoded = cast("Any", self.vae.decode(self.unscaled(latents), image=known, mask=hole.to(known))).sample
        return (decoded.to(latents) / 2 + 0.5).clamp(0, 1)


@dataclass(frozen=True, eq=False)
class LoadedMini:
    """A model from files: evaluated only, nothing of it is trained.

    Attributes:
        model: with weights.
        files: sha256 by file name.
        notes: what its training wrote down (data, seeds, steps).
    """

    model: MiniModel
    files: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    notes: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


def build_unet(config: MiniConfig) -> UNet2DConditionModel:
    """The 9-channel inpainting UNet: noisy latents, hole cells, latents of the known pixels."""
    sizes = config.unet
    down = ["CrossAttnDownBlock2D" if attention else "DownBlock2D" for attention in sizes.attention]
    up = ["CrossAttnUpBlock2D" if attention else "UpBlock2D" for attention in reversed(sizes.attention)]
    return UNet2DConditionModel(
        sample_size=config.pixels // LATENT_SCALE,
        in_channels=2 * config.latent_channels + 1,
        out_channels=config.latent_channels,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        block_out_channels=sizes.widths,
        layers_per_block=sizes.layers,
        cross_attention_dim=config.alignment.condition_width,
        attention_head_dim=sizes.heads,
        norm_num_groups=sizes.norm_groups,
    )


def build_autoencoder(config: MiniConfig, *, conditional: bool = True) -> Autoencoder:
    """The autoencoder of either form; `conditional=False` is what the first training stage makes (unshuffle only)."""
    sizes = config.vae
    if isinstance(sizes, UnshuffleSizes):
        return UnshuffleAutoencoder(
            latent_channels=config.latent_channels,
            encoder_widths=sizes.encoder_widths,
            encoder_blocks=sizes.encoder_blocks,
            decoder_widths=sizes.decoder_widths,
            decoder_blocks=sizes.decoder_blocks,
            decoder_dilations=sizes.decoder_dilations,
            decoder_heads=sizes.decoder_heads,
            decoder_blends=sizes.decoder_blends,
            conditional=conditional,
        )
    return ConditionalAutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(sizes.widths),
        down_block_out_channels=sizes.widths,
        layers_per_down_block=sizes.encoder_layers,
        up_block_types=("UpDecoderBlock2D",) * len(sizes.widths),
        up_block_out_channels=sizes.widths,
        layers_per_up_block=sizes.decoder_layers,
        latent_channels=config.latent_channels,
        norm_num_groups=sizes.norm_groups,
        sample_size=config.pixels,
        scaling_factor=1.0,
    )


def build_plain_decoder(config: MiniConfig) -> nn.Module:
    """A decoder that sees latents alone, of the same form and widths."""
    if isinstance(config.vae, UnshuffleSizes):
        sizes = config.vae
        return UnshuffleDecoder(
            config.latent_channels,
            sizes.decoder_widths,
            sizes.decoder_blocks,
            dilations=sizes.decoder_dilations,
            conditional=False,
        )
    return Decoder(
        in_channels=config.latent_channels,
        up_block_types=("UpDecoderBlock2D",) * len(config.vae.widths),
        block_out_channels=config.vae.widths,
        layers_per_block=config.vae.decoder_layers,
        norm_num_groups=config.vae.norm_groups,
    )


def save_mini(model: MiniModel, folder: Path, *, notes: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Write the model as fp16 safetensors of less than 9 MiB each, with a manifest; returns sha256 by file name."""
    files: dict[str, str] = {}
    for name, state in _parts(model).items():
        files |= save_shards({key: _half(value) for key, value in state.items()}, folder, name)
    told = {"schema": SCHEMA, "config": model.config.to_json(), "files": files, "notes": dict(notes or {})}
    (folder / MANIFEST).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return files


def load_mini(folder: Path, *, dtype: torch.dtype = torch.float32) -> LoadedMini:
    """Read what `save_mini` wrote, every file checked against its sha256.

    Raises:
        WeightsError: when a file is missing, damaged or belongs to other sizes, naming it.
    """
    told = read_json(folder / MANIFEST)
    if told.get("schema") != SCHEMA:
        raise WeightsError(
            f"{folder / MANIFEST} has schema {told.get('schema')!r}, but {SCHEMA} is needed; update one."
        )
    for name, expected in told["files"].items():
        if not (folder / name).is_file() or sha256_of(folder / name) != expected:
            raise WeightsError(f"{folder / name} is missing or not the file it was; fetch the folder again.")
    model = MiniModel(MiniConfig.from_json(told["config"]))
    for name in _parts(model):
        _load_part(model, name, read_shards(folder, name))
    # Channels last: measured 10-15 % faster convolutions on CPUs, and what GPUs like best too.
    model.to(dtype).to(memory_format=torch.channels_last).eval().requires_grad_(requires_grad=False)
    return LoadedMini(model, MappingProxyType(told["files"]), MappingProxyType(told["notes"]))


def _parts(model: MiniModel) -> dict[str, dict[str, Tensor]]:
    """States by file stem. The null condition travels with the alignment: both speak to the same UNet."""
    parts = {name: getattr(model, name).state_dict() for name in ("mae", "unet", "vae", "alignment")}
    parts["alignment"] = {**parts["alignment"], "null_condition": model.null_condition.data}
    if model.plain_decoder is not None:
        parts["plain_decoder"] = model.plain_decoder.state_dict()
    return parts


def _load_part(model: MiniModel, name: str, state: dict[str, Tensor]) -> None:
    if name == "alignment":
        null = state.pop("null_condition", None)
        if null is None or null.shape != model.null_condition.shape:
            raise WeightsError("The alignment's file holds no null_condition of this model's shape; export it again.")
        model.null_condition.data.copy_(null)
    load_completely(getattr(model, name), state, source=f"the embedded {name}")


def _half(value: Tensor) -> Tensor:
    half = value.detach().half()
    if not torch.isfinite(half).all():
        raise WeightsError("A weight is too large for half precision or not a number; train with a smaller step.")
    return half


T = TypeVar("T")


def _read_dataclass(kind: type[T], values: Mapping[str, Any]) -> T:
    wanted = {item.name for item in fields(cast("Any", kind))}
    if wanted != set(values):
        odd = ", ".join(sorted(wanted ^ set(values)))
        raise WeightsError(f"{kind.__name__} has missing or unknown sizes: {odd}; use the code these weights are of.")
    hints = get_type_hints(kind)
    return kind(**{name: _read_value(hints[name], value) for name, value in values.items()})


def _read_value(hint: Any, value: Any) -> Any:
    if isinstance(value, Mapping):
        value = cast("Mapping[str, Any]", value)
        forms = {"unshuffle": UnshuffleSizes, "diffusers": DiffusersSizes}
        return _read_dataclass(cast("type", hint if is_dataclass(hint) else forms[value["form"]]), value)
    return tuple(cast("list[Any]", value)) if isinstance(value, list) else value
