"""Quality checks on answers whose faults were put in on purpose."""

import dataclasses
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import SquareTable
from statsmodels.stats.inter_rater import cohens_kappa

from analysis.quality import (
    bowker,
    cohen_kappa,
    exclusion_comparison,
    passing_by_guessing,
    position_bias,
    response_times,
    retest,
    split_half,
    split_half_reliability,
)
from analysis.simulate import Design, Truth, simulate_votes
from analysis.votes import NONE

TRUTH = Truth({"a": 0.5, "b": 0.0, "c": -0.5}, tie_strength=0.2)


def test_a_side_bias_is_found_and_its_absence_too() -> None:
    biased = simulate_votes(Design(40, 20, 20, ("q",)), dataclasses.replace(TRUTH, first_position=0.6), seed=1)
    found = position_bias(biased, "q")
    assert found.chosen[0] > found.chosen[1]
    assert found.p_value is not None
    assert found.p_value < 1e-4
    assert found.p_value == pytest.approx(stats.binomtest(found.chosen[0], sum(found.chosen)).pvalue)
    fair = position_bias(simulate_votes(Design(40, 20, 20, ("q",)), TRUTH, seed=1), "q")
    assert fair.people_p_value is not None
    assert fair.people_p_value > 0.01


def test_slots_of_best_of_n_are_compared_with_their_offers() -> None:
    design = Design(40, 20, 20, ("q",), best_of_n=True)
    truth = Truth({"a": 0.5, "b": 0.0, "c": -0.5}, first_position=1.0)
    found = position_bias(simulate_votes(design, truth, seed=1), "q")
    expected = stats.chisquare(found.chosen).pvalue
    assert found.p_value == pytest.approx(expected)
    assert found.offered == (800, 800, 800)


def test_without_a_decision_no_side_is_judged() -> None:
    votes = simulate_votes(Design(3, 3, 3, ("q",)), Truth({"a": 0.0, "b": 0.0}, tie_strength=1e9), seed=1)
    assert position_bias(votes, "q").p_value is None


def test_decided_people_repeat_themselves_and_coin_tossers_do_not() -> None:
    design = Design(40, 20, 20, ("q",), repeats=10)
    steady = retest(simulate_votes(design, Truth({"a": 9.0, "b": 0.0, "c": -9.0}, 0, 0), seed=1), "q")
    assert (steady.pairs, steady.share) == (400, pytest.approx(1, abs=0.01))
    tossing = retest(simulate_votes(design, Truth({"a": 0.0, "b": 0.0, "c": 0.0}, 0, 0), seed=1), "q")
    assert tossing.share == pytest.approx(0.5, abs=0.08)
    assert tossing.kappa == pytest.approx(0, abs=0.15)
    # Whoever changes an answer of two, with the sides swapped, chose the same side twice.
    assert tossing.same_position == tossing.pairs - tossing.same


def test_without_repeats_nothing_is_said_about_consistency() -> None:
    found = retest(simulate_votes(Design(4, 4, 4, ("q",)), TRUTH, seed=1), "q")
    assert (found.pairs, found.share, found.kappa) == (0, None, None)
    assert found.note


def test_kappa_and_bowker_agree_with_statsmodels() -> None:
    rng = np.random.default_rng(2)
    first = rng.integers(0, 3, 200)
    second = np.where(rng.random(200) < 0.5, first, rng.integers(0, 3, 200))
    table = np.array([[((first == a) & (second == b)).sum() for b in range(3)] for a in range(3)])
    assert cohen_kappa(first, second) == pytest.approx(cohens_kappa(table, return_results=False))
    expected: Any = SquareTable(table, shift_zeros=False).symmetry(method="bowker")
    assert bowker(first, second) == (pytest.approx(expected.statistic), pytest.approx(expected.pvalue))


def test_response_times_are_summarised_and_the_hasty_counted() -> None:
    votes = simulate_votes(Design(30, 20, 20, ("q",)), TRUTH, seed=1)
    times = votes.response_ms.copy()
    times[:7], times[7:10], times[10:12] = 200, NONE, 0
    found = response_times(dataclasses.replace(votes, response_ms=times), "q", np.array([0.5, 0.0, -0.5]))
    known = np.concatenate([times[:7], times[12:]])
    assert (found.n, found.unknown, found.fast) == (595, 5, int((known < 800).sum()))
    assert found.quartiles is not None
    assert found.quartiles[1] == np.median(known)
    assert found.geometric_mean == pytest.approx(stats.gmean(known))
    assert found.closeness == pytest.approx(0, abs=0.15)


def test_close_pairs_that_take_longer_show_as_a_positive_relation() -> None:
    votes = simulate_votes(Design(30, 20, 20, ("q",)), TRUTH, seed=1)
    worth = np.array([0.5, 0.0, -0.5])
    distance = np.abs(worth[votes.shown[:, 0]] - worth[votes.shown[:, 1]])
    slow = dataclasses.replace(votes, response_ms=(5000 - 1000 * distance).astype(int))
    assert response_times(slow, "q", worth).closeness == pytest.approx(1)


def test_unknown_times_stay_unknown() -> None:
    votes = simulate_votes(Design(2, 2, 2, ("q",)), TRUTH, seed=1)
    found = response_times(dataclasses.replace(votes, response_ms=np.full(len(votes), NONE)), "q")
    assert (found.n, found.quartiles, found.geometric_mean) == (0, None, None)


def test_rates_are_given_with_and_without_exclusions() -> None:
    votes = simulate_votes(Design(10, 10, 10, ("q",)), TRUTH, seed=1)
    some = dataclasses.replace(votes, used=votes.participant > 2)
    for target in (None, "a"):
        for comparison in exclusion_comparison(some, target=target):
            assert comparison.with_exclusions.n < comparison.without_exclusions.n


def test_guessing_through_golds_has_the_probabilities_the_rules_were_chosen_by() -> None:
    found = [round(100 * passing_by_guessing(items, needed), 1) for items, needed in ((4, 3), (6, 5), (8, 7))]
    assert found == [31.2, 10.9, 3.5]


def test_split_halves_step_up_by_spearman_and_brown() -> None:
    assert split_half([1, 2, 3], [1, 2, 3]) == pytest.approx(1)
    assert split_half([1, 1, 1], [1, 2, 3]) is None
    r = np.corrcoef([1, 2, 3, 4], [1, 3, 2, 4])[0, 1]
    assert split_half([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(2 * r / (1 + r))


def test_random_halves_of_the_people_agree_with_every_division_tried_by_hand() -> None:
    votes = simulate_votes(Design(6, 8, 8, ("q", "r")), TRUTH, seed=4)
    by_hand: list[float] = []
    for half in combinations(range(6), 3):
        scores: list[list[float]] = []
        for members in (set(half), set(range(6)) - set(half)):
            shares: list[float] = []
            for method in range(3):
                won = seen = 0.0
                for row in range(len(votes)):
                    person, shown = int(votes.participant[row]), votes.shown[row].tolist()
                    if votes.criterion[row] == 0 and person in members and method in shown:
                        seen += 1
                        answer = int(votes.position[row])
                        won += 0.5 if answer == NONE else float(shown[answer] == method)
                shares.append(won / seen)
            scores.append(shares)
        correlated: Any = stats.pearsonr(*scores)
        r = float(correlated.statistic)
        by_hand.append(2 * r / (1 + r))
    found = split_half_reliability(votes, "q", divisions=4000, seed=1)
    assert (found.people, found.usable, found.note) == (6, 4000, "")
    # Twenty divisions, every one met about 200 times: the median lies between the two middle ones, ends are the ends.
    low, high = np.sort(by_hand)[[8, 11]]
    assert found.reliability is not None
    assert found.spread is not None
    assert low - 1e-9 <= found.reliability <= high + 1e-9
    assert found.spread == pytest.approx((min(by_hand), max(by_hand)))
    assert found == split_half_reliability(votes, "q", divisions=4000, seed=1)
    assert found != split_half_reliability(votes, "q", divisions=40, seed=2)


def test_split_half_reliability_is_what_test_theory_says_of_many_methods() -> None:
    # A score of n people who agree only in part has reliability: variance of the truth over that of the score.
    methods = {f"m{i}": 0.0 for i in range(8)}
    rng = np.random.default_rng(5)
    shares = rng.dirichlet(np.full(8, 30.0))
    truth = Truth({name: float(np.log(share)) for name, share in zip(methods, shares, strict=True)}, 0.0, 0.0)
    expected, measured = [], []
    for seed in range(12):
        votes = simulate_votes(Design(40, 10, 10, ("q",), best_of_n=True), truth, seed)
        found = split_half_reliability(votes, "q", divisions=100, seed=seed)
        assert found.reliability is not None
        measured.append(found.reliability)
        noise = shares * (1 - shares) / 400
        expected.append(np.var(shares, ddof=1) / (np.var(shares, ddof=1) + noise.mean() * 8 / 7))
    assert np.mean(measured) == pytest.approx(np.mean(expected), abs=0.12)


def test_people_who_cannot_be_divided_or_do_not_differ_are_said() -> None:
    alone = split_half_reliability(simulate_votes(Design(1, 5, 5, ("q",)), TRUTH, seed=1), "q")
    assert (alone.reliability, alone.note) == (None, "halves need at least two people; there are 1")
    ties = Truth({"a": 0.0, "b": 0.0}, tie_strength=1e12)
    same = split_half_reliability(simulate_votes(Design(4, 5, 5, ("q",)), ties, seed=1), "q")
    assert (same.reliability, same.usable) == (None, 0)
    assert same.note
