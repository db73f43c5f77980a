"""One noise per seed, drawn on the CPU: a result does not depend on its batch, its neighbours or the device."""

from collections.abc import Sequence

import torch
from torch import Tensor

from asuka_infer.request import LARGEST_SEED


class NoiseError(ValueError):
    """No seeds, a seed out of range or an impossible shape; the message names it."""


def noise_for_seeds(seeds: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """(len(seeds), *shape) float32 standard normal noise on the CPU, one draw per seed.

    Row k depends on `seeds[k]` and `shape` alone: it is what
    `torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))` gives, the noise that diffusers draws for
    that seed. Move it to the device afterwards; a GPU's own generator would draw other numbers.

    Raises:
        NoiseError: for no seeds, a seed outside 0..`LARGEST_SEED` or a side below 1.
    """
    if not seeds:
        raise NoiseError("No seeds were given; give one per image.")
    if not shape or min(shape) < 1:
        raise NoiseError(f"The noise shape is {shape}; every side must be 1 or more.")
    return torch.stack([_noise(seed, shape) for seed in seeds])


def _noise(seed: int, shape: tuple[int, ...]) -> Tensor:
    if not 0 <= seed <= LARGEST_SEED:
        raise NoiseError(f"The seed is {seed}; give a whole number from 0 to {LARGEST_SEED}.")
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float32)
