"""Logistic regression with crossed random effects: how much people and images differ, and odds for a given pair.

Maximum likelihood by Laplace's approximation, as lme4's `glmer` does by default. The odds are conditional, for one
person on one image; averaged over people and images they shrink towards one half, so do not compare them with rates.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from analysis.clustered import Floats
from analysis.votes import CHOICE, Integers, Votes, VotesError

INNER_TOLERANCE = 1e-10
"""The modes of the random effects are found to this size of step; the outer optimum depends on it smoothly."""

MOST_INNER_STEPS = 100
OUTER_TOLERANCE = 1e-12
"""Relative change of the deviance at which the outer search stops."""

STEEPEST = 1e-5
"""Slope of the deviance at which the outer search stops; an error of about a millionth of a standard error."""

MOST_OUTER_STEPS = 500
STEP = 1e-4
"""Of numerical second derivatives; the deviance is known to about 1e-10."""

FEWEST_GROUPS = 2


class MixedModelError(VotesError):
    """Data that determine no random effects, or a fit that did not converge."""


@dataclass(frozen=True, eq=False)
class MixedLogit:
    """A fitted model.

    Attributes:
        terms: names of the fixed effects.
        coefficients: of the fixed effects, log odds.
        standard_errors: of those; NaN where the curvature is not that of a maximum.
        groups: names of the random factors.
        deviations: standard deviation of each factor's effects, log odds; 0 means none was found.
        deviance: -2 log likelihood (Laplace), with the binomial constants.
        n: rows.
        iterations: of the outer optimiser.
    """

    terms: tuple[str, ...]
    coefficients: Floats
    standard_errors: Floats
    groups: tuple[str, ...]
    deviations: Floats
    deviance: float
    n: int
    iterations: int


def fit_mixed_logit(
    successes: Floats,
    trials: Floats,
    fixed: Floats,
    factors: Sequence[Integers],
    names: tuple[Sequence[str], Sequence[str]],
) -> MixedLogit:
    """Fixed effects and standard deviations of normal, independent, crossed random effects.

    Args:
        successes: (n,) successes.
        trials: (n,) out of how many.
        fixed: (n, terms) design, including the intercept.
        factors: one (n,) series of group codes per random factor.
        names: of the terms, and of the factors.

    Raises:
        MixedModelError: when a factor has one group only, or no optimum is found.
    """
    problem = _Problem.of(successes, trials, fixed, factors)
    for name, size in zip(names[1], problem.sizes, strict=True):
        if size < FEWEST_GROUPS:
            raise MixedModelError(f"There is {size} group of {name}, so how much they differ cannot be estimated.")
    start = np.concatenate([problem.logistic_start(), np.full(len(factors), 0.5)])
    # A deviation of zero is a legitimate answer, so it is a bound and not a limit at minus infinity.
    bounds = [(None, None)] * fixed.shape[1] + [(0.0, None)] * len(factors)
    best = optimize.minimize(
        problem.deviance,
        start,
        method="L-BFGS-B",
        jac="3-point",
        bounds=bounds,
        options={"ftol": OUTER_TOLERANCE, "gtol": STEEPEST, "maxiter": MOST_OUTER_STEPS},
    )
    if not best.success:
        raise MixedModelError(f"The mixed model did not converge ({best.message}); simplify it.")
    terms = fixed.shape[1]
    return MixedLogit(
        terms=tuple(names[0]),
        coefficients=best.x[:terms],
        standard_errors=_errors(problem.deviance, best.x, terms),
        groups=tuple(names[1]),
        deviations=best.x[terms:],
        deviance=float(best.fun),
        n=len(successes),
        iterations=int(best.nit),
    )


def preference_by_person_and_image(votes: Votes, criterion: str, target: str) -> MixedLogit:
    """Log odds that the target is preferred to each other method, people and images as random effects.

    Ties and can't-tell are left out: the model is of decided votes.

    Raises:
        VotesError: for an unknown criterion or target, or when trials were not pairwise.
        MixedModelError: with one person, one image, or a method against which the target always wins or loses.
    """
    if not votes.is_pairwise:
        raise VotesError("The mixed model needs pairwise trials; these chose among more.")
    code = votes.method_code(target)
    rows = votes.only(votes.counted & (votes.outcome == CHOICE) & (votes.shown == code).any(axis=1))
    rows = rows.for_criterion(criterion)
    other = np.where(rows.shown[:, 0] == code, rows.shown[:, 1], rows.shown[:, 0])
    won = (rows.chosen == code).astype(np.float64)
    opponents = np.unique(other)
    for opponent in opponents:
        share = won[other == opponent].mean()
        if share in (0.0, 1.0):
            raise MixedModelError(
                f"{target} {'always' if share else 'never'} wins against {votes.methods[opponent]}: its log odds are "
                "infinite; leave that method out."
            )
    fixed = (other[:, None] == opponents[None, :]).astype(np.float64)
    names = ([f"over {votes.methods[opponent]}" for opponent in opponents], ["participant", "image"])
    return fit_mixed_logit(won, np.ones(len(rows)), fixed, [rows.participant, rows.image], names)


@dataclass(eq=False)
class _Problem:
    """The data, and the modes of the random effects last found, from which the next search starts."""

    successes: Floats
    trials: Floats
    fixed: Floats
    membership: list[Integers]
    sizes: list[int]
    constant: float
    modes: Floats

    @classmethod
    def of(cls, successes: Floats, trials: Floats, fixed: Floats, factors: Sequence[Integers]) -> "_Problem":
        offset, membership, sizes = 0, [], []
        for codes in factors:
            names, dense = np.unique(codes, return_inverse=True)
            membership.append(dense + offset)
            sizes.append(int(names.size))
            offset += int(names.size)
        constant = -2 * float(
            (
                special.gammaln(trials + 1) - special.gammaln(successes + 1) - special.gammaln(trials - successes + 1)
            ).sum()
        )
        return cls(successes, trials, fixed, membership, sizes, constant, np.zeros(offset))

    def logistic_start(self) -> Floats:
        """Fixed effects without random ones, by Newton's method from zero."""
        beta = np.zeros(self.fixed.shape[1])
        for _ in range(MOST_INNER_STEPS):
            share = special.expit(self.fixed @ beta)
            weight = self.trials * share * (1 - share)
            slope = self.fixed.T @ (self.successes - self.trials * share)
            step = np.linalg.lstsq((self.fixed.T * weight) @ self.fixed, slope, rcond=None)[0]
            beta = beta + np.clip(step, -2, 2)
            if np.abs(step).max() < INNER_TOLERANCE:
                break
        return beta

    def deviance(self, parameters: Floats) -> float:
        """-2 log likelihood by Laplace's approximation around the modes of spherical effects."""
        terms = self.fixed.shape[1]
        scale = np.repeat(parameters[terms:], self.sizes)
        base = self.fixed @ parameters[:terms]
        modes = self.modes
        value = self._penalised(base, scale, modes)
        for _ in range(MOST_INNER_STEPS):
            share = special.expit(self._linear(base, scale, modes))
            curvature = self._curvature(scale, self.trials * share * (1 - share))
            slope = scale * self._sum(self.successes - self.trials * share) - modes
            step = np.linalg.solve(curvature, slope)
            while (reached := self._penalised(base, scale, modes + step)) > value + 1e-9 * abs(value):
                step = step / 2
            modes, value = modes + step, reached
            if np.abs(step).max() < INNER_TOLERANCE:
                break
        self.modes = modes
        share = special.expit(self._linear(base, scale, modes))
        _, log_determinant = np.linalg.slogdet(self._curvature(scale, self.trials * share * (1 - share)))
        return value + float(log_determinant) + self.constant

    def _linear(self, base: Floats, scale: Floats, modes: Floats) -> Floats:
        effects = scale * modes
        return base + np.sum([effects[codes] for codes in self.membership], axis=0)

    def _penalised(self, base: Floats, scale: Floats, modes: Floats) -> float:
        linear = self._linear(base, scale, modes)
        log_likelihood = self.successes @ special.log_expit(linear)
        log_likelihood += (self.trials - self.successes) @ special.log_expit(-linear)
        return float(-2 * log_likelihood + modes @ modes)

    def _sum(self, values: Floats) -> Floats:
        return np.sum([np.bincount(codes, values, self.modes.size) for codes in self.membership], axis=0)

    def _curvature(self, scale: Floats, weight: Floats) -> Floats:
        q = self.modes.size
        crossed = np.zeros((q, q))
        for one in self.membership:
            for two in self.membership:
                crossed += np.bincount(one * q + two, weight, q * q).reshape(q, q)
        return scale[:, None] * crossed * scale[None, :] + np.eye(q)


def _errors(deviance: Callable[[Floats], float], at: Floats, terms: int) -> Floats:
    """Standard errors of the fixed effects from the curvature of the deviance in all free parameters."""
    free = [i for i in range(at.size) if i < terms or at[i] > 10 * STEP]

    def value(*moves: tuple[int, float]) -> float:
        point = at.copy()
        for place, move in moves:
            point[place] += move
        return deviance(point)

    hessian = np.zeros((len(free), len(free)))
    for i, a in enumerate(free):
        for j, b in enumerate(free[: i + 1]):
            corners = [(s, t, value((a, s * STEP), (b, t * STEP))) for s in (1, -1) for t in (1, -1)]
            hessian[i, j] = hessian[j, i] = sum(s * t * v for s, t, v in corners) / (4 * STEP**2)
    variance = np.diag(np.linalg.inv(hessian / 2))[:terms]
    return np.sqrt(np.where(variance > 0, variance, np.nan))
