"""Numbers that compare many results with many truths at once, on the features of a network.

All take `(results, truths, holes)` like every metric, plus the network, and composite first; the functions that end in
`_of_features` take the (n, width) features themselves, so that a bootstrap computes them once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from asuka_infer.metrics.features import SqueezeNet, perceptual_distances, pooled_features
from asuka_infer.metrics.pixels import MetricError, Scores, composited
from asuka_infer.request import Hole, RgbImage

Features = NDArray[np.float64]
"""(n, width): one vector per picture."""

FEWEST = 4
"""Pictures below which neither score means anything."""

PICTURES_PER_COMPONENT = 4
"""At most a quarter as many principal components as pictures: with more, the classifier tells any two sets apart."""

MOST_COMPONENTS = 64
"""More were not needed at the sizes of our tables (our choice); the scores always say how many were used."""

MOST_ITERATIONS = 100_000
"""Of the linear SVM: with standardised features it converges in far fewer."""


@dataclass(frozen=True)
class IdsScores:
    """How often a linear classifier mistakes results for truths (Zhao et al., ICLR 2021); higher is better.

    Attributes:
        unpaired: 1 - its accuracy; at most about 0.5.
        paired: how often a result looks more real to it than its own truth.
        pictures: pairs that were compared.
        components: principal components that it saw.
    """

    unpaired: float
    paired: float
    pictures: int
    components: int


def perceptual_distance(
    results: Sequence[RgbImage], truths: Sequence[RgbImage], holes: Sequence[Hole], *, network: SqueezeNet
) -> Scores:
    """`SqueezeNet.distance` of each composited result from its truth; 0 = alike. Not LPIPS: no learned weights."""
    return perceptual_distances(composited(results, truths, holes), truths, network)


def kernel_distance(
    results: Sequence[RgbImage], truths: Sequence[RgbImage], holes: Sequence[Hole], *, network: SqueezeNet
) -> float:
    """`kernel_distance_of_features` on SqueezeNet's pooled features (KID proper is on Inception's)."""
    filled = composited(results, truths, holes)
    return kernel_distance_of_features(pooled_features(filled, network), pooled_features(truths, network))


def ids_scores(
    results: Sequence[RgbImage], truths: Sequence[RgbImage], holes: Sequence[Hole], *, network: SqueezeNet
) -> IdsScores:
    """`ids_scores_of_features` on SqueezeNet's pooled features (the paper's are on Inception's)."""
    filled = composited(results, truths, holes)
    return ids_scores_of_features(pooled_features(filled, network), pooled_features(truths, network))


def kernel_distance_of_features(results: Features, truths: Features) -> float:
    """Unbiased squared maximum mean discrepancy with the cubic kernel of KID (Binkowski et al., ICLR 2018).

    May be slightly negative for sets that are alike. Features are first scaled so that the mean square of the truths'
    is 1: SqueezeNet's are tens of times larger than the Inception features that the kernel was made for.
    """
    _refuse_unlike(results, truths)
    results, truths = in_units_of(results, truths)
    within = _mean_off_diagonal(_cubic(results, results)) + _mean_off_diagonal(_cubic(truths, truths))
    return float(within - 2 * _cubic(results, truths).mean())


def in_units_of(results: Features, truths: Features) -> tuple[Features, Features]:
    """Both divided by the root mean square of the truths.

    Raises:
        MetricError: when the truths have no features at all.
    """
    unit = float(np.sqrt(np.square(truths).mean()))
    if unit == 0:
        raise MetricError("All features of the truths are 0; these weights see nothing in these pictures.")
    return results / unit, truths / unit


def ids_scores_of_features(results: Features, truths: Features, *, components: int | None = None) -> IdsScores:
    """U-IDS and P-IDS of paired features; row k of both belongs to the same picture.

    Args:
        results: (n, width).
        truths: (n, width).
        components: principal components that the classifier sees; None takes a quarter of n, at most 64. The official
            script takes as many as the pictures have pixels on a side.

    Raises:
        MetricError: when there are too few pictures for the components.
    """
    _refuse_unlike(results, truths)
    number = components or min(MOST_COMPONENTS, len(results) // PICTURES_PER_COMPONENT, results.shape[1])
    if number > min(2 * len(results), results.shape[1]):
        raise MetricError(f"{len(results)} pairs cannot give {number} components; ask for fewer.")
    both = StandardScaler().fit_transform(np.concatenate([results, truths]))
    seen = StandardScaler().fit_transform(PCA(number, svd_solver="full").fit_transform(both))
    real = np.repeat([0, 1], len(results))
    judge = LinearSVC(dual=cast("Any", False), max_iter=MOST_ITERATIONS).fit(seen, real)  # noqa: FBT003 - its stub says str
    verdict = judge.decision_function(seen)
    mistaken = (verdict > 0) != real
    fooled = verdict[: len(results)] > verdict[len(results) :]
    return IdsScores(float(mistaken.mean()), float(fooled.mean()), len(results), number)


def _cubic(one: Features, other: Features) -> Features:
    return (one @ other.T / one.shape[1] + 1) ** 3


def _mean_off_diagonal(kernel: Features) -> float:
    count = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (count * (count - 1)))


def _refuse_unlike(results: Features, truths: Features) -> None:
    if results.shape != truths.shape or len(results) < FEWEST:
        raise MetricError(f"Features are {results.shape} and {truths.shape}; give alike many, at least {FEWEST}.")
