"""Each seed has its own noise, whoever else is in the batch."""

from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from asuka_infer.noise import NoiseError, noise_for_seeds
from asuka_infer.request import LARGEST_SEED

seeds = st.integers(0, LARGEST_SEED)
shapes = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)


@settings(max_examples=50, deadline=None)
@given(st.lists(seeds, min_size=1, max_size=6), shapes, st.randoms(use_true_random=False))
def test_a_seeds_noise_depends_on_no_neighbour_and_no_order(
    batch: list[int], shape: tuple[int, ...], order: Random
) -> None:
    together = noise_for_seeds(batch, shape)
    assert together.shape == (len(batch), *shape)
    shuffled = list(range(len(batch)))
    order.shuffle(shuffled)
    again = noise_for_seeds([batch[k] for k in shuffled], shape)
    for place, k in enumerate(shuffled):
        assert torch.equal(again[place], together[k])
        assert torch.equal(noise_for_seeds([batch[k]], shape)[0], together[k])


def test_the_noise_is_the_one_diffusers_draws_for_the_seed() -> None:
    from diffusers.utils.torch_utils import randn_tensor  # noqa: PLC0415 - costs seconds, needed here alone

    generators = [torch.Generator("cpu").manual_seed(seed) for seed in (0, 42, LARGEST_SEED)]
    theirs = randn_tensor((3, 4, 8, 8), generator=generators, device=torch.device("cpu"), dtype=torch.float32)
    assert torch.equal(noise_for_seeds([0, 42, LARGEST_SEED], (4, 8, 8)), theirs)


def test_the_noise_of_a_seed_is_the_one_it_always_was() -> None:
    # torch's published example values for torch.manual_seed(0); torch.randn(n >= 16).
    noise = noise_for_seeds([0], (20,))[0, :3]
    np.testing.assert_allclose(noise.numpy(), [-1.1258, -1.1524, -0.2506], atol=1e-4)


def test_drawing_noise_leaves_torchs_own_generator_alone() -> None:
    before = torch.get_rng_state()
    noise_for_seeds([1, 2], (4, 4))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_noise_is_standard_normal_and_independent_between_seeds() -> None:
    noise = noise_for_seeds(range(8), (4, 64, 64)).reshape(8, -1).double().numpy()
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
    correlation = np.corrcoef(noise) - np.eye(8)
    # 28 pairs of 16,384 values: five standard errors.
    assert np.abs(correlation).max() < 5 / np.sqrt(noise.shape[1])


def test_no_two_seeds_are_told_apart_less_than_the_request_promises() -> None:
    ends = noise_for_seeds([0, 1, 2**31, 2**31 + 1, LARGEST_SEED - 1, LARGEST_SEED], (16,))
    assert len({tuple(row.tolist()) for row in ends}) == 6


@pytest.mark.parametrize(
    ("batch", "shape"), [([], (4,)), ([-1], (4,)), ([LARGEST_SEED + 1], (4,)), ([1], ()), ([1], (4, 0))]
)
def test_what_names_no_noise_is_refused(batch: list[int], shape: tuple[int, ...]) -> None:
    with pytest.raises(NoiseError):
        noise_for_seeds(batch, shape)
