"""Probability models of an answer, as tables: for every set of methods shown, every answer's log probability and score.

Bradley-Terry (1952), Davidson (1970) and Rao-Kupper (1967) for pairs with ties, Thurstone's case V (1927), and Luce's
choice axiom (1959) for best of N. One Fisher scoring fits them all.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special

from analysis.clustered import Floats
from analysis.counts import TIED
from analysis.votes import NONE, Integers, VotesError

TOLERANCE = 1e-10
"""Fisher scoring stops when no parameter moves further."""

MOST_STEPS = 200
LONGEST_STEP = 1.0
MOST_HALVINGS = 30

SMALLEST_TIE = 1e-9
"""Rao-Kupper's log threshold stays above this; at 0 ties are impossible."""


class NotConvergedError(VotesError):
    """No maximum was found; the message names the model and how far it still moved."""


@dataclass(frozen=True)
class Answers:
    """The distribution of answers to each set, and how it changes with the parameters.

    Attributes:
        log_probability: (sets, answers); what a vote adds to the log likelihood.
        probability: (sets, answers) with the same answers; zero where an answer is no event of the model.
        score: (sets, answers, parameters), the slope of `log_probability`.
    """

    log_probability: Floats
    probability: Floats
    score: Floats


Model = Callable[[Floats], Answers]
"""From parameters to the distribution of answers."""


@dataclass(frozen=True)
class Maximum:
    """Where the likelihood is highest.

    Attributes:
        parameters: (d,) log strengths first, summing to zero, then what else the model has.
        information: (d, d) expected information, singular along "all strengths rise together".
        log_likelihood: at the maximum, without constants that depend on the counts alone.
        answers: the fitted distributions.
        steps: Fisher-scoring steps taken.
    """

    parameters: Floats
    information: Floats
    log_likelihood: float
    answers: Answers
    steps: int


def maximise(model: Model, counts: Floats, start: Floats, strengths: int, name: str) -> Maximum:
    """The maximum-likelihood parameters of a model.

    Args:
        model: one of those below.
        counts: (sets, answers) how often each answer was given.
        start: (d,) parameters to start from.
        strengths: how many of the parameters are log strengths, determined up to a common constant.
        name: of the model, for the message when it fails.

    Raises:
        NotConvergedError: when no maximum is found.
    """
    gauge = np.zeros((start.size, start.size))
    gauge[:strengths, :strengths] = 1.0 / strengths**2
    theta, answers = start, model(start)
    value = _log_likelihood(counts, answers)
    for steps in range(1, MOST_STEPS + 1):
        information = _information(counts, answers)
        slope = np.einsum("sk,skd->d", counts, answers.score)
        step = np.linalg.solve(information + gauge * (np.trace(information) + 1.0), slope)
        step *= min(1.0, LONGEST_STEP / max(float(np.abs(step).max(initial=0.0)), LONGEST_STEP))
        theta, answers, value = _uphill(model, counts, theta, step, value)
        if np.abs(step).max(initial=0.0) < TOLERANCE:
            theta = theta.copy()
            theta[:strengths] -= theta[:strengths].mean()
            return Maximum(theta, _information(counts, answers), value, answers, steps)
    raise NotConvergedError(
        f"{name} did not converge in {MOST_STEPS} steps (the last moved {np.abs(step).max():.2g}); "  # pyright: ignore[reportPossiblyUnboundVariable] - there is at least one step
        "the votes may determine it barely; try the regularised fit."
    )


def choice_model(features: Floats, present: Floats) -> Model:
    """Answer k to set s is given in proportion to exp(features[s, k] . parameters).

    Args:
        features: (sets, answers, d).
        present: (sets, answers) 1 where the answer can be given, else 0.
    """
    absent = np.where(present > 0, 0.0, -np.inf)

    def answers(theta: Floats) -> Answers:
        utility = features @ theta + absent
        probability = special.softmax(utility, axis=1)
        log_probability = np.where(present > 0, special.log_softmax(utility, axis=1), 0.0)
        mean = np.einsum("sk,skd->sd", probability, features)
        return Answers(log_probability, probability, (features - mean[:, None, :]) * present[:, :, None])

    return answers


def bradley_terry_model(pairs: Integers, methods: int, *, order_effect: bool = False) -> Model:
    """Bradley-Terry for ordered pairs (first, second), optionally with an advantage of the first place.

    A tie counts as half a win for each: a quasi-likelihood, whose standard errors must come from clusters.
    """
    features = _pair_features(pairs, methods, extra=int(order_effect))
    if order_effect:
        features[:, 0, methods] = 1.0
    decided = choice_model(features, np.ones(features.shape[:2]))

    def answers(theta: Floats) -> Answers:
        two = decided(theta)
        tie = two.log_probability.mean(axis=1, keepdims=True)
        return Answers(
            np.concatenate([two.log_probability, tie], axis=1),
            np.concatenate([two.probability, np.zeros_like(tie)], axis=1),
            np.concatenate([two.score, two.score.mean(axis=1, keepdims=True)], axis=1),
        )

    return answers


def davidson_model(pairs: Integers, methods: int) -> Model:
    """Davidson: a tie is given in proportion to nu * sqrt(w_first * w_second); the last parameter is log nu."""
    features = _pair_features(pairs, methods, extra=1)
    tie = features.mean(axis=1, keepdims=True)
    tie[:, 0, methods] = 1.0
    both = np.concatenate([features, tie], axis=1)
    return choice_model(both, np.ones(both.shape[:2]))


def rao_kupper_model(pairs: Integers, methods: int) -> Model:
    """Rao and Kupper: a method wins if it is better by more than a threshold; the last parameter is its log, eta.

    P(first) = logistic(d - eta), P(second) = logistic(-d - eta), the rest ties; d is the difference of log strengths.
    """
    difference = _differences(pairs, methods)

    def answers(theta: Floats) -> Answers:
        eta = max(float(theta[methods]), SMALLEST_TIE)
        d = difference @ theta[:methods]
        first, second = special.expit(d - eta), special.expit(-d - eta)
        spread = np.expm1(2 * eta)
        logs = np.stack([special.log_expit(d - eta), special.log_expit(-d - eta)], axis=1)
        tie_log = np.log(spread) + logs.sum(axis=1)
        slopes = np.zeros((len(pairs), 3, methods + 1))
        slopes[:, 0, :methods] = (1 - first)[:, None] * difference
        slopes[:, 1, :methods] = -(1 - second)[:, None] * difference
        slopes[:, 0, methods], slopes[:, 1, methods] = first - 1, second - 1
        slopes[:, TIED] = slopes[:, 0] + slopes[:, 1]
        slopes[:, TIED, methods] += 2 * (spread + 1) / spread
        probability = np.stack([first, second, np.exp(tie_log)], axis=1)
        return Answers(np.concatenate([logs, tie_log[:, None]], axis=1), probability, slopes)

    return answers


def thurstone_model(pairs: Integers, methods: int) -> Model:
    """Thurstone's case V: the first wins with probability Phi(d), d the difference of scale values; ties as half."""
    difference = _differences(pairs, methods)

    def answers(theta: Floats) -> Answers:
        d = difference @ theta
        logs = np.stack([special.log_ndtr(d), special.log_ndtr(-d)], axis=1)
        density = np.exp(-(d**2) / 2) / np.sqrt(2 * np.pi)
        hazard = density[:, None] / np.exp(logs) * np.array([1.0, -1.0])
        score = hazard[:, :, None] * difference[:, None, :]
        probability = np.concatenate([np.exp(logs), np.zeros((len(pairs), 1))], axis=1)
        return Answers(
            np.concatenate([logs, logs.mean(axis=1, keepdims=True)], axis=1),
            probability,
            np.concatenate([score, score.mean(axis=1, keepdims=True)], axis=1),
        )

    return answers


def luce_model(sets: Integers, methods: int) -> Model:
    """Luce: the method at position k of a set is chosen in proportion to its strength; NONE marks empty positions."""
    present = (sets != NONE).astype(np.float64)
    features = np.eye(methods)[np.maximum(sets, 0)] * present[:, :, None]
    return choice_model(features, present)


def ordered_pairs(methods: int) -> Integers:
    """(methods * (methods - 1), 2) every pair in both orders."""
    first, second = np.nonzero(~np.eye(methods, dtype=bool))
    return np.stack([first, second], axis=1)


def _pair_features(pairs: Integers, methods: int, extra: int) -> Floats:
    features = np.zeros((len(pairs), 2, methods + extra))
    rows = np.arange(len(pairs))
    for place in (0, 1):
        features[rows, place, pairs[:, place]] = 1.0
    return features


def _differences(pairs: Integers, methods: int) -> Floats:
    features = _pair_features(pairs, methods, extra=0)
    return features[:, 0] - features[:, 1]


def _log_likelihood(counts: Floats, answers: Answers) -> float:
    return float(np.where(counts > 0, counts * answers.log_probability, 0.0).sum())


def _information(counts: Floats, answers: Answers) -> Floats:
    """Expected information: trials of a set times the variance of its scores."""
    weight = counts.sum(axis=1, keepdims=True) * answers.probability
    flat = answers.score.reshape(-1, answers.score.shape[-1])
    return flat.T @ (weight.reshape(-1, 1) * flat)


def _uphill(model: Model, counts: Floats, theta: Floats, step: Floats, value: float) -> tuple[Floats, Answers, float]:
    """Take the step, or the largest half, quarter, ... of it that does not go down."""
    for halving in range(MOST_HALVINGS):
        tried = theta + step / 2**halving
        answers = model(tried)
        reached = _log_likelihood(counts, answers)
        if reached >= value - abs(value) * np.finfo(np.float64).eps * counts.size:
            return tried, answers, reached
    return theta, model(theta), value
