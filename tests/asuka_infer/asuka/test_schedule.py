"""Noise schedules: conversions undo the mixing, and the solvers find the answer when the prediction is right."""

from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from asuka_infer.asuka.schedule import STEPS, Schedule, ScheduleError

BOTH = pytest.mark.parametrize("objective", ["flow", "v_prediction"])


@BOTH
def test_clean_and_noise_come_back_from_a_true_prediction(objective: Any) -> None:
    schedule = Schedule(objective)
    clean, noise = torch.randn(2, 5, 4, 6, 6, dtype=torch.float64)
    time = torch.tensor([0.0, 3.0, 250.0, 700.0, 999.0], dtype=torch.float64)
    latents = schedule.add_noise(clean, noise, time)
    found, implied = schedule.clean_and_noise(latents, schedule.target(clean, noise, time), time)
    assert torch.allclose(found, clean, atol=1e-9)
    assert torch.allclose(implied, noise, atol=1e-9)


def test_v_prediction_has_diffusers_noise_levels_and_ends_in_noise_alone() -> None:
    theirs: Any = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", rescale_betas_zero_snr=True
    )  # fmt: skip
    alpha, sigma = Schedule("v_prediction").levels(torch.arange(1000.0))
    assert torch.allclose(alpha.flatten() ** 2, theirs.alphas_cumprod, atol=1e-5)
    assert alpha[-1].item() == 0.0
    assert sigma[-1].item() == 1.0


def test_flow_mixes_along_a_straight_line() -> None:
    clean, noise = torch.randn(2, 1, 4, 2, 2)
    schedule = Schedule("flow")
    quarter = schedule.add_noise(clean, noise, torch.tensor([STEPS / 4]))
    assert torch.allclose(quarter, 0.75 * clean + 0.25 * noise)
    assert torch.equal(schedule.target(clean, noise, torch.tensor([STEPS / 4])), noise - clean)


@BOTH
@pytest.mark.parametrize("kind", ["dpm++", "unipc"])
@pytest.mark.parametrize("steps", [1, 5, 12])
def test_solvers_reach_the_clean_latents_when_every_prediction_is_true(objective: Any, kind: Any, steps: int) -> None:
    schedule = Schedule(objective)
    clean, latents = torch.randn(2, 1, 4, 4, 4)
    solver: Any = schedule.solver(steps, kind)
    assert len(solver.timesteps) == steps
    for time in solver.timesteps:
        now = time.float().expand(1)
        alpha, sigma = schedule.levels(now)
        # What a model that knows the clean latents would say of these, its noise being what remains.
        noise = (latents - alpha * clean) / sigma
        latents = solver.step(schedule.target(clean, noise, now), time, latents).prev_sample
    assert torch.allclose(latents, clean, atol=2e-2)


def test_an_unknown_objective_is_refused() -> None:
    unknown: Any = "epsilon"
    with pytest.raises((ScheduleError, Exception), match="epsilon"):
        Schedule(unknown)
