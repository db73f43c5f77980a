"""The votes of one criterion by image, by person, and as they accumulate: tables behind the figures."""

from dataclasses import dataclass

import numpy as np

from analysis.clustered import Floats
from analysis.rates import LEVEL, rate_interval
from analysis.votes import CANT_TELL, TIE, Votes, VotesError

ORDERS = 50
"""Random orders of people over which a convergence curve is averaged."""

POINTS = 12
"""Sizes at which it is drawn."""


@dataclass(frozen=True, eq=False)
class Shares:
    """A method's share by image or by person.

    Attributes:
        names: of the images or people, largest share first.
        shares: (names,) of the trials that showed the method.
        trials: (names,) how many those were.
        low: (names,) Wilson's 95 % interval.
        high: (names,) Wilson's 95 % interval.
    """

    names: tuple[str, ...]
    shares: Floats
    trials: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True, eq=False)
class Convergence:
    """How an estimate settles as people take part.

    Attributes:
        participants: (points,) how many people.
        share: (points,) mean estimate over random orders of the people.
        spread: (points,) standard deviation over those orders.
        width: (points,) mean full width of the two-way interval; NaN where it cannot be estimated.
    """

    participants: Floats
    share: Floats
    spread: Floats
    width: Floats


def shares_by_image(votes: Votes, criterion: str) -> Floats:
    """(methods, images): each method's share of the trials that showed it on that image; NaN where none did.

    Raises:
        VotesError: for an unknown criterion.
    """
    rows = _answered(votes, criterion)
    table = np.full((len(votes.methods), len(votes.images)), np.nan)
    for code in range(len(votes.methods)):
        shown = (rows.shown == code).any(axis=1)
        trials = np.bincount(rows.image[shown], minlength=len(votes.images))
        won = np.bincount(rows.image[shown], _points(rows, code)[shown], len(votes.images))
        table[code] = np.divide(won, trials, out=table[code], where=trials > 0)
    return table


def shares_by_person(votes: Votes, criterion: str, method: str) -> Shares:
    """A method's share for every person who saw it: outliers stand at the ends.

    Raises:
        VotesError: for an unknown criterion or method.
    """
    code = votes.method_code(method)
    rows = _answered(votes, criterion)
    shown = (rows.shown == code).any(axis=1)
    people = len(votes.participants)
    trials = np.bincount(rows.participant[shown], minlength=people).astype(np.float64)
    won = np.bincount(rows.participant[shown], _points(rows, code)[shown], people)
    seen = np.flatnonzero(trials)
    shares, n = won[seen] / trials[seen], trials[seen]
    order = np.argsort(-shares, kind="stable")
    shares, n = shares[order], n[order]
    z = 1.959964  # two-sided 95 % of the normal distribution
    middle = (shares + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * np.sqrt(shares * (1 - shares) / n + z**2 / (4 * n**2))
    return Shares(tuple(votes.participants[i] for i in seen[order]), shares, n, middle - reach, middle + reach)


def convergence(votes: Votes, criterion: str, method: str, *, orders: int = ORDERS, seed: int = 0) -> Convergence:
    """How a method's share and its interval would have looked with fewer people.

    Raises:
        VotesError: for an unknown criterion or method, or fewer than two people who saw it.
    """
    code = votes.method_code(method)
    rows = _answered(votes, criterion)
    rows = rows.only((rows.shown == code).any(axis=1))
    people = np.unique(rows.participant)
    fewest = 2
    if people.size < fewest:
        raise VotesError(f"{people.size} people saw {method!r}; a curve over people needs {fewest}.")
    sizes = np.unique(np.geomspace(fewest, people.size, POINTS).round().astype(int))
    points = _points(rows, code)
    rng = np.random.default_rng(seed)
    shares, widths = np.full((orders, sizes.size), np.nan), np.full((orders, sizes.size), np.nan)
    for order in range(orders):
        turn = np.zeros(len(votes.participants), dtype=int)
        turn[people] = rng.permutation(people.size)
        for place, size in enumerate(sizes):
            taken = turn[rows.participant] < size
            interval = rate_interval(points[taken], rows.participant[taken], rows.image[taken], level=LEVEL)
            shares[order, place] = points[taken].mean()
            if interval.low is not None and interval.high is not None:
                widths[order, place] = interval.high - interval.low
    known = np.isfinite(widths).sum(axis=0)
    width = np.divide(np.nansum(widths, axis=0), known, out=np.full(sizes.size, np.nan), where=known > 0)
    return Convergence(sizes.astype(float), shares.mean(axis=0), shares.std(axis=0), width)


def _answered(votes: Votes, criterion: str) -> Votes:
    return votes.only(votes.counted & (votes.outcome != CANT_TELL)).for_criterion(criterion)


def _points(rows: Votes, code: int) -> Floats:
    """1 where the method was chosen, an equal part where it tied with what was shown beside it."""
    members = (rows.shown >= 0).sum(axis=1)
    tied = (rows.outcome == TIE) & (rows.shown == code).any(axis=1)
    return (rows.chosen == code).astype(np.float64) + np.where(tied, 1.0 / np.maximum(members, 1), 0.0)
