"""The rivals learn from their own losses, and what they learnt becomes a method."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from asuka_infer.baselines.one_pass import load_one_pass, save_one_pass
from asuka_infer.request import InpaintRequest
from training.loop import LOG, put_weights, read_state, train, weights_of
from training.presets import Bench
from training.rivals import lama_mini
from training.rivals.lama_mini import LamaObjective
from training.rivals.one_pass import hole_l1, smaller_hole_l1
from training.rivals.table import RIVALS


@pytest.mark.parametrize("key", RIVALS)
def test_a_rival_learns_from_finite_losses_and_becomes_a_method(key: str, bench: Bench, tmp_path: Path) -> None:
    rival = RIVALS[key]
    torch.manual_seed(0)
    assert train(rival.stage("tiny", bench), rival.build("tiny"), tmp_path)

    told = [json.loads(line) for line in (tmp_path / key / LOG).read_text().splitlines()]
    assert read_state(tmp_path / key).complete
    assert all(np.isfinite(list(line.values())).all() for line in told)
    assert ("critic" in told[-1]) == (key != "dfnet-mini")

    network = rival.build("tiny")
    untrained = [value.clone() for value in network.parameters()]
    put_weights(network, weights_of(tmp_path / key), tmp_path)
    assert any(not torch.equal(a, b) for a, b in zip(untrained, network.parameters(), strict=True))
    save_one_pass(network, key, tmp_path)
    method = load_one_pass(lambda: rival.build("tiny"), key, tmp_path)
    image, hole = np.zeros((24, 24, 3), np.uint8), np.zeros((24, 24), bool)
    hole[8:16, 8:16] = True
    assert method(InpaintRequest(image, hole)).image.shape == image.shape


def test_the_error_inside_the_hole_is_the_mean_over_missing_colours_alone() -> None:
    truth, result = torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4)
    holes = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    result[0, :, 0, 0] = torch.tensor([0.5, 0.25, 0.75])
    holes[0, 0, 0, 0] = True
    assert float(hole_l1(result, truth, holes)) == pytest.approx(0.5)
    assert float(hole_l1(result, truth, torch.zeros_like(holes))) == 0


def test_a_smaller_picture_is_held_to_the_means_of_the_pixels_it_stands_for() -> None:
    truth = torch.arange(16.0).view(1, 1, 4, 4).expand(1, 3, 4, 4)
    holes = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    holes[0, 0, 0, 1] = True  # one pixel makes its whole square of 2x2 count
    means = torch.tensor([[2.5, 4.5], [10.5, 12.5]])
    result = means + torch.tensor([[0.25, 9.0], [9.0, 9.0]])
    assert float(smaller_hole_l1(result.expand(1, 3, 2, 2), truth, holes)) == pytest.approx(0.25)


class Linear(nn.Module):
    """A critic whose scores are 2 x the sum of all colours in squares of 4 px."""

    def forward(self, images: Tensor) -> Tensor:
        return 2 * nn.functional.avg_pool2d(images, 4).sum(1, keepdim=True) * 16


def test_lamas_critic_is_told_the_truth_about_patches_and_pays_for_its_slope(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = LamaObjective(lama_mini.build("tiny"), bench, lama_mini.PRESETS["tiny"])
    monkeypatch.setattr(objective, "critic", Linear())
    real, made = torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)
    made[..., :4, :4] = 0.01  # scores 2 * 3 * 16 * 0.01 there
    holes = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    holes[..., 0, 0] = True

    fooled, critic = (value.detach() for value in objective.opinion(real, made, holes, step=1))
    _, with_slope = (value.detach() for value in objective.opinion(real, made, holes, step=16))

    score = 2 * 3 * 16 * 0.01
    assert float(fooled) == pytest.approx(np.log1p(np.exp(-score)))
    # Real pictures score 0 everywhere; of the composite three patches are real (score 0) and one is made.
    assert float(critic) == pytest.approx(np.log(2) + (np.log1p(np.exp(score)) + 3 * np.log(2)) / 4)
    # The slope is 2 for each of 8 x 8 x 3 colours.
    slope = 16 * 0.001 * 2**2 * 8 * 8 * 3
    assert float(with_slope - critic) == pytest.approx(slope, rel=1e-4)
