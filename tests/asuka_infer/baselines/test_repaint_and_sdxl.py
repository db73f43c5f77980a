"""RePaint's arithmetic against closed forms, both kinds of UNet, and SDXL's hole on the latent grid."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor

from asuka_infer.asuka.repaint import count_predictions, resampling_path
from asuka_infer.baselines import repaint_sd, sdxl
from asuka_infer.inpaint import inpaint
from asuka_infer.request import InpaintRequest


def test_the_default_costs_as_many_unet_calls_as_repaints_own_schedule_at_50_levels() -> None:
    settings = repaint_sd.RepaintSettings()
    path = resampling_path(settings.steps, settings.jump_length, settings.repeats)
    # 50 steps down, and each of the 4 inner tens repeated 9 times by 10 steps.
    assert count_predictions(path) == 50 + 4 * 9 * 10


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def testclean_and_noise_undo_the_forward_process(kind: str) -> None:
    clean, noise = torch.randn(2, 1, 4, 3, 3, dtype=torch.float64)
    alpha, sigma = 0.6, 0.8
    latents = alpha * clean + sigma * noise
    said = noise if kind == "epsilon" else alpha * noise - sigma * clean
    scheduler = SimpleNamespace(config=SimpleNamespace(prediction_type=kind))
    found = repaint_sd.clean_and_noise(scheduler, latents, said, (alpha, sigma))
    assert torch.allclose(found[0], clean)
    assert torch.allclose(found[1], noise)


def test_levels_run_from_clean_to_the_last_trained_time_with_unit_power() -> None:
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    times, levels = repaint_sd.noise_levels(scheduler, 20)
    assert (times[0], times[1], times[20]) == (0, 49, 999)
    assert levels(0) == (1.0, 0.0)
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    for level in (1, 7, 20):
        alpha, sigma = levels(level)
        assert alpha**2 == pytest.approx(np.prod(1 - betas[: times[level] + 1]), rel=1e-4)
        assert alpha**2 + sigma**2 == pytest.approx(1)


@pytest.mark.parametrize("channels", [4, 9])
def test_repaint_runs_on_plain_and_on_inpainting_backbones(channels: int, tmp_path: Path, tiny_folder: Path) -> None:
    from tests.asuka_infer.baselines.tiny_weights import save_sd  # noqa: PLC0415 - heavy

    assert tiny_folder.is_dir()
    method = repaint_sd.repaint_sd(save_sd(tmp_path / "sd", channels=channels))
    method = method.with_settings(steps=4, jump_length=2, repeats=2, largest_side=64)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    hole = np.zeros((64, 64), np.bool_)
    hole[20:40, 20:40] = True
    done = inpaint(method, "sd15-repaint", image, hole)
    assert done.changed_outside == 0
    assert len(np.unique(done.image[hole])) > 10


def test_a_unet_of_other_channels_is_refused(tmp_path: Path, tiny_folder: Path) -> None:
    from tests.asuka_infer.baselines.tiny_weights import save_sd  # noqa: PLC0415 - heavy

    assert tiny_folder.is_dir()
    with pytest.raises(repaint_sd.UnetChannelsError, match="takes 7 channels; 4 or 9"):
        repaint_sd.repaint_sd(save_sd(tmp_path / "sd", channels=7))


def test_a_stroke_of_two_pixels_is_a_hole_for_sdxl_at_every_alignment(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method: Any = sdxl.sdxl(tiny_folder / "sdxl").with_settings(steps=2, largest_side=64)
    seen: list[Tensor] = []
    original: Any = sdxl.StableDiffusionXLInpaintPipeline.prepare_mask_latents

    def watched(*given: Any, **named: Any) -> tuple[Tensor, Tensor]:
        cells, known = original(*given, **named)
        seen.append(cells)
        return cells, known

    monkeypatch.setattr(sdxl.StableDiffusionXLInpaintPipeline, "prepare_mask_latents", watched)
    for at in range(0, 8, 3):
        hole = np.zeros((64, 64), np.bool_)
        hole[:, 24 + at : 26 + at] = True
        method(InpaintRequest(np.full((64, 64, 3), 90, np.uint8), hole))
        touched = {(24 + at) // 8, (25 + at) // 8}
        assert all(bool(seen[-1][..., column].all()) == (column in touched) for column in range(8))
        assert all(bool(seen[-1][..., column].any()) == (column in touched) for column in range(8))
