"""Whether the answers can be trusted: sides and slots, repeated questions, response times, exclusions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special, stats

from analysis.clustered import Floats
from analysis.rates import Population, Rate, Ties, preference_rates, selection_ratios
from analysis.significance import sign_flip_p_value
from analysis.votes import CANT_TELL, CHOICE, NONE, PAIR, TIE, Integers, Votes

FAST_MS = 800
"""Answers faster than this were not looked at (P.910-style rule of the study's quality control)."""

DIVISIONS = 1000
"""Random halves of the people; the median is then steady in its second decimal (our choice)."""

SLOW_MS = 60_000
"""Answers slower than this were interrupted (the study's default reminder)."""


@dataclass(frozen=True)
class PositionBias:
    """How often each position was chosen.

    Attributes:
        criterion: the question.
        chosen: decided votes per position, left to right.
        offered: how often a method stood at each position.
        p_value: of equal chances: exact binomial for pairs, chi-squared for more; None without decided votes.
        people_p_value: exact over people for pairs (every person may lean either way); None otherwise.
    """

    criterion: str
    chosen: tuple[int, ...]
    offered: tuple[int, ...]
    p_value: float | None
    people_p_value: float | None


@dataclass(frozen=True)
class Retest:
    """Answers to the same question put twice to the same person, sides swapped.

    Attributes:
        criterion: the question.
        pairs: answered twice.
        same: with the same answer.
        kappa: Cohen's, correcting for chance within each set of methods; None where undefined.
        same_position: choices that stayed on the side they were on while the methods swapped.
        bowker_statistic: of symmetry between first and second answers (first method, second method, tie).
        bowker_p: its chi-squared p-value; None when nobody changed an answer.
        note: what could not be estimated, empty when nothing.
    """

    criterion: str
    pairs: int
    same: int
    kappa: float | None
    same_position: int
    bowker_statistic: float
    bowker_p: float | None
    note: str

    @property
    def share(self) -> float | None:
        """Share of questions answered alike."""
        return self.same / self.pairs if self.pairs else None


@dataclass(frozen=True)
class ResponseTimes:
    """How long answers took, in milliseconds.

    Attributes:
        criterion: the question.
        n: answers with a known time.
        unknown: answers without, or with 0.
        quartiles: 25, 50, 75 %; None without times.
        geometric_mean: exp of the mean logarithm; None without times.
        fast: answers below FAST_MS.
        slow: answers above SLOW_MS.
        closeness: Spearman correlation of time with -|difference of log worth|: positive when close pairs take longer.
    """

    criterion: str
    n: int
    unknown: int
    quartiles: tuple[float, float, float] | None
    geometric_mean: float | None
    fast: int
    slow: int
    closeness: float | None


@dataclass(frozen=True)
class SplitHalf:
    """How well scores from one half of the people predict those from the other, stepped up to all of them.

    Attributes:
        criterion: the question.
        people: who were divided.
        divisions: random divisions drawn.
        usable: of those, divisions in which both halves had scores that differ.
        reliability: median over divisions of Spearman and Brown's 2r / (1 + r); None without a usable division.
        spread: 2.5 and 97.5 % of the divisions: how much hangs on the division, no confidence interval.
        note: what could not be estimated, empty when nothing.
    """

    criterion: str
    people: int
    divisions: int
    usable: int
    reliability: float | None
    spread: tuple[float, float] | None
    note: str


@dataclass(frozen=True)
class ExclusionComparison:
    """One rate with the study's exclusions and without them."""

    with_exclusions: Rate
    without_exclusions: Rate


def position_bias(votes: Votes, criterion: str) -> PositionBias:
    """Whether a position was chosen more often than chance.

    Raises:
        VotesError: when no criterion has that name.
    """
    rows = votes.only(votes.counted & (votes.outcome == CHOICE)).for_criterion(criterion)
    positions = votes.shown.shape[1]
    chosen = np.bincount(rows.position, minlength=positions)
    offered = (rows.shown != NONE).sum(axis=0)
    people_p = None
    if not len(rows):
        p_value = None
    elif positions == PAIR:
        p_value = float(stats.binomtest(int(chosen[0]), int(chosen.sum())).pvalue)
        people_p = _people_p(rows)
    else:
        # With partial sets a position stands empty at times: chance is then 1 in the number shown, trial by trial.
        expected = ((rows.shown != NONE) / (rows.shown != NONE).sum(axis=1, keepdims=True)).sum(axis=0)
        p_value = float(stats.chisquare(chosen, expected).pvalue)
    return PositionBias(criterion, tuple(chosen.tolist()), tuple(offered.tolist()), p_value, people_p)


def retest(votes: Votes, criterion: str) -> Retest:
    """How consistently people answer a question put again.

    Raises:
        VotesError: when no criterion has that name.
    """
    rows = votes.only(votes.used & (votes.outcome != CANT_TELL)).for_criterion(criterion)
    row_of_trial = {int(trial): row for row, trial in enumerate(rows.trial)}
    second = np.array(
        [r for r in np.flatnonzero(rows.repeat_of != NONE) if int(rows.repeat_of[r]) in row_of_trial], int
    )
    if not second.size:
        return Retest(criterion, 0, 0, None, 0, 0.0, None, "no question was put twice")
    first = np.array([row_of_trial[int(rows.repeat_of[r])] for r in second])
    answers = [_relative_answer(rows, which) for which in (first, second)]
    sets = np.unique(np.sort(rows.shown[second], axis=1), axis=0, return_inverse=True)[1]
    same = answers[0] == answers[1]
    stayed = (rows.position[first] == rows.position[second]) & (rows.outcome[first] == CHOICE) & ~same
    statistic, p_value = bowker(answers[0], answers[1])
    return Retest(
        criterion=criterion,
        pairs=int(second.size),
        same=int(same.sum()),
        kappa=cohen_kappa(answers[0], answers[1], sets),
        same_position=int(stayed.sum()),
        bowker_statistic=statistic,
        bowker_p=p_value,
        note="",
    )


def cohen_kappa(first: Integers, second: Integers, strata: Integers | None = None) -> float | None:
    """Agreement of two series of categories beyond chance, chance judged within strata; None where undefined."""
    strata = np.zeros(len(first), np.int64) if strata is None else strata
    observed, expected = float(np.sum(first == second)), 0.0
    for kind in np.unique(strata):
        one, two = first[strata == kind], second[strata == kind]
        categories = np.union1d(one, two)
        shares = [np.array([(series == c).mean() for c in categories]) for series in (one, two)]
        expected += len(one) * float(shares[0] @ shares[1])
    return None if np.isclose(expected, len(first)) else (observed - expected) / (len(first) - expected)


def bowker(first: Integers, second: Integers) -> tuple[float, float | None]:
    """Bowker's test that changes between two answers go both ways: the statistic and its p-value.

    The p-value is None when nobody changed an answer.
    """
    categories = np.union1d(first, second)
    table = np.array([[((first == a) & (second == b)).sum() for b in categories] for a in categories], dtype=np.float64)
    above, below = np.triu_indices(len(categories), 1)
    there, back = table[above, below], table[below, above]
    changed = there + back > 0
    if not changed.any():
        return 0.0, None
    statistic = float(((there - back)[changed] ** 2 / (there + back)[changed]).sum())
    return statistic, float(special.chdtrc(int(changed.sum()), statistic))


def response_times(votes: Votes, criterion: str, log_worth: Floats | None = None) -> ResponseTimes:
    """How long answers took, and whether close pairs took longer.

    Args:
        votes: their counted rows are used.
        criterion: which question.
        log_worth: (methods,) strengths for the relation to closeness, in pairwise studies.

    Raises:
        VotesError: when no criterion has that name.
    """
    rows = votes.only(votes.counted).for_criterion(criterion)
    # Nobody answers in no time: 0 is what the study stores when the page reported no time.
    known = rows.only(rows.response_ms > 0)
    unknown = len(rows) - len(known)
    times = known.response_ms.astype(np.float64)
    if not times.size:
        return ResponseTimes(criterion, 0, unknown, None, None, 0, 0, None)
    closeness = None
    if log_worth is not None and known.shown.shape[1] == PAIR:
        distance = np.abs(log_worth[known.shown[:, 0]] - log_worth[known.shown[:, 1]])
        if np.ptp(distance) > 0 and np.ptp(times) > 0:
            correlation: Any = stats.spearmanr(times, -distance)
            closeness = float(correlation.statistic)
    low, middle, high = np.quantile(times, [0.25, 0.5, 0.75])
    return ResponseTimes(
        criterion=criterion,
        n=int(times.size),
        unknown=unknown,
        quartiles=(float(low), float(middle), float(high)),
        geometric_mean=float(np.exp(np.log(np.maximum(times, 1.0)).mean())),
        fast=int((times < FAST_MS).sum()),
        slow=int((times > SLOW_MS).sum()),
        closeness=closeness,
    )


def exclusion_comparison(
    votes: Votes, *, target: str | None = None, ties: Ties = "half", population: Population = "people and images"
) -> tuple[ExclusionComparison, ...]:
    """Every rate with the study's exclusions and with all votes: reviewers ask for both.

    Preference rates for pairwise votes (of the target, where given), selection ratios otherwise.
    """
    everyone = votes.with_exclusions_lifted()
    if votes.is_pairwise and target is not None:
        full = preference_rates(everyone, target=target, ties=ties, population=population)
        found = preference_rates(votes, target=target, ties=ties, population=population)
        kept = {(rate.criterion, rate.against): rate for rate in found}
        return tuple(
            ExclusionComparison(kept[rate.criterion, rate.against], rate)
            for rate in full
            if (rate.criterion, rate.against) in kept
        )
    both = (selection_ratios(some, ties=ties, population=population) for some in (votes, everyone))
    pairs = zip(*both, strict=True)
    return tuple(ExclusionComparison(kept, full) for kept, full in pairs)


def split_half_reliability(votes: Votes, criterion: str, *, divisions: int = DIVISIONS, seed: int = 0) -> SplitHalf:
    """Whether other people would give the methods the same scores: people divided at random into halves, many times.

    Scores are selection ratios, ties half a win between two methods and nothing among more. With an odd number of
    people the first half is one smaller.

    Args:
        votes: their counted rows are used.
        criterion: which question.
        divisions: how many random divisions.
        seed: names them.

    Raises:
        VotesError: when no criterion has that name.
    """
    rows = votes.only(votes.counted & (votes.outcome != CANT_TELL)).for_criterion(criterion)
    points, trials = _points_by_person(rows)
    took_part = trials.sum(axis=1) > 0
    points, trials = points[took_part], trials[took_part]
    people = len(points)
    if people < PAIR:
        note = f"halves need at least two people; there are {people}"
        return SplitHalf(criterion, people, divisions, 0, None, None, note)
    order = np.random.default_rng(seed).permuted(np.tile(np.arange(people), (divisions, 1)), axis=1)
    first = np.zeros((divisions, people))
    np.put_along_axis(first, order[:, : people // 2], 1.0, axis=1)
    drawn = [_shares(half @ points, half @ trials) for half in (first, 1.0 - first)]
    found = [split_half(a, b) for a, b in zip(*drawn, strict=True) if not np.isnan([a, b]).any()]
    known = np.array([value for value in found if value is not None])
    if not known.size:
        note = "in no division both halves saw every method and told methods apart"
        return SplitHalf(criterion, people, divisions, 0, None, None, note)
    low, high = np.quantile(known, [0.025, 0.975])
    return SplitHalf(
        criterion=criterion,
        people=people,
        divisions=divisions,
        usable=int(known.size),
        reliability=float(np.median(known)),
        spread=(float(low), float(high)),
        note="" if known.size == divisions else f"{divisions - known.size} divisions left a half without a score",
    )


def passing_by_guessing(items: int, needed: int, chance: float = 0.5) -> float:
    """Probability that somebody who guesses passes an attention rule of `needed` right out of `items`."""
    return float(stats.binom.sf(needed - 1, items, chance))


def split_half(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman-Brown reliability of scores from two halves of the people; None where it is undefined."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    correlation = float(np.corrcoef(first, second)[0, 1])
    # Two halves that contradict each other exactly have no reliability that Spearman and Brown could step up.
    return None if np.isclose(correlation, -1) else 2 * correlation / (1 + correlation)


def _points_by_person(rows: Votes) -> tuple[Floats, Floats]:
    """(participants, methods) points won, and trials that showed the method."""
    shape = (len(rows.participants), len(rows.methods))
    points, trials = np.zeros(shape), np.zeros(shape)
    half = (rows.outcome == TIE) & (rows.is_pairwise)
    for place in range(rows.shown.shape[1]):
        there = rows.shown[:, place] != NONE
        where = rows.participant[there], rows.shown[there, place]
        np.add.at(trials, where, 1.0)
        np.add.at(points, where, (rows.position[there] == place) + 0.5 * half[there])
    return points, trials


def _shares(points: Floats, trials: Floats) -> Floats:
    return np.divide(points, trials, out=np.full(points.shape, np.nan), where=trials > 0)


def _people_p(rows: Votes) -> float:
    lean = np.where(rows.position == 0, 1, -1)
    return sign_flip_p_value(np.bincount(rows.participant, lean, len(rows.participants)).astype(np.int64))


def _relative_answer(rows: Votes, which: Integers) -> Integers:
    """0, 1, ...: which of the methods shown, in the order of their codes; ties after them."""
    arranged = np.sort(rows.shown[which], axis=1)
    place = (arranged == rows.chosen[which][:, None]).argmax(axis=1)
    return np.where(rows.outcome[which] == TIE, rows.shown.shape[1], place)
