"""Do metrics agree with people? Correlations over methods with exact permutation p-values, and vote by vote."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from math import factorial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from analysis.clustered import Floats
from analysis.rates import Interval, rate_interval
from analysis.votes import CHOICE, NONE, Integers, Votes, VotesError

COLUMNS = ("method", "image", "metric", "value")
"""Of the per-image table of scores; `image` is empty for metrics of whole sets (FID, U-IDS, P-IDS)."""

LOWER_IS_BETTER = frozenset({
    "lpips", "fid", "kid", "mse", "mae", "l1", "l2", "dists", "niqe", "brisque", "bpe", "gradient", "perceptual",
    "colour-step", "changed-outside",
})  # fmt: skip
"""Metrics turned around, so that every correlation says "agrees with people" when positive; by lower-case name, or by
its part before the first hyphen (`fid-squeezenet`, `l1-hole`)."""

MOST_EXACT = 9
"""Methods up to which all orders are tried (9! = 362,880)."""

DRAWN_ORDERS = 100_000
"""Orders drawn at random for more methods; their p-value is at least 1/100,001."""


class MetricTableError(VotesError):
    """A table of metric values that cannot be read or joined; the message names the column or the methods."""


@dataclass(frozen=True)
class Correlation:
    """A metric against people, over methods.

    Attributes:
        metric: its name.
        methods: how many methods have both.
        spearman: rank correlation; None when either side does not vary.
        spearman_p: two-sided permutation p-value.
        kendall: tau-b.
        kendall_p: two-sided permutation p-value.
        pearson: linear correlation.
        pearson_interval: 95 % by Fisher's z; None below four methods.
        pairs_right: pairs of methods the metric orders as people do, out of `pairs`; ties count half.
        pairs: pairs that people tell apart.
        exact: True when all orders were tried.
        turned: True when smaller values are better and the sign was turned.
    """

    metric: str
    methods: int
    spearman: float | None
    spearman_p: float | None
    kendall: float | None
    kendall_p: float | None
    pearson: float | None
    pearson_interval: tuple[float, float] | None
    pairs_right: float
    pairs: int
    exact: bool
    turned: bool


@dataclass(frozen=True)
class VoteAgreement:
    """A metric against single votes: how often the method people chose has the better value on that image.

    Attributes:
        metric: its name.
        criterion: the question.
        right: votes predicted, equal values counting half.
        n: decided pairwise votes whose two methods have a value on that image.
        interval: of the share, clustered by people and images.
    """

    metric: str
    criterion: str
    right: float
    n: int
    interval: Interval | None

    @property
    def share(self) -> float | None:
        """Share of votes predicted."""
        return self.right / self.n if self.n else None


def read_metrics(source: Path) -> pd.DataFrame:
    """The table of scores: columns method, image, metric, value; CSV or Parquet.

    Raises:
        MetricTableError: when it cannot be read, a column is missing, a value is not a finite number, or a score is
            given twice.
    """
    try:
        table = pd.read_parquet(source) if source.suffix == ".parquet" else pd.read_csv(source, dtype=_AS_WRITTEN)
    except (OSError, ValueError) as problem:
        raise MetricTableError(f"{source.name} cannot be read as a table of metrics ({problem}).") from problem
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise MetricTableError(f"The table of metrics lacks the column {', '.join(missing)}.")
    values = pd.to_numeric(table["value"], errors="coerce").to_numpy(dtype=np.float64)
    wrong = np.flatnonzero(~np.isfinite(values))
    if wrong.size:
        raise MetricTableError(
            f"Row {wrong[0] + 1} has the value {table['value'].iloc[wrong[0]]!r}; give finite numbers."
        )
    names = {name: table[name].fillna("").astype(str) for name in COLUMNS[:3]}
    scores = pd.DataFrame({**names, "value": values})
    again = np.flatnonzero(scores.duplicated(list(COLUMNS[:3])))
    if again.size:
        method, image, metric = (scores[name].iloc[again[0]] for name in COLUMNS[:3])
        raise MetricTableError(
            f"Row {again[0] + 1} gives {metric!r} of {method!r} on {image!r} a second time; give one row per score."
        )
    return scores


_AS_WRITTEN = dict.fromkeys(COLUMNS[:3], str)
"""An image called 0001 is not image 1."""


def system_means(table: pd.DataFrame, metric: str) -> Mapping[str, float]:
    """Each method's mean over images, or its single value for metrics of whole sets.

    Raises:
        MetricTableError: when no row is about that metric.
    """
    rows = table[table["metric"] == metric]
    if rows.empty:
        raise MetricTableError(f"No row is about {metric!r}; there are {', '.join(sorted(set(table['metric'])))}.")
    return {str(name): float(group["value"].mean()) for name, group in rows.groupby("method")}


def correlate(
    people: Mapping[str, float],
    metric: Mapping[str, float],
    name: str,
    *,
    lower_is_better: bool | None = None,
    seed: int = 0,
) -> Correlation:
    """One metric against people over the methods both know.

    Args:
        people: method to score, larger is better (a rate or a log worth).
        metric: method to value.
        name: of the metric.
        lower_is_better: by default what LOWER_IS_BETTER says of the name.
        seed: of the random orders above MOST_EXACT methods.

    Raises:
        MetricTableError: when fewer than three methods have both.
    """
    methods = [method for method in people if method in metric]
    fewest = 3
    if len(methods) < fewest:
        raise MetricTableError(f"Only {len(methods)} methods have both votes and {name}; a correlation needs {fewest}.")
    turned = _is_better_low(name) if lower_is_better is None else lower_is_better
    human = np.array([people[method] for method in methods])
    values = np.array([metric[method] for method in methods]) * (-1.0 if turned else 1.0)
    human_sides, metric_sides = _sides(human), _sides(values)
    told_apart = human_sides != 0
    right = float((human_sides * metric_sides)[told_apart].sum() + told_apart.sum()) / 2
    measured = np.ptp(human) > 0 and np.ptp(values) > 0
    orders, exact = _orders(len(methods), seed) if measured else (np.zeros((0, 0), np.int8), False)
    rho, rho_p = _permuted_rho(human, values, orders, exact=exact) if measured else (None, None)
    tau, tau_p = _permuted_tau(human, values, orders, exact=exact) if measured else (None, None)
    pearson = float(_centred(human) @ _centred(values)) if measured else None
    return Correlation(
        metric=name,
        methods=len(methods),
        spearman=rho,
        spearman_p=rho_p,
        kendall=tau,
        kendall_p=tau_p,
        pearson=pearson,
        pearson_interval=None if pearson is None else _fisher(pearson, len(methods)),
        pairs_right=right,
        pairs=int(told_apart.sum()),
        exact=exact,
        turned=turned,
    )


def vote_agreement(votes: Votes, criterion: str, table: pd.DataFrame, metric: str) -> VoteAgreement:
    """How often the method chosen on an image is the one the metric prefers there.

    Raises:
        VotesError: for an unknown criterion or votes that are not pairwise.
        MetricTableError: when no row is about that metric.
    """
    if not votes.is_pairwise:
        raise VotesError("Predicting single votes needs pairwise trials; these chose among more.")
    values = _per_image(votes, table, metric)
    rows = votes.only(votes.counted & (votes.outcome == CHOICE)).for_criterion(criterion)
    first, second = (values[rows.shown[:, side], rows.image] for side in (0, 1))
    known = np.isfinite(first) & np.isfinite(second)
    better = np.sign(first - second)[known]
    points = 0.5 + 0.5 * better * np.where(rows.position[known] == 0, 1.0, -1.0)
    interval = rate_interval(points, rows.participant[known], rows.image[known]) if known.any() else None
    return VoteAgreement(metric, criterion, float(points.sum()), int(known.sum()), interval)


def _per_image(votes: Votes, table: pd.DataFrame, metric: str) -> Floats:
    """(methods, images) values, larger is better, NaN where the table has none."""
    rows = table[table["metric"] == metric]
    if rows.empty:
        raise MetricTableError(f"No row is about {metric!r}; there are {', '.join(sorted(set(table['metric'])))}.")
    values = np.full((len(votes.methods), len(votes.images)), np.nan)
    methods = {name: code for code, name in enumerate(votes.methods)}
    images = {name: code for code, name in enumerate(votes.images)}
    sign = -1.0 if _is_better_low(metric) else 1.0
    for method, image, value in zip(rows["method"], rows["image"], rows["value"], strict=True):
        place = methods.get(method, NONE), images.get(image, NONE)
        if NONE not in place:
            values[place] = sign * value
    return values


def _orders(methods: int, seed: int) -> tuple[Integers, bool]:
    if methods <= MOST_EXACT:
        flat = np.fromiter(
            (i for order in permutations(range(methods)) for i in order), np.int8, factorial(methods) * methods
        )
        return flat.reshape(-1, methods), True
    return np.random.default_rng(seed).permuted(np.tile(np.arange(methods), (DRAWN_ORDERS, 1)), axis=1), False


def _centred(values: Floats) -> Floats:
    centred = values - values.mean()
    return centred / np.sqrt((centred**2).sum())


def _permuted_rho(human: Floats, values: Floats, orders: Integers, *, exact: bool) -> tuple[float, float]:
    """Spearman's correlation, and the share of orders that reach its size."""
    one, other = _centred(stats.rankdata(human)), _centred(stats.rankdata(values))
    seen = float(one @ other)
    return seen, _share_reaching(other[orders] @ one, seen, exact=exact)


def _permuted_tau(one: Floats, other: Floats, orders: Integers, *, exact: bool) -> tuple[float, float]:
    first, second = np.triu_indices(one.size, 1)
    sides = _sides(one)
    sizes = np.sqrt(np.count_nonzero(sides) * np.count_nonzero(_sides(other)))
    table = np.sign(other[None, :] - other[:, None])
    reached = np.zeros(len(orders))
    for place, (i, j) in enumerate(zip(first, second, strict=True)):
        if sides[place]:
            reached += sides[place] * table[orders[:, i], orders[:, j]]
    seen = float((sides * _sides(other)).sum() / sizes)
    return seen, _share_reaching(reached / sizes, seen, exact=exact)


def _sides(values: Floats) -> Floats:
    """For every pair, in one fixed order: 1 if the later is larger, -1 if smaller, 0 if equal."""
    first, second = np.triu_indices(values.size, 1)
    return np.sign(values[second] - values[first])


def _share_reaching(reached: Floats, seen: float, *, exact: bool) -> float:
    as_large = int((np.abs(reached) >= abs(seen) - 1e-12).sum())
    return as_large / len(reached) if exact else (as_large + 1) / (len(reached) + 1)


def _fisher(correlation: float, n: int) -> tuple[float, float] | None:
    fewest = 4
    if n < fewest or abs(correlation) >= 1:
        return None
    quantile: Any = stats.norm.ppf(0.975)
    reach = float(quantile) / np.sqrt(n - 3)
    middle = np.arctanh(correlation)
    return float(np.tanh(middle - reach)), float(np.tanh(middle + reach))


def _is_better_low(name: str) -> bool:
    return not LOWER_IS_BETTER.isdisjoint({name.lower(), name.lower().partition("-")[0]})
