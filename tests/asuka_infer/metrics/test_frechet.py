"""FID against closed forms of Gaussians, scipy's matrix root and torchmetrics; its intervals against resampling."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.linalg import sqrtm
from torchmetrics.image.fid import _compute_fid  # pyright: ignore[reportPrivateUsage] - the oracle
from torchmetrics.image.kid import poly_mmd

from asuka_infer.metrics.distributions import ids_verdicts_of_features, kernel_distance_seen
from asuka_infer.metrics.frechet import (
    Gaussian,
    distance_of_gaussians,
    frechet_distance_of_features,
    gaussian_of,
)
from asuka_infer.metrics.pixels import MetricError

Floats = NDArray[np.float64]


def features(count: int, seed: int, width: int = 6, shift: float = 0.0) -> Floats:
    rng = np.random.default_rng(seed)
    return rng.normal(shift, 1, (count, width)) @ rng.normal(0, 1, (width, width)) / 2


def test_gaussians_with_diagonal_covariances_have_the_textbook_distance() -> None:
    one = Gaussian(np.array([0.0, 1.0, 2.0]), np.diag([1.0, 4.0, 9.0]), 10)
    other = Gaussian(np.array([1.0, 1.0, 0.0]), np.diag([4.0, 4.0, 1.0]), 10)

    # |m - m'|^2 + sum (sd - sd')^2
    assert distance_of_gaussians(one, other) == pytest.approx((1 + 4) + (1 + 0 + 4), rel=1e-12)
    assert distance_of_gaussians(one, one) == pytest.approx(0, abs=1e-12)


def test_sets_of_features_agree_with_scipy_s_root_and_torchmetrics_to_a_millionth() -> None:
    results, truths = features(300, 1), features(300, 2, shift=0.4)
    means = results.mean(0), truths.mean(0)
    covariances = np.cov(results, rowvar=False), np.cov(truths, rowvar=False)
    root = np.real(sqrtm(covariances[0] @ covariances[1]))
    expected = ((means[0] - means[1]) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    tensors = [torch.from_numpy(each) for pair in zip(means, covariances, strict=True) for each in pair]

    value = frechet_distance_of_features(results, truths).value
    assert value == pytest.approx(expected, rel=1e-6)
    assert value == pytest.approx(float(_compute_fid(*tensors)), rel=1e-6)


def test_fewer_pictures_than_features_still_have_their_distance() -> None:
    results, truths = features(8, 3, width=20), features(8, 4, width=20)
    # The trace of the root is the nuclear norm of the product of the centred sets.
    centred = [(each - each.mean(0)) / np.sqrt(7) for each in (results, truths)]
    shared = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    traces = sum((each**2).sum() for each in centred)
    expected = ((results.mean(0) - truths.mean(0)) ** 2).sum() + traces - 2 * shared

    assert frechet_distance_of_features(results, truths).value == pytest.approx(expected, rel=1e-6)


def test_covariances_do_not_depend_on_the_blocks_they_are_read_in() -> None:
    many = features(2500, 5)

    told = gaussian_of(many.astype(np.float32))
    assert np.allclose(told.covariance, np.cov(many, rowvar=False), rtol=1e-4)
    assert told.count == 2500


def test_what_single_pictures_add_gives_the_spread_that_resampling_gives() -> None:
    results, truths = features(200, 6), features(200, 7, shift=0.3)
    rng = np.random.default_rng(0)
    frechet, kernel = [], []
    for _ in range(120):
        rows = rng.integers(0, 200, 200)
        frechet.append(frechet_distance_of_features(results[rows], truths[rows]).value)
        kernel.append(kernel_distance_seen(results[rows], truths[rows]).value)
    told = frechet_distance_of_features(results, truths), kernel_distance_seen(results, truths)

    for seen, resampled in zip(told, (frechet, kernel), strict=True):
        assert seen.pseudo.mean() == pytest.approx(seen.value)
        assert seen.pseudo.std() / np.sqrt(200) == pytest.approx(np.std(resampled), rel=0.25)


def test_the_kernel_distance_of_inception_features_is_torchmetrics_kid() -> None:
    results, truths = features(50, 8), features(50, 9, shift=0.2)
    expected = float(poly_mmd(torch.from_numpy(results), torch.from_numpy(truths), degree=3, gamma=None, coef=1.0))

    assert kernel_distance_seen(results, truths).value == pytest.approx(expected, rel=1e-9)


def test_the_linear_classifier_is_the_one_that_brute_force_finds() -> None:
    rng = np.random.default_rng(1)
    results, truths = rng.normal(0, 1, (60, 1)), rng.normal(0.8, 1, (60, 1))
    both = np.concatenate([results, truths])[:, 0]
    scaled = (both - both.mean()) / both.std()
    labels = np.repeat([-1.0, 1.0], 60)

    def cost(weight: float, bias: float) -> float:
        # LinearSVC: half the squared weights, its bias among them, plus the squared hinge.
        return (weight**2 + bias**2) / 2 + (np.maximum(0, 1 - labels * (weight * scaled + bias)) ** 2).sum()

    grid = [(cost(w, b), w, b) for w in np.linspace(-2, 2, 401) for b in np.linspace(-1, 1, 201)]
    _, weight, bias = min(grid)
    verdict = weight * scaled + bias
    told = ids_verdicts_of_features(results, truths, components=1)

    # The grid is a hundredth wide, so a picture at the very edge may fall on either side.
    assert told.mistaken.mean() == pytest.approx(((verdict > 0) != (labels > 0)).mean(), abs=1 / 60)
    assert told.fooled.mean() == pytest.approx((verdict[:60] > verdict[60:]).mean(), abs=1 / 60)


def test_sets_that_do_not_pair_are_refused() -> None:
    with pytest.raises(MetricError, match="alike many"):
        frechet_distance_of_features(features(5, 0), features(6, 0))
    with pytest.raises(MetricError, match="no covariance"):
        gaussian_of(features(1, 0))
