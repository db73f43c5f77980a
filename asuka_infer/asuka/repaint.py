"""RePaint (Lugmayr et al. 2022) in latent space: the known latents are put back at every step, and steps are repeated.

For any noise schedule and any prediction, so that one loop serves 4- and 9-channel UNets, epsilon, v and flow.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from asuka_infer.inpainter import SILENT, Watch

Levels = Callable[[int], tuple[float, float]]
"""Noise level 0 (clean) .. steps (noise) to (alpha, sigma) of `alpha * clean + sigma * noise`."""

Predict = Callable[[Tensor, int], tuple[Tensor, Tensor]]
"""Latents and their noise level to the clean latents and the noise they imply."""


class RepaintPathError(ValueError):
    """Steps, jumps or repeats that make no path."""


class NoiseStream:
    """Fresh noise for every step, one generator per picture: picture k depends on its own seed alone."""

    def __init__(self, seeds: list[int], shape: tuple[int, ...]) -> None:
        self._generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        self._shape = shape

    def draw(self) -> Float[Tensor, "batch ..."]:
        """The next noise; the first is what `noise_for_seeds` gives."""
        return torch.stack([torch.randn(self._shape, generator=generator) for generator in self._generators])


def resampling_path(steps: int, jump_length: int, repeats: int) -> list[int]:
    """Noise levels in the order they are visited, from `steps` to 0.

    After every `jump_length` steps down, the path goes up again by as many and repeats them, `repeats` times in all
    (RePaint's "jump length" j and "resampling" r).

    Raises:
        RepaintPathError: when one of them is below 1.
    """
    if min(steps, jump_length, repeats) < 1:
        raise RepaintPathError(
            f"{steps} steps, jumps of {jump_length} and {repeats} repeats make no path; each must be 1 or more."
        )
    left = dict.fromkeys(range(0, steps - jump_length, jump_length), repeats - 1)
    level, path = steps, [steps]
    while level > 0:
        level -= 1
        path.append(level)
        if left.get(level, 0) > 0:
            left[level] -= 1
            path.extend(range(level + 1, level + jump_length + 1))
            level += jump_length
    return path


def count_predictions(path: list[int]) -> int:
    """How often the UNet is asked on a path: once per step down."""
    return sum(after < before for before, after in pairwise(path))


def repaint(
    known: Float[Tensor, "batch channels h w"],
    cells: Float[Tensor, "batch 1 h w"],
    *,
    path: list[int],
    levels: Levels,
    predict: Predict,
    noise: NoiseStream,
    watch: Watch = SILENT,
) -> Float[Tensor, "batch channels h w"]:
    """Latents whose known part is `known` and whose hole is generated.

    Args:
        known: clean latents of the known picture.
        cells: 1 where a cell belongs to the hole, 0 where it is known.
        path: of `resampling_path`.
        levels: the noise schedule on the path's levels.
        predict: asked once per step down.
        noise: fresh noise.
        watch: hears every step down and may cancel.
    """
    latents, total, done = noise.draw().to(known), count_predictions(path), 0
    for before, after in pairwise(path):
        if after > before:
            latents = step_up(latents, levels(before), levels(after), noise.draw().to(known))
            continue
        clean, implied = predict(latents, before)
        generated = step_down(clean, implied, levels(before), levels(after), noise.draw().to(known))
        alpha, sigma = levels(after)
        kept = alpha * known + (sigma * noise.draw().to(known) if sigma > 0 else 0)
        latents = torch.where(cells > 0, generated, kept)
        done += 1
        watch.step(done, total)
    return latents


def step_down(
    clean: Tensor, implied: Tensor, before: tuple[float, float], after: tuple[float, float], fresh: Tensor
) -> Tensor:
    """One DDPM step (eta 1) for any alpha and sigma; it starts from pure noise (alpha 0) without dividing by it."""
    (alpha, sigma), (next_alpha, next_sigma) = before, after
    kept = next_sigma**2 * alpha / (next_alpha * sigma)
    added = max(next_sigma**2 - kept**2, 0.0) ** 0.5
    return next_alpha * clean + kept * implied + added * fresh


def step_up(latents: Tensor, before: tuple[float, float], after: tuple[float, float], fresh: Tensor) -> Tensor:
    """Back up to a noisier level, as the forward process would."""
    shrink = after[0] / before[0]
    added = max(after[1] ** 2 - (shrink * before[1]) ** 2, 0.0) ** 0.5
    return shrink * latents + added * fresh
