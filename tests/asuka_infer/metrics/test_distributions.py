"""Set metrics against brute force and against sets whose answer is known; the network against torchvision's own."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import squeezenet1_0

from asuka_infer.metrics.distributions import (
    ids_scores,
    ids_scores_of_features,
    kernel_distance,
    kernel_distance_of_features,
    perceptual_distance,
)
from asuka_infer.metrics.features import FeatureWeightsError, SqueezeNet, pooled_features
from asuka_infer.metrics.pixels import MetricError


def features(
    count: int, shift: float = 0.0, seed: int = 0, width: int = 8
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.random.default_rng(seed).normal(shift, 1, (count, width))


def test_the_kernel_distance_is_the_unbiased_estimator_pair_by_pair() -> None:
    results, truths = features(6, 0.5), features(6, seed=1)
    truths /= np.sqrt((truths**2).mean())

    def kernel(
        a: np.ndarray[tuple[int], np.dtype[np.float64]], b: np.ndarray[tuple[int], np.dtype[np.float64]]
    ) -> float:
        return (float(a @ b) / 8 + 1) ** 3

    within = [np.mean([kernel(a, b) for a, b in combinations(group, 2)]) for group in (results, truths)]
    across = np.mean([kernel(a, b) for a in results for b in truths])

    assert kernel_distance_of_features(results, truths) == pytest.approx(sum(within) - 2 * across)


def test_the_kernel_distance_does_not_depend_on_the_scale_of_the_features() -> None:
    one, other = features(20, 0.5), features(20, seed=1)

    assert kernel_distance_of_features(70 * one, 70 * other) == pytest.approx(kernel_distance_of_features(one, other))
    with pytest.raises(MetricError, match="see nothing"):
        kernel_distance_of_features(one, np.zeros_like(one))


def test_the_kernel_distance_of_like_sets_is_about_nothing_and_grows_with_the_shift() -> None:
    alike = np.mean([kernel_distance_of_features(features(60, seed=s), features(60, seed=s + 99)) for s in range(20)])
    shifted = [kernel_distance_of_features(features(60, shift), features(60, seed=1)) for shift in (0.5, 1.0, 2.0)]

    assert abs(alike) < 0.02
    assert alike < shifted[0] < shifted[1] < shifted[2]


def test_a_classifier_tells_far_sets_apart_and_guesses_on_like_ones() -> None:
    far = ids_scores_of_features(features(200, 5.0), features(200, seed=1))
    like = ids_scores_of_features(features(1000), features(1000, seed=1), components=8)

    assert (far.unpaired, far.paired) == (0, 0)
    assert like.unpaired == pytest.approx(0.5, abs=0.05)
    assert like.paired == pytest.approx(0.5, abs=0.05)
    assert (like.pictures, like.components) == (1000, 8)


def test_the_number_of_components_is_a_quarter_of_the_pictures_and_said() -> None:
    assert ids_scores_of_features(features(20), features(20, seed=1)).components == 5
    with pytest.raises(MetricError, match="cannot give 9 components"):
        ids_scores_of_features(features(20), features(20, seed=1), components=9)


def test_a_handful_of_pictures_has_no_distribution() -> None:
    with pytest.raises(MetricError, match="at least 4"):
        kernel_distance_of_features(features(3), features(3))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "squeezenet.pth"
    torch.save({name: value.half() for name, value in squeezenet1_0(weights=None).state_dict().items()}, file)
    return file


@pytest.fixture(scope="module")
def network(weights: Path) -> SqueezeNet:
    return SqueezeNet(weights)


def pictures(count: int, seed: int = 0, size: int = 64) -> list[np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8))


def test_the_distance_is_lpips_without_learned_weights(weights: Path, network: SqueezeNet) -> None:
    one, other = (torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    plain = squeezenet1_0(weights=None).eval()
    plain.load_state_dict({name: value.float() for name, value in torch.load(weights, weights_only=True).items()})
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    expected = torch.zeros(2)
    with torch.no_grad():
        for last in (1, 4, 5, 8, 10):
            a, b = (plain.features[: last + 1]((images - mean) / std) for images in (one, other))
            unit_a, unit_b = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
            # |a - b|^2 of unit vectors is 2 - 2 cos, except where a vector is zero.
            expected += torch.nan_to_num(unit_a - unit_b).square().sum(1).mean((1, 2)) / 5

        assert torch.allclose(network.distance(one, other), expected, atol=1e-4)
        assert network.distance(one, one).abs().max() == 0


def test_the_distance_has_a_finite_gradient_even_where_nothing_differs(network: SqueezeNet) -> None:
    flat = torch.full((1, 3, 64, 64), 0.5, requires_grad=True)
    network.distance(flat, torch.full((1, 3, 64, 64), 0.5)).sum().backward()

    assert flat.grad is not None
    assert torch.isfinite(flat.grad).all()


def test_features_do_not_depend_on_what_else_is_in_the_batch(network: SqueezeNet) -> None:
    many = [*pictures(9), *pictures(2, seed=1, size=48)]
    together = pooled_features(many, network)

    assert together.shape == (11, 512)
    assert np.allclose(together, np.concatenate([pooled_features([one], network) for one in many]), atol=1e-5)


def test_metrics_composite_first(network: SqueezeNet) -> None:
    truths = pictures(8)
    hole = np.zeros((64, 64), dtype=bool)
    hole[10:30, 10:30] = True
    results = pictures(8, seed=1)
    for result, truth in zip(results, truths, strict=True):
        result[hole] = truth[hole]

    assert perceptual_distance(results, truths, [hole] * 8, network=network).tolist() == [0] * 8
    assert kernel_distance(results, truths, [hole] * 8, network=network) <= 1e-9
    assert ids_scores(results, truths, [hole] * 8, network=network).unpaired == pytest.approx(0.5)


def test_other_weights_and_missing_ones_are_refused_by_name(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")

    with pytest.raises(FeatureWeightsError, match=r"other\.pth is not torchvision's squeezenet1_0"):
        SqueezeNet(tmp_path / "other.pth")
    with pytest.raises(FeatureWeightsError, match="no file"):
        SqueezeNet(tmp_path / "none.pth")
