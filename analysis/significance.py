"""Tests of "no preference": exact on votes, exact on people, clustered; corrected over the declared family."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy import special, stats

from analysis.clustered import Clustering, Floats
from analysis.rates import Population, Rate, preference_rates
from analysis.votes import CHOICE, Integers, Votes, VotesError

Correction = Literal["holm", "benjamini-hochberg", "none"]

EXACT_WORK = 50_000_000
"""Additions up to which the sign-flip distribution is counted out; above it, its normal limit is used and named."""


class TestInputError(VotesError):
    """P-values or differences that no test can take."""

    __test__ = False  # not a test class, whatever pytest thinks of its name


@dataclass(frozen=True)
class PairTest:
    """One method against another by one criterion; the null hypothesis is a preference of one half.

    Attributes:
        criterion: the question.
        method: the first.
        other: the second.
        wins: decided votes for the first.
        losses: decided votes for the second.
        ties: undecided votes; they enter the clustered test as half, the others not at all.
        binomial_p: exact, as if every vote were independent; too small when people or images share opinions.
        sign_flip_p: exact over people: every person's wins minus losses keeps its size and may turn around.
        wilcoxon_p: signed ranks of the same differences; None when nobody has a difference.
        clustered_p: t test of the rate with errors clustered for the stated population; None without an error.
        adjusted_p: the clustered p-value corrected over the family.
        family: how many tests the correction covers.
        correction: which one.
    """

    criterion: str
    method: str
    other: str
    wins: int
    losses: int
    ties: int
    binomial_p: float
    sign_flip_p: float
    wilcoxon_p: float | None
    clustered_p: float | None
    adjusted_p: float | None
    family: int
    correction: Correction


def preference_tests(
    votes: Votes,
    *,
    target: str | None = None,
    population: Population = "people and images",
    correction: Correction = "holm",
) -> tuple[PairTest, ...]:
    """Every pair that met (or the target against each other method), both criteria in one family.

    Raises:
        VotesError: when trials were not pairwise, or the target is unknown.
    """
    counted = votes.only(votes.counted)
    rates = preference_rates(votes, target=target, population=population)
    tests = [_pair_test(counted, rate) for rate in rates]
    adjusted = adjust([1.0 if test.clustered_p is None else test.clustered_p for test in tests], correction)
    return tuple(
        replace(test, adjusted_p=None if test.clustered_p is None else p, family=len(tests), correction=correction)
        for test, p in zip(tests, adjusted, strict=True)
    )


def rate_p_value(rate: Rate, null: float = 0.5, clustering: Clustering | None = None) -> float | None:
    """Two-sided t test that a rate equals `null`; None when its error cannot be estimated."""
    interval = rate.intervals[clustering or rate.headline]
    if rate.estimate is None or interval.standard_error is None:
        return None
    statistic = abs(rate.estimate - null) / interval.standard_error
    return float(2 * special.stdtr(interval.clusters - 1, -statistic))


def sign_flip_p_value(differences: Integers | Sequence[int]) -> float:
    """P(|sum of randomly signed differences| >= the one seen), exact: the distribution is counted out.

    Args:
        differences: one whole number per person, wins minus losses.
    """
    sizes = np.abs(np.asarray(differences, dtype=np.int64))
    sizes = sizes[sizes > 0]
    seen = abs(int(np.sum(differences)))
    reach = int(sizes.sum())
    if not sizes.size:
        return 1.0
    if reach * sizes.size > EXACT_WORK:
        # The half unit is the continuity correction on a lattice of step 2.
        return float(2 * special.ndtr(-max(seen - 1, 0) / np.sqrt(float((sizes**2).sum()))))
    chances = np.zeros(2 * reach + 1)
    chances[reach] = 1.0
    for size in sizes.tolist():
        chances = 0.5 * (np.roll(chances, size) + np.roll(chances, -size))
    outside = np.abs(np.arange(-reach, reach + 1)) >= seen
    return float(min(chances[outside].sum(), 1.0))


def adjust(p_values: Sequence[float], correction: Correction) -> list[float]:
    """Adjusted p-values in the order given: Holm (1979) bounds any false claim, Benjamini-Hochberg (1995) their share.

    Raises:
        TestInputError: for a p-value outside 0..1.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise TestInputError("A p-value lies outside 0..1 or is not a number.")
    if correction == "none" or not p.size:
        return p.tolist()
    order = np.argsort(p, kind="stable")
    n = p.size
    if correction == "holm":
        ordered = np.maximum.accumulate(p[order] * (n - np.arange(n)))
    else:
        ordered = np.minimum.accumulate((p[order] * n / np.arange(1, n + 1))[::-1])[::-1]
    adjusted = np.empty(n)
    adjusted[order] = np.minimum(ordered, 1.0)
    return adjusted.tolist()


def _pair_test(votes: Votes, rate: Rate) -> PairTest:
    differences = _differences(votes, rate)
    differing = differences[differences != 0]
    return PairTest(
        criterion=rate.criterion,
        method=rate.method,
        other=rate.against or "",
        wins=rate.wins,
        losses=rate.losses,
        ties=rate.ties,
        binomial_p=float(stats.binomtest(rate.wins, rate.wins + rate.losses).pvalue)
        if rate.wins + rate.losses
        else 1.0,
        sign_flip_p=sign_flip_p_value(differences),
        wilcoxon_p=_wilcoxon(differing),
        clustered_p=rate_p_value(rate),
        adjusted_p=None,
        family=1,
        correction="none",
    )


def _wilcoxon(differences: Floats | Integers) -> float | None:
    if not differences.size:
        return None
    tied = np.unique(np.abs(differences)).size < differences.size
    result: Any = stats.wilcoxon(differences, method="asymptotic" if tied else "auto")
    return float(result.pvalue)


def _differences(votes: Votes, rate: Rate) -> Integers:
    """Wins minus losses of each person who decided between the two."""
    a, b = votes.method_code(rate.method), votes.method_code(rate.against or rate.method)
    shown = np.sort(votes.shown, axis=1)
    rows = (
        (votes.criterion == votes.criteria.index(rate.criterion))
        & (votes.outcome == CHOICE)
        & (shown[:, 0] == min(a, b))
        & (shown[:, 1] == max(a, b))
    )
    signs = np.where(votes.chosen[rows] == a, 1, -1)
    return np.bincount(votes.participant[rows], signs, len(votes.participants)).astype(np.int64)
