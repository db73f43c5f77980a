"""The noise of a small latent diffusion model: what is added while training and how a solver takes it away again."""

import warnings
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from jaxtyping import Float
from torch import Tensor

Objective = Literal["flow", "v_prediction"]
"""What the UNet predicts: the velocity (noise - clean) of flow matching, or the v of variance-preserving noise."""

Solver = Literal["dpm++", "unipc"]
"""Second-order solvers that need 8 to 12 steps for a strongly conditioned task."""

STEPS = 1000
"""Times run from 0 (clean) to 1000 (noise), as UNets of diffusers expect them."""

BETA_START, BETA_END = 0.00085, 0.012
"""Stable Diffusion's "scaled linear" noise; with zero terminal SNR so that sampling may start from pure noise."""


@dataclass(frozen=True)
class Schedule:
    """One noise schedule; `time` is always within 0..1000, 0 = clean.

    Attributes:
        objective: what the UNet predicts.
        shift: flow only: times are bent towards noise by this factor when sampling (1 = evenly spaced).
    """

    objective: Objective = "flow"
    shift: float = 1.0

    def __post_init__(self) -> None:
        if self.objective not in get_args(Objective):
            raise ScheduleError(f"The objective is {self.objective!r}; choose {' or '.join(get_args(Objective))}.")

    def levels(
        self, time: Float[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch 1 1 1"], Float[Tensor, "batch 1 1 1"]]:
        """How much of the clean latents and of the noise is in `alpha * clean + sigma * noise`."""
        if self.objective == "flow":
            sigma = time / STEPS
            alpha = 1 - sigma
        else:
            power = _signal_power().to(time.device)[time.long().clamp(0, STEPS - 1)]
            alpha, sigma = power.sqrt().to(time.dtype), (1 - power).sqrt().to(time.dtype)
        return alpha.view(-1, 1, 1, 1), sigma.view(-1, 1, 1, 1)

    def add_noise(
        self,
        clean: Float[Tensor, "batch channels h w"],
        noise: Float[Tensor, "batch channels h w"],
        time: Float[Tensor, " batch"],
    ) -> Float[Tensor, "batch channels h w"]:
        """The latents at `time`."""
        alpha, sigma = self.levels(time)
        return alpha * clean + sigma * noise

    def target(
        self,
        clean: Float[Tensor, "batch channels h w"],
        noise: Float[Tensor, "batch channels h w"],
        time: Float[Tensor, " batch"],
    ) -> Float[Tensor, "batch channels h w"]:
        """What the UNet should say at `time`."""
        if self.objective == "flow":
            return noise - clean
        alpha, sigma = self.levels(time)
        return alpha * noise - sigma * clean

    def clean_and_noise(
        self,
        latents: Float[Tensor, "batch channels h w"],
        predicted: Float[Tensor, "batch channels h w"],
        time: Float[Tensor, " batch"],
    ) -> tuple[Float[Tensor, "batch channels h w"], Float[Tensor, "batch channels h w"]]:
        """The clean latents and the noise that a prediction implies."""
        alpha, sigma = self.levels(time)
        if self.objective == "flow":
            return latents - sigma * predicted, latents + alpha * predicted
        return alpha * latents - sigma * predicted, sigma * latents + alpha * predicted

    def solver(self, steps: int, kind: Solver = "dpm++") -> DPMSolverMultistepScheduler | UniPCMultistepScheduler:
        """A diffusers scheduler with `steps` steps set, starting from pure noise."""
        known: dict[str, Any] = {
            "prediction_type": "flow_prediction" if self.objective == "flow" else "v_prediction",
            "use_flow_sigmas": self.objective == "flow",
            "flow_shift": self.shift,
            "rescale_betas_zero_snr": self.objective != "flow",
            "timestep_spacing": "trailing",
            "beta_start": BETA_START,
            "beta_end": BETA_END,
            "beta_schedule": "scaled_linear",
            "num_train_timesteps": STEPS,
        }
        # diffusers hands tensors to numpy in a way that numpy 2 will stop accepting; nothing of ours can change that.
        warnings.filterwarnings("ignore", message="__array__ implementation doesn't", category=DeprecationWarning)
        scheduler = DPMSolverMultistepScheduler(**known) if kind == "dpm++" else UniPCMultistepScheduler(**known)
        scheduler.set_timesteps(steps)
        return scheduler


class ScheduleError(ValueError):
    """A noise schedule that does not exist."""


def _signal_power() -> Float[Tensor, " times"]:
    """The share of clean signal at each time: scaled linear betas, shifted so that the last time is noise alone.

    Lin et al. 2023 ("Common diffusion noise schedules and sample steps are flawed"), algorithm 1.
    """
    betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, STEPS, dtype=torch.float64) ** 2
    root = torch.cumprod(1 - betas, 0).sqrt()
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    return root**2
