"""RePaint: the published numbers of UNet calls, the DDPM posterior, and known latents that stay."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_repaint import RePaintScheduler
from torch import Tensor

from asuka_infer.asuka.repaint import (
    NoiseStream,
    RepaintPathError,
    count_predictions,
    repaint,
    resampling_path,
    step_down,
    step_up,
)
from asuka_infer.inpainter import Cancelled
from asuka_infer.noise import noise_for_seeds


@pytest.mark.parametrize(
    ("steps", "jump", "repeats", "calls"),
    [(250, 10, 10, 2410), (50, 10, 10, 410), (50, 5, 5, 230), (20, 5, 5, 80), (20, 5, 2, 35), (10, 10, 3, 10)],
)
def test_the_path_asks_the_unet_as_often_as_published(steps: int, jump: int, repeats: int, calls: int) -> None:
    path = resampling_path(steps, jump, repeats)
    assert count_predictions(path) == calls
    assert path[0] == steps
    assert path[-1] == 0
    assert all(abs(after - before) == 1 for before, after in pairwise(path))


@pytest.mark.parametrize(("steps", "jump", "repeats"), [(20, 5, 2), (23, 4, 3), (7, 7, 2), (9, 1, 2)])
def test_the_path_is_diffusers_path(steps: int, jump: int, repeats: int) -> None:
    theirs: Any = RePaintScheduler()
    theirs.set_timesteps(steps, jump_length=jump, jump_n_sample=repeats)
    stride = 1000 // steps
    assert [level * stride for level in resampling_path(steps, jump, repeats)[1:]] == theirs.timesteps.tolist()


def test_impossible_paths_are_refused() -> None:
    with pytest.raises(RepaintPathError, match="0 repeats"):
        resampling_path(10, 2, 0)


def test_a_step_down_is_the_ddpm_posterior() -> None:
    """Ho et al. 2020, equations 6 and 7, for a variance-preserving schedule."""
    power, next_power = 0.3, 0.7  # alpha-bar before and after
    step = power / next_power  # alpha of the step
    clean, noise, fresh = torch.randn(3, 1, 4, 2, 2, dtype=torch.float64)
    latents = math.sqrt(power) * clean + math.sqrt(1 - power) * noise
    mean = (
        math.sqrt(next_power) * (1 - step) / (1 - power) * clean
        + math.sqrt(step) * (1 - next_power) / (1 - power) * latents
    )
    expected = mean + math.sqrt((1 - next_power) / (1 - power) * (1 - step)) * fresh
    levels = ((math.sqrt(power), math.sqrt(1 - power)), (math.sqrt(next_power), math.sqrt(1 - next_power)))
    assert torch.allclose(step_down(clean, noise, *levels, fresh), expected, atol=1e-12)


def test_a_step_up_gives_the_noisier_level_its_variance() -> None:
    clean, noise, fresh = torch.randn(3, 1, 4, 300, 300, dtype=torch.float64)
    low, high = (0.9, 0.4), (0.5, 0.8)
    up = step_up(low[0] * clean + low[1] * noise, low, high, fresh)
    assert torch.allclose((up - high[0] * clean).var(), torch.tensor(high[1] ** 2).double(), rtol=0.02)


def test_the_hole_is_generated_and_the_known_latents_stay() -> None:
    target, known = torch.randn(2, 2, 4, 8, 8)
    cells = torch.zeros(2, 1, 8, 8)
    cells[..., 2:5, 3:6] = 1
    steps: list[tuple[int, int]] = []

    class Watching:
        def step(self, done: int, total: int) -> None:
            steps.append((done, total))

        def preview(self, picture: object) -> None:
            raise AssertionError(picture)

    def levels(level: int) -> tuple[float, float]:
        return 1 - level / 10, level / 10

    def predict(latents: Tensor, level: int) -> tuple[Tensor, Tensor]:
        alpha, sigma = levels(level)
        return target, (latents - alpha * target) / sigma

    found = repaint(
        known, cells, path=resampling_path(10, 3, 2), levels=levels, predict=predict,
        noise=NoiseStream([1, 2], (4, 8, 8)), watch=Watching(),
    )  # fmt: skip
    assert torch.allclose(found, torch.where(cells > 0, target, known), atol=1e-6)
    total = count_predictions(resampling_path(10, 3, 2))
    assert steps == [(done, total) for done in range(1, total + 1)]


def test_every_picture_draws_from_its_own_seed() -> None:
    shape = (4, 3, 3)
    together, alone = NoiseStream([7, 8], shape), NoiseStream([8], shape)
    first = together.draw()
    assert torch.equal(first, noise_for_seeds([7, 8], shape))
    assert torch.equal(first[1:], alone.draw())
    assert torch.equal(together.draw()[1:], alone.draw())


def test_a_watch_that_cancels_stops_it_within_one_step() -> None:
    asked: list[int] = []

    class Stopping:
        def step(self, done: int, total: int) -> None:
            del total
            if done == 2:
                raise Cancelled

        def preview(self, picture: object) -> None:
            del picture

    def predict(latents: Tensor, level: int) -> tuple[Tensor, Tensor]:
        asked.append(level)
        return latents, latents

    with pytest.raises(Cancelled):
        repaint(
            torch.zeros(1, 4, 2, 2), torch.ones(1, 1, 2, 2), path=resampling_path(9, 3, 2), predict=predict,
            levels=lambda level: (1 - level / 10, level / 10), noise=NoiseStream([0], (4, 2, 2)), watch=Stopping(),
        )  # fmt: skip
    assert len(asked) == 2
