"""How far people agree on the same question: percent, Krippendorff's alpha, Gwet's AC1, Fleiss' kappa, with intervals.

Items are questions (an image, a criterion, a set of methods), ratings are what people chose. Chance is judged within
each set of methods: across sets, the names of the methods alone would look like disagreement.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from analysis.clustered import Floats
from analysis.votes import CANT_TELL, TIE, Booleans, Integers, Votes

Measure = Literal["percent", "alpha", "ac1", "kappa"]
MEASURES: tuple[Measure, ...] = ("percent", "alpha", "ac1", "kappa")

REPLICATES = 1000
LEVEL = 0.95
FEWEST_RATINGS = 2


@dataclass(frozen=True)
class Agreement:
    """Agreement by one criterion.

    Attributes:
        criterion: the question.
        items: questions answered by at least two people.
        ratings: answers to those.
        single: questions answered by one person only; they say nothing about agreement.
        estimates: each measure; None where it is undefined (no such items, or everybody always answered alike).
        intervals: percentile intervals from resampling images; None where undefined.
        note: what could not be estimated, empty when nothing.
    """

    criterion: str
    items: int
    ratings: int
    single: int
    estimates: Mapping[Measure, float | None]
    intervals: Mapping[Measure, tuple[float, float] | None]
    note: str


def agreement(votes: Votes, criterion: str, *, seed: int = 0, level: float = LEVEL) -> Agreement:
    """Agreement between people on the same image, methods and criterion; ties are a category of their own.

    Raises:
        VotesError: when no criterion has that name.
    """
    rows = votes.only(votes.counted & (votes.outcome != CANT_TELL)).for_criterion(criterion)
    sets, set_of_row = np.unique(np.sort(rows.shown, axis=1), axis=0, return_inverse=True)
    items, item_of_row = np.unique(np.stack([rows.image, set_of_row], axis=1), axis=0, return_inverse=True)
    answer = np.where(rows.outcome == TIE, len(votes.methods), rows.chosen)
    counts = np.zeros((len(items), len(votes.methods) + 1))
    np.add.at(counts, (item_of_row, answer), 1.0)
    several = counts.sum(axis=1) >= FEWEST_RATINGS
    single = int((~several).sum())
    counts, items = counts[several], items[several]
    note = "" if len(counts) else "no question was answered by two people, so agreement cannot be estimated"
    strata = items[:, 1] if len(items) else np.zeros(0, np.int64)
    # A tie is an answer people could give only where somebody did.
    tie = [len(votes.methods)] if (rows.outcome == TIE).any() else []
    categories = np.array([np.isin(np.arange(counts.shape[1]), [*members, *tie]) for members in sets])
    weights = _image_weights(items[:, 0] if len(items) else np.zeros(0, np.int64), seed)
    drawn = measures(counts, strata, weights, categories)
    whole = measures(counts, strata, np.ones((1, len(counts))), categories)
    return Agreement(
        criterion=criterion,
        items=len(counts),
        ratings=int(counts.sum()),
        single=single,
        estimates={name: _number(whole[name][0]) for name in MEASURES},
        intervals={name: _interval(drawn[name], level) for name in MEASURES},
        note=note,
    )


def measures(
    counts: Floats, strata: Integers | None = None, weights: Floats | None = None, categories: Booleans | None = None
) -> dict[Measure, Floats]:
    """All four measures of one or many weightings of the same items.

    Krippendorff (2011) for alpha, Gwet (2008) for AC1, Fleiss (1971), extended to unequal numbers of ratings, for
    kappa. With strata, observed and expected disagreement are averaged over strata by their ratings.

    Args:
        counts: (items, categories) how often each item got each answer.
        strata: (items,) the kind of each item; chance is judged within a kind. One kind by default.
        weights: (replicates, items); one row of ones by default.
        categories: (kinds, categories) which answers a kind admits; those ever given by default.
    """
    strata = np.zeros(len(counts), np.int64) if strata is None else strata
    weights = np.ones((1, len(counts))) if weights is None else weights
    sums = {name: np.zeros(len(weights)) for name in ("ratings", "agree", "items", "do", "de", "pe_k", "pe_g")}
    for kind in np.unique(strata):
        rows = strata == kind
        admitted = counts[rows].sum(axis=0) > 0 if categories is None else categories[kind]
        part = _stratum(counts[rows], weights[:, rows], int(admitted.sum()))
        for name, value in part.items():
            sums[name] += value
    with np.errstate(invalid="ignore", divide="ignore"):
        observed = sums["agree"] / sums["items"]
        kappa_chance, gwet_chance = sums["pe_k"] / sums["items"], sums["pe_g"] / sums["items"]
        return {
            "percent": observed,
            "alpha": 1.0 - sums["do"] / sums["de"],
            "ac1": (observed - gwet_chance) / (1.0 - gwet_chance),
            "kappa": (observed - kappa_chance) / (1.0 - kappa_chance),
        }


def _stratum(counts: Floats, weights: Floats, categories: int) -> dict[str, Floats]:
    """Sums over the items of one kind, for each weighting: (replicates,) each."""
    ratings = counts.sum(axis=1)
    several = ratings >= FEWEST_RATINGS
    pairs = (counts * (counts - 1)).sum(axis=1)
    agree = np.divide(pairs, ratings * (ratings - 1), out=np.zeros(len(counts)), where=several)
    share = np.divide(counts, ratings[:, None], out=np.zeros(counts.shape), where=ratings[:, None] > 0)
    items = weights @ several.astype(np.float64)
    rated = weights @ (ratings > 0).astype(np.float64)
    pooled = weights @ (several[:, None] * counts)
    n = pooled.sum(axis=1)
    mean = np.divide(weights @ share, rated[:, None], out=np.zeros(pooled.shape), where=rated[:, None] > 0)
    # Coincidences within units (Krippendorff): a unit with r ratings gives r of them.
    coincide = weights @ np.where(several, agree * ratings, 0.0)
    expected = n - np.divide((pooled * (pooled - 1)).sum(axis=1), n - 1, out=np.zeros(n.size), where=n > 1)
    return {
        "ratings": n,
        "agree": weights @ agree,
        "items": items,
        "do": n - coincide,
        "de": expected,
        "pe_k": items * (mean**2).sum(axis=1),
        "pe_g": items * (mean * (1 - mean)).sum(axis=1) / max(categories - 1, 1),
    }


def _image_weights(images: Integers, seed: int) -> Floats:
    """(replicates, items): how often each item's image is drawn."""
    names, image_of_item = np.unique(images, return_inverse=True)
    if not names.size:
        return np.zeros((1, 0))
    draws = np.random.default_rng(seed).integers(0, names.size, (REPLICATES, names.size))
    draws += np.arange(REPLICATES)[:, None] * names.size
    drawn = np.bincount(draws.ravel(), minlength=REPLICATES * names.size).reshape(REPLICATES, -1)
    return drawn[:, image_of_item].astype(np.float64)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _interval(drawn: Floats, level: float) -> tuple[float, float] | None:
    kept = drawn[np.isfinite(drawn)]
    if kept.size < FEWEST_RATINGS:
        return None
    low, high = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
