"""Whether one scale of strengths describes the votes: goodness of fit, transitivity, domains, images, Luce's axiom."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import special

from analysis.bradley_terry import groups_without_defeat
from analysis.clustered import Floats
from analysis.counts import TIED, outcome_counts
from analysis.outcome_models import davidson_model, luce_model, maximise
from analysis.rankings import NoFiniteStrengthsError, Ranking, rank
from analysis.votes import CHOICE, NONE, PAIR, TIE, Integers, Votes, VotesError

HALF = 0.5


@dataclass(frozen=True)
class ChiSquared:
    """A test by chi-squared.

    Attributes:
        statistic: likelihood ratio.
        pearson: Pearson's statistic where it is defined, else None.
        degrees_of_freedom: of the reference distribution.
        p_value: of the likelihood ratio; assumes independent votes, so clustering makes it too small. None without
            degrees of freedom.
        note: what was left out, empty when nothing.
    """

    statistic: float
    pearson: float | None
    degrees_of_freedom: int
    p_value: float | None
    note: str = ""


@dataclass(frozen=True)
class Transitivity:
    """Consistency of the majorities over all triples of methods that met.

    Attributes:
        triples: sets of three methods whose three pairs all have a majority.
        circular: of those, a beats b beats c beats a.
        weak: triples satisfying weak stochastic transitivity (no circle).
        moderate: p(a,c) at least the smaller of p(a,b), p(b,c).
        strong: p(a,c) at least the larger of the two.
        undecided: triples with a pair that never met or split evenly.
    """

    triples: int
    circular: int
    weak: int
    moderate: int
    strong: int
    undecided: int


@dataclass(frozen=True)
class Heterogeneity:
    """How much a target's share differs between images.

    Attributes:
        images: with at least one vote on the target.
        q: Cochran's statistic.
        degrees_of_freedom: images - 1.
        p_value: chi-squared; None with one image.
        i_squared: share of the variation that is not chance, 0 to 1.
        tau: standard deviation between images, in shares (DerSimonian and Laird).
    """

    images: int
    q: float
    degrees_of_freedom: int
    p_value: float | None
    i_squared: float
    tau: float


def goodness_of_fit(votes: Votes, criterion: str) -> ChiSquared:
    """Bradley-Terry (without ties) or Davidson (with ties) against one free probability per pair and answer.

    Sides are pooled. Degrees of freedom: pairs that met * answers - parameters.

    Raises:
        NoFiniteStrengthsError: when the model has no finite fit.
        VotesError: for votes that are not pairwise.
    """
    ranking = _pair_ranking(votes, criterion)
    observed = _unordered(votes, criterion)
    expected = observed.sum(axis=1, keepdims=True) * _fitted_pairs(ranking, len(votes.methods))
    used = slice(None) if ranking.ties else slice(0, TIED)
    observed, expected = observed[:, used], expected[:, used]
    met = observed.sum(axis=1) > 0
    freedom = int(met.sum()) * (observed.shape[1] - 1) - ranking.parameters
    statistic = 2 * float(
        special.xlogy(observed, np.divide(observed, expected, out=np.ones(observed.shape), where=expected > 0)).sum()
    )
    pearson = float(((observed - expected)[met] ** 2 / expected[met]).sum())
    return ChiSquared(statistic, pearson, freedom, _p(statistic, freedom))


def transitivity(votes: Votes, criterion: str) -> Transitivity:
    """Circular triads and the three stochastic transitivities; ties count half.

    Raises:
        VotesError: for votes that are not pairwise, or an unknown criterion.
    """
    counts = _unordered(votes, criterion)
    m = len(votes.methods)
    share = np.full((m, m), np.nan)
    for row, (a, b) in enumerate(combinations(range(m), 2)):
        if counts[row].sum():
            share[a, b] = (counts[row, 0] + HALF * counts[row, TIED]) / counts[row].sum()
            share[b, a] = 1 - share[a, b]
    tallies = np.zeros(5, dtype=int)
    undecided = 0
    for triple in combinations(range(m), 3):
        found = _triple(share, triple)
        if found is None:
            undecided += 1
        else:
            tallies += found
    triples, circular, weak, moderate, strong = map(int, tallies)
    return Transitivity(triples, circular, weak, moderate, strong, undecided)


def domain_differences(votes: Votes, criterion: str) -> ChiSquared:
    """Likelihood ratio of strengths by domain against common ones; Davidson's where there are ties.

    Domains whose votes admit no finite strengths are left out and named.

    Raises:
        VotesError: when fewer than two domains can be compared.
    """
    rows = votes.only(votes.counted & (votes.domain[votes.image] != NONE))
    kept: list[str] = []
    separate, left_out = 0.0, ""
    for code, name in enumerate(votes.domains):
        try:
            fit = _pair_ranking(rows.only(rows.domain[rows.image] == code), criterion)
        except NoFiniteStrengthsError:
            left_out += f"{', ' if left_out else ''}{name}"
            continue
        kept.append(name)
        separate += fit.log_likelihood
    if len(kept) < PAIR:
        raise VotesError(f"Only {len(kept)} domain can be ranked by itself; at least two are needed to compare them.")
    codes = [votes.domains.index(name) for name in kept]
    common = _pair_ranking(rows.only(np.isin(rows.domain[rows.image], codes)), criterion)
    statistic = 2 * (separate - common.log_likelihood)
    freedom = (len(kept) - 1) * common.parameters
    note = f"without finite strengths of their own, and left out: {left_out}" if left_out else ""
    return ChiSquared(statistic, None, freedom, _p(statistic, freedom), note)


def image_differences(votes: Votes, criterion: str, target: str) -> Heterogeneity:
    """Cochran's Q, I squared and tau of the target's share of decided votes over images.

    Raises:
        VotesError: for an unknown criterion or target, or when no decided vote concerns the target.
    """
    code = votes.method_code(target)
    rows = votes.only(votes.counted & (votes.outcome == CHOICE) & (votes.shown == code).any(axis=1))
    rows = rows.for_criterion(criterion)
    if not len(rows):
        raise VotesError(f"No decided vote concerns {target!r}, so images cannot be compared.")
    n = np.bincount(rows.image, minlength=len(votes.images)).astype(np.float64)
    won = np.bincount(rows.image, rows.chosen == code, len(votes.images))
    seen = n > 0
    n, won = n[seen], won[seen]
    pooled = won.sum() / n.sum()
    variance = pooled * (1 - pooled)
    freedom = int(n.size) - 1
    if variance == 0 or freedom == 0:
        return Heterogeneity(int(n.size), 0.0, freedom, None if freedom == 0 else 1.0, 0.0, 0.0)
    weights = n / variance
    q = float((weights * (won / n - pooled) ** 2).sum())
    spread = weights.sum() - (weights**2).sum() / weights.sum()
    tau = float(np.sqrt(max(0.0, (q - freedom) / spread)))
    return Heterogeneity(int(n.size), q, freedom, _p(q, freedom), max(0.0, 1 - freedom / q) if q else 0.0, tau)


def luce_axiom(pairwise: Votes, best_of_n: Votes, criterion: str) -> ChiSquared:
    """Whether strengths from pairs and from choices among all are the same: likelihood ratio, methods - 1 degrees.

    Similar methods split each other's votes when shown together, so test before pooling the two designs.

    Raises:
        VotesError: when the two studies compare different methods, or one has no finite strengths.
    """
    if set(pairwise.methods) != set(best_of_n.methods):
        raise VotesError("The two studies compare different methods; leave out what only one of them has.")
    parts = [_decided_sets(votes, criterion, pairwise.methods) for votes in (pairwise, best_of_n)]
    separate = sum(_luce_log_likelihood(sets, counts, len(pairwise.methods)) for sets, counts in parts)
    width = max(sets.shape[1] for sets, _ in parts)
    padded = [
        (
            np.pad(sets, ((0, 0), (0, width - sets.shape[1])), constant_values=NONE),
            np.pad(counts, ((0, 0), (0, width - counts.shape[1]))),
        )
        for sets, counts in parts
    ]
    together = _luce_log_likelihood(
        np.concatenate([sets for sets, _ in padded]), np.concatenate([c for _, c in padded]), len(pairwise.methods)
    )
    statistic, freedom = max(0.0, 2 * (separate - together)), len(pairwise.methods) - 1
    return ChiSquared(statistic, None, freedom, _p(statistic, freedom))


def _pair_ranking(votes: Votes, criterion: str) -> Ranking:
    rows = votes.only(votes.counted).for_criterion(criterion)
    tied, decided = bool((rows.outcome == TIE).any()), bool((rows.outcome == CHOICE).any())
    if tied and not decided:
        raise NoFiniteStrengthsError(f"Nobody decided by {criterion!r}: ties alone say nothing about a scale.")
    return rank(votes, criterion, "davidson" if tied and decided else "bradley-terry", errors="model")


def _unordered(votes: Votes, criterion: str) -> Floats:
    """(pairs, 3): first preferred, second preferred, tied, for a < b, both sides pooled."""
    counts = outcome_counts(votes.for_criterion(criterion))[votes.criteria.index(criterion)].astype(np.float64)
    a, b = np.triu_indices(len(votes.methods), 1)
    there, back = counts[a, b], counts[b, a]
    return np.stack([there[:, 0] + back[:, 1], there[:, 1] + back[:, 0], there[:, TIED] + back[:, TIED]], axis=1)


def _fitted_pairs(ranking: Ranking, methods: int) -> Floats:
    pairs = np.stack(np.triu_indices(methods, 1), axis=1)
    tie = ranking.extra.get("log tie", -np.inf)
    theta = np.append(ranking.log_worth, tie if np.isfinite(tie) else -745.0)  # exp(-745) is the smallest double
    return davidson_model(pairs, methods)(theta).probability


def _triple(share: Floats, triple: tuple[int, ...]) -> Integers | None:
    """(triples, circular, weak, moderate, strong) of one triple, None when a pair has no majority."""
    sides = np.array([share[a, b] for a, b in combinations(triple, 2)])
    if np.isnan(sides).any() or (sides == HALF).any():
        return None
    wins = {a: sum(share[a, b] > HALF for b in triple if b != a) for a in triple}
    if sorted(wins.values()) == [1, 1, 1]:
        return np.array([1, 1, 0, 0, 0])
    top, middle, last = sorted(triple, key=lambda method: -wins[method])
    steps = (share[top, middle], share[middle, last])
    return np.array([1, 0, 1, int(share[top, last] >= min(steps)), int(share[top, last] >= max(steps))])


def _decided_sets(votes: Votes, criterion: str, methods: tuple[str, ...]) -> tuple[Integers, Floats]:
    """Distinct sets of methods (by their place in `methods`) and how often each member was chosen."""
    rows = votes.only(votes.counted & (votes.outcome == CHOICE)).for_criterion(criterion)
    place = np.array([methods.index(name) for name in votes.methods] + [NONE])
    shown = place[rows.shown]
    arranged = np.sort(shown, axis=1)[:, ::-1]
    sets, which = np.unique(arranged, axis=0, return_inverse=True)
    counts = np.zeros(sets.shape)
    np.add.at(counts, (which, (arranged == place[rows.chosen][:, None]).argmax(axis=1)), 1.0)
    return sets, counts


def _luce_log_likelihood(sets: Integers, counts: Floats, methods: int) -> float:
    wins = np.zeros((methods, methods))
    for members, chosen in zip(sets, counts, strict=True):
        for winner, count in zip(members, chosen, strict=True):
            if count:
                wins[winner, [other for other in members if other not in (winner, NONE)]] += count
    reason = groups_without_defeat(wins, tuple(map(str, range(methods))))
    if reason:
        raise NoFiniteStrengthsError("One of the two studies admits no finite strengths; collect more votes.")
    return maximise(luce_model(sets, methods), counts, np.zeros(methods), methods, "luce").log_likelihood


def _p(statistic: float, freedom: int) -> float | None:
    return float(special.chdtrc(freedom, max(statistic, 0.0))) if freedom > 0 else None
