"""The Frechet distance of two sets of features (FID on Inception's), and how much each picture contributes to it.

Features are read in blocks, so that they may lie on disk: memory depends on their width, not on how many there are.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asuka_infer.metrics.pixels import MetricError

Features = NDArray[np.float64]

BLOCK = 1024
"""Rows that are in memory at a time: 16 MB of Inception's features (our choice)."""

FEWEST = 2
"""Pictures below which there is no covariance."""

_TOLERANCE = 1e-10
"""Eigenvalues below this share of the largest are rounding: directions in which the set does not vary."""


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Mean (width,) and sample covariance (width, width) of `count` feature vectors."""

    mean: Features
    covariance: Features
    count: int


@dataclass(frozen=True, eq=False)
class FrechetDistance:
    """The distance, and its value as seen from each picture.

    Attributes:
        value: |m - m'|^2 + tr(S + S' - 2 (S S')^(1/2)), at least 0.
        pseudo: (n,) `value` plus the influence of each pair of pictures: what it adds per unit of its weight. Their
            mean is the value; the spread of that mean is the distance's (delta method).
    """

    value: float
    pseudo: Features


def gaussian_of(features: NDArray[np.floating[Any]]) -> Gaussian:
    """Mean and unbiased covariance of (n, width) features.

    Raises:
        MetricError: for fewer than two pictures.
    """
    count = len(features)
    if count < FEWEST:
        raise MetricError(f"{count} pictures have no covariance; give at least {FEWEST}.")
    mean = sum((block.sum(0) for block in _blocks(features)), start=np.zeros(features.shape[1])) / count
    scatter = np.zeros((features.shape[1], features.shape[1]))
    for block in _blocks(features):
        scatter += (block - mean).T @ (block - mean)
    return Gaussian(mean, scatter / (count - 1), count)


def distance_of_gaussians(one: Gaussian, other: Gaussian) -> float:
    """The squared Frechet (2-Wasserstein) distance (Dowson and Landau, 1982; Heusel et al., NeurIPS 2017)."""
    root, _ = _roots(one.covariance)
    shared = np.sqrt(np.clip(np.linalg.eigvalsh(root @ other.covariance @ root), 0, None)).sum()
    apart = np.square(one.mean - other.mean).sum()
    return max(0.0, float(apart + np.trace(one.covariance) + np.trace(other.covariance) - 2 * shared))


def frechet_distance_of_features(
    results: NDArray[np.floating[Any]], truths: NDArray[np.floating[Any]]
) -> FrechetDistance:
    """The distance of paired features; row k of both belongs to the same picture.

    Raises:
        MetricError: when their shapes differ or there are fewer than two pictures.
    """
    if results.shape != truths.shape:
        raise MetricError(f"Features are {results.shape} and {truths.shape}; give alike many.")
    one, other = gaussian_of(results), gaussian_of(truths)
    value = distance_of_gaussians(one, other)
    there, back = _transports(one.covariance, other.covariance)
    gap = one.mean - other.mean
    influence: list[Features] = []
    for block, mate in zip(_blocks(results), _blocks(truths), strict=True):
        first, second = block - one.mean, mate - other.mean
        shift = 2 * (first - second) @ gap
        influence.append(shift + _quadratic(first, there) + _quadratic(second, back))
    pseudo = np.concatenate(influence)
    return FrechetDistance(value, value + pseudo - pseudo.mean())


def _transports(one: Features, other: Features) -> tuple[Features, Features]:
    """I minus the optimal maps between the Gaussians: the distance's derivatives by the two covariances."""
    root, inverse = _roots(one)
    middle, middle_inverse = _roots(root @ other @ root)
    unit = np.eye(len(one))
    return unit - inverse @ middle @ inverse, unit - root @ middle_inverse @ root


def _roots(matrix: Features) -> tuple[Features, Features]:
    """The root of a symmetric non-negative matrix, and the root of its pseudo-inverse."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    kept = values > _TOLERANCE * max(values[-1], np.finfo(float).tiny)
    root = np.sqrt(np.where(kept, values, 0))
    inverse = np.divide(1, root, out=np.zeros_like(root), where=kept)
    return (vectors * root) @ vectors.T, (vectors * inverse) @ vectors.T


def _quadratic(vectors: Features, matrix: Features) -> Features:
    return np.einsum("ij,ij->i", vectors @ matrix, vectors)


def _blocks(features: NDArray[np.floating[Any]]) -> Iterator[Features]:
    for start in range(0, len(features), BLOCK):
        yield np.asarray(features[start : start + BLOCK], dtype=np.float64)
