"""Bradley-Terry strengths of thousands of count tables at once: the inner loop of every bootstrap.

P(i is preferred to j) = w_i / (w_i + w_j). All tables are solved together by Newton's method from one common start,
which is 1,000 to 40,000 times faster than resampling votes one by one (benchmarks/analysis_speed.py). A tie counts as
half a win for both; models that give ties their own probability are in `analysis.rankings`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, special
from scipy.sparse import csgraph

from analysis.clustered import Floats
from analysis.votes import Booleans, VotesError

TOLERANCE = 1e-9
"""Newton stops when no log strength moves further; the next step would be below rounding."""

MOST_STEPS = 60
LONGEST_STEP = 2.0
"""No log strength moves further in one step, so that a lopsided table cannot overshoot."""

SHARED_STEPS = 2
"""Steps taken with one curvature for all tables before each table's own is solved for (measured: halves the time)."""

SHARING_PAYS = 20
"""Tables from which on sharing the curvature is faster."""

GHOST_WINS = 0.5
"""Wins and losses against an imagined opponent that make every strength finite (PlackettLuce's `npseudo`)."""


@dataclass(frozen=True, eq=False)
class Strengths:
    """Log strengths of many tables.

    Attributes:
        log_worth: (tables, methods), each row summing to zero; NaN where not converged.
        converged: (tables,) False where no finite maximum exists: some group of methods never won against the rest.
        steps: Newton steps taken.
    """

    log_worth: Floats
    converged: Booleans
    steps: int


def fit_tables(wins: NDArray[np.floating], start: Floats | None = None, *, ghost: float = 0.0) -> Strengths:
    """Maximum-likelihood log strengths of each table.

    Args:
        wins: (tables, methods, methods) wins of the row over the column, ties as half.
        start: (methods,) log strengths to start from; zero by default.
        ghost: wins and losses of each method against an imagined extra method; 0 changes nothing.

    Raises:
        VotesError: when a count is negative or not a number.
    """
    tables = np.asarray(wins, dtype=np.float64)
    if not (tables >= 0).all():
        raise VotesError("A table of wins holds a negative count or something that is not a number.")
    m = tables.shape[-1]
    if ghost:
        tables = with_ghost(tables, ghost)
    first = np.zeros(tables.shape[-1])
    if start is not None:
        first[:m] = start
    exists = strongly_connected(tables)
    log_worth = np.full((len(tables), m), np.nan)
    converged = exists.copy()
    found, converged[exists], steps = _newton(tables[exists], first)
    log_worth[exists] = found[:, :m] - found[:, :m].mean(axis=1, keepdims=True)
    log_worth[~converged] = np.nan
    return Strengths(log_worth, converged, steps)


def with_ghost(wins: Floats, ghost: float) -> Floats:
    """The tables with one more method that won and lost `ghost` times against each."""
    m = wins.shape[-1]
    larger = np.full((*wins.shape[:-2], m + 1, m + 1), ghost)
    larger[..., :m, :m] = wins
    larger[..., m, m] = 0.0
    return larger


def groups_without_defeat(wins: Floats, methods: tuple[str, ...]) -> str:
    """Why no finite strengths exist, in words; empty when they do.

    They exist if and only if from every method a chain of wins leads to every other (Ford 1957).
    """
    parts, label = csgraph.connected_components(sparse.csr_array(wins > 0), directed=True, connection="strong")
    if parts <= 1:
        return ""
    winless = [methods[i] for i in range(len(methods)) if not (wins[i] > 0).any()]
    undefeated = [methods[i] for i in range(len(methods)) if not (wins[:, i] > 0).any()]
    unseen = [name for name in winless if name in undefeated]
    reasons = [
        f"{word} {', '.join(names)}"
        for word, names in (
            ("never met another:", unseen),
            ("never won:", [name for name in winless if name not in unseen]),
            ("never lost:", [name for name in undefeated if name not in unseen]),
        )
        if names
    ]
    if not reasons:
        groups = (" + ".join(np.array(methods)[label == part]) for part in range(parts))
        reasons = [f"no chain of wins joins the groups {' | '.join(groups)}"]
    return "; ".join(reasons)


def strongly_connected(wins: Floats) -> Booleans:
    """(tables,) True where a chain of wins leads from every method to every other, so that finite strengths exist."""
    m = wins.shape[-1]
    beaten = (wins > 0) | np.eye(m, dtype=bool)
    connected: Booleans = np.asarray(beaten.all(axis=(1, 2)))
    doubtful = np.flatnonzero(~connected)
    if doubtful.size:
        reach = beaten[doubtful].astype(np.float32)
        for _ in range(int(m).bit_length()):  # chains of up to 2, 4, 8, ... wins
            reach = (reach @ reach > 0).astype(np.float32)
        connected[doubtful] = reach.all(axis=(1, 2))
    return connected


@dataclass(frozen=True)
class _Pairs:
    """Every unordered pair once, and how the free strengths (all but the last, which is 0) enter its difference."""

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    differences: Floats
    products: Floats

    @classmethod
    def of(cls, methods: int) -> "_Pairs":
        first, second = np.triu_indices(methods, 1)
        differences = np.zeros((first.size, methods))
        differences[np.arange(first.size), first] = 1.0
        differences[np.arange(first.size), second] = -1.0
        free = np.ascontiguousarray(differences[:, :-1])
        return cls(first, second, free, (free[:, :, None] * free[:, None, :]).reshape(first.size, -1))


def _newton(wins: Floats, start: Floats) -> tuple[Floats, Booleans, int]:
    """Free log strengths of tables that have a maximum: two cheap steps with one shared curvature, then Newton's."""
    pairs = _Pairs.of(wins.shape[-1])
    won = wins[:, pairs.first, pairs.second]
    trials = won + wins[:, pairs.second, pairs.first]
    theta = np.tile(start[:-1] - start[-1], (len(wins), 1))
    free = theta.shape[1]
    shared = _shared_inverse(pairs, trials.mean(axis=0), theta[0]) if len(wins) > SHARING_PAYS else None
    moved, steps = np.full(len(wins), np.inf), 0
    while steps < MOST_STEPS and moved.max(initial=0.0) > TOLERANCE:
        share = special.expit(theta @ pairs.differences.T)
        expected = trials * share
        slope = (won - expected) @ pairs.differences
        if shared is not None and steps < SHARED_STEPS:
            step = slope @ shared
        else:
            curvature = ((expected * (1.0 - share)) @ pairs.products).reshape(-1, free, free)
            step = np.linalg.solve(curvature, slope[:, :, None])[:, :, 0]
        step = np.clip(step, -LONGEST_STEP, LONGEST_STEP)
        theta += step
        moved = np.abs(step).max(axis=1, initial=0.0)
        steps += 1
    return np.concatenate([theta, np.zeros((len(wins), 1))], axis=1), moved <= TOLERANCE, steps


def _shared_inverse(pairs: _Pairs, trials: Floats, theta: Floats) -> Floats:
    """Inverse curvature of the average table: replicates differ from it by a few percent only."""
    share = special.expit(pairs.differences @ theta)
    free = theta.size
    return np.linalg.inv(((trials * share * (1.0 - share)) @ pairs.products).reshape(free, free))
