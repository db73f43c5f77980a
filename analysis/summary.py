"""Everything a report says about one study; what cannot be estimated is there as a sentence saying why."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from analysis.agreement import Agreement, agreement
from analysis.bootstrap import Replicates, resample_participants, resample_participants_and_images
from analysis.fit_checks import (
    ChiSquared,
    Heterogeneity,
    Transitivity,
    domain_differences,
    goodness_of_fit,
    image_differences,
    transitivity,
)
from analysis.mixed_logit import MixedLogit, preference_by_person_and_image
from analysis.quality import (
    ExclusionComparison,
    PositionBias,
    ResponseTimes,
    Retest,
    SplitHalf,
    exclusion_comparison,
    position_bias,
    response_times,
    retest,
    split_half_reliability,
)
from analysis.rankings import Errors, Ranking, rank
from analysis.rates import Population, Rate, Ties, preference_rates, selection_ratios
from analysis.significance import PairTest, preference_tests
from analysis.votes import CANT_TELL, NONE, TIE, Votes, VotesError

SCHEMA_VERSION = 1

T = TypeVar("T")


@dataclass(frozen=True)
class Unknown:
    """What could not be estimated, and why."""

    reason: str


@dataclass(frozen=True)
class Counts:
    """Who answered what, and what became of it.

    Attributes:
        participants: people with at least one answer.
        images: images with at least one answer.
        methods: names.
        criteria: names.
        answers: all answers about methods, one per trial and criterion.
        repeats: of those, to questions put again.
        excluded: first answers taken out by the study's rules.
        counted: answers that estimates are made of.
        ties: among the counted.
        cant_tell: among the counted.
        pairwise: True when every trial showed two methods.
    """

    participants: int
    images: int
    methods: tuple[str, ...]
    criteria: tuple[str, ...]
    answers: int
    repeats: int
    excluded: int
    counted: int
    ties: int
    cant_tell: int
    pairwise: bool


@dataclass(frozen=True)
class Criterion:
    """All that depends on one question."""

    name: str
    ranking: Ranking | Unknown
    model_with_ties: Ranking | Unknown
    agreement: Agreement
    position_bias: PositionBias
    retest: Retest
    split_half: SplitHalf
    response_times: ResponseTimes
    goodness_of_fit: ChiSquared | Unknown
    transitivity: Transitivity | Unknown
    domains: ChiSquared | Unknown
    images: Heterogeneity | Unknown
    mixed: MixedLogit | Unknown


@dataclass(frozen=True)
class Summary:
    """A study's numbers.

    Attributes:
        counts: of answers.
        target: the method of interest, None for a round robin.
        ties: how ties entered the rates.
        population: whom the intervals speak about.
        seed: of every resampling.
        selection: per criterion and method.
        preferences: per criterion and pair, empty for best-of-N.
        tests: per criterion and pair, one corrected family; empty for best-of-N.
        exclusions: rates with and without exclusions.
        replicates: of the strengths.
        criteria: everything else.
    """

    counts: Counts
    target: str | None
    ties: Ties
    population: Population
    seed: int
    selection: tuple[Rate, ...]
    preferences: tuple[Rate, ...]
    tests: tuple[PairTest, ...]
    exclusions: tuple[ExclusionComparison, ...]
    replicates: Replicates | Unknown
    criteria: tuple[Criterion, ...]


def summarise(
    votes: Votes, *, target: str | None = None, population: Population = "people and images", seed: int = 0
) -> Summary:
    """All estimates of a study.

    Args:
        votes: of one study version.
        target: the method of interest; every pair by default.
        population: whom intervals, errors, tests and bootstrap speak about. The mixed logit always has both effects,
            and agreement is always over items.
        seed: of every resampling.

    Raises:
        VotesError: when the target is no method of the study.
    """
    if target is not None:
        votes.method_code(target)
    resample = resample_participants_and_images if population == "people and images" else resample_participants
    tied = votes.outcome == TIE
    ties: Ties = "half" if votes.is_pairwise or not tied.any() else "lost"
    return Summary(
        counts=count(votes),
        target=target,
        ties=ties,
        population=population,
        seed=seed,
        selection=selection_ratios(votes, ties=ties, population=population),
        preferences=preference_rates(votes, target=target, population=population) if votes.is_pairwise else (),
        tests=preference_tests(votes, target=target, population=population) if votes.is_pairwise else (),
        exclusions=exclusion_comparison(votes, target=target, ties=ties, population=population),
        replicates=attempt(lambda: resample(votes, seed=seed)),
        criteria=tuple(_criterion(votes, name, target, population, seed) for name in votes.criteria),
    )


def attempt(estimate: Callable[[], T]) -> T | Unknown:
    """The estimate, or the sentence that says why there is none."""
    try:
        return estimate()
    except VotesError as problem:
        return Unknown(str(problem))


def count(votes: Votes) -> Counts:
    """Who answered what."""
    counted = votes.counted
    return Counts(
        participants=int(np.unique(votes.participant).size),
        images=int(np.unique(votes.image).size),
        methods=votes.methods,
        criteria=votes.criteria,
        answers=len(votes),
        repeats=int((votes.repeat_of != NONE).sum()),
        excluded=int((~votes.used & (votes.repeat_of == NONE)).sum()),
        counted=int(counted.sum()),
        ties=int((counted & (votes.outcome == TIE)).sum()),
        cant_tell=int((counted & (votes.outcome == CANT_TELL)).sum()),
        pairwise=votes.is_pairwise,
    )


def as_json(value: Any) -> Any:  # noqa: PLR0911 - one line per kind of value
    """Frozen results as plain JSON values: dataclasses as objects, arrays as lists, what is not finite as null."""
    if isinstance(value, Unknown):
        return {"unknown": value.reason}
    if isinstance(value, Replicates):
        return {"replicates": len(value.log_worth), "resampled": value.resampled, "seed": value.seed}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return fields | ({"percent": value.percent(), "estimate": value.estimate} if isinstance(value, Rate) else {})
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, np.generic):
        return as_json(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _criterion(votes: Votes, name: str, target: str | None, population: Population, seed: int) -> Criterion:
    errors: Errors = "two-way" if population == "people and images" else "participant"
    ranking = attempt(lambda: rank(votes, name, "bradley-terry" if votes.is_pairwise else "luce", errors=errors))
    log_worth = None if isinstance(ranking, Unknown) else ranking.log_worth
    lead = target or _strongest(ranking)
    no_lead = Unknown("no method of interest is known")
    return Criterion(
        name=name,
        ranking=ranking,
        model_with_ties=attempt(lambda: rank(votes, name, "davidson", errors=errors)),
        agreement=agreement(votes, name, seed=seed),
        position_bias=position_bias(votes, name),
        retest=retest(votes, name),
        split_half=split_half_reliability(votes, name, seed=seed),
        response_times=response_times(votes, name, log_worth),
        goodness_of_fit=attempt(lambda: goodness_of_fit(votes, name)),
        transitivity=attempt(lambda: transitivity(votes, name)),
        domains=attempt(lambda: domain_differences(votes, name)),
        images=no_lead if lead is None else attempt(lambda: image_differences(votes, name, lead)),
        mixed=no_lead if lead is None else attempt(lambda: preference_by_person_and_image(votes, name, lead)),
    )


def _strongest(ranking: Ranking | Unknown) -> str | None:
    return None if isinstance(ranking, Unknown) else ranking.order[0]
