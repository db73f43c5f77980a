"""How many people, images and votes a study needs: by formula, and by simulating the design itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import ceil, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy import special, stats

from analysis.rankings import NoFiniteStrengthsError, rank
from analysis.rates import Rate, preference_rates, selection_ratios
from analysis.significance import adjust, rate_p_value
from analysis.simulate import Design, DesignError, Truth, expected_share, simulate_votes
from analysis.votes import Votes

ALPHA = 0.05
POWER = 0.8
SHARES = (0.55, 0.6, 0.65, 0.7)
"""True preferences a plan is tried on by default."""

SIMULATIONS = 400
"""A power of 0.8 is then known to +-0.04."""

LARGEST_STUDY = 10_000_000
"""Votes; no sample size above this is looked for."""

PARTICIPANT_SD = 0.5
IMAGE_SD = 0.5
"""Spreads on the scale of log worths that the design notes found plausible; measure your own in a pilot."""

DRAWS = 200_000
SEARCH_STEPS = 60


@dataclass(frozen=True)
class Plan:
    """What a study definition says about its size.

    Attributes:
        design: people, images, trials, criteria and protocol.
        methods: keys, the target first where there is one.
        tests: comparisons in the family that Holm's correction covers.
    """

    design: Design
    methods: tuple[str, ...]
    tests: int


@dataclass(frozen=True)
class SimulatedPower:
    """What a design would find.

    Attributes:
        share: the true preference for the target, the same against every other method.
        power: how often one given comparison is significant after correction.
        any_power: how often at least one is.
        interval_width: mean full width of a 95 % interval, in shares: of a preference rate, or in a best-of-N design of
            the target's selection ratio.
        simulations: studies simulated.
        standard_error: of `power`.
        tests: size of the family.
    """

    share: float
    power: float
    any_power: float
    interval_width: float
    simulations: int
    standard_error: float
    tests: int


def sign_test_power(votes: int, share: float, alpha: float = ALPHA) -> float:
    """Power of the exact two-sided sign test with so many independent decided votes.

    Raises:
        DesignError: for a share or level outside 0..1, or no votes.
    """
    _refuse_impossible(votes, share, alpha)
    critical = _critical_value(votes, alpha)
    return float(stats.binom.sf(critical - 1, votes, share) + stats.binom.cdf(votes - critical, votes, share))


def sign_test_votes(share: float, power: float = POWER, alpha: float = ALPHA) -> int:
    """The number of independent decided votes from which on the exact sign test keeps the power.

    The power of an exact test rises in saw-teeth; this is past the last dip below `power` that a search upwards from
    the first crossing meets within one tooth, which is the smallest number usually printed.

    Raises:
        DesignError: for a share of one half, which no study can tell from one half, or numbers outside 0..1.
    """
    if share == 0.5:  # noqa: PLR2004 - one half
        raise DesignError("A true share of 0.5 is no preference; no number of votes finds one.")
    _refuse_impossible(1, share, alpha)
    votes = 1
    while votes < LARGEST_STUDY:
        if sign_test_power(votes, share, alpha) >= power:
            return votes
        votes += 1 if votes < 5000 else votes // 1000  # noqa: PLR2004 - beyond this, to a tenth of a percent
    raise DesignError(f"More than {LARGEST_STUDY} votes would be needed to tell {share} from one half.")


def design_effect(cluster_size: float, correlation: float) -> float:
    """By how much clustering inflates the variance: 1 + (m - 1) * rho (Kish)."""
    return 1.0 + (cluster_size - 1.0) * correlation


def two_way_standard_error(
    design: Design, pairs: int, participant_sd: float, image_sd: float, share: float = 0.5
) -> float:
    """Standard error of one pair's share when people and images both vary, to first order.

    Args:
        design: who sees what.
        pairs: among how many pairs a person's trials are divided.
        participant_sd: of log odds between people.
        image_sd: of log odds between images.
        share: around which the logistic curve is straightened.
    """
    slope = share * (1 - share)
    votes = design.participants * design.trials / pairs
    people = min(design.participants, votes)
    images = min(design.images, votes)
    spread = slope**2 * (participant_sd**2 / people + image_sd**2 / images)
    return sqrt(spread + slope / votes)


def simulate_power(
    plan: Plan,
    share: float,
    *,
    participant_sd: float = PARTICIPANT_SD,
    image_sd: float = IMAGE_SD,
    simulations: int = SIMULATIONS,
    alpha: float = ALPHA,
    seed: int = 0,
) -> SimulatedPower:
    """How often the plan's own analysis finds a true preference: two-way clustered tests, Holm over its family.

    Pairwise designs test preference rates against one half; best-of-N designs the contrasts of Luce's strengths.

    Args:
        plan: from `read_plan`.
        share: share of new people on new images who prefer the target to one other method, the same for each; in a
            best-of-N design it fixes the strengths, so that designs can be compared.
        participant_sd: spread of people's tastes per method, on log worths.
        image_sd: spread of images per method.
        simulations: how many studies.
        alpha: level of the family.
        seed: names the draws.

    Raises:
        DesignError: when the design cannot be carried out.
    """
    target, *others = plan.methods
    truth = _truth_with_share(target, others, share, participant_sd, image_sd)
    design = replace(plan.design, target=target if plan.design.target else None)
    test = _test_best_of_n if design.best_of_n else _test_pairs
    found, widths = np.zeros((simulations, len(others) * len(design.criteria)), dtype=bool), []
    for number in range(simulations):
        tested = test(simulate_votes(design, truth, seed + number), target, whole_family=design.target is None)
        adjusted = adjust(tested.p_values, "holm")
        found[number, : len(tested.about)] = [adjusted[place] < alpha for place in tested.about]
        widths += tested.widths
    power = float(found.mean())
    return SimulatedPower(
        share=share,
        power=power,
        any_power=float(found.any(axis=1).mean()),
        interval_width=float(np.mean(widths)),
        simulations=simulations,
        standard_error=sqrt(power * (1 - power) / simulations),
        tests=plan.tests,
    )


def read_plan(source: Path, images: int | None = None) -> Plan:
    """The plan in a study definition (YAML), as far as its size goes.

    Args:
        source: the definition's file.
        images: how many images there are, where the definition leaves that to the results at hand.

    Raises:
        DesignError: when the file cannot be read, names fewer than two methods, or does not say how many images.
    """
    try:
        definition: Any = yaml.safe_load(source.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as problem:
        raise DesignError(f"{source} cannot be read as a study definition ({problem}).") from problem
    if not isinstance(definition, Mapping) or not isinstance(definition.get("methods"), Sequence):
        raise DesignError(f"{source} is no study definition: it has no list of methods.")
    try:
        return plan_of(definition, images)
    except (KeyError, TypeError, ValueError) as problem:
        raise DesignError(f"{source} does not describe a study's size ({problem!r}); validate it first.") from problem


def plan_of(definition: Mapping[str, Any], images: int | None = None) -> Plan:
    """The plan in a validated study definition; `images` is for one that leaves their number to the results at hand.

    Raises:
        DesignError: when neither says how many images there are.
    """
    methods = [str(method["key"]) for method in definition["methods"]]
    targets = [str(m["key"]) for m in definition["methods"] if m.get("role") == "target"]
    target = targets[0] if targets and definition.get("contrasts", "target_vs_each") == "target_vs_each" else None
    chosen = definition.get("images") or {}
    count = images or (chosen.get("sample") or {}).get("n") or len(chosen.get("list") or ()) or None
    trials = int((definition.get("plan") or {}).get("real", 40))
    if count is None:
        raise DesignError("The definition does not say how many images there are; give their number with --images.")
    design = Design(
        participants=int((definition.get("target") or {}).get("participants", 96)),
        images=int(count),
        trials=min(trials, int(count)),
        criteria=tuple(str(criterion["key"]) for criterion in definition["criteria"]),
        target=target,
        best_of_n=definition.get("protocol", "pairwise") == "best_of_n",
    )
    ordered = (*targets[:1], *[key for key in methods if key not in targets[:1]])
    pairs = len(methods) - 1 if target else len(methods) * (len(methods) - 1) // 2
    return Plan(design, ordered, pairs * len(design.criteria))


@dataclass(frozen=True)
class _Tested:
    """One simulated study: p-values of the family, the places about the target among them, widths of intervals."""

    p_values: list[float]
    about: list[int]
    widths: list[float]


def _test_pairs(votes: Votes, target: str, *, whole_family: bool) -> _Tested:
    """Preference rates against one half. Pairs without the target take part in the correction, not in the count."""
    rates = preference_rates(votes, target=None if whole_family else target)
    p_values = [1.0 if (p := rate_p_value(rate)) is None else p for rate in rates]
    about = [place for place, rate in enumerate(rates) if target in (rate.method, rate.against)]
    return _Tested(p_values, about, [_width(rates[place]) for place in about])


def _test_best_of_n(votes: Votes, target: str, *, whole_family: bool) -> _Tested:
    """Contrasts of Luce's strengths with two-way errors; without finite strengths nothing counts as found."""
    others = [method for method in votes.methods if method != target]
    pairs = [(target, other) for other in others] + (list(combinations(others, 2)) if whole_family else [])
    p_values: list[float] = []
    for criterion in votes.criteria:
        try:
            ranking = rank(votes, criterion, "luce")
            found = [ranking.contrast(*pair).p_value for pair in pairs]
        except NoFiniteStrengthsError:
            found = [None] * len(pairs)
        p_values += [1.0 if p is None else p for p in found]
    about = [place for place in range(len(p_values)) if place % len(pairs) < len(others)]
    return _Tested(p_values, about, [_width(rate) for rate in selection_ratios(votes) if rate.method == target])


def _width(rate: Rate) -> float:
    interval = rate.interval
    return 1.0 if interval.low is None or interval.high is None else interval.high - interval.low


def _truth_with_share(target: str, others: Sequence[str], share: float, person: float, image: float) -> Truth:
    """The worth at which new people on new images prefer the target with the given probability, by bisection."""

    def truth(worth: float) -> Truth:
        return Truth({target: worth, **dict.fromkeys(others, 0.0)}, person, image)

    low, high = -12.0, 12.0
    for _ in range(SEARCH_STEPS):
        middle = (low + high) / 2
        if expected_share(truth(middle), target, others[:1], DRAWS // 10, seed=0) < share:
            low = middle
        else:
            high = middle
    return truth((low + high) / 2)


def _critical_value(votes: int, alpha: float) -> int:
    """The smallest number of votes for one side that the two-sided exact test of one half rejects."""
    middle = ceil(votes / 2)
    start = max(middle, int(votes / 2 + special.ndtri(1 - alpha / 2) * sqrt(votes) / 2) - 3)
    for critical in range(start, votes + 2):
        if 2 * stats.binom.sf(critical - 1, votes, 0.5) <= alpha:
            return critical
    return votes + 1


def _refuse_impossible(votes: int, share: float, alpha: float) -> None:
    if votes < 1 or not 0 <= share <= 1 or not 0 < alpha < 1:
        raise DesignError(f"{votes} votes, a share of {share} and a level of {alpha} make no test.")
