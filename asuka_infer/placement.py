"""Where a pipeline runs and how exactly it computes: device, number type, offloading for small GPUs."""

import os
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

DEVICE_VARIABLE = "ASUKA_DEVICE"
"""Overrides the device, as torch names it ("cpu", "cuda:1")."""

PRECISION_VARIABLE = "ASUKA_PRECISION"
"""float32, float16 or bfloat16 instead of what suits the device: float32 for results that machines agree on."""

COMPILE_VARIABLE = "ASUKA_COMPILE"
"""1 compiles the denoiser: minutes at the first picture of a size, faster ever after."""

OFFLOAD_VARIABLE = "ASUKA_OFFLOAD"
"""1 lets a model's parts take turns on the GPU even where they would fit together: slower, a third of the memory."""

TILING_VARIABLE = "ASUKA_TILING"
"""1 encodes and decodes pictures larger than 512 px tile by tile: less memory, tones may differ a little by tile."""

HEADROOM = 1.2
"""A GPU must have this much more than a method's measured peak, for the allocator's slack: our choice."""


class PlacementError(ValueError):
    """A device that is not here, or cannot do what was asked for."""


@dataclass(frozen=True)
class Placement:
    """Where and how to compute.

    Attributes:
        device: as torch names it.
        dtype: of the weights and activations.
        offload: whether a model's parts take turns on the GPU, because they do not fit together.
        tiling: whether the autoencoder works tile by tile on pictures larger than a tile.
    """

    device: str
    dtype: torch.dtype
    offload: bool = False
    tiling: bool = False


def choose_placement(memory_mb: int, *, half: torch.dtype = torch.float16) -> Placement:
    """Where a method of that peak memory should run here.

    Args:
        memory_mb: its peak in half precision.
        half: the half-precision type it was released for.

    Raises:
        PlacementError: when `ASUKA_DEVICE` names a device that is not here, `ASUKA_PRECISION` no precision, or
            `ASUKA_OFFLOAD` is asked of a CPU.
    """
    asked = _asked_precision()
    device = os.environ.get(DEVICE_VARIABLE) or ("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda"):
        if not torch.cuda.is_available():
            raise PlacementError(f"{DEVICE_VARIABLE} is {device}, but torch finds no GPU here; unset it or give cpu.")
        free, _ = torch.cuda.mem_get_info(device)
        offload = _is_on(OFFLOAD_VARIABLE) or free < memory_mb * 1e6 * HEADROOM
        return Placement(device, asked or half, offload=offload, tiling=offload or _is_on(TILING_VARIABLE))
    if _is_on(OFFLOAD_VARIABLE):
        raise PlacementError(
            f"{OFFLOAD_VARIABLE} is 1, but the models run on {device}, where all memory is the machine's own and "
            "nothing can be put aside; unset it."
        )
    dtype = asked or (torch.bfloat16 if _computes_bfloat16() else torch.float32)
    return Placement(device, dtype, tiling=_is_on(TILING_VARIABLE))


def quiet_libraries() -> None:
    """Loading bars and remarks of diffusers and transformers are not for those who use a method."""
    for logging in (diffusers_logging, transformers_logging):
        logging.set_verbosity_error()
        logging.disable_progress_bar()


def settle(pipeline: Any, placement: Placement) -> Any:
    """Put a diffusers pipeline where it shall run; returns it."""
    pipeline.set_progress_bar_config(disable=True)
    denoiser = getattr(pipeline, "unet", None) or pipeline.transformer
    for module in (denoiser, pipeline.vae):
        if any(parameter.ndim == 4 for parameter in module.parameters()):  # noqa: PLR2004 - images only
            # Convolutions are 2-8 % faster so on CPUs (measured), more on tensor cores.
            module.to(memory_format=torch.channels_last)
    if _is_on(COMPILE_VARIABLE):
        denoiser.compile()
    if placement.tiling:
        pipeline.vae.enable_tiling()
    if placement.offload:
        pipeline.enable_model_cpu_offload(device=placement.device)
        return pipeline
    return pipeline.to(placement.device)


def accept_old_array_calls() -> None:
    """Diffusers hands tensors to numpy in a way that numpy will stop accepting; nothing of ours can change that."""
    warnings.filterwarnings("ignore", message="__array__ implementation doesn't", category=DeprecationWarning)


def _is_on(variable: str) -> bool:
    return os.environ.get(variable) == "1"


def _asked_precision() -> torch.dtype | None:
    said = os.environ.get(PRECISION_VARIABLE)
    if not said:
        return None
    known = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if said not in known:
        raise PlacementError(f"{PRECISION_VARIABLE} is {said!r}; give {', '.join(known)}, or unset it.")
    return known[said]


def _computes_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 itself; where it does not, it is slower than float32."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
