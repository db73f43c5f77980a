"""How often each method is chosen, with intervals that know that people and images both vary.

Selection ratio: of the trials that showed a method, the share in which it was chosen (paper 000 sec. 5.2, Table 2c).
Preference rate: of the trials of one pair, the share that preferred one method to the other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, sqrt
from typing import Literal

import numpy as np
from scipy import special

from analysis.clustered import CLUSTERINGS, Clustering, Clusters, Floats
from analysis.votes import CANT_TELL, NONE, TIE, Booleans, Integers, Votes, VotesError

Ties = Literal["half", "dropped", "lost"]
"""A tie gives half a win to each side, is left out, or counts for nobody."""

Population = Literal["people and images", "people, these images"]
"""Whom the interval speaks about: new people on new images, or new people on exactly these images."""

LEVEL = 0.95
"""The usual confidence level."""

HALVES = 2
"""Wins are counted in half points, so that ties stay whole numbers."""

NEVER_VARIES = "no cluster differs from another, so their spread is unknown; the interval counts each as one trial"


@dataclass(frozen=True)
class Interval:
    """A two-sided confidence interval, or the reason why there is none.

    Attributes:
        method: the clustering behind it.
        standard_error: of the estimate; None when it cannot be estimated.
        low: lower end, None when it cannot be estimated.
        high: upper end, None when it cannot be estimated.
        clusters: how many people, images, or votes stand behind it.
        note: what could not be estimated and what stands in; empty when nothing.
    """

    method: Clustering
    standard_error: float | None
    low: float | None
    high: float | None
    clusters: int
    note: str = ""


@dataclass(frozen=True)
class Rate:
    """One share with its counts and intervals.

    Attributes:
        criterion: the question asked.
        method: whose share it is.
        against: the other method of a pair; None for "against everything shown".
        wins: trials in which the method was chosen.
        ties: trials answered with a tie.
        losses: trials in which another method was chosen.
        half_points: the numerator in halves: 2 per win, and 1 per tie where a tie is half a win.
        n: the denominator in trials.
        participants: people who answered such a trial.
        images: images of such trials.
        ties_are: how ties entered.
        participant_mean: mean of each person's own share (the paper's "average selection ratio"); equals the pooled
            share when everyone answered equally many trials. None without trials.
        headline: which interval answers for the stated population.
        intervals: by clustering.
        level: confidence level of the intervals.
    """

    criterion: str
    method: str
    against: str | None
    wins: int
    ties: int
    losses: int
    half_points: int
    n: int
    participants: int
    images: int
    ties_are: Ties
    participant_mean: float | None
    headline: Clustering
    intervals: Mapping[Clustering, Interval]
    level: float

    @property
    def estimate(self) -> float | None:
        """The share, 0 to 1; None when no trial showed the method."""
        return self.half_points / (HALVES * self.n) if self.n else None

    @property
    def interval(self) -> Interval:
        """The interval for the stated population."""
        return self.intervals[self.headline]

    def percent(self, decimals: int = 2) -> str:
        """The share in percent, rounded half up from the counts; a dash when no trial showed the method."""
        return exact_percent(self.half_points, HALVES * self.n, decimals) if self.n else "-"


def exact_percent(count: int, total: int, decimals: int = 2) -> str:
    """A count of a total in percent, rounded half up in whole-number arithmetic.

    Formatting the binary quotient would print 14 of the 18 cells of the paper's Table 2c right and 4 wrong.

    Raises:
        VotesError: when the total is not positive or a count is negative.
    """
    if total <= 0 or count < 0:
        raise VotesError(f"{count} of {total} is no share; the total must be positive and the count not negative.")
    scaled = (2 * count * 100 * 10**decimals + total) // (2 * total)
    whole, fraction = divmod(scaled, 10**decimals)
    return f"{whole}.{fraction:0{decimals}d}" if decimals else str(whole)


def selection_ratios(
    votes: Votes, *, ties: Ties = "half", population: Population = "people and images", level: float = LEVEL
) -> tuple[Rate, ...]:
    """Per criterion and method: the share of the trials showing the method in which it was chosen.

    Best-of-N and pairwise trials alike; pairwise, this is the average win rate. A tie counts half (a tie between
    more than two shown methods cannot be divided: then use "lost" or "dropped"). Can't-tell never counts.

    Raises:
        VotesError: for half ties among more than two methods, or a level outside 0..1.
    """
    terms = _Terms(ties, population, level)
    counted = _answered(votes, ties, level)
    return tuple(
        _rate(counted, counted.criterion == c, _Asked(c, m, None), terms)
        for c in range(len(votes.criteria))
        for m in range(len(votes.methods))
    )


def preference_rates(
    votes: Votes,
    *,
    target: str | None = None,
    ties: Ties = "half",
    population: Population = "people and images",
    level: float = LEVEL,
) -> tuple[Rate, ...]:
    """Per criterion and pair of methods that met in pairwise trials: the share preferring the first.

    With a target: the target against each other method; without: every pair once, in the order of the names.

    Raises:
        VotesError: when trials showed more than two methods, the target is unknown, or the level is outside 0..1.
    """
    if not votes.is_pairwise:
        raise VotesError("Preference rates need pairwise trials; these chose among more, so use selection_ratios.")
    terms = _Terms(ties, population, level)
    counted = _answered(votes, ties, level)
    firsts = range(len(votes.methods)) if target is None else (votes.method_code(target),)
    pairs = [(a, b) for a in firsts for b in range(len(votes.methods)) if (a < b if target is None else a != b)]
    both = np.sort(counted.shown, axis=1)
    rates: list[Rate] = []
    for c in range(len(votes.criteria)):
        for a, b in pairs:
            rows = (counted.criterion == c) & (both[:, 0] == min(a, b)) & (both[:, 1] == max(a, b))
            if rows.any():
                rates.append(_rate(counted, rows, _Asked(c, a, b), terms))
    return tuple(rates)


def rate_interval(
    points: Floats, participant: Integers, image: Integers, clustering: Clustering = "two-way", level: float = LEVEL
) -> Interval:
    """The interval of a mean of points between 0 and 1, one per vote.

    Args:
        points: (n,) what each vote scores.
        participant: (n,) who gave it.
        image: (n,) on which image.
        clustering: what new votes would bring with them.
        level: confidence level.
    """
    return _interval(points, Clusters(participant, image), clustering, level)


def vote_counts(votes: Votes, criterion: str) -> Floats:
    """(methods, methods) how often the row's method was chosen where the column's was shown too; ties not counted."""
    rows = votes.only(votes.counted).for_criterion(criterion)
    m = len(votes.methods)
    table = np.zeros((m, m))
    for place in range(rows.shown.shape[1]):
        beaten = (rows.chosen != NONE) & (rows.shown[:, place] != NONE) & (rows.shown[:, place] != rows.chosen)
        np.add.at(table, (rows.chosen[beaten], rows.shown[beaten, place]), 1)
    return table


def tie_counts(votes: Votes, criterion: str) -> Floats:
    """(methods, methods) how often two methods tied, the same above and below the diagonal."""
    rows = votes.only(votes.counted & (votes.outcome == TIE)).for_criterion(criterion)
    m = len(votes.methods)
    table = np.zeros((m, m))
    for a in range(rows.shown.shape[1]):
        for b in range(rows.shown.shape[1]):
            both = (rows.shown[:, a] != NONE) & (rows.shown[:, b] != NONE)
            if a != b:
                np.add.at(table, (rows.shown[both, a], rows.shown[both, b]), 1)
    return table


@dataclass(frozen=True)
class _Asked:
    """Codes of what one rate is about."""

    criterion: int
    method: int
    against: int | None


@dataclass(frozen=True)
class _Terms:
    """How all rates of one call are counted and bounded."""

    ties: Ties
    population: Population
    level: float


def _answered(votes: Votes, ties: Ties, level: float) -> Votes:
    if not 0 < level < 1:
        raise VotesError(f"The confidence level is {level}; give a share between 0 and 1, for example 0.95.")
    counted = votes.only(votes.counted & (votes.outcome != CANT_TELL))
    tied = counted.outcome == TIE
    if ties == "half" and tied.any() and not counted.only(tied).is_pairwise:
        raise VotesError("A tie among more than two methods cannot be halved; choose ties='lost' or ties='dropped'.")
    return counted.only(~tied) if ties == "dropped" else counted


def _rate(
    votes: Votes,
    rows: Booleans,
    asked: "_Asked",
    terms: "_Terms",
) -> Rate:
    rows = rows & (votes.shown == asked.method).any(axis=1)
    subset = np.flatnonzero(rows)
    won = votes.chosen[subset] == asked.method
    tied = votes.outcome[subset] == TIE
    points = won.astype(np.float64) + (0.5 * tied if terms.ties == "half" else 0.0)
    participant, image = votes.participant[subset], votes.image[subset]
    clusters = Clusters(participant, image)
    wins, tie_count = int(won.sum()), int(tied.sum())
    return Rate(
        criterion=votes.criteria[asked.criterion],
        method=votes.methods[asked.method],
        against=None if asked.against is None else votes.methods[asked.against],
        wins=wins,
        ties=tie_count,
        losses=int(subset.size) - wins - tie_count,
        half_points=HALVES * wins + (tie_count if terms.ties == "half" else 0),
        n=int(subset.size),
        participants=int(np.unique(participant).size),
        images=int(np.unique(image).size),
        ties_are=terms.ties,
        participant_mean=_mean_of_means(points, participant),
        headline="two-way" if terms.population == "people and images" else "participant",
        intervals={clustering: _interval(points, clusters, clustering, terms.level) for clustering in CLUSTERINGS},
        level=terms.level,
    )


def _mean_of_means(points: Floats, participant: Sequence[int] | np.ndarray) -> float | None:
    if not points.size:
        return None
    _, dense = np.unique(participant, return_inverse=True)
    return float(np.mean(np.bincount(dense, points) / np.bincount(dense)))


def _interval(points: Floats, clusters: Clusters, clustering: Clustering, level: float) -> Interval:
    n = points.size
    if not n:
        return Interval(clustering, None, None, None, 0, "no trial showed this method")
    share = float(points.mean())
    spread = clusters.variances((points - share)[:, None], clustering)
    if spread.variance is None:
        return Interval(clustering, None, None, None, spread.clusters, spread.note)
    error = sqrt(max(float(spread.variance[0]), 0.0)) / n
    quantile = float(special.stdtrit(spread.degrees_of_freedom, (1 + level) / 2))
    if error == 0 or share in (0.0, 1.0):
        low, high = _wilson(share, spread.clusters, quantile)
        return Interval(clustering, None, low, high, spread.clusters, NEVER_VARIES)
    low, high = _wilson(share, share * (1 - share) / error**2, quantile)
    return Interval(clustering, error, low, high, spread.clusters, spread.note)


def _wilson(share: float, effective_n: float, quantile: float) -> tuple[float, float]:
    """Wilson's score interval at the sample size that would give the same standard error without clustering.

    It stays inside 0..1 and keeps its coverage for shares near 0, where estimate +- t * SE does not (benchmark
    analysis_coverage.py).
    """
    if isnan(effective_n):
        raise VotesError("The effective sample size is not a number; a vote is neither 0, 1/2 nor 1.")
    shrink = quantile**2 / effective_n
    centre = (share + shrink / 2) / (1 + shrink)
    half_width = quantile / (1 + shrink) * sqrt(share * (1 - share) / effective_n + shrink / (4 * effective_n))
    # At the ends centre and half width are equal but for rounding.
    return 0.0 if share == 0 else centre - half_width, 1.0 if share == 1 else centre + half_width
