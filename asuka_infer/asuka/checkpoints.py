"""Published weight files under our names: ASUKA's own, facebook's MAE and its hub copies, autoencoders of SD and FLUX.

Every loader takes a file completely or refuses, naming what does not fit (`weights.load_completely`).
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from asuka_infer.asuka.alignment import HEAD_WIDTH, FluxAlignment
from asuka_infer.asuka.decoder import ConditionalAutoencoderKL
from asuka_infer.asuka.mae import MaskedAutoencoder, sincos_positions
from asuka_infer.weights import State, WeightsError, load_completely, read_json, read_shards, read_state

TOKENS_PER_SIDE = 16
"""ASUKA always sees 16x16 tokens (paper 000 sec. 3.2 keeps 256 of them), whatever grid a MAE was trained on."""

PUBLIC_HEADS = {768: 12, 1024: 16, 1280: 16}
"""Attention heads of ViT-B, -L and -H by width: the last has 80 features per head, the others 64."""

PUBLIC_DECODER_HEADS = 16
"""Of every public MAE: the decoder is 512 wide, 8 deep, with 16 heads."""

POSITION_TOLERANCE = 2e-3
"""Largest difference of a stored position embedding from the sine-cosine one: half precision moves it by less."""

FLUX_LATENT_CHANNELS, FLUX_SCALING_FACTOR, FLUX_SHIFT_FACTOR = 16, 0.3611, 0.1159
"""Of FLUX.1's autoencoder."""

MAY_LACK_IN_MAE = ("alpha", "decoder_patch_embed.proj.weight", "decoder_patch_embed.proj.bias")
"""With the initial alpha of 1 these change nothing, and a plain MAE does not have them."""

Rules = Sequence[tuple[str, str | None]]
"""Regular expression on a whole name -> replacement; None drops the tensor. The first that matches counts."""

_HUB_BLOCK = (
    (r"(.*)layernorm_before\.(.*)", r"\1norm1.\2"),
    (r"(.*)layernorm_after\.(.*)", r"\1norm2.\2"),
    (r"(.*)attention\.attention\.(query|key|value)\.(.*)", r"\1attn.\2.\3"),
    (r"(.*)attention\.q_proj\.(.*)", r"\1attn.query.\2"),
    (r"(.*)attention\.k_proj\.(.*)", r"\1attn.key.\2"),
    (r"(.*)attention\.v_proj\.(.*)", r"\1attn.value.\2"),
    (r"(.*)attention\.(?:output\.dense|o_proj)\.(.*)", r"\1attn.proj.\2"),
    (r"(.*)(?:intermediate\.dense|mlp\.fc1)\.(.*)", r"\1mlp.fc1.\2"),
    (r"(.*\d\.)(?:output\.dense|mlp\.fc2)\.(.*)", r"\1mlp.fc2.\2"),
)
_HUB_OUTER = (
    (r"vit\.embeddings\.position_embeddings", "pos_embed"),
    (r"decoder\.decoder_pos_embed", "decoder_pos_embed"),
    (r"vit\.embeddings\.cls_token", "cls_token"),
    (r"vit\.embeddings\.patch_embeddings\.projection\.(.*)", r"patch_embed.proj.\1"),
    (r"vit\.layernorm\.(.*)", r"norm.\1"),
    (r"vit\.(?:encoder\.layer|layers)\.(\d+\..*)", r"blocks.\1"),
    (r"decoder\.(?:decoder_layers|decoder_encoder\.layer)\.(\d+\..*)", r"decoder_blocks.\1"),
    (r"decoder\.((?:mask_token|decoder_embed|decoder_norm|decoder_pred).*)", r"\1"),
)

_LDM_INNER = (
    (r"(.*)mid\.block_1\.(.*)", r"\1mid_block.resnets.0.\2"),
    (r"(.*)mid\.block_2\.(.*)", r"\1mid_block.resnets.1.\2"),
    (r"(.*)mid\.attn_1\.norm\.(.*)", r"\1mid_block.attentions.0.group_norm.\2"),
    (r"(.*)mid\.attn_1\.(q|k|v)\.(.*)", r"\1mid_block.attentions.0.to_\2.\3"),
    (r"(.*)mid\.attn_1\.proj_out\.(.*)", r"\1mid_block.attentions.0.to_out.0.\2"),
    (r"(.*)norm_out\.(.*)", r"\1conv_norm_out.\2"),
)
_LDM_ENCODER = (
    (r"encoder\.down\.(\d+)\.block\.(\d+)\.(.*)", r"encoder.down_blocks.\1.resnets.\2.\3"),
    (r"encoder\.down\.(\d+)\.downsample\.(.*)", r"encoder.down_blocks.\1.downsamplers.0.\2"),
)
_OLD_DIFFUSERS_ATTENTION = (
    (r"(.*attentions\.0\.)(?:query|to_q)\.(.*)", r"\1to_q.\2"),
    (r"(.*attentions\.0\.)(?:key|to_k)\.(.*)", r"\1to_k.\2"),
    (r"(.*attentions\.0\.)(?:value|to_v)\.(.*)", r"\1to_v.\2"),
    (r"(.*attentions\.0\.)(?:proj_attn|to_out\.0)\.(.*)", r"\1to_out.0.\2"),
)
_LDM_LEVELS = 4


def load_mae(path: Path, *, heads: int | None = None, prior_layer: int = 6) -> MaskedAutoencoder:
    """A MAE from `mae_300.pth`, facebook's `mae_visualize_vit_*.pth`, or a hub copy's `model.safetensors`.

    Sizes are read off the tensors; position embeddings are made anew for 16x16 tokens. A file with a cls token gives
    a model with one, because it was trained so.

    Args:
        path: the file.
        heads: of the encoder; None takes what a public ViT of that width has, else one per 64 features.
        prior_layer: see `MaskedAutoencoder`.

    Raises:
        WeightsError: naming every key that is missing, unexpected or mis-shaped.
    """
    state = read_state(path)
    state = hub_mae_names(state) if any(key.startswith("vit.") for key in state) else state
    needed = ("patch_embed.proj.weight", "mask_token")
    if any(key not in state for key in needed):
        raise WeightsError(
            f"{path} has no {' and no '.join(needed)}: it is not a whole MAE; an encoder alone won't do."
        )
    width, _, patch, _ = state["patch_embed.proj.weight"].shape
    mae = MaskedAutoencoder(
        image_size=TOKENS_PER_SIDE * patch,
        patch_size=patch,
        width=width,
        depth=_count(state, "blocks"),
        heads=heads or PUBLIC_HEADS.get(width) or max(1, width // HEAD_WIDTH),
        decoder_width=state["mask_token"].shape[-1],
        decoder_depth=_count(state, "decoder_blocks"),
        decoder_heads=PUBLIC_DECODER_HEADS,
        prior_layer=prior_layer,
        use_cls_token="cls_token" in state,
    )
    load_completely(mae, without_positions(state, str(path)), source=str(path), may_lack=MAY_LACK_IN_MAE)
    return mae.eval()


def hub_mae_names(state: State) -> dict[str, Tensor]:
    """The hub's ViT-MAE names, in any of the spellings of transformers 4 and 5, to MAE's own; q, k, v joined."""
    return _join_qkv(renamed(renamed(state, _HUB_OUTER), _HUB_BLOCK))


def without_positions(state: State, source: str) -> dict[str, Tensor]:
    """The state without its fixed position embeddings, which the model makes for its own grid.

    Raises:
        WeightsError: when they are not the sine-cosine ones, so that leaving them out would lose something.
    """
    kept = dict(state)
    for key in ("pos_embed", "decoder_pos_embed"):
        stored = kept.pop(key, None)
        if stored is None:
            raise WeightsError(f"{source} has no {key}; it is not a whole MAE.")
        _refuse_learned_positions(stored, key, source)
    return kept


def load_flux_alignment(path: Path, *, dtype: torch.dtype = torch.bfloat16) -> FluxAlignment:
    """An alignment of the FLUX release (`asuka_alignment_clip.pt` or `asuka_alignment_t5.pt`), modulation left out.

    Built without memory of its own: the T5 branch has 0.8 G parameters.

    Raises:
        WeightsError: naming every key that is missing, unexpected or mis-shaped.
    """
    state = flux_alignment_names(read_state(path))
    if "proj.weight" not in state:
        raise WeightsError(f"{path} has no 0.weight: it is no alignment of the FLUX release.")
    width, prior_width = state["proj.weight"].shape
    with torch.device("meta"):
        alignment = FluxAlignment(prior_width=prior_width, condition_width=width, depth=_count(state, "blocks"))
    load_completely(alignment, {key: value.to(dtype) for key, value in state.items()}, source=str(path))
    return alignment.eval()


def flux_alignment_names(state: State) -> dict[str, Tensor]:
    """The release's numbered names to ours; the modulation, which its forward never uses, is dropped."""
    last = max((int(key.split(".")[0]) for key in state if key.split(".")[0].isdigit()), default=0)
    numbered = {
        re.sub(r"^(\d+)\.", lambda m: f"blocks.{int(m[1]) - 1}." if 0 < int(m[1]) < last else f"{m[1]}.", key): value
        for key, value in state.items()
    }
    rules: Rules = (
        (r"0\.(.*)", r"proj.\1"),
        (rf"{last}\.(.*)", r"norm.\1"),
        (r"blocks\.\d+\.modulation\.lin\.(?:weight|bias)", None),
        (r"(blocks\.\d+)\.norm\.(query_norm|key_norm)\.scale", r"\1.\2.weight"),
    )
    return renamed(numbered, rules)


def load_flux_autoencoder(path: Path) -> ConditionalAutoencoderKL:
    """The release's `asuka_decoder.ckpt`: FLUX's encoder and the conditional decoder.

    Raises:
        WeightsError: naming every key that is missing, unexpected or mis-shaped.
    """
    state = flux_autoencoder_names(read_state(path))
    with torch.device("meta"):
        vae = ConditionalAutoencoderKL(
            latent_channels=FLUX_LATENT_CHANNELS,
            scaling_factor=FLUX_SCALING_FACTOR,
            shift_factor=FLUX_SHIFT_FACTOR,
            use_quant_conv=False,
        )
    load_completely(vae, state, source=str(path))
    return vae.eval()


def flux_autoencoder_names(state: State) -> dict[str, Tensor]:
    """The release's names to diffusers'; 1x1 attention convolutions become linear maps, what trained it is dropped."""
    decoder: Rules = (
        (r"decoder\.up_layers\..*", None),
        (r"decoder\.encoder\.layers\.(.*)", r"decoder.condition_encoder.layers.\1"),
        *(
            (
                rf"decoder\.up\.{level}\.block\.(\d+)\.(.*)",
                rf"decoder.up_blocks.{_LDM_LEVELS - 1 - level}.resnets.\1.\2",
            )
            for level in range(_LDM_LEVELS)
        ),
        *(
            (rf"decoder\.up\.{level}\.upsample\.(.*)", rf"decoder.up_blocks.{_LDM_LEVELS - 1 - level}.upsamplers.0.\1")
            for level in range(_LDM_LEVELS)
        ),
    )
    used = {key: value for key, value in state.items() if key.startswith(("encoder.", "decoder."))}
    outer = renamed(renamed(used, (*decoder, *_LDM_ENCODER)), _LDM_INNER)
    named = renamed(outer, ((r"(.*resnets\.\d+\.)nin_shortcut\.(.*)", r"\1conv_shortcut.\2"),))
    return {key: _as_linear(key, value) for key, value in named.items()}


def load_autoencoder(folder: Path, *, sees_hole: bool = True) -> ConditionalAutoencoderKL:
    """A diffusers VAE folder as a conditional autoencoder: ours, Zhu et al.'s asymmetric one, or a plain SD VAE.

    Zhu et al.'s condition encoder gets a fourth channel of zeros, so that it starts as it was. A plain VAE gets a
    fresh condition encoder: it decodes plainly as before, and is a start for training.

    Args:
        folder: with `config.json` and `diffusion_pytorch_model.safetensors` (or `.bin`).
        sees_hole: False keeps Zhu et al.'s three channels.

    Raises:
        WeightsError: naming every key that is missing, unexpected or mis-shaped.
    """
    config = read_json(folder / "config.json")
    state = renamed(_diffusers_state(folder), _OLD_DIFFUSERS_ATTENTION)
    state = {key: _as_linear(key, value) for key, value in state.items()}
    plain = config.get("_class_name") == "AutoencoderKL"
    vae = ConditionalAutoencoderKL(
        **_autoencoder_sizes(config, plain=plain), sees_hole=config.get("sees_hole", sees_hole)
    )
    first = "decoder.condition_encoder.layers.0.weight"
    if first in state and sees_hole and state[first].shape[1] == vae.config["out_channels"]:
        state[first] = torch.cat([state[first], torch.zeros_like(state[first][:, :1])], dim=1)
    fresh = [key for key in vae.state_dict() if key.startswith("decoder.condition_encoder.")] if plain else []
    load_completely(vae, state, source=str(folder), may_lack=fresh)
    return vae.eval()


def renamed(state: State, rules: Rules) -> dict[str, Tensor]:
    """The state under new names; names that no rule matches stay, two that become one are refused.

    Raises:
        WeightsError: naming the tensors that would overwrite each other.
    """
    result: dict[str, Tensor] = {}
    for key, value in state.items():
        name = _new_name(key, rules)
        if name is None:
            continue
        if name in result:
            raise WeightsError(f"Two tensors of the file are both {name}; one of them is {key}. Fetch the file again.")
        result[name] = value
    return result


def _new_name(key: str, rules: Rules) -> str | None:
    for pattern, replacement in rules:
        match = re.fullmatch(pattern, key)
        if match:
            return None if replacement is None else match.expand(replacement)
    return key


def _join_qkv(state: State) -> dict[str, Tensor]:
    """Join complete triples of query, key and value; an incomplete one is left to be refused by its names."""
    joined = dict(state)
    for key in state:
        match = re.fullmatch(r"(.*attn\.)query\.(weight|bias)", key)
        if not match:
            continue
        names = [f"{match[1]}{part}.{match[2]}" for part in ("query", "key", "value")]
        if all(name in joined for name in names):
            joined[f"{match[1]}qkv.{match[2]}"] = torch.cat([joined.pop(name) for name in names])
    return joined


def _count(state: State, prefix: str) -> int:
    numbers = {int(match[1]) for key in state if (match := re.match(rf"{prefix}\.(\d+)\.", key))}
    return max(numbers, default=-1) + 1


def _refuse_learned_positions(stored: Float[Tensor, "1 rows width"], key: str, source: str) -> None:
    count, width = stored.shape[1:]
    grid = int((count + 0.5) ** 0.5)  # one row more where there is a cls token
    expected = sincos_positions(width, grid)
    if not torch.allclose(stored[:, -(grid**2) :].float(), expected, atol=POSITION_TOLERANCE):
        raise WeightsError(
            f"{source}: {key} {tuple(stored.shape)} is not the fixed sine-cosine of {grid}x{grid} tokens; "
            "a MAE with learned positions cannot be used."
        )


def _as_linear(key: str, value: Tensor) -> Tensor:
    """1x1 convolutions of an attention layer as the linear maps they are."""
    attention = re.search(r"attentions\.0\.to_(?:q|k|v|out\.0)\.weight", key)
    return value[:, :, 0, 0] if attention and value.ndim == 4 else value  # noqa: PLR2004 - a convolution's weight


def _diffusers_state(folder: Path) -> dict[str, Tensor]:
    stem = "diffusion_pytorch_model"
    if (folder / f"{stem}.bin").is_file() and not list(folder.glob(f"{stem}*.safetensors")):
        return read_state(folder / f"{stem}.bin")
    return read_shards(folder, stem)


def _autoencoder_sizes(config: Mapping[str, Any], *, plain: bool) -> dict[str, Any]:
    """Our arguments for the config of diffusers' `AutoencoderKL` or `AsymmetricAutoencoderKL`."""
    same = (
        "in_channels",
        "out_channels",
        "act_fn",
        "latent_channels",
        "norm_num_groups",
        "sample_size",
        "scaling_factor",
    )
    sizes: dict[str, Any] = {name: config[name] for name in same if name in config}
    sizes["shift_factor"] = config.get("shift_factor") or 0.0
    sizes["use_quant_conv"] = config.get("use_quant_conv", True)
    for side in ("down", "up"):
        sizes[f"{side}_block_types"] = tuple(config[f"{side}_block_types"])
        widths = config["block_out_channels"] if plain else config[f"{side}_block_out_channels"]
        sizes[f"{side}_block_out_channels"] = tuple(widths)
        layers = config["layers_per_block"] if plain else config[f"layers_per_{side}_block"]
        sizes[f"layers_per_{side}_block"] = layers
    return sizes
