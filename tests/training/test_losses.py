"""Losses against cases worked out by hand."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from training.losses import (
    Adversary,
    PatchCritic,
    critic_hinge,
    edges_left,
    fooling,
    grid_left,
    hole_weight,
    kl_to_unit_gaussian,
    logit_normal_times,
    multi_scale_l1,
    weighted_mse,
)


def test_multi_scale_l1_of_a_constant_offset_counts_it_at_every_scale() -> None:
    truth = torch.zeros(2, 3, 8, 8)

    # .3 at full, half and quarter size, weighted 1, .5 and .5.
    assert float(multi_scale_l1(truth + 0.3, truth)) == pytest.approx(0.3 * 2)


def test_multi_scale_l1_of_a_chequerboard_is_seen_at_full_size_only() -> None:
    truth = torch.zeros(1, 3, 8, 8)
    board = torch.ones(8, 8)
    board[::2, 1::2] = -1
    board[1::2, ::2] = -1

    # Every 2x2 and 4x4 block averages to nothing.
    assert float(multi_scale_l1(truth + board, truth)) == pytest.approx(1.0)


def test_kl_of_a_unit_gaussian_is_nothing_and_of_a_shifted_one_half_the_square() -> None:
    zero = torch.zeros(1, 4, 2, 2)

    assert float(kl_to_unit_gaussian(zero, zero)) == 0
    assert float(kl_to_unit_gaussian(zero + 3, zero)) == pytest.approx(4.5)
    # KL(N(0, e) || N(0, 1)) = (e - 1 - 1) / 2
    assert float(kl_to_unit_gaussian(zero, zero + 1)) == pytest.approx((math.e - 2) / 2)


def test_kl_is_the_one_torch_distributions_give() -> None:
    mean, log_variance = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)), torch.full((2, 3, 4), -0.7)
    normal = torch.distributions.Normal
    independent = torch.distributions.kl_divergence(normal(mean, (log_variance / 2).exp()), normal(0.0, 1.0)).mean()

    assert float(kl_to_unit_gaussian(mean, log_variance)) == pytest.approx(float(independent), rel=1e-5)


def test_weighted_mse_leaves_places_without_weight_out() -> None:
    prediction = torch.tensor([[[[1.0, 5.0], [2.0, 100.0]]]]).expand(1, 2, 2, 2)
    weight = torch.tensor([[[[1.0, 0.5], [1.0, 0.0]]]])

    # (1 * 1 + .5 * 25 + 1 * 4) / 2.5, the same for both channels.
    assert float(weighted_mse(prediction, torch.zeros(1, 2, 2, 2), weight)) == pytest.approx(17.5 / 2.5)


def test_a_hole_weighs_one_and_the_rest_as_told() -> None:
    hole = torch.tensor([True, False])

    assert hole_weight(hole, 0.1).tolist() == pytest.approx([1.0, 0.1])


def test_logit_normal_times_have_the_sigmoid_of_the_mean_as_median() -> None:
    generator = torch.Generator().manual_seed(0)
    times = logit_normal_times(20000, mean=0.5, spread=1.0, generator=generator, device=torch.device("cpu"))

    assert float(times.median()) == pytest.approx(1 / (1 + math.exp(-0.5)), abs=0.01)
    assert 0 < float(times.min()) < float(times.max()) < 1
    # One spread below the mean: 15.9 % of a normal lies below sigmoid(-.5).
    assert float((times < 1 / (1 + math.exp(0.5))).float().mean()) == pytest.approx(0.1587, abs=0.01)


def test_hinge_stops_rewarding_a_critic_that_is_already_sure() -> None:
    assert float(critic_hinge(torch.tensor([2.0, 1.0]), torch.tensor([-1.0, -3.0]))) == 0
    # (1 - 0) and (1 + 0), halved and added.
    assert float(critic_hinge(torch.zeros(4), torch.zeros(4))) == 1
    assert float(fooling(torch.tensor([1.0, 2.0]))) == -1.5


def test_patches_count_by_their_weight() -> None:
    real, fake, weight = torch.tensor([0.0, 1.0, 3.0]), torch.tensor([0.0, 2.0, -1.0]), torch.tensor([1.0, 0.5, 0.0])

    # Half of (1 + 1) in full and of (0 + 3) by half, over a weight of one and a half.
    assert float(critic_hinge(real, fake, weight)) == pytest.approx(0.5 * (2 + 1.5) / 1.5)
    assert float(fooling(fake, weight)) == pytest.approx(-(0 + 1) / 1.5)


def test_only_patches_that_were_made_teach_maker_and_critic() -> None:
    adversary, hole = Adversary(width=4).eval(), torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    real, made = torch.rand(2, 1, 3, 32, 32, generator=torch.manual_seed(0))
    scores = [adversary.critic(images)[0, 0].detach() for images in (real, made)]
    side = len(scores[0])
    # The hole covers the first of the squares that the picture has as many of as there are scores.
    hole[..., : math.ceil(32 / side), : math.ceil(32 / side)] = True
    assert side > 1

    fooled, judged = (value.detach() for value in adversary(real, made, hole))
    share = adaptive_share(hole, side)

    assert float(fooled) == pytest.approx(-float((scores[1] * share).sum() / share.sum()), rel=1e-5)
    hinge = (1 - scores[0]).clamp(min=0) + (1 + scores[1]).clamp(min=0)
    assert float(judged) == pytest.approx(0.5 * float((hinge * share).sum() / share.sum()), rel=1e-5)
    assert int((share > 0).sum()) < side**2 / 2


def adaptive_share(hole: Tensor, side: int) -> Tensor:
    """How much of each of side x side overlapping squares is hole, counted one by one."""
    size = hole.shape[-1]
    bounds = [(index * size // side, -(-(index + 1) * size // side)) for index in range(side)]
    rows = [[hole[0, 0, top:bottom, left:right].float().mean() for left, right in bounds] for top, bottom in bounds]
    return torch.tensor([[float(value) for value in row] for row in rows])


def test_one_backward_pass_teaches_maker_and_critic_each_its_own() -> None:
    adversary = Adversary(width=4)
    real, made = torch.rand(2, 1, 3, 40, 40, generator=torch.Generator().manual_seed(0)).unbind()
    made = made.clone().requires_grad_()

    fooled, judged = adversary(real, made)
    judged.backward(retain_graph=True)
    assert made.grad is None
    assert all(parameter.grad is not None for parameter in adversary.parameters())
    adversary.zero_grad(set_to_none=True)
    fooled.backward()
    assert made.grad is not None
    assert made.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in adversary.parameters())


def test_the_critic_looks_at_patches_of_34_pixels() -> None:
    critic = PatchCritic(width=4).eval()
    images = torch.zeros(1, 3, 64, 64, requires_grad=True)
    scores = critic(images)
    scores[0, 0, scores.shape[2] // 2, scores.shape[3] // 2].backward()
    assert images.grad is not None
    rows = images.grad.abs().sum((0, 1, 3)).nonzero().flatten()

    assert int(rows[-1] - rows[0]) + 1 == 34


def test_the_grid_left_in_a_hole_is_the_mean_detail_of_each_pixel_of_the_cell() -> None:
    rng = np.random.default_rng(0)
    picture, hole = rng.random((16, 24)), np.zeros((16, 24), np.bool_)
    hole[3:14, 2:21] = True
    # By hand: what a 5 x 5 mean (of what exists) takes away, averaged over the 4 x 4 cells at each of their 16 places.
    detail = np.zeros_like(picture)
    for row, column in np.ndindex(*picture.shape):
        near = picture[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3]
        detail[row, column] = picture[row, column] - near.mean()
    places = [(detail[r::4, c::4][hole[r::4, c::4]]).mean() for r in range(4) for c in range(4)]
    pictures = torch.from_numpy(picture)[None, None].expand(2, 3, -1, -1)

    given = grid_left(pictures, torch.from_numpy(hole)[None, None].expand(2, -1, -1, -1), 4)

    assert float(given) == pytest.approx(np.abs(places).mean(), rel=1e-6)


def test_a_repeated_pattern_is_a_grid_and_as_strong_a_noise_is_none() -> None:
    noise = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    hole = torch.ones(1, 1, 128, 128, dtype=torch.bool)
    repeated = noise[..., :8, :8].repeat(1, 1, 16, 16)

    assert float(grid_left(repeated, hole, 8)) > 8 * float(grid_left(noise, hole, 8))
    assert float(grid_left(torch.full_like(noise, 0.3), hole, 8)) < 1e-6


def test_cells_that_differ_in_tone_leave_edges_and_ramps_and_noise_leave_none() -> None:
    hole = torch.ones(2, 1, 64, 64, dtype=torch.bool)
    tones = 0.1 * ((torch.arange(64)[:, None] // 8 + torch.arange(64) // 8) % 2).float().expand(2, 3, -1, -1)
    ramp = torch.linspace(0, 1, 64).expand(2, 3, 64, -1)
    noise = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))

    # A chequerboard of cells: every step between two cells is .1, every other one 0, down and across.
    assert float(edges_left(tones, hole, 8)) == pytest.approx(0.2)
    assert float(edges_left(ramp, hole, 8)) == pytest.approx(0, abs=1e-6)
    assert float(edges_left(noise, hole, 8)) < 0.02


def test_edges_are_counted_between_pixels_of_the_hole_alone() -> None:
    tones = 0.1 * ((torch.arange(64)[:, None] // 8 + torch.arange(64) // 8) % 2).float().expand(1, 3, -1, -1)
    hole = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    hole[..., 9:15, 17:23] = True  # within one cell

    assert float(edges_left(tones, hole, 8)) == 0
    hole[..., 9:15, 17:25] = True  # across one border, not down

    assert float(edges_left(tones, hole, 8)) == pytest.approx(0.1)
