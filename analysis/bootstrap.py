"""Resampling people, or people and images, with replacement: intervals that assume no model of how they differ.

Replicates are weights on count tensors, never copies of votes. The weights can be handed in, so that a test can say
exactly what is resampled.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from analysis.bradley_terry import Strengths, fit_tables
from analysis.clustered import Floats
from analysis.counts import Singles, half_wins, outcome_counts
from analysis.votes import Booleans, Votes, VotesError

REPLICATES = 1000
"""Enough for the 2.5th percentile to rest on 25 replicates (Perez-Ortiz and Mantiuk ask for 500 to 1,000)."""

LEVEL = 0.95

MOST_CELLS = 2**25
"""Numbers held at a time while people and images are resampled together (128 MB)."""


class BootstrapError(VotesError):
    """Too few people or images to resample, or weights of the wrong shape."""


@dataclass(frozen=True, eq=False)
class Replicates:
    """Strengths of every resampled study.

    Attributes:
        log_worth: (replicates, criteria, methods), summing to zero over methods.
        exists: (replicates, criteria) False where the resampled votes have no finite strengths.
        estimate: (criteria, methods) from the votes as they are.
        criteria: names of the middle axis.
        methods: names of the last axis.
        resampled: "participants", or "participants and images".
        seed: of the draw; None when weights were handed in.
        ghost: the regularisation, 0 for none.
    """

    log_worth: Floats
    exists: Booleans
    estimate: Floats
    criteria: tuple[str, ...]
    methods: tuple[str, ...]
    resampled: str
    seed: int | None
    ghost: float


@dataclass(frozen=True)
class Percentiles:
    """What the replicates say about one number.

    Attributes:
        estimate: from the votes as they are.
        standard_error: standard deviation over replicates; None with fewer than two.
        low: lower percentile.
        high: upper percentile.
        replicates: how many had an estimate.
        without: how many had none and are left out.
    """

    estimate: float
    standard_error: float | None
    low: float | None
    high: float | None
    replicates: int
    without: int


def resampling_weights(rng: Generator, clusters: int, replicates: int) -> Singles:
    """(replicates, clusters): how often each cluster is drawn when as many are drawn as there are."""
    draws = rng.integers(0, clusters, (replicates, clusters), dtype=np.int32)
    draws += (np.arange(replicates, dtype=np.int32) * clusters)[:, None]
    return np.bincount(draws.ravel(), minlength=replicates * clusters).reshape(replicates, clusters).astype(np.float32)


def resample_participants(
    votes: Votes, *, replicates: int = REPLICATES, seed: int = 0, weights: Singles | None = None, ghost: float = 0.0
) -> Replicates:
    """Bradley-Terry strengths of studies in which people were drawn again, each with all their votes.

    Right when the images are the whole population of interest ("these images"); otherwise resample both.

    Args:
        votes: pairwise votes; ties count half.
        replicates: how many studies to draw.
        seed: names the draw.
        weights: (replicates, participants) instead of a draw.
        ghost: see `bradley_terry.fit_tables`.

    Raises:
        BootstrapError: with fewer than two participants, or weights of another shape.
    """
    people = len(votes.participants)
    weights = _weights(weights, np.random.default_rng(seed), people, replicates, "participants")
    tensor = half_wins(outcome_counts(votes, "participant"))
    resampled = (weights @ tensor.reshape(people, -1)).reshape(len(weights), *tensor.shape[1:])
    return _fit(votes, (tensor.sum(axis=0), resampled), resampled="participants", seed=seed, ghost=ghost)


def resample_participants_and_images(
    votes: Votes,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
    weights: tuple[Singles, Singles] | None = None,
    ghost: float = 0.0,
) -> Replicates:
    """Bradley-Terry strengths when people and images are both drawn again, independently (Owen's pigeonhole bootstrap).

    Mildly conservative: the variance between votes of one person on one image enters three times.

    Args:
        votes: pairwise votes; ties count half.
        replicates: how many studies to draw.
        seed: names the draw.
        weights: (replicates, participants) and (replicates, images) instead of a draw.
        ghost: see `bradley_terry.fit_tables`.

    Raises:
        BootstrapError: with fewer than two participants or images, or weights of another shape.
    """
    rng = np.random.default_rng(seed)
    people, images = len(votes.participants), len(votes.images)
    given = (None, None) if weights is None else weights
    by_person = _weights(given[0], rng, people, replicates, "participants")
    by_image = _weights(given[1], rng, images, replicates, "images")
    if len(by_person) != len(by_image):
        raise BootstrapError(f"{len(by_person)} replicates of participants but {len(by_image)} of images.")
    tensor = half_wins(outcome_counts(votes, "both"))
    flat = tensor.reshape(people, -1)
    chunk = max(1, MOST_CELLS // max(flat.shape[1], 1))
    resampled = np.concatenate(
        [
            np.einsum(
                "bkd,bk->bd", (by_person[b : b + chunk] @ flat).reshape(-1, images, flat.shape[1] // images),
                by_image[b : b + chunk],
            )
            for b in range(0, len(by_person), chunk)
        ]
    ).reshape(len(by_person), *tensor.shape[2:])  # fmt: skip
    tables = (tensor.sum(axis=(0, 1)), resampled)
    return _fit(votes, tables, resampled="participants and images", seed=seed, ghost=ghost)


def strength_interval(replicates: Replicates, criterion: str, method: str, level: float = LEVEL) -> Percentiles:
    """A method's log strength against the average method."""
    c, m = replicates.criteria.index(criterion), replicates.methods.index(method)
    return _percentiles(replicates.log_worth[:, c, m], replicates.exists[:, c], replicates.estimate[c, m], level)


def contrast_interval(
    replicates: Replicates, criterion: str, method: str, other: str, level: float = LEVEL
) -> Percentiles:
    """How much stronger one method is than another: compare these, not whether two intervals overlap."""
    c = replicates.criteria.index(criterion)
    a, b = replicates.methods.index(method), replicates.methods.index(other)
    drawn = replicates.log_worth[:, c, a] - replicates.log_worth[:, c, b]
    return _percentiles(drawn, replicates.exists[:, c], replicates.estimate[c, a] - replicates.estimate[c, b], level)


def probability_of_best(replicates: Replicates, criterion: str) -> Floats:
    """(methods,) in what share of the replicates each method is the strongest."""
    c = replicates.criteria.index(criterion)
    best = replicates.log_worth[replicates.exists[:, c], c].argmax(axis=1)
    return np.bincount(best, minlength=len(replicates.methods)) / max(best.size, 1)


def _weights(given: Singles | None, rng: Generator, clusters: int, replicates: int, unit: str) -> Singles:
    fewest = 2
    if clusters < fewest:
        raise BootstrapError(f"There are {clusters} {unit}; at least {fewest} are needed to draw them again.")
    if given is None:
        return resampling_weights(rng, clusters, replicates)
    if given.ndim != 2 or given.shape[1] != clusters:  # noqa: PLR2004 - replicates and clusters
        raise BootstrapError(f"The weights have shape {given.shape}; {unit} need (replicates, {clusters}).")
    return given.astype(np.float32)


def _fit(
    votes: Votes, tables: tuple[Singles, Singles], *, resampled: str, seed: int | None, ghost: float
) -> Replicates:
    """Strengths of the whole study, and from there those of the drawn ones."""
    whole, drawn = tables
    full = fit_tables(whole, ghost=ghost)
    criteria, m = full.log_worth.shape
    fits: list[Strengths] = [
        fit_tables(drawn[:, c], full.log_worth[c] if full.converged[c] else None, ghost=ghost) for c in range(criteria)
    ]
    return Replicates(
        log_worth=np.stack([fit.log_worth for fit in fits], axis=1).reshape(-1, criteria, m),
        exists=np.stack([fit.converged for fit in fits], axis=1),
        estimate=np.where(full.converged[:, None], full.log_worth, np.nan),
        criteria=votes.criteria,
        methods=votes.methods,
        resampled=resampled,
        seed=seed,
        ghost=ghost,
    )


def _percentiles(drawn: Floats, exists: Booleans, estimate: float, level: float) -> Percentiles:
    kept = drawn[exists]
    without = int(drawn.size - kept.size)
    fewest = 2
    if kept.size < fewest:
        return Percentiles(float(estimate), None, None, None, int(kept.size), without)
    low, high = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
    return Percentiles(float(estimate), float(kept.std(ddof=1)), float(low), float(high), int(kept.size), without)
