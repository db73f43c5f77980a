"""Numbers that compare many results with many truths at once, on the features of a network.

All take `(results, truths, holes)` like every metric, plus the network, and composite first; the functions that end in
`_of_features` take the (n, width) features themselves, so that a bootstrap computes them once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from asuka_infer.metrics.features import SqueezeNet, perceptual_distances, pooled_features
from asuka_infer.metrics.frechet import BLOCK
from asuka_infer.metrics.pixels import MetricError, Scores, composited
from asuka_infer.request import Hole, RgbImage

Features = NDArray[np.float64]
"""(n, width): one vector per picture."""

Stored = NDArray[np.floating[Any]]
"""The same in any precision, in memory or mapped from a file."""

FEWEST = 4
"""Pictures below which neither score can be computed at all; a table asks for many more."""

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


@dataclass(frozen=True, eq=False)
class IdsVerdicts:
    """What the classifier said of each pair.

    Attributes:
        mistaken: (n,) share of the pair's two pictures that it mistakes, 0, 1/2 or 1. Their mean is U-IDS.
        fooled: (n,) 1 where the result looks more real to it than its truth. Their mean is P-IDS.
        components: principal components that it saw.
    """

    mistaken: Features
    fooled: Features
    components: int


@dataclass(frozen=True, eq=False)
class KernelDistance:
    """The distance, and its value as seen from each picture.

    Attributes:
        value: the unbiased estimate.
        pseudo: (n,) value plus what each pair of pictures adds to it per unit of its weight; their mean is the value.
    """

    value: float
    pseudo: Features


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
    return kernel_distance_seen(*in_units_of(results, truths)).value


def kernel_distance_seen(results: Stored, truths: Stored) -> KernelDistance:
    """The distance of paired features as they are (KID when they are Inception's), picture by picture.

    Features may lie on disk: kernels are made in blocks.

    Raises:
        MetricError: when shapes differ or there are fewer than `FEWEST` pictures.
    """
    _refuse_unlike(results, truths)
    count = len(results)
    across_rows, across_columns = np.zeros(count), np.zeros(count)
    within = np.zeros(count)
    for here in _stretches(count):
        one, other = np.asarray(results[here], np.float64), np.asarray(truths[here], np.float64)
        for there in _stretches(count):
            mine, theirs = np.asarray(results[there], np.float64), np.asarray(truths[there], np.float64)
            across = _cubic(one, theirs)
            across_rows[here] += across.sum(1)
            across_columns[there] += across.sum(0)
            within[here] += _cubic(one, mine).sum(1) + _cubic(other, theirs).sum(1)
        # A picture is not compared with itself.
        within[here] -= sum((np.square(each).sum(1) / each.shape[1] + 1) ** 3 for each in (one, other))
    value = float(within.sum() / (count * (count - 1)) - 2 * across_rows.sum() / count**2)
    seen = 2 * (within / (count - 1) - (across_rows + across_columns) / count)
    return KernelDistance(value, value + seen - seen.mean())


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
    seen = ids_verdicts_of_features(results, truths, components=components)
    return IdsScores(float(seen.mistaken.mean()), float(seen.fooled.mean()), len(results), seen.components)


def ids_verdicts_of_features(results: Stored, truths: Stored, *, components: int | None = None) -> IdsVerdicts:
    """As `ids_scores_of_features`, pair by pair; features may lie on disk."""
    _refuse_unlike(results, truths)
    count, width = results.shape
    number = components or min(MOST_COMPONENTS, count // PICTURES_PER_COMPONENT, width)
    if number > min(2 * count, width):
        raise MetricError(f"{count} pairs cannot give {number} components; ask for fewer.")
    seen = StandardScaler().fit_transform(_principal(results, truths, number))
    real = np.repeat([0, 1], count)
    judge = LinearSVC(dual=cast("Any", False), max_iter=MOST_ITERATIONS).fit(seen, real)  # noqa: FBT003 - its stub says str
    verdict = judge.decision_function(seen)
    mistaken = ((verdict > 0) != real).reshape(2, count).mean(0)
    fooled = verdict[:count] > verdict[count:]
    return IdsVerdicts(mistaken, fooled.astype(np.float64), number)


def _principal(results: Stored, truths: Stored, number: int) -> Features:
    """(2n, number): both sets, standardised, on their first common principal components."""
    scaler = StandardScaler()
    places = [(each, here) for each in (results, truths) for here in _stretches(len(each))]
    for each, here in places:
        scaler.partial_fit(np.asarray(each[here], np.float64))

    def standardised() -> Iterator[Features]:
        for each, here in places:
            yield np.asarray(scaler.transform(np.asarray(each[here], np.float64)), np.float64)

    scatter = sum((block.T @ block for block in standardised()), start=np.zeros((results.shape[1],) * 2))
    # The mean is 0 by then, so the scatter's eigenvectors are the principal axes; eigh gives the largest last.
    axes = np.linalg.eigh(scatter)[1][:, ::-1][:, :number]
    return np.concatenate([block @ axes for block in standardised()])


def _stretches(count: int) -> list[slice]:
    return [slice(start, start + BLOCK) for start in range(0, count, BLOCK)]


def _cubic(one: Features, other: Features) -> Features:
    return (one @ other.T / one.shape[1] + 1) ** 3


def _refuse_unlike(results: Stored, truths: Stored) -> None:
    if results.shape != truths.shape or len(results) < FEWEST:
        raise MetricError(f"Features are {results.shape} and {truths.shape}; give alike many, at least {FEWEST}.")
