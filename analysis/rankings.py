"""Strengths of methods with standard errors, contrasts and quasi-standard errors, under five models of choice."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import sqrt
from typing import Literal

import numpy as np
from scipy import optimize, special

from analysis.bradley_terry import GHOST_WINS, groups_without_defeat
from analysis.clustered import Clustering, Clusters, Floats
from analysis.counts import OUTCOMES, TIED
from analysis.outcome_models import (
    Maximum,
    Model,
    bradley_terry_model,
    davidson_model,
    luce_model,
    maximise,
    ordered_pairs,
    rao_kupper_model,
    thurstone_model,
)
from analysis.votes import CANT_TELL, CHOICE, NONE, PAIR, TIE, Integers, Votes, VotesError

ModelName = Literal["bradley-terry", "davidson", "rao-kupper", "thurstone", "luce"]

Errors = Literal["model", "participant", "image", "two-way"]
"""Where standard errors come from: the model's information, or clusters of people, images, or both."""

LEVEL = 0.95
JOD = float(special.ndtri(0.75))
"""One just-objectionable difference: preferred by 75 % (Perez-Ortiz and Mantiuk 2017)."""

START_OF_TIES = 0.1
"""Where the tie parameter starts: few ties; every model is concave from there."""


class NoFiniteStrengthsError(VotesError):
    """The votes admit no finite strengths; the message names the methods that never won, never lost or never met."""


@dataclass(frozen=True)
class Contrast:
    """How much stronger one method is than another.

    Attributes:
        method: the first.
        other: the second.
        difference: of log strengths (of scale values in JOD for Thurstone).
        standard_error: of the difference; None when it cannot be estimated.
        low: lower end of the interval.
        high: upper end of the interval.
        p_value: two-sided, of no difference.
    """

    method: str
    other: str
    difference: float
    standard_error: float | None
    low: float | None
    high: float | None
    p_value: float | None


@dataclass(frozen=True, eq=False)
class Ranking:
    """Fitted strengths of one criterion.

    Attributes:
        model: which model of choice.
        criterion: the question asked.
        methods: names, in the order of the axes below.
        log_worth: (methods,) summing to zero; in JOD for Thurstone.
        covariance: (methods, methods) of `log_worth`; None when it cannot be estimated.
        extra: what else was estimated: "log tie" (Davidson's nu), "threshold" (Rao-Kupper), "first place".
        extra_errors: standard errors of those, where they can be estimated.
        log_likelihood: at the maximum.
        parameters: free parameters.
        n: votes used.
        ties: tied votes among them.
        left_out: votes the model cannot use (can't-tell; ties in Luce's).
        errors: where standard errors come from.
        degrees_of_freedom: of the t distribution behind intervals; infinite for the model's own.
        steps: until convergence.
        regularisation: what was added to the votes; empty for nothing.
        note: what could not be estimated, empty when nothing.
    """

    model: ModelName
    criterion: str
    methods: tuple[str, ...]
    log_worth: Floats
    covariance: Floats | None
    extra: dict[str, float]
    extra_errors: dict[str, float]
    log_likelihood: float
    parameters: int
    n: int
    ties: int
    left_out: int
    errors: Errors
    degrees_of_freedom: float
    steps: int
    regularisation: str
    note: str

    @property
    def order(self) -> tuple[str, ...]:
        """Names from the strongest to the weakest."""
        return tuple(self.methods[code] for code in np.argsort(-self.log_worth, kind="stable"))

    def contrast(self, method: str, other: str, level: float = LEVEL) -> Contrast:
        """One method against another."""
        weights = np.zeros(len(self.methods))
        weights[self.methods.index(method)] += 1.0
        weights[self.methods.index(other)] -= 1.0
        difference = float(weights @ self.log_worth)
        if self.covariance is None:
            return Contrast(method, other, difference, None, None, None, None)
        error = sqrt(max(float(weights @ self.covariance @ weights), 0.0))
        if error == 0:
            return Contrast(method, other, difference, None, None, None, None)
        reach = _quantile(self.degrees_of_freedom, (1 + level) / 2) * error
        p_value = 2 * _tail(self.degrees_of_freedom, abs(difference) / error)
        return Contrast(method, other, difference, error, difference - reach, difference + reach, p_value)

    def contrasts(self, level: float = LEVEL) -> tuple[Contrast, ...]:
        """Every pair once, the stronger first."""
        return tuple(self.contrast(a, b, level) for a, b in combinations(self.order, 2))

    def win_probability(self, method: str, other: str) -> float:
        """How often the first is preferred when somebody decides."""
        difference = self.contrast(method, other).difference
        return float(special.ndtr(difference * JOD) if self.model == "thurstone" else special.expit(difference))

    def quasi_standard_errors(self) -> Floats | None:
        """(methods,) errors whose root sums of squares reproduce those of all contrasts (Firth and de Menezes 2004).

        Plot these: two intervals then compare as their contrast would. None without a covariance or for two methods.
        """
        if self.covariance is None or len(self.methods) <= PAIR:
            return None
        return quasi_standard_errors(self.covariance)

    def ranks(self, level: float = LEVEL) -> dict[str, int]:
        """1 + the number of methods that are stronger beyond the interval of their contrast."""
        beaten_by = dict.fromkeys(self.methods, 0)
        for contrast in self.contrasts(level):
            if contrast.low is not None and contrast.low > 0:
                beaten_by[contrast.other] += 1
        return {method: 1 + count for method, count in beaten_by.items()}


def rank(
    votes: Votes,
    criterion: str,
    model: ModelName = "bradley-terry",
    *,
    errors: Errors = "two-way",
    ghost: float = 0.0,
    order_effect: bool = False,
) -> Ranking:
    """Strengths of the methods by one criterion.

    Args:
        votes: pairwise for all models but "luce", which takes any sets.
        criterion: which question.
        model: Bradley-Terry and Thurstone count a tie as half a win; Davidson and Rao-Kupper model it.
        errors: two-way by default: new people and new images.
        ghost: wins and losses of each method against an imagined one; 0 by default, and stated in the result.
        order_effect: also estimate the advantage of the first place (Bradley-Terry only).

    Raises:
        NoFiniteStrengthsError: when methods never won, never lost or never met; `ghost` then gives finite ones.
        VotesError: for an unknown criterion, trials of more than two methods, or no votes.
    """
    rows = votes.only(votes.counted).for_criterion(criterion)
    usable = rows.outcome == CHOICE if model == "luce" else rows.outcome != CANT_TELL
    left_out = int((~usable).sum())
    rows = rows.only(usable)
    if not len(rows):
        raise NoFiniteStrengthsError(f"Nobody has answered {criterion!r} yet, so no strengths exist.")
    fitted = _fit_luce(rows, ghost) if model == "luce" else _fit_pairs(rows, model, ghost, order_effect=order_effect)
    covariance, freedom, note = _covariance(fitted, rows, errors)
    return _ranking(rows, criterion, model, fitted, (covariance, freedom, note, errors, left_out, ghost))


def quasi_standard_errors(covariance: Floats) -> Floats:
    """Errors q with q_i^2 + q_j^2 closest, in log ratio, to the variance of each contrast."""
    m = len(covariance)
    first, second = np.triu_indices(m, 1)
    variance = np.diag(covariance)[first] + np.diag(covariance)[second] - 2 * covariance[first, second]

    def misfit(log_quasi: Floats) -> Floats:
        quasi = np.exp(log_quasi)
        return np.log(quasi[first] + quasi[second]) - np.log(variance)

    start = np.log(np.full(m, variance.mean() / 2))
    return np.exp(optimize.least_squares(misfit, start, xtol=1e-15, ftol=1e-15, gtol=1e-15).x / 2)


@dataclass(frozen=True, eq=False)
class _Fitted:
    """A maximum, and which set and answer each vote is."""

    maximum: Maximum
    set_of_row: Integers
    answer_of_row: Integers
    names: tuple[str, ...]


def _fit_pairs(rows: Votes, model: ModelName, ghost: float, *, order_effect: bool) -> _Fitted:
    if not rows.is_pairwise:
        raise VotesError(f"The model {model!r} needs pairwise trials; for choices among more use 'luce'.")
    m = len(rows.methods)
    pairs = ordered_pairs(m)
    place = np.full((m, m), NONE)
    place[pairs[:, 0], pairs[:, 1]] = np.arange(len(pairs))
    set_of_row = place[rows.shown[:, 0], rows.shown[:, 1]]
    answer = np.where(rows.outcome == TIE, TIED, rows.position)
    counts = np.zeros((len(pairs), OUTCOMES))
    np.add.at(counts, (set_of_row, answer), 1.0)
    wins = np.zeros((m, m))
    np.add.at(wins, (pairs[:, 0], pairs[:, 1]), counts[:, 0] + counts[:, TIED])
    np.add.at(wins, (pairs[:, 1], pairs[:, 0]), counts[:, 1] + counts[:, TIED])
    _refuse_infinite(wins, rows, ghost)
    if ghost:
        pairs = np.concatenate([pairs, np.stack([np.arange(m), np.full(m, m)], axis=1)])
        counts = np.concatenate([counts, np.tile([ghost, ghost, 0.0], (m, 1))])
    strengths = m + int(ghost > 0)
    chosen, names = _pair_model(model, pairs, strengths, rows, order_effect=order_effect)
    start = np.concatenate([np.zeros(strengths), np.full(len(names), START_OF_TIES if "threshold" in names else 0.0)])
    return _Fitted(maximise(chosen, counts, start, strengths, model), set_of_row, answer, names)


def _pair_model(
    model: ModelName, pairs: Integers, strengths: int, rows: Votes, *, order_effect: bool
) -> tuple[Model, tuple[str, ...]]:
    if order_effect and model != "bradley-terry":
        raise VotesError(f"The advantage of the first place is estimated by 'bradley-terry' only, not by {model!r}.")
    if model in {"davidson", "rao-kupper"} and not (rows.outcome == TIE).any():
        raise VotesError(f"There are no ties, so {model!r} cannot estimate how often they happen; use 'bradley-terry'.")
    if model in {"davidson", "rao-kupper"} and (rows.outcome == TIE).all():
        raise VotesError(f"There are only ties, so {model!r} has no finite tie strength; use 'bradley-terry'.")
    if model == "davidson":
        return davidson_model(pairs, strengths), ("log tie",)
    if model == "rao-kupper":
        return rao_kupper_model(pairs, strengths), ("threshold",)
    if model == "thurstone":
        return thurstone_model(pairs, strengths), ()
    return bradley_terry_model(pairs, strengths, order_effect=order_effect), ("first place",) if order_effect else ()


def _fit_luce(rows: Votes, ghost: float) -> _Fitted:
    m = len(rows.methods)
    # Which positions the methods had plays no part, so equal sets are counted together.
    arranged = np.sort(rows.shown, axis=1)[:, ::-1]
    sets, set_of_row = np.unique(arranged, axis=0, return_inverse=True)
    answer = (arranged == rows.chosen[:, None]).argmax(axis=1)
    counts = np.zeros(sets.shape)
    np.add.at(counts, (set_of_row, answer), 1.0)
    wins = np.zeros((m, m))
    for place in range(sets.shape[1]):
        beaten = (rows.shown[:, place] != NONE) & (rows.shown[:, place] != rows.chosen)
        np.add.at(wins, (rows.chosen[beaten], rows.shown[beaten, place]), 1.0)
    _refuse_infinite(wins, rows, ghost)
    if ghost:
        extra = np.full((m, sets.shape[1]), NONE)
        extra[:, 0], extra[:, 1] = np.arange(m), m
        sets = np.concatenate([sets, extra])
        counts = np.concatenate([counts, np.tile(np.arange(sets.shape[1]) < PAIR, (m, 1)) * ghost])
    strengths = m + int(ghost > 0)
    return _Fitted(
        maximise(luce_model(sets, strengths), counts, np.zeros(strengths), strengths, "luce"), set_of_row, answer, ()
    )


def _refuse_infinite(wins: Floats, rows: Votes, ghost: float) -> None:
    reason = "" if ghost else groups_without_defeat(wins, rows.methods)
    if reason:
        raise NoFiniteStrengthsError(
            f"These votes admit no finite strengths ({reason}). Collect more votes, leave those methods out, or state "
            f"a regularisation, for example ghost={GHOST_WINS}."
        )


def _covariance(fitted: _Fitted, rows: Votes, errors: Errors) -> tuple[Floats | None, float, str]:
    """Covariance of all parameters: the inverse information, or the sandwich around clustered scores."""
    bread = np.linalg.pinv(fitted.maximum.information, rcond=1e-12, hermitian=True)
    if errors == "model":
        return bread, np.inf, ""
    scores = fitted.maximum.answers.score[fitted.set_of_row, fitted.answer_of_row]
    clustering: Clustering = errors
    spread = Clusters(rows.participant, rows.image).covariance(scores, clustering)
    if spread.variance is None:
        return None, np.nan, spread.note
    return bread @ spread.variance @ bread, float(spread.degrees_of_freedom), spread.note


def _ranking(
    rows: Votes,
    criterion: str,
    model: ModelName,
    fitted: _Fitted,
    rest: tuple[Floats | None, float, str, Errors, int, float],
) -> Ranking:
    covariance, freedom, note, errors, left_out, ghost = rest
    m, parameters = len(rows.methods), fitted.maximum.parameters
    scale = 1 / JOD if model == "thurstone" else 1.0
    centre = np.eye(m) - 1.0 / m
    extra = parameters[parameters.size - len(fitted.names) :]
    spread = (
        None if covariance is None else np.sqrt(np.maximum(np.diag(covariance), 0.0))[parameters.size - extra.size :]
    )
    return Ranking(
        model=model,
        criterion=criterion,
        methods=rows.methods,
        log_worth=scale * (centre @ parameters[:m]),
        covariance=None if covariance is None else scale**2 * centre @ covariance[:m, :m] @ centre,
        extra=_named(fitted.names, extra),
        extra_errors={} if spread is None else _named(fitted.names, spread),
        log_likelihood=fitted.maximum.log_likelihood,
        parameters=m - 1 + extra.size,
        n=len(rows),
        ties=int((rows.outcome == TIE).sum()),
        left_out=left_out,
        errors=errors,
        degrees_of_freedom=freedom,
        steps=fitted.maximum.steps,
        regularisation=f"{ghost:g} wins and losses of each method against an imagined one" if ghost else "",
        note=note,
    )


def _named(names: Sequence[str], values: Floats) -> dict[str, float]:
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def _quantile(freedom: float, probability: float) -> float:
    return float(special.ndtri(probability) if np.isinf(freedom) else special.stdtrit(freedom, probability))


def _tail(freedom: float, statistic: float) -> float:
    return float(special.ndtr(-statistic) if np.isinf(freedom) else special.stdtr(freedom, -statistic))
